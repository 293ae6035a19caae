"""ViT beside a convolutional network with as many parameters, on more or fewer handwritten digits.

Dosovitskiy et al. 2021 (section 4.3, figures 3 and 4) find that a convolutional network is better when there is little
data, since locality and translation are built into it, and that a ViT overtakes it when there is much. Deviations:
1437 digits of 8 × 8 pixels (`models.tasks.digits`) where the paper has up to 303 million photographs, and a plain
convolutional network where it has a ResNet; larger pictures are the same digits, interpolated.

    ViT   `models.vision.vit`
    CNN   3 × 3 convolutions and relu, of stride 1, 2, 2, …, and a linear map of all that is left  (LeCun et al. 1998)
    both  AdamW, a cosine with warm-up, no augmentation, batches drawn from the share of the training part that is used
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.nn import Linear, Module
from minigrad.optim import AdamW, cosine
from models.tasks.digits import load_digits
from models.vision.convolution import conv2d
from models.vision.encoder import EncoderConfig
from models.vision.interpolation import linear, resize
from models.vision.vit import ViT, ViTConfig

SIDE, CLASSES = 8, 10


class CNN(Module):
    """Logits of pictures (*batch, 1, H, W): a convolution a width, each but the first of stride 2, and a linear map."""

    def __init__(self, side: int, widths: tuple[int, ...], rng: np.random.Generator) -> None:
        self.weights, self.biases, before = [], [], 1
        for width in widths:
            deviation = np.sqrt(2 / (9 * before))  # He et al. 2015, for relu
            self.weights.append((deviation * rng.standard_normal((width, before, 3, 3))).astype(np.float32))
            self.biases.append(np.zeros(width, np.float32))
            before = width
        left = -(-side // 2 ** (len(widths) - 1))
        self.head = Linear(left * left * before, CLASSES, rng=rng)

    def __call__(self, pixels):
        """Return the logits (*batch, 10)."""
        x = mg.moveaxis(pixels, -3, -1)
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = mg.relu(conv2d(x, w, b, stride=2 if i else 1, padding=1))
        return self.head(mg.reshape(x, (*pixels.shape[:-3], -1)))


@dataclass(frozen=True)
class Sizes:
    """Hyperparameters: the sizes of pictures and networks, and of the training."""

    side: int = 8
    patch: int = 2
    width: int = 48
    layers: int = 2
    heads: int = 4
    channels: Sequence[int] = (32, 64, 64)
    steps: int = 1000
    batch: int = 32
    rate: float = 5e-3
    decay: float = 1.0


@dataclass(frozen=True)
class Measured:
    """A network's accuracy on held-out digits after training on a share of the others."""

    network: str
    share: float
    images: int
    parameters: int
    accuracy: float


def make(network: str, sizes: Sizes, rng: np.random.Generator) -> Any:
    """Return a new "vit" or "cnn"."""
    if network == "cnn":
        return CNN(sizes.side, tuple(sizes.channels), rng)
    encoder = EncoderConfig(width=sizes.width, layers=sizes.layers, heads=sizes.heads)
    return ViT(ViTConfig(sizes.side, sizes.side, sizes.patch, 1, CLASSES, encoder=encoder), rng)


def pictures(part: str, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Return digits as pixels (n, 1, side, side), about −1 … 1, and their labels, of "train" or "held_out"."""
    images, labels = getattr(load_digits(), part)
    maps = images.reshape(-1, SIDE, SIDE, 1).astype(np.float32) / 8 - 1
    return np.moveaxis(resize(maps, side, side, linear), -1, -3), labels


def train(
    network: str, share: float, sizes: Sizes, seed: int, stopped: Callable[[], bool] = lambda: False
) -> Any | None:
    """Return a network after training on a share of the digits; None where it was stopped before the end."""
    rng = np.random.default_rng(seed)
    pixels, labels = pictures("train", sizes.side)
    chosen = rng.permutation(len(pixels))[: count(share)]  # the same for both networks
    model = make(network, sizes, rng)
    return fitted(model, pixels, labels, chosen, sizes, rng, stopped)


def fitted(
    model: Any,
    pixels: np.ndarray,
    labels: np.ndarray,
    chosen: np.ndarray,
    sizes: Sizes,
    rng: np.random.Generator,
    stopped: Callable[[], bool] = lambda: False,
) -> Any | None:
    """Return the model after training, in place, on the chosen pictures; None where it was stopped before the end."""
    optimiser = AdamW(sizes.rate, weight_decay=sizes.decay)
    for step in range(sizes.steps):
        if stopped():
            return None
        indices = rng.choice(chosen, sizes.batch)
        x, y = pixels[indices], labels[indices]
        rate = cosine(step, steps=sizes.steps, warmup=sizes.steps // 10, peak=sizes.rate)
        optimiser.minimise(model, lambda m, x=x, y=y: mg.cross_entropy(m(x), y), lr=rate)
    return model


def count(share: float) -> int:
    """Return how many digits a share of the training part is."""
    return round(share * len(pictures("train")[0]))


def measured(model: Any, network: str, share: float, sizes: Sizes) -> Measured:
    """Return the accuracy of a trained network on all held-out digits."""
    pixels, labels = pictures("held_out", sizes.side)
    parameters = sum(array.size for array in model.named_parameters().values())
    accuracy = float(np.mean(np.argmax(model(pixels), axis=-1) == labels))
    return Measured(network, share, count(share), parameters, accuracy)


def attention_maps(model: ViT, sizes: Sizes) -> list[dict[str, Any]]:
    """Return for the first held-out picture of each digit the attention rollout to its patches.

    {"digit": label, "answer": the model's, "pixels": (side, side), "map": (rows, columns), of sum 1}
    """
    pixels, labels = pictures("held_out", sizes.side)
    shown = pixels[[int(np.argmax(labels == digit)) for digit in range(CLASSES)]]
    answers, maps = np.argmax(model(shown), axis=-1), model.attention_map(shown)
    return [
        {
            "digit": digit,
            "answer": int(answers[digit]),
            "pixels": np.round(shown[digit, 0].astype(float), 3).tolist(),
            "map": np.round(maps[digit].astype(float), 4).tolist(),
        }
        for digit in range(CLASSES)
    ]

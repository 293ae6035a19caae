"""CLIP trained on scenes and their captions, and measured on combinations that no training picture shows.

    training        the contrastive loss of batches of pairs; AdamW, weight decay on matrices, a cosine for the rate,
                    the scale limited to 100                                      Radford et al. 2021, section 2.5
    zero-shot       a picture among the captions of all 300 scenes, seen or not; each class the ensemble of its
                    phrasings, or one phrasing by itself                          section 3.1
    retrieval       of one new picture and one caption of each unseen scene: is a picture's caption the most similar
                    of all captions, and a caption's picture of all pictures

Deviations: no data augmentation, and a model of 10⁵ weights rather than 10⁸, trained on 10⁴ pairs rather than 4·10⁸.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.optim import AdamW, cosine
from models.tasks import scenes
from models.tasks.scenes import PHRASINGS, SCENES, Scenes
from models.vision import contrastive
from models.vision.clip import Clip, ClipConfig, recall
from models.vision.encoder import EncoderConfig

WEIGHT_DECAY, BETAS = 0.1, (0.9, 0.98)
WARMUP = 100
PICTURES = {"seen": 1, "unseen": 4}  # held-out pictures of each scene: 240 either way
SHOWN = 12  # pictures and captions of the matrix of similarities

UNSEEN = np.array([scene.held_out for scene in SCENES])


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of a training run; with `shuffled`, captions are permuted over the pictures."""

    seed: int = 0
    pairs: int = 32_000
    shuffled: bool = False
    steps: int = 2000
    batch: int = 128
    rate: float = 3e-3
    width: int = 64
    layers: tuple[int, int] = (2, 1)  # of images, of texts
    evaluate_every: int = 250


def config(settings: Settings) -> ClipConfig:
    """Return the sizes of the model."""

    def encoder(layers: int, causal: bool) -> EncoderConfig:
        width = settings.width
        return EncoderConfig(width, layers, heads=4, hidden=2 * width, activation="quick_gelu", eps=1e-5, causal=causal)

    images, texts = settings.layers
    return ClipConfig(
        image=encoder(images, causal=False),
        text=encoder(texts, causal=True),
        image_size=scenes.SIDE,
        patch_size=8,
        vocab=len(scenes.VOCABULARY),
        context=scenes.CONTEXT,
        end=scenes.NUMBER[scenes.END],
        features=settings.width,
    )


class Training:
    """A model, the pairs that it is trained on, and the pictures that it is measured on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.data = Scenes(settings.pairs, settings.seed, shuffled=settings.shuffled)
        self.rng = np.random.default_rng([settings.seed, 1])
        self.model = Clip(config(settings), self.rng)
        rng = np.random.default_rng([settings.seed, 2])
        self.held_out = {
            name: scenes.held_out_pictures(rng, each, seen=name == "seen") for name, each in PICTURES.items()
        }

    def run(self) -> Iterator[dict[str, Any]]:
        """Train, and yield a record after every step; after some it has the accuracies of zero-shot classification."""
        of, optimizer = self.settings, AdamW(self.settings.rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
        for step in range(of.steps):
            pixels, tokens = self.data.batch(self.rng, of.batch)
            rate = cosine(step, steps=of.steps, warmup=min(WARMUP, of.steps), peak=of.rate, floor=of.rate / 20)
            loss = optimizer.minimise(self.model, lambda m, x=pixels, y=tokens: m.loss(x, y), lr=rate)
            self.model.clamp()
            record: dict[str, Any] = {"step": step + 1, "loss": loss}
            if (step + 1) % of.evaluate_every == 0 or step + 1 == of.steps:
                record["held_out_accuracy"] = self.zero_shot()
            yield record

    def zero_shot(self) -> dict[str, float]:
        """Return the accuracy on held-out pictures of seen and of unseen scenes, each among the captions of all."""
        weights = self.model.classifier(prompts())
        return {name: self._accuracy(weights, name) for name in self.held_out}

    def result(self) -> dict[str, Any]:
        """Return what is measured at the end: see the module."""
        texts = [self.model.encode_text(each) for each in np.moveaxis(prompts(), 1, 0)]
        return {
            "parameters": sum(array.size for array in self.model.named_parameters().values()),
            "scale": float(np.exp(self.model.log_scale)),
            "zero_shot": self.zero_shot(),
            "phrasings": [self._accuracy(weights, "unseen") for weights in texts],
            "attributes": self.attributes(),
            "retrieval": self.retrieval(),
            "similarities": self.similarities().tolist(),
        }

    def retrieval(self) -> dict[str, list[float]]:
        """Return recall at 1 and 5 among the unseen scenes, from images to texts and from texts to images."""
        pixels, numbers = self.held_out["unseen"]
        first = np.unique(numbers, return_index=True)[1]
        captions = scenes.encode([SCENES[i].caption(0) for i in numbers[first]])
        logits = self.model(pixels[first], captions)
        both = [recall(logits, k) for k in (1, 5)]
        return {name: [of[i] for of in both] for i, name in enumerate(("texts", "images"))}

    def similarities(self) -> np.ndarray:
        """Return the cosines of the pictures and the captions of `shown`, (pictures, captions)."""
        pictures, captions = shown(self.settings.seed)
        images = self.model.encode_image(scenes.pixels(pictures))
        texts = self.model.encode_text(scenes.encode(captions))
        return np.round((contrastive.normalize(images) @ contrastive.normalize(texts).T).astype(float), 3)

    def _accuracy(self, weights: np.ndarray, name: str) -> float:
        pixels, numbers = self.held_out[name]
        return float(np.mean(np.argmax(self.model.classify(pixels, weights), axis=-1) == numbers))

    def attributes(self) -> dict[str, float]:
        """Return the share of pictures of unseen scenes that are classified with the right shape, colour, and so on."""
        pixels, numbers = self.held_out["unseen"]
        predicted = np.argmax(self.model.classify(pixels, self.model.classifier(prompts())), axis=-1)
        pairs = [(SCENES[i], SCENES[j]) for i, j in zip(predicted, numbers, strict=True)]
        return {
            name: float(np.mean([getattr(a, name) == getattr(b, name) for a, b in pairs])) for name in SCENES[0]._fields
        }


def prompts() -> np.ndarray:
    """Return the tokens of every phrasing of every scene, (scenes, phrasings, CONTEXT)."""
    return np.stack([scenes.encode([scene.caption(i) for i in range(len(PHRASINGS))]) for scene in SCENES])


def shown(seed: int) -> tuple[np.ndarray, list[str]]:
    """Return some pictures (SHOWN, 3, SIDE, SIDE) of unseen scenes, and their captions."""
    rng = np.random.default_rng([seed, 3])
    numbers = rng.choice(np.flatnonzero(UNSEEN), SHOWN, replace=False)
    return np.stack([scenes.draw(SCENES[i], rng) for i in numbers]), [SCENES[i].caption(0) for i in numbers]

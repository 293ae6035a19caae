"""Training of Segment Anything on scenes of overlapping shapes, by simulated clicks, and what it then reaches.

    prompt    a point of the mask or its box, with equal probability                Kirillov et al. 2023, appendix A,
    rounds    each next point is where the last prediction was wrong, and the       "Training algorithm"
              logits of that prediction are a prompt too
    loss      `losses.prompt_loss` of every round, on the mean; of three masks the one of the highest score goes on

Deviations: pictures of 32 × 32 pixels with patches of 4 × 4, so masks come out at the picture's size; up to three
rounds instead of eleven, none of which has no new point; the single mask is for boxes too; AdamW without layer-wise
decay or drop path, for the paper starts from a pre-trained encoder; G stays as it is drawn, as in the authors' code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.engine import unwrap
from minigrad.optim import AdamW, cosine
from models.checkpoints import load_checkpoint, load_moments, load_weights, save_checkpoint, training_arrays
from models.tasks import overlapping_shapes
from models.vision.automatic_masks import boxes_of
from models.vision.sam import clicks, losses
from models.vision.sam.config import ImageEncoderConfig, MaskDecoderConfig, PromptEncoderConfig, SAMConfig
from models.vision.sam.model import SAM
from models.vision.sam.prompt_encoder import BOTTOM_RIGHT, FOREGROUND, NO_POINT, TOP_LEFT

SIDE = 32
SMALL = SAMConfig(
    ImageEncoderConfig(
        image=SIDE, patch=4, width=64, layers=4, heads=4, hidden=128, window=4, global_layers=(1, 3), output=64
    ),
    PromptEncoderConfig(channels=16),
    MaskDecoderConfig(heads=4, hidden=128, downsample=1, iou_hidden=64),
)


CLIP = 1.0  # the largest global norm of gradients
FIXED = ("prompt_encoder.frequencies",)  # G


@dataclass(frozen=True)
class Options:
    """Hyperparameters of a training run; a step has `prompts` masks in each of `batch` scenes, up to `rounds` times."""

    steps: int = 12000
    batch: int = 16
    prompts: int = 4
    rounds: int = 3
    rate: float = 1e-3
    warmup: int = 250
    decay: float = 0.05
    seed: int = 0


def targets(rng: np.random.Generator, scenes: overlapping_shapes.Scenes, prompts: int) -> np.ndarray:
    """Return masks (count, prompts, side, side) drawn uniformly from what is seen of each scene."""
    weights = rng.random((*scenes.seen.shape, prompts)) * scenes.seen[..., None]
    return np.take_along_axis(scenes.masks, weights.argmax(axis=1)[..., None, None], axis=1)


class Rows:
    """Tokens of prompts to the masks (*batch, N, H, W): places, labels, and which prompts are ambiguous."""

    def __init__(self, mask: np.ndarray, places: np.ndarray, labels: np.ndarray, ambiguous: np.ndarray) -> None:
        self.mask, self.places, self.labels, self.ambiguous = mask, places, labels, ambiguous
        self.logits: Any = None  # of the last prediction

    @classmethod
    def of_points(cls, mask: np.ndarray, points: np.ndarray) -> "Rows":
        """Begin with a point (*batch, N, 2) of each mask."""
        places = np.stack([points, np.zeros_like(points)], axis=-2)
        labels = np.broadcast_to([FOREGROUND, NO_POINT], places.shape[:-1])
        return cls(mask, places, labels, np.ones(mask.shape[:-2], bool))

    @classmethod
    def of_boxes(cls, mask: np.ndarray, boxes: np.ndarray) -> "Rows":
        """Begin with a box (*batch, N, 4) of each mask."""
        places = boxes.reshape(*boxes.shape[:-1], 2, 2)
        labels = np.broadcast_to([TOP_LEFT, BOTTOM_RIGHT], places.shape[:-1])
        return cls(mask, places, labels, np.zeros(mask.shape[:-2], bool))

    def choose(self, other: "Rows", which: np.ndarray) -> "Rows":
        """Return these prompts where `which` (*batch, N) is true, and the others elsewhere."""
        return Rows(
            self.mask,
            np.where(which[..., None, None], self.places, other.places),
            np.where(which[..., None], self.labels, other.labels),
            np.where(which, self.ambiguous, other.ambiguous),
        )

    def decode(self, model: SAM, embedding: Any) -> tuple[Any, Any]:
        """Return what the model makes of the prompts, and keep the logits of the mask that a user would take."""
        tokens = model.prompt_encoder.tokens(self.places, self.labels)
        logits, scores = model.decode_tokens(embedding, tokens, self.logits)
        self.logits = chosen(unwrap(logits), unwrap(scores), self.ambiguous)
        return logits, scores

    def click(self, points: np.ndarray) -> None:
        """Add a point (*batch, N, 2) to each prompt, which is then no longer ambiguous."""
        label = clicks.label_at(self.mask, points)
        self.places = np.concatenate([self.places, points[..., None, :]], axis=-2)
        self.labels = np.concatenate([self.labels, label[..., None]], axis=-1)
        self.ambiguous = np.zeros_like(self.ambiguous)


def chosen(logits: np.ndarray, scores: np.ndarray, ambiguous: np.ndarray) -> np.ndarray:
    """Return the logits (…, H, W) of the mask of the highest score, or of the single one, from (…, 1 + M, H, W)."""
    index = np.where(ambiguous, 1 + scores[..., 1:].argmax(axis=-1), 0)
    return np.take_along_axis(logits, index[..., None, None, None], axis=-3)[..., 0, :, :]


def rollout_loss(model: SAM, pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator, rounds: int) -> Any:
    """Return the mean loss of all rounds of simulated clicks, for masks (B, N, H, W) of pixels (B, 3, H, W)."""
    embedding, total = model.encode(pixels), 0.0
    points = Rows.of_points(mask, clicks.drawn(rng, mask))
    rows = points.choose(Rows.of_boxes(mask, clicks.noisy_box(rng, mask)), rng.random(mask.shape[:-2]) < 0.5)
    target = mask.astype(pixels.dtype)
    for left in range(rounds, 0, -1):
        logits, scores = rows.decode(model, embedding)
        total = total + mg.mean(losses.prompt_loss(logits, scores, target, rows.ambiguous))
        if left > 1:
            rows.click(clicks.drawn(rng, clicks.wrong(mask, rows.logits > 0)))
    return total / rounds


class Training:
    """A model in training, with its optimiser and its generator; it can be saved and resumed after every step."""

    def __init__(self, options: Options, config: SAMConfig = SMALL) -> None:
        mg.keep_freed_memory()  # a step's arrays are as large as the last step's
        self.options, self.config = options, config
        self.rng = np.random.default_rng([options.seed, 0])
        self.model = SAM(config, np.random.default_rng([options.seed, 1]))
        self.optimiser = AdamW(options.rate, weight_decay=options.decay)

    @property
    def step(self) -> int:
        """Return how many steps were made."""
        return self.optimiser.count

    def run(self) -> Iterator[tuple[int, float]]:
        """Train on new scenes at every step, and yield how many steps were made, and the loss."""
        options, rng = self.options, self.rng
        while self.step < options.steps:
            scenes = overlapping_shapes.draw(rng, options.batch, self.config.image.image)
            mask, rounds = targets(rng, scenes, options.prompts), int(rng.integers(1, options.rounds + 1))

            def loss(module: SAM, pixels: Any = scenes.pixels, mask: Any = mask, rounds: int = rounds) -> Any:
                return rollout_loss(module, pixels, mask, rng, rounds)

            rate = cosine(self.step, steps=options.steps, warmup=options.warmup, peak=options.rate)
            value = self.optimiser.minimise(self.model, loss, lr=rate, clip=CLIP, fixed=FIXED)
            yield self.step, value

    def save(self, path: Path) -> None:
        """Write a checkpoint. Raises UserError where it cannot be written."""
        save_checkpoint(path, training_arrays(self.model, self.optimiser), {"generator": self.rng.bit_generator.state})

    def load(self, path: Path) -> None:
        """Continue from the checkpoint of a training with the same options. Raises UserError where it does not fit."""
        arrays, about = load_checkpoint(path)
        load_weights(self.model, path, arrays)
        load_moments(self.optimiser, self.model, path, arrays, fixed=FIXED)
        self.rng.bit_generator.state = about["generator"]


def evaluate(model: SAM, scenes: overlapping_shapes.Scenes, rounds: int = 5) -> dict[str, float]:
    """Return the means of `reached`."""
    return {name: float(each.mean()) for name, each in reached(model, scenes, rounds).items()}


def reached(model: SAM, scenes: overlapping_shapes.Scenes, rounds: int = 5) -> dict[str, np.ndarray]:
    """Return IoUs (objects,) of all that is seen in the scenes: after 1 … `rounds` clicks, and from a box.

    Clicks are at centres. After one there are three masks: "1" is the one of the highest score, "best of 3" the one
    that is nearest to what was meant.
    """
    results: dict[str, list[np.ndarray]] = {}
    for pixels, masks, seen in zip(*scenes, strict=True):
        mask, embedding = masks[seen], model.encode(pixels)
        rows = Rows.of_points(mask, clicks.centre(mask))
        for count in range(1, rounds + 1):
            logits, _ = rows.decode(model, embedding)
            if count == 1:
                each = losses.iou((logits[:, 1:] > 0).astype(float), mask[:, None].astype(float))
                results.setdefault("best of 3", []).append(each.max(axis=-1))
            results.setdefault(str(count), []).append(_iou(rows))
            rows.click(clicks.centre(clicks.wrong(mask, rows.logits > 0)))
        rows = Rows.of_boxes(mask, boxes_of(mask))
        rows.decode(model, embedding)
        results.setdefault("box", []).append(_iou(rows))
    return {name: np.concatenate(parts) for name, parts in results.items()}


def _iou(rows: Rows) -> np.ndarray:
    return losses.iou((rows.logits > 0).astype(float), rows.mask.astype(float))

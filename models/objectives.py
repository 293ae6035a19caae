"""Objectives: which model a run trains on its task, its loss and optimiser, and how held-out data are scored.

    LanguageModelling   cross entropy of the next token where there is a target; AdamW, with a cosine for its rate
    Translation         the Transformer with the loss, the optimiser and the rate of Vaswani et al. 2017

A batch is a pair: tokens and targets, or source and target. Deviation of Translation: gradients are clipped, as in
every run; the paper does not say that its are.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

import minigrad as mg
from minigrad import optim
from minigrad.conversion import to_library_of
from minigrad.namespace import to_numpy
from minigrad.nn import Module
from models.errors import UserError
from models.language import lm, transformer
from models.language.config import Config, check_sizes
from models.language.decoding import greedy
from models.run import Run, is_translation
from models.tasks import Task
from models.tasks.recall import IGNORE, accuracy
from models.tasks.translation import END, PAD, START

SMOOTHING = 0.1  # ε of section 5.4
SPACING = 100  # steps between the weights whose mean is used; ten minutes in section 6.1
LEAST_ROWS = 64  # that are decoded at a time: fewer take as long


class Objective(Protocol):
    """Interface of `models.train` to a run: its model, loss, optimiser, learning rate and score."""

    name: str  # of the model, for a progress bar
    smaller: str  # what makes a step need less memory
    gentler: str  # what keeps a run from diverging
    task: Task

    def describe(self) -> dict[str, Any]:
        """Return the description of the model, from which `build` makes it."""

    def least_weights(self) -> int:
        """Return a number of weights that the model has at least, whatever its kind."""

    def least_numbers(self, length: int) -> int:
        """Return how many numbers a step keeps at least for one sequence of this length."""

    def make(self, rng: np.random.Generator) -> Module:
        """Return a new model."""

    def optimizer(self) -> optim.AdamW:
        """Return a new optimiser."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""

    def loss(self, model: Any, batch: tuple[Any, Any], rng: np.random.Generator | None = None) -> Any:
        """Return the loss of a batch; with an rng, as training has it."""

    def evaluated(self, model: Any, optimizer: Any) -> Any:
        """Return the model that is evaluated and used, as the optimiser knows it."""

    def score(self, model: Any, batch: tuple[Any, Any], size: int) -> tuple[float, float]:
        """Return the loss and the accuracy on a held-out batch, of which the model takes `size` rows at a time."""


class LanguageModelling:
    """Prediction of tokens by a causal language model over a mixer."""

    smaller, gentler = "a smaller --batch, --length, --width or --layers", "a smaller --rate"

    def __init__(self, run: Run) -> None:
        self.run, self.task, self.name = run, run.make_task(), run.mixer
        self.config = run.config(self.task.vocabulary)
        self._require_positions(self.config.max_positions)

    def describe(self) -> dict[str, Any]:
        """Return the description of the model."""
        return asdict(self.config)

    @staticmethod
    def build(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> lm.LanguageModel:
        """Return a model as described, to be given these arrays. Raises UserError, KeyError or TypeError."""
        config = Config(**description)
        check_sizes(config, arrays)
        return lm.LanguageModel(config, np.random.default_rng(0))

    def least_weights(self) -> int:
        """Return a number of weights that every mixer's model has."""
        config = self.config
        return config.width * (config.vocab + config.layers * (6 * config.width + config.states))

    def least_numbers(self, length: int) -> int:
        """Return the numbers a step keeps: of a layer input, output and both normalised, of the loss logits thrice."""
        return length * (4 * self.run.layers * self.run.width + 3 * self.task.vocabulary)

    def make(self, rng: np.random.Generator) -> lm.LanguageModel:
        """Return a new model."""
        return lm.LanguageModel(self.config, rng)

    def optimizer(self) -> optim.AdamW:
        """Return a new optimiser."""
        return optim.AdamW(self.run.rate, betas=(0.9, 0.95), weight_decay=self.run.decay)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: a cosine to a tenth of the peak at the last step."""
        run = self.run
        return optim.cosine(step, steps=run.steps, warmup=run.warmup, peak=run.rate, floor=run.rate / 10)

    def loss(self, model: Any, batch: tuple[Any, Any], rng: np.random.Generator | None = None) -> Any:
        """Return the mean cross entropy where there is a target."""
        tokens, targets = batch
        return mean_loss(model(tokens)[0], targets)

    def evaluated(self, model: Any, optimizer: optim.AdamW) -> Any:
        """Return the model itself."""
        return model

    def score(self, model: Any, batch: tuple[Any, Any], size: int) -> tuple[float, float]:
        """Return the mean cross entropy and the share of targets that are the most likely token."""
        tokens, targets = batch
        parts = range(0, len(tokens), size)
        logits = np.concatenate([to_numpy(model(tokens[i : i + size])[0]) for i in parts])
        return float(mean_loss(logits, targets)), accuracy(logits, targets)

    def _require_positions(self, most: int) -> None:
        """Raise a UserError if positions are learned, and fewer than a sequence of the task has."""
        if not most:
            return
        rng = np.random.default_rng(0)  # not the run's own, which draws its batches
        batches = [self.task.batch(rng, 1), *self.task.eval_batches(rng).values()]
        longest = max(tokens.shape[1] for tokens, _ in batches)
        if longest > most:
            raise UserError(f"max_positions: expected at least {longest}, the tokens of a sequence, got {most}")


class Translation:
    """Translation of a source into a target by the Transformer: losses are in nats a token, accuracy is exact match."""

    name = "transformer"
    smaller, gentler = "a smaller --batch, --width or --layers", "a longer --warmup"

    def __init__(self, run: Run) -> None:
        self.run, self.task = run, run.make_task()
        self.config = transformer.TransformerConfig(
            self.task.vocabulary, run.width, run.layers, run.heads, dropout=run.dropout
        )

    def describe(self) -> dict[str, Any]:
        """Return the description of the model."""
        return asdict(self.config)

    @staticmethod
    def build(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> transformer.Transformer:
        """Return a model as described, to be given these arrays. Raises UserError, KeyError or TypeError."""
        config = transformer.TransformerConfig(**description)
        transformer.check_sizes(config, arrays)
        return transformer.Transformer(config, np.random.default_rng(0))

    def least_weights(self) -> int:
        """Return a number of weights below that of the model: 12 projections a pair of layers and four layers of F."""
        config = self.config
        return config.width * (config.vocab + config.layers * (12 * config.width + 4 * config.hidden))

    def least_numbers(self, length: int) -> int:
        """Return the numbers a step keeps of a source: of a layer two inputs of sub-layers and both normalised."""
        return length * 4 * self.run.layers * self.run.width

    def make(self, rng: np.random.Generator) -> transformer.Transformer:
        """Return a new model."""
        return transformer.Transformer(self.config, rng)

    @staticmethod
    def optimizer() -> optim.AveragedAdamW:
        """Return a new optimiser: Adam, so there is no weight decay (section 5.3)."""
        return optim.AveragedAdamW(0.0, spacing=SPACING, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step (eq. 3)."""
        return optim.inverse_sqrt(step, warmup=self.run.warmup, width=self.run.width)

    def loss(self, model: Any, batch: tuple[Any, Any], rng: np.random.Generator | None = None) -> Any:
        """Return the cross entropy with smoothed targets, over all tokens up to the ends."""
        return self._loss(model, batch, SMOOTHING, rng)

    def evaluated(self, model: Any, optimizer: Any) -> Any:
        """Return the model with the mean weights of the last five times they were kept (section 6.1)."""
        return optimizer.averaged(model)

    def score(self, model: Any, batch: tuple[Any, Any], size: int) -> tuple[float, float]:
        """Return the cross entropy of the targets, and the share of sources whose greedy decoding is the target."""
        losses, counts, right, size = [], [], [], max(size, LEAST_ROWS)
        for i in range(0, len(batch[0]), size):
            source, target = batch[0][i : i + size], batch[1][i : i + size]
            expected = target[:, 1:]
            losses.append(float(to_numpy(self._loss(model, (source, target), 0.0, None))))
            counts.append(np.count_nonzero(expected != PAD))
            decoded = greedy(model, source, pad=PAD, start=START, end=END, tokens=expected.shape[1])
            missing = expected.shape[1] - decoded.shape[1]
            right.extend((np.pad(decoded, ((0, 0), (0, missing)), constant_values=PAD) == expected).all(axis=1))
        return float(np.average(losses, weights=counts)), float(np.mean(right))

    @staticmethod
    def _loss(model: Any, batch: tuple[Any, Any], smoothing: float, rng: np.random.Generator | None) -> Any:
        source, target = batch
        ended = (target == END).any(axis=1)
        if not ended.all():
            raise ValueError(f"target: expected an end token in each row, got none in row {int(np.argmin(ended))}")
        logits = model(source, target[:, :-1], pad=PAD, rng=rng)
        rows, targets = _rows(logits, target[:, 1:], PAD)
        return transformer.smoothed_cross_entropy(rows, targets, smoothing)


def objective(run: Run) -> Objective:
    """Return the objective of a run."""
    return Translation(run) if is_translation(run.task) else LanguageModelling(run)


def build(run: Run, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the model of a run as described, to be given these arrays. Raises UserError, KeyError or TypeError."""
    kind = Translation if is_translation(run.task) else LanguageModelling
    return kind.build(description, arrays)


def mean_loss(logits, targets: np.ndarray):
    """Return the mean cross-entropy in nats, of logits `(*batch, T, vocab)` at targets `(*batch, T)` not ignored."""
    return mg.cross_entropy(*_rows(logits, targets, IGNORE))


def _rows(logits, targets: np.ndarray, ignored: int):
    """Return logits `(n, vocab)` and targets `(n,)` where the target is not the ignored one."""
    positions = np.flatnonzero(targets != ignored)
    xp = mg.namespace(logits)
    rows = xp.take(xp.reshape(logits, (-1, logits.shape[-1])), to_library_of(logits, positions), axis=0)
    return rows, to_library_of(logits, targets.reshape(-1)[positions])

"""Training tasks: real text, digits, and synthetic tasks of in-context recall."""

from typing import Protocol

import numpy as np

from .digits import load_digits
from .induction import Induction
from .needle import Needle
from .recall import Recall
from .selective_copying import SelectiveCopying
from .text import Text, load

TASKS = ("text", "recall", "selective_copying", "induction", "needle", "digits")


class Task(Protocol):
    """A source of batches (tokens, targets), each `(batch, T)`; a target of −1 is ignored."""

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""

    @property
    def digest(self) -> str:
        """A hash of the task's source data."""

    def batch(self, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a training batch."""

    def eval_batches(self, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return held-out batches by name."""


__all__ = ["TASKS", "Induction", "Needle", "Recall", "SelectiveCopying", "Task", "Text", "load", "load_digits"]

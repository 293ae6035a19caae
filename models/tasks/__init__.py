"""What a model is trained on: real text, and the recall of key-value pairs it has just been shown."""

from typing import Protocol

import numpy as np

from .recall import Recall
from .text import Text, load

TASKS = ("text", "recall")


class Task(Protocol):
    """A source of batches (tokens, targets), each `(batch, T)`; a target of −1 asks nothing."""

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""

    @property
    def digest(self) -> str:
        """A hash of what the task was read from."""

    def batch(self, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a training batch."""

    def examination(self, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return held-out batches by name."""


__all__ = ["TASKS", "Recall", "Task", "Text", "load"]

"""Training tasks: text, digits, recall in context, expressions, pictures, sounds, translation of dates and numbers."""

from typing import Protocol

import numpy as np

from .dates import Dates
from .digits import load_digits
from .induction import Induction
from .listops import ListOps
from .needle import Needle
from .numbers import Numbers
from .pathfinder import Pathfinder
from .recall import Recall
from .selective_copying import SelectiveCopying
from .text import Text, load
from .tones import Tones

TRANSLATIONS = ("dates", "numbers")
TASKS = (
    *("text", "recall", "selective_copying", "induction", "needle", "digits", "listops", "pathfinder", "tones"),
    *TRANSLATIONS,
)


class Task(Protocol):
    """A source of batches (tokens, targets), each `(batch, T)`; a target of −1 is ignored.

    Those of translation are (source, target), `(batch, S)` and `(batch, T)`, as `models.tasks.translation` says.
    """

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


__all__ = [
    "TASKS",
    "TRANSLATIONS",
    "Dates",
    "Induction",
    "ListOps",
    "Needle",
    "Numbers",
    "Pathfinder",
    "Recall",
    "SelectiveCopying",
    "Task",
    "Text",
    "Tones",
    "load",
    "load_digits",
]

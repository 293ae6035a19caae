"""The description of a run: which model is trained on which task, how long and how fast."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from models.errors import UserError, known_name, require_counts
from models.language.config import Config
from models.tasks import (
    TASKS,
    TRANSLATIONS,
    Dates,
    Induction,
    ListOps,
    Needle,
    Numbers,
    Pathfinder,
    Recall,
    SelectiveCopying,
    Task,
    Tones,
    load,
    load_digits,
)

# What a Transformer's run has no use for: it has no mixer, texts have their own lengths, and the width and the warm-up
# say how fast it learns (Vaswani et al. 2017, eq. 3).
UNUSED_IN_TRANSLATION = frozenset(
    (
        "mixer form chunk_size states start variant conv positions max_positions kv_heads head_size norm mlp hidden "
        "bias tied text pairs overwritten length rate decay"
    ).split()
)
USUAL: dict[str, dict[str, Any]] = {  # settings of tasks whose usual ones are not those of `Run`
    "dates": {"width": 64, "batch": 64, "steps": 3000, "warmup": 400, "evaluate_every": 250},
    "numbers": {"width": 64, "batch": 64, "steps": 4000, "warmup": 400, "evaluate_every": 250},
    "pathfinder": {"length": 256},
    "tones": {"length": 512},
}


@dataclass(frozen=True)
class Run:
    """The settings of a run. `pairs` and `overwritten` belong to recall, `text` to text.

    `length` is for tasks that come in any. Fields with names of `models.language.config.Config` are the model's; `bias`
    is that of attention and of the MLP. `dropout` is the Transformer's, which has no use for `UNUSED_IN_TRANSLATION`.

    Raises: UserError for an unknown task or a number out of range.
    """

    mixer: str = "delta_rule"
    task: str = "text"
    text: str | None = None
    pairs: tuple[int, ...] = (4, 8, 12)
    overwritten: bool = False
    width: int = 128
    layers: int = 2
    heads: int = 4
    form: str = ""
    chunk_size: int = 0
    states: int = 0
    start: str = ""
    variant: str = ""
    conv: int = 4
    positions: str = ""
    max_positions: int = 0
    kv_heads: int = 0
    head_size: int = 0
    norm: str = "rms"
    mlp: str = ""
    hidden: int = 0
    bias: bool = False
    tied: bool = True
    steps: int = 500
    batch: int = 8
    length: int = 128
    seed: int = 0
    rate: float = 2e-3
    warmup: int = 20
    decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.0
    evaluate_every: int = 50

    def __post_init__(self) -> None:
        known_name(self.task, "task", TASKS)
        object.__setattr__(self, "pairs", tuple(self.pairs))
        require_counts(self, "steps", "batch", "length", "evaluate_every", "warmup")
        for name in ("rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name}: expected a positive finite number, got {getattr(self, name)}")
        for name in ("seed", "states", "chunk_size"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: expected at least 0, got {getattr(self, name)}")
        check_used(self.task, [field.name for field in fields(self) if getattr(self, field.name) != field.default])

    def make_task(self) -> Task:
        """Return the task; for text, read and split the corpus."""
        if self.task == "recall":
            return Recall(self.pairs, self.overwritten)
        if self.task == "selective_copying":
            return SelectiveCopying(self.length)
        if self.task == "induction":
            return Induction(self.length)
        if self.task == "needle":
            return Needle(self.length)
        if self.task == "digits":
            return load_digits()
        if self.task == "listops":
            return ListOps(self.length)
        if self.task == "pathfinder":
            return Pathfinder(self.length)
        if self.task == "tones":
            return Tones(self.length)
        if is_translation(self.task):
            return self.make_translation()
        return load(self.text, length=self.length)

    def make_translation(self) -> Dates | Numbers:
        """Return the task, where it is one of translation."""
        return Dates() if self.task == "dates" else Numbers()

    def config(self, vocabulary: int) -> Config:
        """Return the configuration of the run's model."""
        shared = {field.name: getattr(self, field.name) for field in fields(Config) if hasattr(self, field.name)}
        return Config(vocab=vocabulary, mlp_bias=self.bias, **shared)


def is_translation(task: str) -> bool:
    """Return whether a task has a source and a target, so that an encoder and a decoder learn it."""
    return task in TRANSLATIONS


def check_used(task: str, names: Iterable[str]) -> None:
    """Raise a UserError where one of these settings means nothing for a task."""
    for name in names:
        if is_translation(task) and name in UNUSED_IN_TRANSLATION:
            raise UserError(f"{name}: expected none for the task {task}, which a Transformer learns without it")
        if name == "dropout" and not is_translation(task):
            raise UserError(f"dropout: expected none for the task {task}, since only the Transformer has it")


def described(path: str | Path, about: Mapping[str, Any]) -> Run:
    """Return the settings of the run that wrote a checkpoint. Raises UserError where it has none."""
    try:
        return Run(**about["run"])
    except (KeyError, TypeError) as error:
        raise UserError(f"checkpoint {path}: expected the description of a run, got {error}") from None

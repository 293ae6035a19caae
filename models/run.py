"""The description of a run: which model is trained on which task, how long and how fast."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from models.errors import UserError, known_name
from models.language.config import Config
from models.tasks import TASKS, Induction, Needle, Recall, SelectiveCopying, Task, load, load_digits


@dataclass(frozen=True)
class Run:
    """The settings of a run. `pairs` and `overwritten` belong to recall, `text` to text.

    `length` is for tasks that come in any. Fields with names of `models.language.config.Config` are the model's; `bias`
    is that of attention and of the MLP.

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
    states: int = 0
    start: str = ""
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
    evaluate_every: int = 50

    def __post_init__(self) -> None:
        known_name(self.task, "task", TASKS)
        object.__setattr__(self, "pairs", tuple(self.pairs))
        for name in ("steps", "batch", "length", "evaluate_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name}: expected a positive finite number, got {getattr(self, name)}")
        for name in ("seed", "states"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: expected at least 0, got {getattr(self, name)}")

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
        return load(self.text, length=self.length)

    def config(self, vocabulary: int) -> Config:
        """Return the configuration of the run's model."""
        shared = {field.name: getattr(self, field.name) for field in fields(Config) if hasattr(self, field.name)}
        return Config(vocab=vocabulary, mlp_bias=self.bias, **shared)


def described(path: str | Path, about: Mapping[str, Any]) -> Run:
    """Return the settings of the run that wrote a checkpoint. Raises UserError where it has none."""
    try:
        return Run(**about["run"])
    except (KeyError, TypeError) as error:
        raise UserError(f"checkpoint {path}: expected the description of a run, got {error}") from None

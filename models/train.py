"""Training that can stop anywhere and go on as if it had not: 10 steps, resume, 10 steps = 20 steps, byte for byte.

A run lives in one folder:
    checkpoint.safetensors   weights, optimiser, step, generator and the run's own description; written atomically
    log.jsonl                one JSON object a line: a step's loss, gradient norm and rate, or what held-out data say

Runs are bit-identical for the same seed, sizes, machine and number of BLAS threads.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from gpu.launch import SharedMemoryError
from minigrad import optim
from minigrad.namespace import fetched
from models.checkpoints import load_checkpoint, match, save_checkpoint, write_atomically
from models.device import beside, move
from models.errors import UserError, known_name
from models.language.lm import Config, LanguageModel
from models.tasks import TASKS, Induction, Needle, Recall, SelectiveCopying, Task, load, load_digits
from models.tasks.recall import IGNORE, accuracy

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"
MOMENTS = "optimizer."  # prefix of the optimiser's arrays in a checkpoint; weights have none


@dataclass(frozen=True)
class Run:
    """All that a run depends on. `pairs` and `overwritten` belong to recall, `text` to text.

    `length` is for tasks that come in any; 0 `states` and no `start` are the mixer's usual ones.

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
            if not getattr(self, name) > 0:
                raise UserError(f"{name}: expected a positive number, got {getattr(self, name)}")
        for name in ("seed", "states"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: expected at least 0, got {getattr(self, name)}")

    def make_task(self) -> Task:
        """Return the task, its text read and split."""
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
        return Config(
            mixer=self.mixer, vocab=vocabulary, width=self.width, layers=self.layers, heads=self.heads, form=self.form,
            states=self.states, start=self.start,
        )  # fmt: skip


class Training:
    """A run in progress: model, optimiser, generator and step. Made by `start` or `resume`.

    Model and optimiser are on a device, "cpu" or "cuda", which is no part of the run: it may go on on another one.
    """

    def __init__(self, run: Run, folder: str | Path) -> None:
        mg.keep_freed_memory()  # a step's arrays are as large as the last step's
        self.run, self.step = run, 0
        self.checkpoint, self.log = Path(folder) / CHECKPOINT, Path(folder) / LOG
        self.task = run.make_task()
        self.model = LanguageModel(run.config(self.task.vocabulary), np.random.default_rng([run.seed, 0]))
        self.optimizer = optim.AdamW(run.rate, betas=(0.9, 0.95), weight_decay=run.decay)
        # batches have a generator of their own, so that every mixer sees the same ones whatever its size
        self.rng = np.random.default_rng([run.seed, 1])

    @classmethod
    def start(cls, run: Run, folder: str | Path, device: str = "cpu") -> "Training":
        """Begin a run in a folder that holds none yet.

        Raises: UserError when the folder already has a checkpoint or cannot be written, or the device is not there.
        """
        training = cls(run, folder)
        if training.checkpoint.exists():
            raise UserError(f"{training.checkpoint}: expected no run here yet, got one (--resume continues it)")
        training._move(device)
        write_atomically(training.log, "")
        return training

    @classmethod
    def resume(cls, folder: str | Path, device: str = "cpu") -> "Training":
        """Continue the run in `folder` from its checkpoint; lines logged after that checkpoint are taken back.

        Raises: UserError when the checkpoint does not load, does not fit its own description, or the text has changed,
        and when the device is not there.
        """
        path = Path(folder) / CHECKPOINT
        arrays, about = load_checkpoint(path)
        training = cls(described(path, about), folder)
        if about["corpus"] != training.task.digest:
            hashes = f"hash {about['corpus']}, got {training.task.digest}"
            raise UserError(f"checkpoint {path}: expected the text it was trained on, {hashes}")
        _load_weights(training.model, path, arrays)
        training._load_moments(path, {name: array for name, array in arrays.items() if name.startswith(MOMENTS)})
        training.rng.bit_generator.state = about["generator"]
        training.step = about["step"]
        training._move(device)
        kept = [record for record in read_log(training.log) if record["step"] <= training.step]
        write_atomically(training.log, "".join(json.dumps(record) + "\n" for record in kept))
        return training

    def save(self) -> None:
        """Write the checkpoint: everything the next step depends on."""
        moments = {MOMENTS + name: array for name, array in self.optimizer.state_dict().items()}
        arrays = {**self.model.named_parameters(), **moments}
        about = {
            "run": asdict(self.run),
            "model": asdict(self.run.config(self.task.vocabulary)),
            "corpus": self.task.digest,
            "step": self.step,
            "generator": self.rng.bit_generator.state,
        }
        save_checkpoint(self.checkpoint, {name: fetched(array) for name, array in arrays.items()}, about)

    def steps(self, until: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield a record a step, evaluations among them, up to step `until`; each is logged before it is yielded.

        Between two records the state is whole: stop there, `save`, and `resume` later.
        """
        last = self.run.steps if until is None else min(until, self.run.steps)
        while self.step < last:
            if self.step == 0:
                yield self._logged(self._where_there_is_room(self.evaluate))
            record = self._where_there_is_room(self._train_step)
            if self.step % self.run.evaluate_every == 0 or self.step == self.run.steps:
                record |= self._where_there_is_room(self.evaluate)
            yield self._logged(record)

    def go(self, stop: threading.Event, save_every: int = 100) -> Iterator[dict[str, Any]]:
        """Yield records until the last step or until `stop` is set, saving every `save_every` steps and at the end."""
        for record in self.steps():
            yield record
            if stop.is_set():
                break
            if self.step % save_every == 0:
                self.save()
        self.save()

    def evaluate(self) -> dict[str, Any]:
        """Return what held-out data say of the model: loss and accuracy on each batch, always the same data."""
        losses, accuracies = {}, {}
        rng = np.random.default_rng([self.run.seed, 2])
        for name, (tokens, targets) in self.task.examination(rng).items():
            parts = range(0, len(tokens), self.run.batch)  # as many at a time as training takes
            logits = np.concatenate([fetched(self.model(tokens[i : i + self.run.batch])[0]) for i in parts])
            losses[name] = float(mean_loss(logits, targets))
            accuracies[name] = accuracy(logits, targets)
        return {"step": self.step, "held_out_loss": losses, "held_out_accuracy": accuracies}

    def _move(self, device: str) -> None:
        self.model, self.optimizer.state = move((self.model, self.optimizer.state), device)

    def _load_moments(self, path: Path, moments: Mapping[str, np.ndarray]) -> None:
        expected = {f"{MOMENTS}step": np.array(0)}
        if len(moments) > 1:  # before the first step there are none
            weights = self.model.named_parameters()
            expected |= {f"{MOMENTS}{slot}.{name}": weights[name] for slot in self.optimizer.slots for name in weights}
        match(path, moments, expected)
        self.optimizer.load_state_dict({name.removeprefix(MOMENTS): array for name, array in moments.items()})

    def _train_step(self) -> dict[str, Any]:
        begin = time.perf_counter()
        run = self.run
        tokens, targets = self.task.batch(self.rng, run.batch)
        loss, grads = mg.value_and_grad(lambda model: mean_loss(model(tokens)[0], targets))(self.model)
        try:
            grads, norm = optim.clip_by_global_norm(grads, run.clip)
        except ValueError as error:  # not finite: the weights are still those of the last good step
            raise UserError(f"step {self.step + 1}: {error} (loss {loss}; try a smaller --rate)") from None
        rate = optim.cosine(self.step, steps=run.steps, warmup=run.warmup, peak=run.rate, floor=run.rate / 10)
        self.optimizer.step(self.model, grads, lr=rate)
        self.step += 1
        seconds = time.perf_counter() - begin
        return {"step": self.step, "loss": float(loss), "norm": float(norm), "rate": rate, "seconds": seconds}

    def _where_there_is_room(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return work()
        except SharedMemoryError as error:  # whatever the batch: it says what to take instead
            raise UserError(f"step {self.step + 1}: {error}") from None
        except MemoryError as error:  # CuPy's is one too
            raise UserError(f"step {self.step + 1}: {error} (try a smaller --batch or --length)") from None

    def _logged(self, record: dict[str, Any]) -> dict[str, Any]:
        with self.log.open("a") as file:
            file.write(json.dumps(record) + "\n")
        return record


def mean_loss(logits, targets: np.ndarray):
    """Return the mean cross-entropy in nats, of logits `(*batch, T, vocab)` where targets `(*batch, T)` ask any."""
    asked = np.flatnonzero(targets != IGNORE)
    xp = mg.namespace(logits)
    rows = xp.take(xp.reshape(logits, (-1, logits.shape[-1])), beside(logits, asked), axis=0)
    return mg.cross_entropy(rows, beside(logits, targets.reshape(-1)[asked]))


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Return the log's records; a last line cut short by a kill is left out."""
    try:
        lines = Path(path).read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def load_model(path: str | Path) -> tuple[LanguageModel, Run]:
    """Return the model in a checkpoint and the run that made it.

    Raises: UserError when the checkpoint does not load or does not fit its own description.
    """
    arrays, about = load_checkpoint(path)
    run = described(path, about)
    try:
        config = Config(**about["model"])
    except (KeyError, TypeError) as error:
        raise UserError(f"checkpoint {path}: expected the description of a model, got {error}") from None
    model = LanguageModel(config, np.random.default_rng(run.seed))
    _load_weights(model, path, arrays)
    return model, run


def described(path: str | Path, about: Mapping[str, Any]) -> Run:
    """Return the run that a checkpoint says it is of. Raises UserError where it says none."""
    try:
        return Run(**about["run"])
    except (KeyError, TypeError) as error:
        raise UserError(f"checkpoint {path}: expected the description of a run, got {error}") from None


def _load_weights(model: LanguageModel, path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    weights = {name: array for name, array in arrays.items() if not name.startswith(MOMENTS)}
    match(path, weights, model.named_parameters())
    model.load_parameters(weights)

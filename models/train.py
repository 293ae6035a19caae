"""Training that can be stopped and resumed at any step: 10 steps, resume, 10 steps = 20 steps, byte for byte.

A run lives in one folder:
    checkpoint.safetensors   weights, optimiser, step, generator and the run's own description; written atomically
    log.jsonl                one JSON object a line: a step's loss, gradient norm and rate, or what held-out data say
    .lock                    held by the process that trains here; the system drops it when that process ends

Runs are bit-identical for the same seed, sizes, machine and number of BLAS threads. A run whose number of steps is
changed when it is resumed follows the learning rate's cosine for the new number from there on: it is then another run
than one planned with that number from its first step.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock

import minigrad as mg
from gpu.launch import SharedMemoryError
from minigrad import optim
from models import log, objectives, room
from models.checkpoints import load_checkpoint, load_moments, load_weights, save_checkpoint, training_arrays
from models.device import move
from models.errors import UserError
from models.lock import claim
from models.run import Run, described, is_translation

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"
FAR = 100  # times the least a step can need: no mixer needs more, so where that fits nothing has to be measured


class Training:
    """A run in progress: model, optimiser, generator and step. `start` and `resume` construct it.

    Model and optimiser are on a device, "cpu" or "cuda", not part of the run: it may be resumed on another one.
    """

    def __init__(self, run: Run, folder: str | Path) -> None:
        mg.keep_freed_memory()  # a step's arrays are as large as the last step's
        self.run, self.step = run, 0
        self.saved: int | None = None  # the step of the checkpoint
        self._lock: BaseFileLock | None = None  # on the folder
        self.checkpoint, self.log = Path(folder) / CHECKPOINT, Path(folder) / LOG
        self.objective = objectives.objective(run)
        self.task = self.objective.task
        weights = self.objective.least_weights()
        room.require(4 * room.FLOAT * weights, "weights, their gradients and two moments", self.objective.smaller)
        self.model: Any = self.objective.make(np.random.default_rng([run.seed, 0]))
        self.optimizer = self.objective.optimizer()
        # batches (and dropout) have a generator of their own, so that every mixer sees the same whatever its size
        self.rng = np.random.default_rng([run.seed, 1])

    @classmethod
    def start(cls, run: Run, folder: str | Path, device: str = "cpu") -> "Training":
        """Begin a run in a folder that holds none yet; the folder is this process's while the training is referenced.

        Raises: UserError when the folder already has a checkpoint, is another process's or cannot be written, when the
        device is not there, and when a step does not fit into memory.
        """
        training = cls(run, folder)
        training._move(device)
        training._lock = claim(folder)
        if training.checkpoint.exists():
            raise UserError(f"{training.checkpoint}: expected no run here yet, got one (--resume continues it)")
        log.rewrite(training.log, [])
        return training

    @classmethod
    def resume(cls, folder: str | Path, device: str = "cpu", steps: int | None = None) -> "Training":
        """Continue the run in `folder` from its checkpoint, to `steps` if that is given.

        Lines logged after that checkpoint are taken back; the folder is this process's as long as after `start`.

        Raises: UserError when the checkpoint does not load, does not fit its own description, or the text has changed,
        when more than `steps` are done, when the folder is another process's, when the device is not there, and when a
        step does not fit into memory.
        """
        path = Path(folder) / CHECKPOINT
        lock = claim(folder) if path.exists() else None  # where there is nothing to resume nothing is written
        arrays, about = load_checkpoint(path)
        run = described(path, about)
        if steps is not None and steps < about["step"]:
            raise UserError(f"steps: expected at least {about['step']}, which {path} has done, got {steps}")
        training = cls(run if steps is None else replace(run, steps=steps), folder)
        training._lock = lock
        if about["corpus"] != training.task.digest:
            hashes = f"hash {about['corpus']}, got {training.task.digest}"
            raise UserError(f"checkpoint {path}: expected the text it was trained on, {hashes}")
        load_weights(training.model, path, arrays)
        load_moments(training.optimizer, training.model, path, arrays)
        training.rng.bit_generator.state = about["generator"]
        training.step = training.saved = about["step"]
        training._move(device)
        log.rewrite(training.log, [record for record in log.read(training.log) if record["step"] <= training.step])
        return training

    def save(self) -> None:
        """Write the checkpoint, with everything the next step depends on.

        Raises: UserError when it cannot be written, or when the weights have diverged; the one before then stays.
        """
        arrays = training_arrays(self.model, self.optimizer)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise self._diverged(self.step, "a weight is not finite")
        held_out = next(iter(self.task.eval_batches(np.random.default_rng([self.run.seed, 2])).values()))
        first, second = (part[: self.run.batch] for part in held_out)
        # a checkpoint with a gradient that is not finite could not be resumed
        self._oom_as_user_error(lambda: self._gradient(self.step, (first, second)))
        about = {
            "run": asdict(self.run),
            "model": self.objective.describe(),
            "corpus": self.task.digest,
            "step": self.step,
            "generator": self.rng.bit_generator.state,
        }
        save_checkpoint(self.checkpoint, arrays, about)
        self.saved = self.step

    def steps(self, until: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield a record a step, evaluations among them, up to step `until`; each is logged before it is yielded.

        Between two records the state is whole: stop there, `save`, and `resume` later.
        """
        last = self.run.steps if until is None else min(until, self.run.steps)
        while self.step < last:
            if self.step == 0:
                yield self._append_to_log(self._oom_as_user_error(self.evaluate))
            record = self._oom_as_user_error(self._train_step)
            if self.step % self.run.evaluate_every == 0 or self.step == self.run.steps:
                record |= self._oom_as_user_error(self.evaluate)
            yield self._append_to_log(record)

    def run_until(self, stop: threading.Event, save_every: int = 100) -> Iterator[dict[str, Any]]:
        """Yield records until the last step or until `stop` is set, saving every `save_every` steps and at the end.

        Raises: UserError when the log or the checkpoint cannot be written, and when the run diverges.
        """
        try:
            for record in self.steps():
                yield record
                if stop.is_set():
                    break
                if self.step % save_every == 0:
                    self.save()
        except OSError as error:  # of the log; a checkpoint may still find room where it takes the place of another
            with suppress(UserError):
                self.save()
            message = f"expected a place to write, got: {error.strerror} ({self._last_saved()})"
            raise UserError(f"{self.log}: {message}") from None
        self.save()

    def evaluate(self) -> dict[str, Any]:
        """Return loss and accuracy on each held-out batch; the batches are always the same.

        Raises: UserError when a loss is not finite.
        """
        losses, accuracies = {}, {}
        rng = np.random.default_rng([self.run.seed, 2])
        model = self.objective.evaluated(self.model, self.optimizer)
        for name, batch in self.task.eval_batches(rng).items():  # as many rows at a time as training takes
            losses[name], accuracies[name] = self.objective.score(model, batch, self.run.batch)
            self._require_finite(self.step, "the held-out loss", losses[name])
        return {"step": self.step, "held_out_loss": losses, "held_out_accuracy": accuracies}

    def _move(self, device: str) -> None:
        if device == "cpu":
            self._require_room()
        self.model, self.optimizer.state = move((self.model, self.optimizer.state), device)

    def _require_room(self) -> None:
        """Raise a UserError if a step needs more memory than there is; measure it where an estimate cannot decide."""
        self._require_least(getattr(self.task, "length", 1))  # before anything so long is drawn
        rng = np.random.default_rng(0)  # not the run's own, which draws its batches
        batch = max((self.task.batch(rng, 2) for _ in range(16)), key=lambda sample: sample[0].shape[1])
        description, needed = self._require_least(batch[0].shape[1])
        free = room.available()
        if free is None or free > FAR * needed:
            return

        def step(sequences: int) -> int:
            rows = batch[0][:sequences], batch[1][:sequences]
            loss = mg.value_and_grad(lambda model: self.objective.loss(model, rows))
            return room.peak(lambda: loss(self.model))

        peak_of_one, peak_of_two = (
            min(step(sequences), step(sequences)) for sequences in (1, 2)
        )  # the first of each may compile
        needed = peak_of_one + (self.run.batch - 1) * max(0, peak_of_two - peak_of_one)
        room.require(needed, description, self.objective.smaller)

    def _require_least(self, length: int) -> tuple[str, int]:
        """Return the name of a step on sequences of this length and its least size in bytes; raise if too large."""
        numbers = self.run.batch * self.objective.least_numbers(length)
        description = f"a step of {self.run.batch:,} sequences of {length:,} tokens"
        room.require(room.FLOAT * numbers, description, self.objective.smaller)
        return description, room.FLOAT * numbers

    def _train_step(self) -> dict[str, Any]:
        begin = time.perf_counter()
        batch = self.task.batch(self.rng, self.run.batch)
        loss, grads, norm = self._gradient(self.step + 1, batch, self.rng)
        rate = self.objective.rate(self.step)
        self.optimizer.step(self.model, grads, lr=rate)
        self.step += 1
        seconds = time.perf_counter() - begin
        return {"step": self.step, "loss": loss, "norm": norm, "rate": rate, "seconds": seconds}

    def _gradient(self, step: int, batch: Any, rng: np.random.Generator | None = None) -> tuple[float, Any, float]:
        """Return the loss, the clipped gradient and its norm before; raise a UserError where one is not finite."""
        loss, grads = mg.value_and_grad(lambda model: self.objective.loss(model, batch, rng))(self.model)
        self._require_finite(step, "the loss", float(loss))
        try:
            grads, norm = optim.clip_by_global_norm(grads, self.run.clip)
        except ValueError:
            raise self._diverged(step, "the gradient is not finite") from None
        return float(loss), grads, float(norm)

    def _oom_as_user_error(self, work: Callable[[], Any]) -> Any:
        """Return `work()`, with out-of-memory errors as UserError and no overflow warnings: the loss is checked."""
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                return work()
        except SharedMemoryError as error:  # whatever the batch: it says what to take instead
            raise UserError(f"step {self.step + 1}: {error}") from None
        except MemoryError as error:  # CuPy's is one too
            raise UserError(f"step {self.step + 1}: {error} (try {self.objective.smaller})") from None

    def _require_finite(self, step: int, quantity: str, loss: float) -> None:
        if not np.isfinite(loss):
            raise self._diverged(step, f"{quantity} is {'NaN' if np.isnan(loss) else 'infinite'}")

    def _diverged(self, step: int, reason: str) -> UserError:
        return UserError(f"diverged at step {step}: {reason}; try {self.objective.gentler} ({self._last_saved()})")

    def _last_saved(self) -> str:
        return "there is no checkpoint" if self.saved is None else f"{self.checkpoint} holds step {self.saved}"

    def _append_to_log(self, record: dict[str, Any]) -> dict[str, Any]:
        log.append(self.log, record)
        return record


def load_model(path: str | Path) -> tuple[Any, Run]:
    """Return the model in a checkpoint, as its objective evaluates it, and the run that made it.

    Raises: UserError when the checkpoint does not load or does not fit its own description.
    """
    arrays, about = load_checkpoint(path)
    run = described(path, about)
    try:
        model = objectives.build(run, about["model"], arrays)
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"checkpoint {path}: expected the description of a model, got: {error}") from None
    load_weights(model, path, arrays)
    if not is_translation(run.task):
        return model, run
    optimizer = objectives.Translation.optimizer()
    load_moments(optimizer, model, path, arrays)
    return optimizer.averaged(model), run

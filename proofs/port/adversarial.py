"""Adversarial checks: of ports that are right in the cases of the kit and wrong elsewhere.

The cases are known, their numbers are plain, and each is run once or twice: a port, written by a person or a program,
can pass them all and be wrong. Here sizes and numbers are drawn anew each time, from a seed that is printed, and a
result is held to what rounding does to its own channel, not to the largest of all. In float64 and float32:

    other sizes     batches, lengths, chunks and features of other sizes; numbers with all of their bits
    amplitudes      sequences and channels from 2⁻²⁴ to 2³ times as large; small ones are held to bounds of their own
    gates           gates and rates of all sizes in one sequence, shut and open ones among them
    long history    hundreds of tokens that all count at the end: gates nearly open, keys small
    calls in a row  the same storage with new contents, with one argument changed at its end; fresh storage with old
                    contents, while the old storage holds others; results of earlier calls must stay as they were
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.mechanism import Domain
from proofs.port.cases import SIZES, Case, Example, Inputs
from proofs.port.checking import RIGHT, WRONG, Checker, Finding, Report
from proofs.port.comparing import Divergence, failure
from proofs.port.forms import has_norm
from proofs.port.frameworks import PRECISIONS, dtype_name
from proofs.port.reference import Arrays, Expected, Reference, leaves, magnitude, rebuild
from proofs.port.running import NOT_RUN, Outcome
from proofs.port.signature import CHUNK

CHECKED = ("float64", "float32")  # in bfloat16 a long sum of small numbers has no digits
FACTOR = 64  # between the error of the form and what another algorithm may make
CALLS = 14
GATES = (Domain.LOG_GATE, Domain.NONNEGATIVE, Domain.POSITIVE)

# The powers of 2 that arguments of tokens are multiplied by.
POWERS = {Domain.ANY: (-24, 3), Domain.POSITIVE: (-8, 0), Domain.LOG_GATE: (-8, 2)}
OTHER_POWERS = (-12, 0)


@dataclass(frozen=True)
class Sampler(Example):
    """An example whose numbers have all bits of a dtype, in one of the styles of `TRIALS`."""

    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    dtype: str = "float64"
    style: str = ""

    def sample(self, T: int, *, state: bool = False) -> Inputs:
        """Draw inputs of T tokens."""
        arrays = {}
        for name, strategy in self.form.tokens.items():
            domain, axes = self.form.domains[name], strategy.axes.replace("*batch", "").split()
            x = self._numbers(self.rng, domain, self._shape(strategy.axes, self.batch, T), strategy.complex)
            if domain is Domain.KEYS:
                x = x / np.maximum(1.0, np.linalg.norm(x, axis=-1, keepdims=True))
            if self.style == "amplitudes" and "T" in axes:  # parameters may make a discretisation ill-conditioned
                x = self._of_all_amplitudes(x, domain, axes)
            if self.style == "gates" and domain in GATES and "T" in axes:
                x = self._gates(x, domain)
            if self.style == "long history":
                x = x * self._share(domain, axes, T)
            arrays[name] = self._rounded(np.exp(x) if self.factors and domain is Domain.LOG_GATE else x)
        first = self._state(self.rng, self.form.state, self.batch) if state else None
        return Inputs(
            arrays, first if first is None else rebuild(first, [*map(self._rounded, leaves(first))]), self.chunk
        )

    def gated(self) -> bool:
        """Return whether there are gates or rates of a token."""
        return any(d in GATES and self.form.time(name) is not None for name, d in self.form.domains.items())

    def _of_all_amplitudes(self, x: np.ndarray, domain: Domain, axes: Sequence[str]) -> np.ndarray:
        """Multiply each sequence by the largest power, the smallest, 1, or a power for each channel."""
        words = ["batch"] * (x.ndim - len(axes)) + list(axes)
        low, high = POWERS.get(domain, OTHER_POWERS)
        powers = self.rng.integers(
            low, high, size=[1 if w == "T" else n for w, n in zip(words, x.shape, strict=True)], endpoint=True
        )
        kind = self.rng.integers(5, size=[n if w == "batch" else 1 for w, n in zip(words, x.shape, strict=True)])
        return np.asarray(x * 2.0 ** np.select([kind < 2, kind == 2, kind == 3], [high, low, 0], powers))

    def _gates(self, x: np.ndarray, domain: Domain) -> np.ndarray:
        """Return gates of all sizes; some log gates are 0 or −∞, some rates 0."""
        log = domain is Domain.LOG_GATE
        kind = self.rng.integers(8, size=x.shape)
        x = x * 2.0 ** self.rng.integers(-20, 5 if log else 1, size=x.shape)
        x = np.where(kind == 0, 0.0, x) if domain is not Domain.POSITIVE else x
        return np.where(kind == 1, -np.inf, x) if log else x

    def _share(self, domain: Domain, axes: Sequence[str], T: int) -> float:
        """Return the factor of an argument under which a memory retains its content over T tokens."""
        if domain is Domain.KEYS:
            return float(T**-0.5)
        if domain is Domain.NONNEGATIVE and "T" in axes:  # a rate; momentum adds up twice
            return 1.0 if self.form.layout is None else (4 / T) ** 2
        return 4 / T if domain in GATES else 1.0

    def _rounded(self, x: np.ndarray) -> np.ndarray:
        wide = np.complex128 if x.dtype.kind == "c" else np.float64
        return x.astype(dtype_name(x, self.dtype)).astype(wide)

    def _uniform(self, rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, shape)


@dataclass(frozen=True)
class Channelwise(Expected):
    """Reference results whose bounds follow from the size and the rounding errors of each channel."""

    deviations: Arrays  # of float32, the largest of several runs
    reduced: Mapping[str, tuple[int, ...]]  # the axes of what counts as one channel

    def tolerance(self, name: str, precision: str) -> Any:
        """Return the error that rounding may make in each entry.

        A multiple of the error of the form itself, and of the unit roundoff, in the channel of the entry; for a
        gradient, whose terms may add up to 0, the roundoff of the largest of all gradients besides.
        """
        gradient = name.startswith("gradient of ")
        x = (self.gradients if gradient else self.values)[name.removeprefix("gradient of ")]
        floor = max(map(magnitude, self.gradients.values())) if gradient else 0.0
        own, error = (
            np.max(np.where(np.isfinite(a), np.abs(a), 0.0), axis=self.reduced[name], keepdims=True)
            for a in (x, self.deviations[name])
        )
        return PRECISIONS[precision] * (FACTOR * (error + own) + floor)


def attack(checker: Checker, report: Report, seed: int) -> None:
    """Make all trials with numbers of this seed, and enter their results in the report."""
    report.seed = seed
    report.notes.append(f"the adversarial checks drew their numbers from seed {seed} (the same again: --seed {seed})")
    example = checker.example
    for number, (name, trial) in enumerate(TRIALS.items()):
        for precision in (p for p in report.precisions if p in CHECKED):
            rng = np.random.default_rng([seed, number, CHECKED.index(precision)])
            sampler = Sampler(**vars(example), rng=rng, dtype=precision, style=name)
            if name == "gates" and not sampler.gated():
                report.not_applied[name] = "there is no gate"
                continue
            for found in trial(checker, sampler):
                _enter(report, Case(name), precision, found)
                if any(found.values()):
                    break
            if name not in report.cases:
                report.not_applied[name] = "no trial gave a result: the form diverges, or the runs were left out"


Found = dict[str, Divergence | None]


def _enter(report: Report, case: Case, precision: str, found: Found) -> None:
    for result, divergence in found.items():
        report.cells[precision, case.name, result] = WRONG if divergence else RIGHT
        if divergence:
            report.findings.append(Finding(case, precision, divergence))


def _other_sizes(checker: Checker, sampler: Sampler) -> Iterator[Found]:
    """Yield what differs in three draws of all sizes that are not declared."""
    rng, takes = sampler.rng, checker.port.signature.takes
    for state in (False, takes("state"), False):
        sizes = {axis: int(rng.integers(2, 10)) if n == SIZES[axis] else n for axis, n in sampler.sizes.items()}
        drawn = replace(
            sampler,
            sizes={**sizes, "V": sizes["K"]} if has_norm(sampler.form) else sizes,
            batch=tuple(int(n) for n in rng.integers(1, 5, len(sampler.batch))),
            chunk=int(rng.integers(1, 10)) if takes(CHUNK) else sampler.chunk,
        )
        inputs = drawn.sample(int(rng.integers(2, 41)), state=state)
        yield _judge(checker, inputs, checker.port.run(inputs, sampler.dtype, gradients=True), sampler.dtype)


def _of_length(low: int, high: int, draws: int) -> Callable[[Checker, Sampler], Iterator[Found]]:
    """Return a trial of some draws of low to high tokens, with bounds for each channel measured on as many more."""

    def trial(checker: Checker, sampler: Sampler) -> Iterator[Found]:
        for _ in range(draws):
            inputs = sampler.sample(int(sampler.rng.integers(low, high)))
            yield _judge(checker, inputs, checker.port.run(inputs, sampler.dtype, gradients=True), sampler.dtype, draws)

    return trial


def _calls(checker: Checker, sampler: Sampler) -> Iterator[Found]:
    """Yield what differs in each of 15 or more calls on arrays of one shape."""
    port, precision = checker.port, sampler.dtype
    first = inputs = sampler.sample(7)
    storage: list[list[Any]] = []  # all of them, so that none is used again
    kept: list[tuple[int, str, Any]] = []
    for number, what in enumerate(_plan(list(first.arrays)), 1):
        drawn = sampler.sample(7)
        if what in first.arrays:  # one argument changes at its end
            x = inputs.arrays[what].copy()
            x.flat[-1] = drawn.arrays[what].flat[-1]
            inputs = replace(inputs, arrays={**inputs.arrays, what: x})
        else:
            inputs = first if what == OLD else drawn
        with port.framework.context:
            names, arrays = port.convert(inputs, precision)
            written = what not in (FRESH, OLD) and _overwrite(storage[-1], arrays)
            if not written:
                storage.append(arrays)
            before = [port.framework.numpy(x) for _, _, x in kept]
        outcome = port.run_on(inputs, names, storage[-1], precision, gradients=True)
        found = _judge(checker, inputs, outcome, precision)
        with port.framework.context:
            for (earlier, name, x), old in zip(kept, before, strict=True):
                if not np.array_equal(port.framework.numpy(x), old, equal_nan=True):
                    found[name] = failure(name, f"the result of call {earlier} is overwritten by call {number}")
        kept += [(number, name, x) for name, x in outcome.results.items()]
        contents = f"{what} changed at its end" if what in first.arrays else OLD if what == OLD else "new contents"
        call = f"call {number} ({contents} in {'the same' if written else 'new'} arrays)"
        yield {name: d and replace(d, place=f"{call}, {d.place}") for name, d in found.items()}


FRESH, SAME, OLD = "new arrays", "the same arrays", "the contents of call 1"


def _plan(names: Sequence[str]) -> list[str]:
    """Return what is done before each call."""
    plan = [FRESH, SAME, *names, OLD, SAME]
    return [*plan, *([FRESH, SAME] * CALLS)[: max(0, CALLS - len(plan))], OLD]


def _overwrite(storage: Sequence[Any], arrays: Sequence[Any]) -> bool:
    """Write arrays into older ones, and return whether that is possible."""
    try:
        for old, new in zip(storage, arrays, strict=True):
            old[...] = new
    except Exception:  # what each library raises for arrays that cannot be written to, as those of JAX
        return False
    return True


def _judge(checker: Checker, inputs: Inputs, outcome: Outcome, precision: str, runs: int = 0) -> Found:
    """Return where each result and gradient differs, by bounds for each channel from this many runs, or for all."""
    reference, port = checker.reference, checker.port
    if message := outcome.failures.get(""):
        return {} if message == NOT_RUN or not _finite(reference, inputs) else {"": failure("", message)}
    returned = list(outcome.values)
    expected = reference.evaluate(inputs, returned, gradients=port.differentiates)
    if runs:
        targets = returned if port.differentiates else ()
        errors = [reference.deviations(inputs, targets, seed) for seed in range(runs)]
        deviations = {name: np.max([run[name] for run in errors], axis=0) for name in errors[0]}
        axes = {**port.form.axes, **port.axes}
        reduced = {name: _reduced(axes[name.removeprefix("gradient of ")]) for name in deviations}
        expected = Channelwise(expected.values, expected.gradients, expected.errors, deviations, reduced)
    else:
        expected = replace(expected, errors={name: FACTOR / 8 * error for name, error in expected.errors.items()})
    return dict(checker.differences(outcome, expected, precision, inputs.chunk))


def _finite(reference: Reference, inputs: Inputs) -> bool:
    """Return whether the form itself has a result: an inner model may diverge."""
    try:
        reference.at(inputs, (), np.float64)
    except FloatingPointError:
        return False
    return True


def _reduced(axes: str) -> tuple[int, ...]:
    """Return the axis of time, or those of all features where there is none."""
    own = axes.replace("*batch", "").split()
    return (own.index("T") - len(own),) if "T" in own else tuple(range(-len(own), 0))


TRIALS: dict[str, Callable[[Checker, Sampler], Iterator[Found]]] = {
    "other sizes": _other_sizes,
    "amplitudes": _of_length(12, 25, 3),
    "gates": _of_length(12, 25, 3),
    "long history": _of_length(515, 1031, 1),
    "calls in a row": _calls,
}

"""The catalogue of slips: variants of a form, each with one common mistake, compared with what a port gives.

A slip names a port's mistake where the variant gives the port's results in every case that fails, and in those that
pass. `ARGUMENTS` change what a form is given, `VARIANTS` (in `proofs.port.variants`) how it computes, `GRADIENTS` what
an argument's right gradient is turned into, `BACKWARDS` (in `proofs.port.backwards`) the whole backward pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import minigrad as mg
from models.mechanism import Domain
from proofs.port.backwards import BACKWARDS, Backward
from proofs.port.cases import CASES, Inputs
from proofs.port.reference import Expected, Reference, Results, result_names
from proofs.port.running import Outcome
from proofs.port.variants import VARIANTS

if TYPE_CHECKING:
    from proofs.port.checking import Checker, Report


@dataclass(frozen=True)
class Slip:
    """A mistake in words, and the results of a form that makes it."""

    name: str
    results: Results


# What a port may do to an argument of a domain, by the words that say so; {0} is the argument.
ARGUMENTS: dict[Domain, dict[str, Callable[[Any], Any]]] = {
    Domain.NONNEGATIVE: {
        "the sigmoid is applied to {0} once more": mg.sigmoid,
        "{0} is missing: taken as 1": lambda x: x * 0 + 1,
        "{0} counts twice, as where ½ is missing in the inner loss": lambda x: 2 * x,
        "{0} counts half": lambda x: x / 2,
    },
    Domain.POSITIVE: {
        "the softplus is applied to {0} once more": mg.softplus,
        "{0} is taken as a logarithm: exp({0})": mg.exp,
    },
    Domain.NEGATIVE: {
        "{0} is taken as its logarithm: −exp({0})": lambda x: -mg.exp(x),
    },
    Domain.LOG_GATE: {
        "{0} is not applied: the gate is always open": lambda x: x * 0,
        "factor for logarithm: exp({0}) is taken as the logarithm": mg.exp,
        "{0} is taken as the input of a sigmoid: log σ({0})": mg.log_sigmoid,
        "{0} is applied twice": lambda x: 2 * x,
        "{0} has the other sign": lambda x: -x,
    },
    Domain.KEYS: {
        "{0} is divided by its L2 norm inside the port": lambda x: x / mg.sqrt(mg.sum(x * x, axis=-1, keepdims=True)),
    },
}

# What the gradient of an argument may be instead: of the right one, the argument itself, and the size of the batch.
GRADIENTS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "conjugate missing in the gradient of {0}": lambda g, x, batch: g.conj(),
    "no gradient flows to {0}": lambda g, x, batch: np.zeros_like(g),
    "the gradient of {0} has the other sign": lambda g, x, batch: -g,
    "the gradient of {0} is a mean over the batch, a sum is right": lambda g, x, batch: g / batch,
    "the gradient of {0} is with respect to exp({0}): the factor for the logarithm": lambda g, x, batch: g / np.exp(x),
    "the gradient of {0} is with respect to log({0}): the logarithm for the factor": lambda g, x, batch: g * x,
    "the gradient of {0} is twice the right one": lambda g, x, batch: 2 * g,
    "the gradient of {0} is half the right one": lambda g, x, batch: g / 2,
}


def catalogue(reference: Reference) -> Iterator[Slip]:
    """Yield the slips that a port of this form may have."""
    form = reference.form
    yield from _of_scale(reference)
    yield from _of_arguments(reference)
    yield Slip("the initial state is ignored", lambda arrays, state, chunk: reference.results(arrays, None, chunk))
    yield Slip("the state is reset at each chunk", lambda *call: _by_chunk(reference, *call))
    mechanism = form.function.__module__.removeprefix("models.")
    for name, (mechanisms, variant) in VARIANTS.items():
        if mechanism in mechanisms:

            def results(arrays: Mapping[str, Any], state: Any, chunk: int, variant: Any = variant) -> list[Any]:
                return list(variant(form, reference.tokens(arrays), state, chunk))

            yield Slip(name, results)


def _changed(reference: Reference, changes: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Results:
    """Return the results for tokens that are changed first."""

    def results(arrays: Mapping[str, Any], state: Any, chunk: int) -> list[Any]:
        tokens = reference.tokens(arrays)
        return reference.of_tokens({**tokens, **changes(tokens)}, state, chunk)

    return results


def _of_scale(reference: Reference) -> Iterator[Slip]:
    """Yield a scale that is missing, or there where none belongs, for forms that have queries."""
    first = next(iter(reference.form.axes))
    if first not in ("q", "r"):
        return
    for power, words in ((0.5, "scale missing: {0} is to be multiplied by 1/√K"), (-0.5, "a scale of 1/√K too many")):

        def change(tokens: Mapping[str, Any], power: float = power) -> dict[str, Any]:
            return {first: tokens[first] * tokens[first].shape[-1] ** power}

        yield Slip(words.format(first), _changed(reference, change))


def _of_arguments(reference: Reference) -> Iterator[Slip]:
    """Yield arguments exchanged, transposed, and transformed though they are so already."""
    form = reference.form

    def changed(words: str, *names: str, by: Callable[[Any], Any]) -> Slip:
        """Return the slip of a change to each of these arguments."""
        return Slip(words, _changed(reference, lambda tokens: {name: by(tokens[name]) for name in names}))

    for x, y in itertools.combinations(form.axes, 2):
        if form.axes[x] == form.axes[y]:
            words = "q·kᵀ transposed: q and k are exchanged" if (x, y) == ("q", "k") else f"{x} and {y} are exchanged"
            yield Slip(words, _exchanged(reference, x, y))
    for name, domain in form.domains.items():
        axes = form.axes[name].split()
        if len(axes) == 2 and axes[0] == axes[1]:
            yield changed(f"{name} is transposed", name, by=lambda x: x.mT)
        if axes == ["D"] and name in ("D", "u"):
            words = "the skip D u is missing" if name == "D" else "the bonus u is missing"
            yield changed(words, name, by=lambda x: x * 0)
        for words, change in ARGUMENTS.get(domain, {}).items() if "T" in axes or domain is Domain.NEGATIVE else ():
            yield changed(words.format(name), name, by=change)
    if {"q", "k"} <= form.axes.keys():
        (normalise,) = ARGUMENTS[Domain.KEYS].values()
        yield changed("q and k are divided by their L2 norms inside the port", "q", "k", by=normalise)
    if rate := next((name for name in ("theta", "eta") if name in form.axes), None):
        for factor, words in ((1.0, "mean for sum in the inner loss: ½ mean"), (2.0, "mean for sum in the inner loss")):
            yield Slip(f"{words} of the V squared errors", _mean(reference, rate, factor))


def _exchanged(reference: Reference, x: str, y: str) -> Results:
    return _changed(reference, lambda tokens: {x: tokens[y], y: tokens[x]})


def _mean(reference: Reference, rate: str, factor: float) -> Results:
    return _changed(reference, lambda tokens: {rate: tokens[rate] * (factor / tokens["v"].shape[-1])})


def _by_chunk(reference: Reference, arrays: Mapping[str, Any], state: Any, chunk: int) -> list[Any]:
    """Return the results of every chunk on its own, and the state of the last one."""
    form, tokens = reference.form, reference.tokens(arrays)
    length = tokens[next(iter(tokens))].shape[-2]
    parts = []
    for start in range(0, length, chunk):
        part = form.slice_time(tokens, start, min(start + chunk, length))
        parts.append(reference.of_tokens(part, state if start == 0 else None, chunk))
    return [mg.concat([part[0] for part in parts], axis=-2), *parts[-1][1:]]


def identify(checker: Checker, report: Report) -> list[str]:
    """Return the slips that give what the port gives, at most three; empty where none does."""
    precision = report.first.precision
    runs = list(_runs(checker, report, precision))
    if not runs:
        return []
    by_values = any(not x.divergence.result.startswith("gradient") for x in report.findings if x.precision == precision)
    if by_values:
        return _transposed(checker, runs) or _not_a_number(report) or _by_values(checker, runs, precision)
    return _by_gradients(checker, runs, precision)


Runs = list[tuple[Inputs, Outcome, Expected]]


def _runs(checker: Checker, report: Report, precision: str) -> Iterator[tuple[Inputs, Outcome, Expected]]:
    """Yield inputs, what the port gives, and what is right: of failing cases first, of the long one only alone."""
    failed = [f.case.name for f in report.findings if f.precision == precision]
    names = dict.fromkeys(case for p, case, _ in report.cells if p == precision)
    order = sorted(names, key=lambda name: (CASES[name].large, name not in failed))
    short = [name for name in order if not CASES[name].large]
    chosen = short if any(name in failed for name in short) else order
    for name in chosen:
        inputs = checker.inputs(CASES[name])
        outcome = checker.port.run(inputs, precision, gradients=True)
        if outcome.values and "" not in outcome.failures:
            gradients = bool(outcome.gradients)
            yield inputs, outcome, checker.expected(inputs, list(outcome.values), gradients=gradients)


def _by_values(checker: Checker, runs: Runs, precision: str) -> list[str]:
    found = []
    finite = [run for run in runs if all(np.all(np.isfinite(x)) for x in run[1].values.values())]
    runs = finite or runs  # an infinite logarithm times 0 says nothing of the slip
    for slip in catalogue(checker.reference):
        if all(_gives(checker, slip, *run, precision) for run in runs):
            found.append(slip.name)
        if len(found) == 3:
            break
    return found or _constant_factor(checker, runs)


def _gives(checker: Checker, slip: Slip, inputs: Inputs, outcome: Outcome, expected: Expected, precision: str) -> bool:
    """Return whether the slip gives the values of an outcome."""
    try:
        with np.errstate(all="ignore"):
            results = [np.asarray(x) for x in slip.results(inputs.arrays, inputs.state, inputs.chunk)]
    except (ArithmeticError, ValueError):  # a variant that these inputs do not suit
        return False
    values = dict(zip(result_names(checker.port.form), results, strict=False))
    if not all(np.all(np.isfinite(x)) for x in values.values() if x.dtype.kind in "fc"):
        return False
    variant = Expected({**expected.values, **values}, {}, expected.errors)
    only_values = Outcome({n: x for n, x in outcome.values.items() if n in values})
    return not any(d for _, d in checker.differences(only_values, variant, precision, inputs.chunk))


def _constant_factor(checker: Checker, runs: Runs) -> list[str]:
    """Return that y is a multiple of what it should be, the same in all cases."""
    ratios = []
    for _, outcome, expected in runs:
        y, want = checker.port.from_port("y", outcome.values["y"]), expected.values["y"]
        if y.shape != want.shape:
            return []
        size = np.sum(np.abs(want) ** 2)
        ratios.append(np.sum(want.conj() * y) / size if size else 0.0)
        if not np.allclose(y, ratios[-1] * want, rtol=1e-5, atol=1e-5 * float(np.sqrt(size))):
            return []
    same = np.allclose(ratios, ratios[0], rtol=1e-4) and not np.isclose(ratios[0], 1, rtol=1e-4)
    return [f"y is {ratios[0]:.6g} times what it should be"] if same else []


def _transposed(checker: Checker, runs: Runs) -> list[str]:
    """Return that the state is transposed, if it is right but for that."""
    for _, outcome, expected in runs:
        state = outcome.values.get("state")
        if state is None or state.ndim < 2:
            return []
        want = checker.port.signature.to_port(checker.port.axes["state"], expected.values["state"], state=True)
        right = state.mT.shape == want.shape and np.allclose(state.mT, want, rtol=1e-4, atol=1e-6)
        y = checker.port.from_port("y", outcome.values["y"])
        if not right or not np.allclose(y, expected.values["y"], rtol=1e-4, atol=1e-6):
            return []
    letters = checker.port.axes["state"].split()[1:]
    found = [letters[i] for i in reversed(checker.port.signature.state or (0, 1))]
    declared = " ".join(found).lower()
    return [f"state transposed: its last axes are {', '.join(found)} (declare them by state, '{declared}')"]


def _not_a_number(report: Report) -> list[str]:
    """Return why a port gives NaN or ∞ where a gate is shut, and values that are right elsewhere."""
    values = [f for f in report.findings if not f.divergence.result.startswith("gradient")]
    wrong = [f for f in values if not f.divergence.message]
    if {f.case.name for f in values} == {"shut gate"} and not np.isfinite(wrong[0].divergence.got if wrong else 0):
        return ["at a shut gate a quotient of decays is 0/0, or a difference of their logarithms ∞ − ∞"]
    return []


def _by_gradients(checker: Checker, runs: Runs, precision: str) -> list[str]:
    """Return what is wrong with the gradients, for each argument of which one is."""
    found = []
    for name in runs[0][1].gradients:
        if all(
            _right(checker, name, run, run[2].gradients[name], precision) for run in runs if name in run[1].gradients
        ):
            continue
        for words, change in GRADIENTS.items():
            changed = []
            for inputs, _, expected in runs:
                if name in inputs.arrays and name in expected.gradients:
                    batch = int(np.prod(checker.port.form.batch(inputs.arrays)))
                    with np.errstate(all="ignore"):
                        changed.append(change(expected.gradients[name], inputs.arrays[name], batch))
            sides = [run for run in runs if name in run[0].arrays]
            if sides and all(_right(checker, name, run, g, precision) for run, g in zip(sides, changed, strict=True)):
                found.append(words.format(name))
                break
    if not found:
        passes = (name for name, backward in BACKWARDS.items() if _matches_backward(checker, runs, backward, precision))
        found = list(itertools.islice(passes, 1))  # the plainest: the cases may not tell it from others
    return found[:3]


def _matches_backward(checker: Checker, runs: Runs, backward: Backward, precision: str) -> bool:
    """Return whether all gradients are those of this wrong backward pass."""
    for run in runs:
        inputs, outcome, _ = run
        if not outcome.gradients:
            return False
        gradients = backward(checker.reference, inputs, list(outcome.values))
        if not all(_right(checker, name, run, gradients[name], precision) for name in outcome.gradients):
            return False
    return True


def _right(
    checker: Checker, name: str, run: tuple[Inputs, Outcome, Expected], gradient: np.ndarray, precision: str
) -> bool:
    inputs, outcome, expected = run
    variant = Expected({}, {name: gradient}, expected.errors)
    only = Outcome(gradients={name: outcome.gradients[name]})
    return not any(d for _, d in checker.differences(only, variant, precision, inputs.chunk))

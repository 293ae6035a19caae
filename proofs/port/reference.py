"""A form beside its ports: results and gradients in the convention of a port, and the errors that rounding makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.engine import unwrap
from proofs.checker.forms import Form
from proofs.port.cases import Inputs
from proofs.port.frameworks import COMPLEX, PRECISIONS
from proofs.port.signature import Signature, state_axes

Arrays = dict[str, np.ndarray]
Results = Callable[[Mapping[str, Any], Any, int], list[Any]]  # of arrays, state and chunk size: y, arrays of the state
Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Expected:
    """Reference results and gradients, and the errors of the form itself in units of roundoff."""

    values: Arrays
    gradients: Arrays
    errors: Mapping[str, float]

    def tolerance(self, name: str, precision: str) -> float:
        """Return the error that rounding may make in an entry.

        8 times the error of the form itself in this precision (measured in float32, and proportional to the unit
        roundoff), and a floor: the unit roundoff times 8 of the largest entry, and 1 of the largest of all results
        or of all gradients, to which an entry of 0 may add up.
        """
        gradient = name.startswith("gradient of ")
        arrays = self.gradients if gradient else self.values
        own, whole = magnitude(arrays[name.removeprefix("gradient of ")]), max(map(magnitude, arrays.values()))
        return PRECISIONS[precision] * (8 * self.errors[name] + 8 * own + whole)


def result_names(form: Form) -> list[str]:
    """Return the names of the results: y, and the state or each array of it."""
    count = len(state_axes(form.state))
    return ["y", *(["state"] if count == 1 else [f"state[{i}]" for i in range(count)])]


def leaves(state: Any) -> list[Any]:
    """Return the arrays of a state in order; counts are left out."""
    if isinstance(state, (tuple, list)):
        return [leaf for part in state for leaf in leaves(part)]
    return [] if state is None or isinstance(state, int) else [state]


def rebuild(state: Any, arrays: Sequence[Any]) -> Any:
    """Return a state with these arrays in place of its own."""
    queue = iter(arrays)

    def walk(part: Any) -> Any:
        if isinstance(part, (tuple, list)):
            return tuple(walk(x) for x in part)
        return part if part is None or isinstance(part, int) else next(queue)

    return walk(state)


def cotangents(values: Mapping[str, np.ndarray]) -> Arrays:
    """Return small integers, never 0, one for each entry of each result."""
    rng, drawn = np.random.default_rng(1), {}
    for name, x in values.items():
        c = rng.choice([-2.0, -1.0, 1.0, 2.0], size=x.shape)
        drawn[name] = c + 1j * rng.choice([-2.0, -1.0, 1.0, 2.0], size=x.shape) if x.dtype.kind == "c" else c
    return drawn


class Reference:
    """A form in the convention of a port: with its scale, and its gates as factors where it takes them so."""

    def __init__(self, signature: Signature):
        form = signature.form
        self.signature = signature
        self.form = replace(form, function=form.reference) if form.compiled else form

    def tokens(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the form."""
        tokens, first = dict(arrays), next(iter(arrays))
        scale = self.signature.scale_of(arrays[first].shape[-1])
        if scale != 1:
            tokens[first] = tokens[first] * scale
        if self.signature.factors:
            for name, strategy in self.form.tokens.items():
                if strategy.logarithm:
                    tokens[name] = mg.log(tokens[name])
        return tokens

    def results(self, arrays: Mapping[str, Any], state: Any, chunk: int) -> list[Any]:
        """Return y and the arrays of the state."""
        return self.of_tokens(self.tokens(arrays), state, chunk)

    def of_tokens(self, tokens: Mapping[str, Any], state: Any, chunk: int) -> list[Any]:
        """Return the results for the arguments of the form."""
        y, after = self.form(tokens, state, chunk)
        return [y, *leaves(after)]

    def evaluate(self, inputs: Inputs, returned: Sequence[str], *, gradients: bool) -> Expected:
        """Return results, and gradients where they are wanted, in float64.

        The gradient is that of Re Σ c r over the results that the port returns.
        """
        targets = returned if gradients else ()
        values, pulled = self.at(inputs, targets, np.float64)
        errors = {name: magnitude(x) for name, x in self.deviations(inputs, targets).items()}
        return Expected(values, pulled, errors)

    def gradients(
        self, inputs: Inputs, targets: Sequence[str], *, results: Results | None = None, change: Change | None = None
    ) -> Arrays:
        """Return the gradients of other results, or for cotangents of the state that are changed, in float64."""
        return self.at(inputs, targets, np.float64, results, change)[1]

    def deviations(self, inputs: Inputs, targets: Sequence[str], seed: int = 2) -> Arrays:
        """Return the errors of float32 in units of its roundoff: of each result, and of each gradient of the targets.

        They are measured beside the inputs: at the inputs themselves, plain numbers, products may be exact.
        """
        near = _nearby(inputs, seed)
        long_values, long_gradients = self.at(near, targets, np.float64)
        short_values, short_gradients = self.at(near, targets, np.float32)
        errors = {name: _error(x, short_values[name]) for name, x in long_values.items()}
        return errors | {f"gradient of {name}": _error(x, short_gradients[name]) for name, x in long_gradients.items()}

    def at(
        self,
        inputs: Inputs,
        targets: Sequence[str],
        dtype: Any,
        results: Results | None = None,
        change: Change | None = None,
    ) -> tuple[Arrays, Arrays]:
        """Return the results in this dtype, and the gradients of the targets; none where there are no targets."""
        compute = results or self.results
        names, first = list(inputs.arrays), leaves(inputs.state)
        arrays = [_in(x, dtype) for x in (*inputs.arrays.values(), *first)]

        def call(*args: Any) -> list[Any]:
            state = None if inputs.state is None else rebuild(inputs.state, args[len(names) :])
            return compute(dict(zip(names, args, strict=False)), state, inputs.chunk)

        with np.errstate(all="ignore"):
            computed, pull = mg.vjp(call, *arrays) if targets else (call(*arrays), None)
            values = dict(zip(result_names(self.form), map(np.asarray, computed), strict=True))
            if pull is None:
                return values, {}
            weights = {n: w if n in targets else np.zeros_like(w) for n, w in cotangents(values).items()}
            if change is not None:
                weights |= {n: change(w) for n, w in weights.items() if n != "y"}
            pulled = pull([_in(weights[name], dtype) for name in values])
        labels = [*names, *(n for n in result_names(self.form)[1:] if inputs.state is not None)]
        return values, dict(zip(labels, (np.asarray(unwrap(x)) for x in pulled), strict=True))


def magnitude(x: np.ndarray) -> float:
    """Return the largest absolute value that is finite."""
    return float(np.max(np.abs(x[np.isfinite(x)]), initial=0.0))


def _in(x: np.ndarray, dtype: Any) -> np.ndarray:
    return x.astype(COMPLEX[np.dtype(dtype).name] if x.dtype.kind == "c" else dtype)


def _nearby(inputs: Inputs, seed: int) -> Inputs:
    """Return inputs a little closer to 0, in float32 and with all of its bits."""
    rng = np.random.default_rng(seed)

    def move(x: np.ndarray) -> np.ndarray:
        return _in(_in(x * (1 - rng.uniform(0, 1 / 16, x.shape)), np.float32), np.float64)

    arrays = {name: move(x) for name, x in inputs.arrays.items()}
    state = None if inputs.state is None else rebuild(inputs.state, [move(x) for x in leaves(inputs.state)])
    return replace(inputs, arrays=arrays, state=state)


def _error(x: np.ndarray, short: np.ndarray) -> np.ndarray:
    """Return the errors of float32 in units of its roundoff."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(x - short) / PRECISIONS["float32"])

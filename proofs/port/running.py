"""Run a port and its form on the same inputs: results, and gradients by the port's own framework and by minigrad."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np

import minigrad as mg
from minigrad.engine import unwrap
from proofs.checker.forms import Form
from proofs.port.cases import Inputs
from proofs.port.frameworks import COMPLEX, PRECISIONS, Framework, Function
from proofs.port.locating import described, file_of
from proofs.port.signature import CHUNK, Signature, state_axes, y_axes

Arrays = dict[str, np.ndarray]

NOT_RUN = "not run"  # the failure of a run that was not made


@dataclass
class Outcome:
    """Results and gradients of a port, with the axes of the form, and messages of failures by result."""

    values: Arrays = field(default_factory=dict)
    gradients: Arrays = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # by result, "gradient", "output"; "" for the call itself
    results: dict[str, Any] = field(default_factory=dict)  # the port's own arrays


class Watch(Protocol):
    """What stands around each run of a port."""

    def before(self, inputs: Inputs, precision: str, *, gradients: bool) -> Outcome | None:
        """Return an outcome instead of a run; None where the port is to run."""

    def after(self, outcome: Outcome) -> None:
        """Take note of a run that has returned, and enter what it did besides."""


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

    def deviations(self, inputs: Inputs, targets: Sequence[str], seed: int = 2) -> Arrays:
        """Return the errors of float32 in units of its roundoff: of each result, and of each gradient of the targets.

        They are measured beside the inputs: at the inputs themselves, plain numbers, products may be exact.
        """
        near = _nearby(inputs, seed)
        long_values, long_gradients = self.at(near, targets, np.float64)
        short_values, short_gradients = self.at(near, targets, np.float32)
        errors = {name: _error(x, short_values[name]) for name, x in long_values.items()}
        return errors | {f"gradient of {name}": _error(x, short_gradients[name]) for name, x in long_gradients.items()}

    def at(self, inputs: Inputs, targets: Sequence[str], dtype: Any) -> tuple[Arrays, Arrays]:
        """Return the results in this dtype, and the gradients of the targets; none where there are no targets."""
        names, first = list(inputs.arrays), leaves(inputs.state)
        arrays = [_in(x, dtype) for x in (*inputs.arrays.values(), *first)]

        def call(*args: Any) -> list[Any]:
            state = None if inputs.state is None else rebuild(inputs.state, args[len(names) :])
            return self.results(dict(zip(names, args, strict=False)), state, inputs.chunk)

        with np.errstate(all="ignore"):
            results, pull = mg.vjp(call, *arrays) if targets else (call(*arrays), None)
            values = dict(zip(result_names(self.form), map(np.asarray, results), strict=True))
            if pull is None:
                return values, {}
            weights = {n: w if n in targets else np.zeros_like(w) for n, w in cotangents(values).items()}
            pulled = pull([_in(weights[name], dtype) for name in values])
        labels = [*names, *(n for n in result_names(self.form)[1:] if inputs.state is not None)]
        return values, dict(zip(labels, (np.asarray(unwrap(x)) for x in pulled), strict=True))


class Port:
    """A port, called with the inputs of a form."""

    watch: ClassVar[Watch | None] = None  # of every port of this process

    def __init__(
        self,
        function: Callable[..., Any],
        signature: Signature,
        framework: Framework,
        backward: Callable[..., Any] | None = None,
    ):
        self.function, self.signature, self.framework, self.backward = function, signature, framework, backward
        self.form, self.file = signature.form, file_of(function)
        self._functions: dict[Any, Function] = {}
        self.axes = dict(zip(result_names(self.form), [y_axes(self.form), *state_axes(self.form.state)], strict=True))

    @property
    def differentiates(self) -> bool:
        return self.backward is not None or self.framework.differentiates

    def convert(self, inputs: Inputs, precision: str) -> tuple[list[str], list[Any]]:
        """Return the names and the arrays that the port is differentiated by, those of the state last."""
        names = [name for name, _ in self.signature.arguments if name in inputs.arrays]
        arrays = [self.signature.to_port(self.form.axes[name], inputs.arrays[name]) for name in names]
        if inputs.state is not None and self.signature.takes("state"):
            for name, x in zip(result_names(self.form)[1:], leaves(inputs.state), strict=True):
                names.append(name)
                arrays.append(self.signature.to_port(self.axes[name], x, state=True))
        return names, [self.framework.array(x, precision) for x in arrays]

    def arguments(self, inputs: Inputs, arrays: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return what the port is called with, by place and by name."""
        queue, count = list(arrays), len(inputs.arrays)
        state = None if inputs.state is None else rebuild(inputs.state, queue[count:])
        named = dict(zip([n for n, _ in self.signature.arguments if n in inputs.arrays], queue, strict=False))
        named |= {"state": state, CHUNK: inputs.chunk}
        args = [named[name] for name, keyword in self.signature.arguments if not keyword]
        return args, {keyword: named[name] for name, keyword in self.signature.arguments if keyword}

    def call(self, inputs: Inputs, arrays: Sequence[Any]) -> dict[str, Any]:
        """Return the port's results by name, in its own arrays and layout. Raises ValueError where they are others."""
        args, keywords = self.arguments(inputs, arrays)
        return self.named(self.function(*args, **keywords))

    def results(self, inputs: Inputs) -> Function:
        """Return the results as a function of the arrays: the same for all inputs that differ in their arrays alone."""
        structure = rebuild(inputs.state, ["array"] * len(leaves(inputs.state)))
        return self._functions.setdefault(
            (structure, inputs.chunk), lambda arrays: list(self.call(inputs, arrays).values())
        )

    def named(self, returned: Any) -> dict[str, Any]:
        """Return what the port returned, by name."""
        parts = list(returned) if isinstance(returned, (tuple, list)) else [returned]
        names = self.signature.returns or ("y", "state")[: len(parts)]
        if len(parts) != len(names):
            came = f"{len(parts)} result{'s' * (len(parts) != 1)}"
            raise ValueError(f"{came} came, expected {', '.join(names)} (declare others by --returns)")
        found = dict(zip(names, parts, strict=True))
        states, expected = leaves(found.get("state")), result_names(self.form)[1:]
        if states and len(states) != len(expected):
            raise ValueError(f"the state has {len(states)} arrays, expected {len(expected)}")
        results = {"y": found["y"], **dict(zip(expected, states, strict=False))}
        for name, x in results.items():
            if not self.framework.is_array(x):
                raise ValueError(f"{name} is of type {type(x).__name__}, expected an array of {self.framework.name}")
        return results

    def run(self, inputs: Inputs, precision: str, *, gradients: bool) -> Outcome:
        """Run the port, and its gradients, on new arrays. What it raises is a failure of the outcome."""
        with self.framework.context:
            names, arrays = self.convert(inputs, precision)
        return self.run_on(inputs, names, arrays, precision, gradients=gradients)

    def run_on(
        self, inputs: Inputs, names: list[str], arrays: list[Any], precision: str, *, gradients: bool
    ) -> Outcome:
        """Run the port on the arrays that `convert` made of these inputs."""
        if self.watch is None:
            return self._run(inputs, names, arrays, precision, gradients=gradients)
        outcome = self.watch.before(inputs, precision, gradients=gradients)
        if outcome is None:
            outcome = self._run(inputs, names, arrays, precision, gradients=gradients)
            self.watch.after(outcome)
        return outcome

    def _run(self, inputs: Inputs, names: list[str], arrays: list[Any], precision: str, *, gradients: bool) -> Outcome:
        outcome = Outcome()
        with self.framework.context, np.errstate(all="ignore"):
            before = [self.framework.numpy(x).copy() for x in arrays]
            try:
                outcome.results = self.call(inputs, arrays)
                for name, x in outcome.results.items():
                    outcome.values[name] = self.framework.numpy(x)
                    if self.framework.precision_of(x) != precision:
                        message = f"has dtype {x.dtype} for arguments of {precision}"
                        outcome.failures[name] = message
            except (Exception, SystemExit) as error:  # the port's own code
                outcome.failures[""] = described(error, self.file)
                return outcome
            for name, x, old in zip(names, arrays, before, strict=True):
                if not np.array_equal(self.framework.numpy(x), old, equal_nan=True):
                    outcome.failures[""] = f"the port changes its argument {name} in place"
            if gradients and self.differentiates:
                self._differentiate(inputs, names, arrays, precision, outcome)
        return outcome

    def _differentiate(
        self, inputs: Inputs, names: list[str], arrays: list[Any], precision: str, outcome: Outcome
    ) -> None:
        weights = cotangents({n: self.from_port(n, x) for n, x in outcome.values.items() if x.ndim == self.rank(n, x)})
        if len(weights) < len(outcome.values):
            return  # the ranks of results are wrong, which is a failure already
        sent = [self.signature.to_port(self.axes[n], w, state=n != "y") for n, w in weights.items()]
        try:
            if self.backward is not None:
                args, keywords = self.arguments(inputs, arrays)
                given = self.backward(*args, *(self.framework.array(c, precision) for c in sent), **keywords)
                pulled = list(given) if isinstance(given, (tuple, list)) else [given]
                if inputs.state is None and len(pulled) == len(arrays) + len(result_names(self.form)) - 1:
                    pulled = pulled[: len(arrays)]  # without those of a state that was not given
                if len(pulled) != len(arrays):
                    raise ValueError(f"backward returned {len(pulled)} gradients, expected {', '.join(names)}")
            else:
                pulled = self.framework.gradients(self.results(inputs), arrays, sent, precision)
            for name, argument, x in zip(names, arrays, pulled, strict=True):
                outcome.gradients[name] = (
                    self.framework.numpy(x) if x is not None else np.zeros_like(self.framework.numpy(argument))
                )
        except (Exception, SystemExit) as error:  # the port's own code; a lazy library raises late
            outcome.failures["gradient"] = described(error, self.file)

    def rank(self, name: str, x: np.ndarray) -> int:
        """Return the number of axes that a result should have; a batch without a layout has any."""
        axes = self.axes[name]
        features = len(axes.replace("*batch", "").split())
        if "*batch" not in axes:
            return features
        return features + len(self.signature.batch_letters) if self.signature.layout else max(x.ndim, features)

    def from_port(self, name: str, x: np.ndarray) -> np.ndarray:
        """Return a result with the axes of the form."""
        return self.signature.from_port(self.axes[name], x, state=name != "y")


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

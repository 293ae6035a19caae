"""Run a port on the inputs of its form: results, and gradients by its own framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from proofs.port.cases import Inputs
from proofs.port.frameworks import Framework, Function
from proofs.port.locating import described, file_of
from proofs.port.reference import Arrays, cotangents, leaves, rebuild, result_names
from proofs.port.signature import CHUNK, Signature, state_axes, y_axes

NOT_RUN = "not run"  # the failure of a run that was not made


@dataclass
class Outcome:
    """Results and gradients of a port, with the axes of the form, and messages of failures by result."""

    values: Arrays = field(default_factory=dict)
    gradients: Arrays = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # by result, "gradient", "output"; "" for the call itself
    weights: Arrays | None = None  # the cotangents of the gradients, where they are others than `cotangents`
    results: dict[str, Any] = field(default_factory=dict)  # the port's own arrays


class Watch(Protocol):
    """A wrapper around each run of a port, such as the one that records runs for another process."""

    def before(self, inputs: Inputs, precision: str, *, gradients: bool) -> Outcome | None:
        """Return an outcome instead of a run; None where the port is to run."""

    def after(self, outcome: Outcome) -> None:
        """Take note of a run that has returned, and enter what it did besides."""


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
        self.state: Any = None  # as the latest call returned it
        self.intermediates: Mapping[str, Any] | None = None  # of chunks, of the latest call
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
        """Return what the port returned, by name, without the dict of intermediates, which may come last."""
        parts = list(returned) if isinstance(returned, (tuple, list)) else [returned]
        self.intermediates = parts.pop() if len(parts) > 1 and isinstance(parts[-1], Mapping) else None
        names = self.signature.returns or ("y", "state")[: len(parts)]
        if len(parts) != len(names):
            came = f"{len(parts)} result{'s' * (len(parts) != 1)}"
            raise ValueError(f"{came} came, expected {', '.join(names)} (declare others by --returns)")
        found = dict(zip(names, parts, strict=True))
        self.state = found.get("state")
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

        def run() -> Outcome:
            return self._run(inputs, names, arrays, precision, gradients=gradients)

        return self.watched(inputs, precision, run, gradients=gradients)

    def watched(self, inputs: Inputs, precision: str, run: Callable[[], Outcome], *, gradients: bool) -> Outcome:
        """Return the outcome of a run, or what `watch` says instead."""
        if self.watch is None:
            return run()
        outcome = self.watch.before(inputs, precision, gradients=gradients)
        if outcome is None:
            outcome = run()
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
        values = {n: self.from_port(n, x) for n, x in outcome.values.items() if x.ndim == self.rank(n, x)}
        weights = cotangents(values) if outcome.weights is None else outcome.weights
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

    def pull(self, inputs: Inputs, precision: str, weights: Arrays) -> Arrays:
        """Return the gradients of Re Σ c r for these cotangents c of results r, which have the axes of the form.

        Raises ValueError where the port does.
        """

        def differentiate() -> Outcome:
            outcome = Outcome(weights=weights)
            with self.framework.context, np.errstate(all="ignore"):
                self._differentiate(inputs, *self.convert(inputs, precision), precision, outcome)
            return outcome

        outcome = self.watched(inputs, precision, differentiate, gradients=True)
        if message := outcome.failures.get("gradient") or outcome.failures.get(""):
            raise ValueError(message)
        return outcome.gradients

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

"""A port as the function of its form: called with the form's arguments, arrays or Tensors, whose gradients are its own.

On numbers that bound rounding errors the form itself runs, with `ROUNDINGS` times as many roundings, since a port may
compute in another way, and `CONVERSION` of each argument, which is scaled for the port and back.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.engine import unwrap
from models.forms import FormFunction
from proofs.checker.evaluate import elementwise
from proofs.checker.forms import Form
from proofs.checker.nested import nested_argument, state_class
from proofs.checker.rounding import Rounded
from proofs.port.cases import Inputs
from proofs.port.frameworks import COMPLEX
from proofs.port.reference import leaves, rebuild, result_names
from proofs.port.running import Port
from proofs.port.substitution import ABSENT, Unsuitable, form_function

ROUNDINGS = 8
CONVERSION = 3


def stand_in(port: Port, chunk: int) -> FormFunction:
    """Return a port as the function of its form; `chunk` is the size of its mini-batches, where it takes none.

    Its attribute `calls` counts the calls of the port.
    """
    form, function = port.form, form_function(port.form)
    returns_state: list[bool] = []  # known when floats have been computed

    @functools.wraps(port.form.function)
    def call(*args: Any, **kwargs: Any) -> Any:
        tokens, state, options = _bound(form, function, args, kwargs)
        arrays = [*tokens.values(), *leaves(state)]
        if any(unwrap(x).dtype == object for x in arrays):
            if not any(isinstance(r, Rounded) for x in arrays for r in np.ravel(unwrap(x))):
                raise Unsuitable("it calls the form on numbers of its own")
            y, after = _with_more_roundings(form, tokens, state, options)
            return y, after if returns_state == [True] else ABSENT
        inputs = _Call(port, tokens, state, _chunk(port, options, chunk))
        vars(call)["calls"] += 1
        results = mg.fused(inputs.forward, inputs.backward, inputs.reference)(*arrays)
        y, *after = results
        returns_state[:] = [bool(after)]
        return y, _state(form, inputs.after, after) if after else ABSENT

    vars(call)["calls"] = 0
    return typing.cast(FormFunction, call)


def _bound(
    form: Form, function: FormFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], Any, dict[str, int]]:
    """Return the arrays of a call by the names of the form, the initial state, and the size of chunks, if given."""
    parameters = inspect.signature(function).parameters
    given = {**dict(zip(parameters, args, strict=False)), **kwargs}
    state = given.pop("state", None)
    if state is ABSENT:
        raise Unsuitable("the port returns no state")
    options: dict[str, int] = {name: given.pop(name) for name in ("chunk_size", "batch_size") if name in given}
    if form.layout is not None and (model := given.pop(nested_argument(function) or "", None)) is not None:
        layers, norm = getattr(model, "layers", model), getattr(model, "norm", None) or given.pop("norm", None)
        names = [name for name in form.axes if "." in name]
        arrays = [x for layer in layers for x in layer] + [*(norm or ())]
        if len(arrays) != len(names) or [*map(len, layers)] != [*map(len, form.layout.layers)]:
            raise Unsuitable("its inner model is another than the port's")
        given |= zip(names, arrays, strict=True)
    for name in [name for name in given if name not in form.axes]:
        if given.pop(name) is not parameters[name].default:
            raise Unsuitable(f"it passes {name}, which a port is not given")
    tokens = {name: given[name] for name in form.axes}
    batch = form.batch(tokens)
    for name, axes in form.axes.items():
        features = axes.replace("*batch", "").split()
        if tokens[name].ndim != len(features) + (len(batch) if "*batch" in axes else 0):
            raise Unsuitable(f"its {name} has other axes than the port's")
    return tokens, state, options


def _chunk(port: Port, options: Mapping[str, int], own: int) -> int:
    if port.signature.takes("chunk_size"):
        return next(iter(options.values()), own)
    if options.get("batch_size", own) != own:
        raise Unsuitable("its mini-batches have another size than the port's")
    return own


class _Call:
    """A call of a port with the arguments of its form, on NumPy arrays."""

    def __init__(self, port: Port, tokens: Mapping[str, Any], state: Any, chunk: int):
        if state is not None and not port.signature.takes("state"):
            raise Unsuitable("the port takes no state")
        self.port, self.state, self.chunk = port, state, chunk
        self.names = [*tokens, *(result_names(port.form)[1:] if state is not None else [])]
        first = tokens[next(iter(tokens))]
        self.batch = port.form.batch(tokens)
        self.scale = port.signature.scale_of(first.shape[-1])
        self.scaled = next(iter(tokens))
        self.inner: tuple[int, ...] = self.batch  # the batch axes that the port has
        if port.signature.layout is not None:
            letters = len(port.signature.batch_letters)
            surplus = max(len(self.batch) - letters, 0)
            joined = (int(np.prod(self.batch[: surplus + 1])), *self.batch[surplus + 1 :]) if surplus else self.batch
            self.inner = (*(1,) * (letters - len(joined)), *joined)
        self.after: Any = None  # the state as the port returned it

    def forward(self, *arrays: np.ndarray) -> tuple[tuple[np.ndarray, ...], Any]:
        """Return y and the arrays of the state, and the inputs of the port."""
        precision = self.port.framework.precision_of(arrays[0])
        inputs = self._inputs(arrays)
        outcome = self.port.run(inputs, precision, gradients=False)
        for name, message in outcome.failures.items():
            if name != "output":
                raise ValueError(f"{name}: {message}" if name else message)
        self.after = self.port.state
        results = [self._result(name, x) for name, x in outcome.values.items()]
        return tuple(x.astype(self._dtype(x, precision)) for x in results), (inputs, precision)

    def backward(self, saved: Any, cotangents: Any) -> list[np.ndarray]:
        """Return the port's gradients, for the arguments of the form."""
        inputs, precision = saved
        if not self.port.differentiates:
            raise Unsuitable("it differentiates the port, which has no gradients")
        weights = {
            name: self._reshaped(name, np.asarray(unwrap(c)), self.inner)
            for name, c in zip(result_names(self.port.form), cotangents, strict=False)
        }
        pulled = self.port.pull(inputs, precision, weights)
        gradients = []
        for name in self.names:
            g = self._reshaped(name, self._from_port(name, pulled[name]), self.batch)
            if name == self.scaled:
                g = g / self.scale
            if self.port.signature.factors and name in inputs.arrays and self.port.form.tokens[name].logarithm:
                g = g * self._reshaped(name, inputs.arrays[name], self.batch)
            gradients.append(g.astype(self._dtype(g, precision)))
        return gradients

    def reference(self, *arrays: Any) -> Any:
        raise Unsuitable("it takes second derivatives")

    def _inputs(self, arrays: tuple[np.ndarray, ...]) -> Inputs:
        converted = {}
        for name, x in zip(self.names, arrays, strict=True):
            x = self._reshaped(name, x.astype(np.complex128 if x.dtype.kind == "c" else np.float64), self.inner)
            if name == self.scaled:
                x = x / self.scale
            strategy = self.port.form.tokens.get(name)
            if self.port.signature.factors and strategy is not None and strategy.logarithm:
                x = np.exp(x)
            converted[name] = x
        tokens = {name: x for name, x in converted.items() if name in self.port.form.axes}
        state = None if self.state is None else rebuild(self.state, list(converted.values())[len(tokens) :])
        return Inputs(tokens, state, self.chunk)

    def _axes(self, name: str) -> str:
        return self.port.form.axes[name] if name in self.port.form.axes else self.port.axes[name]

    def _reshaped(self, name: str, x: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
        """Return an array with other batch axes."""
        axes = self._axes(name)
        features = len(axes.replace("*batch", "").split())
        return x.reshape(*batch, *x.shape[x.ndim - features :]) if "*batch" in axes else x

    def _from_port(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.port.signature.from_port(self._axes(name), x, state=name not in self.port.form.axes and name != "y")

    def _result(self, name: str, x: np.ndarray) -> np.ndarray:
        features = len(self._axes(name).replace("*batch", "").split())
        if x.ndim != features + len(self.inner):
            raise ValueError(f"{name} has shape {x.shape}, expected {features + len(self.inner)} axes")
        return self._reshaped(name, self._from_port(name, x), self.batch)

    @staticmethod
    def _dtype(x: np.ndarray, precision: str) -> str:
        return COMPLEX[precision] if x.dtype.kind == "c" else precision


# Bounds on roundings


def _with_more_roundings(form: Form, tokens: Mapping[str, Any], state: Any, options: Mapping[str, int]) -> Any:
    """Return the results of the form where they bound errors: of arguments that are rounded, and of a port."""
    arrays = [CONVERTED(x) for x in (*tokens.values(), *leaves(state))]
    state = None if state is None else rebuild(state, arrays[len(tokens) :])
    function = form.reference if form.compiled else form.function
    y, after = function(**dict(zip(tokens, arrays, strict=False)), state=state, **options)
    return COMPUTED(y), _state(form, after, [COMPUTED(x) for x in leaves(after)])


def _state(form: Form, state: Any, arrays: list[Any]) -> Any:
    """Return a state of these arrays, in the class that the form returns."""
    state = rebuild(state, arrays)
    return state if form.layout is None else state_class(form_function(form))(*state)


def _converted(x: Any) -> Any:
    """Return the numbers of an argument with the roundings of its conversion."""

    def more(r: Any) -> Any:
        if not isinstance(r, Rounded) or r.exactly_zero:
            return r
        return Rounded(r.value, r.magnitude, r.roundings + CONVERSION, 1, r.underflow + CONVERSION)

    return elementwise(more)(x)


def _computed(x: Any) -> Any:
    """Return numbers with `ROUNDINGS` times as many, and as many roundings of the largest of the array.

    What the form computes exactly a port may not, as where it pivots rows.
    """
    sizes = [r.magnitude for r in np.ravel(x) if isinstance(r, Rounded) and r.magnitude < np.inf]
    largest = max(sizes, default=0.0)

    def more(r: Any) -> Any:
        if not isinstance(r, Rounded):
            return r
        n = max(r.roundings, 1)
        return Rounded(r.value, r.magnitude + largest / n, ROUNDINGS * n, 1, ROUNDINGS * r.underflow)

    return elementwise(more)(x)


# Functions of arrays and Tensors: results are those of a port, and so are the gradients of arguments.
CONVERTED = mg.fused(lambda x: (_converted(x), None), lambda _, g: [_computed(unwrap(g))], lambda x: x)
COMPUTED = mg.fused(lambda x: (_computed(x), None), lambda _, g: [_converted(unwrap(g))], lambda x: x)

"""The forms of all mechanisms behind one interface, for statements that hold for every mechanism."""

from __future__ import annotations

import inspect
import itertools
import types
import typing
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import namespace
from minigrad.engine import unwrap
from models.forms import mechanisms
from proofs.checker.nested import CASES
from proofs.checker.statements import CUPY, EXACT, FLOATS, Instance
from proofs.checker.strategies import (
    BETAS,
    LARGE,
    POSITIVE,
    RATES,
    SMALL,
    Drawn,
    Fill,
    Maybe,
    gates,
    pairs,
    repeating,
    stable,
)

Tokens = Mapping[str, Any]  # the arguments of a form by name: q, k, v and its gates, or u, delta, A, B, C, D

# Mechanisms whose outputs are not rational in their inputs, or whose inputs are complex.
TRANSCENDENTAL = ("softmax", "rnn", "s4", "s4d", "selective_scan", "ssd")

# JAX compiles every operation of an inner gradient for every shape; these forms meet it in tests/parity instead.
WITHOUT_JAX = (*EXACT, *FLOATS, "exact gradient", "exact second gradient", "torch", *CUPY)

FILLS: dict[str, Fill] = {
    "k": repeating(SMALL),
    "beta": BETAS,
    "eta": BETAS,
    "theta": BETAS,
    "log_eta": gates,
    "log_decay": gates,
    "delta": POSITIVE,
    "A": RATES,
    "lti.A": SMALL,
    "lssl.A": stable,
    "B": SMALL,
    "W": SMALL,
    "Lambda": pairs(RATES, LARGE),
}  # and LARGE for the others


WORK = {"quadratic": "T²", "parallel": "T²", "direct": "T²", "associative": "T log T", "convolution": "FFT"}


@dataclass(frozen=True)
class Form:
    """One form of a mechanism, called alike whatever its mechanism."""

    name: str
    function: Callable[..., Any]
    axes: Mapping[str, str]  # of each argument: {"q": "*batch T K", …}
    tokens: Mapping[str, Drawn]  # how each argument is drawn
    state: Any  # how a start state is drawn
    reference: Callable[..., Any]  # what a compiled form compiles: the convolution if there is one, or the first form
    rational: bool = True  # whether its outputs are rational in its inputs

    def __call__(self, tokens: Tokens, state: Any = None, chunk_size: int = 64) -> Any:
        """Return (y, state). A form without chunks ignores `chunk_size`; as the size of a mini-batch, all obey it.

        A compiled form knows floats only. What bounds its rounding error is the form it compiles, on `Rounded` numbers:
        it does the same operations, in another order.
        """
        exact_numbers = any(unwrap(x).dtype == object for x in tokens.values())
        function = self.reference if self.compiled and exact_numbers else self.function
        known = inspect.signature(function).parameters
        options = {name: chunk_size for name in ("chunk_size", "batch_size") if name in known}
        return function(**tokens, state=state, **options)

    @property
    def drawn(self) -> dict[str, Any]:
        """Return how the tokens and the initial state are drawn."""
        return {"tokens": self.tokens, "state": Maybe(self.state)}

    @property
    def exact(self) -> bool:
        return self.rational and self.name.partition(".")[0] not in TRANSCENDENTAL and not self.compiled

    @property
    def compiled(self) -> bool:
        return getattr(self.function, "compiled")  # noqa: B009 - which `models.forms.form` has set

    @property
    def work(self) -> str:
        """Return the claimed growth of the number of operations with the length."""
        return WORK.get(self.name.split(".")[1], "T")

    @property
    def state_grows(self) -> bool:
        return self.name.startswith("softmax.")

    @property
    def small_workspace(self) -> bool:
        """Return whether its workspace is small beside 1000 tokens of output, as that of an inner gradient is not."""
        return self.name.partition(".")[0] not in ("ttt", "titans")

    def slice_time(self, tokens: Tokens, start: int | None, stop: int | None) -> dict[str, Any]:
        """Return the tokens at times start ≤ t < stop."""
        span = slice(start, stop)

        def cut(x: Any, axis: int | None) -> Any:
            return x if axis is None else x[..., span] if axis == -1 else x[..., span, :]

        return {name: cut(x, self.time(name)) for name, x in tokens.items()}

    def concatenate(self, before: Tokens, after: Tokens) -> dict[str, Any]:
        """Concatenate along time; arguments without a time axis are those of `before`."""
        xp = namespace(*before.values(), *after.values())

        def join(name: str, axis: int | None) -> Any:
            return before[name] if axis is None else xp.concat([before[name], after[name]], axis=axis)

        return {name: join(name, self.time(name)) for name in before}

    def time(self, name: str) -> int | None:
        """Return the time axis of an argument, negative; None where there is none, as for A of a state space."""
        axes = self.axes[name].split()
        return axes.index("T") - len(axes) if "T" in axes else None

    def batch(self, tokens: Tokens) -> tuple[int, ...]:
        """Return the shape of the batch axes."""
        name, axes = next(iter(self.axes.items()))
        return tokens[name].shape[: tokens[name].ndim - len(axes.split()) + 1]

    def select_sequence(self, tokens: Tokens, i: int) -> Tokens:
        """Select index i of the first batch axis."""
        return {name: x[i] if self.axes[name].startswith("*batch") else x for name, x in tokens.items()}

    def sample(self, length: int) -> dict[str, np.ndarray]:
        """Draw one random sequence with two features for each token."""
        rng = np.random.default_rng(0)
        shapes = {
            name: [{"T": length, "1": 1}.get(axis, 2) for axis in axes.split() if axis != "*batch"]
            for name, axes in self.axes.items()
        }

        def numbers(name: str) -> np.ndarray:
            sign = -1 if name in ("A", "Lambda", "log_decay", "log_eta") else 1
            real = rng.uniform(0.1, 0.5, shapes[name])
            if self.axes[name] == "N N":
                real = real + np.eye(len(real))  # far enough from 0 to be stable with its sign turned
            return sign * (real + 1j * rng.uniform(0.1, 0.5, real.shape) if self.tokens[name].complex else real)

        return {name: numbers(name) for name in shapes}


def select_state(state: Any, i: int) -> Any:
    """Select index i of the first batch axis of a state."""
    if isinstance(state, tuple):
        return tuple(select_state(x, i) for x in state)
    return state if state is None or isinstance(state, int) else state[i]


def stack_results(results: list[Any]) -> Any:
    """Stack results, arrays or nested tuples of them, along a new first axis."""
    if isinstance(results[0], tuple):
        return tuple(stack_results(list(parts)) for parts in zip(*results, strict=True))
    if isinstance(results[0], int):  # a count, the same for all
        return results[0]
    return namespace(*results).stack(results, axis=0)


def forms() -> Iterator[Form]:
    """Yield every registered form; an argument with several allowed shapes yields a form for each."""
    for mechanism, functions in mechanisms().items():
        reference = functions.get("convolution", next(iter(functions.values())))
        if mechanism in CASES:
            yield from _nested(mechanism, functions, reference)
            continue
        for label, function in functions.items():
            for variant, taken in _variants(function):
                name = ".".join([mechanism.rpartition(".")[2], label, *([variant] if variant else [])])
                tokens = {x: _drawn(x, annotation, mechanism) for x, annotation in taken.items()}
                axes = {x: drawn.axes for x, drawn in tokens.items()}
                yield Form(name, function, axes, tokens, _state(function), reference)


def _nested(
    mechanism: str, functions: Mapping[str, Callable[..., Any]], reference: Callable[..., Any]
) -> Iterator[Form]:
    """Yield the forms of a mechanism whose weights are several arrays, once for each layout."""
    for label, function in functions.items():
        for case in CASES[mechanism]:
            ((_, taken),) = _variants(function, {case.argument})
            tokens = {x: _drawn(x, annotation, mechanism) for x, annotation in taken.items()}
            tokens |= case.tokens()
            axes = {x: drawn.axes for x, drawn in tokens.items()}
            name = f"{mechanism.rpartition('.')[2]}.{label}.{case.label}"
            yield Form(name, case.adapt(function), axes, tokens, case.start(), case.adapt(reference), case.rational)


def each_form(
    *twice: str,
    work: str = "",
    state_grows: bool | None = None,
    compiled: bool | None = None,
    small_workspace: bool = False,
) -> list[Instance]:
    """Return an instance for each form: `form`, drawn `tokens` and `state`, and more tokens named as in `twice`.

    `work` selects forms by the growth of their operations, `state_grows` by whether the state grows with the length,
    `compiled` by whether they are kernels; `small_workspace=True` omits forms with a large workspace.
    """
    return [
        _instance(form, {"form": form}, form.drawn | dict.fromkeys(twice, form.drawn["tokens"]))
        for form in forms()
        if work in ("", form.work)
        and state_grows in (None, form.state_grows)
        and compiled in (None, form.compiled)
        and small_workspace <= form.small_workspace
    ]


def each_pair() -> list[Instance]:
    """Return an instance for each form but the first of its mechanism: `form`, and the first as `plainest`."""
    first: dict[tuple[str, ...], Form] = {}
    pairs = []
    for form in forms():
        mechanism = (form.name.split(".")[0], *form.axes.values())
        plainest = first.setdefault(mechanism, form)
        if form is not plainest:
            pairs.append(_instance(form, {"form": form, "plainest": plainest}, form.drawn))
    return pairs


def _instance(form: Form, given: Mapping[str, Any], drawn: Mapping[str, Any]) -> Instance:
    only = (*FLOATS, *CUPY) if form.compiled else () if form.small_workspace else WITHOUT_JAX
    return Instance(form.name, given, drawn, form.exact, only)


def _drawn(name: str, annotation: Any, mechanism: str = "") -> Drawn:
    """Return how an argument with this annotation is drawn."""
    fill = FILLS.get(f"{mechanism.rpartition('.')[2]}.{name}") or FILLS.get(name, LARGE)
    is_complex = "float64" not in annotation.dtypes
    return Drawn(
        annotation.dim_str.replace("...", ""),
        pairs(fill, fill) if is_complex and name != "Lambda" else fill,
        logarithm=name.startswith("log_"),
        complex=is_complex,
        degree=2 if fill is stable else 1,
    )


def _members(annotation: Any) -> list[Any]:
    """Return the alternatives of a union, without None."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return [a for a in (typing.get_args(annotation) if union else (annotation,)) if a is not types.NoneType]


def _variants(function: Callable[..., Any], omit: Container[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the annotations of the arguments not in `omit`, once for each combination of allowed shapes."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in omit]
    positional = {p.name: _members(p.annotation) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    for chosen in itertools.product(*positional.values()):
        several = [(name, a) for name, a in zip(positional, chosen, strict=True) if len(positional[name]) > 1]
        label = ", ".join(f"{name} {a.dim_str.removeprefix('*batch ')}" for name, a in several)
        yield label, dict(zip(positional, chosen, strict=True))


def _state(function: Callable[..., Any]) -> Any:
    """Return how an initial state is drawn: an array, or a tuple of them."""
    (annotation,) = _members(inspect.signature(function).parameters["state"].annotation)
    if typing.get_origin(annotation) is tuple:
        return tuple(_drawn("state", item) for item in typing.get_args(annotation))
    return _drawn("state", annotation)

"""The forms of all mechanisms behind one interface, for statements that hold for every mechanism."""

from __future__ import annotations

import inspect
import itertools
import typing
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minigrad import namespace
from minigrad.engine import unwrap
from models.forms import FormFunction, Memory, Work, axis_factor, declarations, mechanisms
from models.mechanism import Domain, Layout, Mechanism
from proofs.checker.nested import members, nested_argument, sizes, state_of, taking_arrays, weight_axes
from proofs.checker.statements import CUPY, EXACT, FLOATS, Instance
from proofs.checker.strategies import STRATEGY_OF, Maybe, Strategy, pairs

Tokens = Mapping[str, Any]  # the arguments of a form by name: q, k, v and its gates, or u, delta, A, B, C, D

# JAX compiles every operation of an inner gradient for every shape; these forms meet it in tests/parity instead.
WITHOUT_JAX = (*EXACT, *FLOATS, "exact gradient", "exact second gradient", "torch", *CUPY)

BELOW_ZERO = (Domain.NEGATIVE, Domain.LOG_GATE, Domain.LEFT_HALF_PLANE, Domain.STABLE)


@dataclass(frozen=True)
class Form:
    """One form of a mechanism, called alike whatever its mechanism."""

    name: str
    function: FormFunction
    mechanism: Mechanism  # the declaration
    domains: Mapping[str, Domain]  # of each argument
    tokens: Mapping[str, Strategy]  # how each argument is drawn
    state: Any  # how an initial state is drawn
    reference: FormFunction  # for a compiled form, the first of its mechanism that is not and does as much work
    layout: Layout | None = None  # of its weights, where they are several arrays

    def __call__(self, tokens: Tokens, state: Any = None, chunk_size: int = 64) -> Any:
        """Return (y, state). A form without chunks ignores `chunk_size`; as the size of a mini-batch, all obey it.

        A compiled form knows floats only. What bounds its rounding error is the form it compiles, on `Rounded` numbers:
        it does the same operations, in another order.
        """
        exact_numbers = any(unwrap(x).dtype == object for x in tokens.values())
        function = self.reference if self.compiled and exact_numbers else self.function
        parameters = inspect.signature(function).parameters
        options = {name: chunk_size for name in ("chunk_size", "batch_size") if name in parameters}
        return function(**tokens, state=state, **options)

    @property
    def strategies(self) -> dict[str, Any]:
        """Return how the tokens and the initial state are drawn."""
        return {"tokens": self.tokens, "state": Maybe(self.state)}

    @property
    def axes(self) -> dict[str, str]:
        """Return the axes of each argument: {"q": "*batch T K", …}."""
        return {name: strategy.axes for name, strategy in self.tokens.items()}

    @property
    def exact(self) -> bool:
        """Return whether its outputs are rational in its inputs, and it takes exact numbers."""
        rational = self.mechanism.rational and (self.layout is None or self.layout.rational)
        return rational and not self.compiled

    @property
    def compiled(self) -> bool:
        return self.function.compiled

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

        def size(axis: str) -> int:
            factor, base = axis_factor(axis)
            return factor * {"T": length, "1": 1}.get(base, 2)

        shapes = {name: [size(axis) for axis in axes.split() if axis != "*batch"] for name, axes in self.axes.items()}

        def numbers(name: str) -> np.ndarray:
            sign = -1 if self.domains[name] in BELOW_ZERO else 1
            real = rng.uniform(0.1, 0.5, shapes[name])
            if self.domains[name] is Domain.STABLE:
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
    if not hasattr(results[0], "dtype"):  # a count, the same for all
        return results[0]
    return namespace(*results).stack(results, axis=0)


def forms() -> Iterator[Form]:
    """Yield every form of every mechanism, once for each combination of allowed shapes and each layout of its weights.

    Raises TypeError, naming mechanism and argument, where a declaration does not have the arguments of the forms.
    """
    declared = declarations()
    for name, functions in mechanisms().items():
        _check_arguments(name, declared[name], functions)
        for function in functions.values():
            yield from _forms_of(name, declared[name], function, _reference(function, functions))


def _check_arguments(name: str, mechanism: Mechanism, functions: Mapping[str, FormFunction]) -> None:
    """Raise TypeError where the declared arguments are not those of the forms."""
    accepted = {x: function for function in functions.values() for x in _positional(function)}
    if missing := [x for x in accepted if x not in mechanism.arguments]:
        raise TypeError(f"{name}: MECHANISM.arguments lacks {missing[0]}, expected its models.mechanism.Domain")
    if unknown := [x for x in mechanism.arguments if x not in accepted]:
        raise TypeError(f"{name}: MECHANISM.arguments has {unknown[0]}, which is no argument of a form")
    if not mechanism.layouts and (nested := [x for f in functions.values() if (x := nested_argument(f))]):
        raise TypeError(f"{name}: MECHANISM.layouts is empty, expected those of {nested[0]}, which is no array")


def _reference(function: FormFunction, functions: Mapping[str, FormFunction]) -> FormFunction:
    """Return the first form that is not compiled and does as much work as this one."""
    not_compiled = [f for f in functions.values() if not f.compiled]
    return next((f for f in not_compiled if f.work == function.work), not_compiled[0])


def _forms_of(name: str, mechanism: Mechanism, function: FormFunction, reference: FormFunction) -> Iterator[Form]:
    """Yield a form for each combination of allowed shapes and each layout of the weights."""
    weights = nested_argument(function)
    for variant, parameter_types in _variants(function, omit=(weights,)):
        label = ".".join(filter(None, (name.rpartition(".")[2], function.__name__, variant)))
        domains = {x: mechanism.arguments[x] for x in parameter_types}
        tokens = {x: _strategy(domains[x], annotation) for x, annotation in parameter_types.items()}
        form = Form(label, function, mechanism, domains, tokens, None, reference)
        if weights is None:
            yield replace(form, state=_state(function, mechanism.state))
        else:
            yield from (_with_layout(form, weights, x, layout) for x, layout in mechanism.layouts.items())


def _with_layout(form: Form, weights: str, label: str, layout: Layout) -> Form:
    """Return the form with the arrays of its weights as further arguments."""
    domain, state = form.mechanism.arguments[weights], STRATEGY_OF[form.mechanism.state]
    strategy = replace(STRATEGY_OF[domain], sizes=sizes(layout))
    arrays = {x: replace(strategy, axes=axes) for x, axes in weight_axes(weights, layout).items()}
    return replace(
        form,
        name=f"{form.name}.{label}",
        function=taking_arrays(form.function, weights, layout),
        domains={**form.domains, **dict.fromkeys(arrays, domain)},
        tokens={**form.tokens, **arrays},
        state=state_of(form.function, layout, lambda axes: replace(state, axes=axes)),
        reference=taking_arrays(form.reference, weights, layout),
        layout=layout,
    )


def each_form(
    *twice: str,
    work: Work | None = None,
    memory: Memory | None = None,
    state_grows: bool | None = None,
    compiled: bool | None = None,
    large_workspace: bool | None = None,
) -> list[Instance]:
    """Return an instance for each form: `form`, drawn `tokens` and `state`, and more tokens named as in `twice`.

    `work` and `memory` select forms by the growth of their operations and of their memory, `compiled` by whether they
    are kernels; `state_grows` and `large_workspace` select mechanisms by what they declare.
    """
    return [
        _instance(form, {"form": form}, form.strategies | dict.fromkeys(twice, form.strategies["tokens"]))
        for form in forms()
        if work in (None, form.function.work)
        and memory in (None, form.function.memory)
        and compiled in (None, form.compiled)
        and state_grows in (None, form.mechanism.state_grows)
        and large_workspace in (None, form.mechanism.large_workspace)
    ]


def each_pair() -> list[Instance]:
    """Return an instance for each form but the first of its mechanism: `form`, and the first as `plainest`."""
    first: dict[tuple[str, ...], Form] = {}
    pairs = []
    for form in forms():
        mechanism = (form.name.split(".")[0], *form.axes.values())
        plainest = first.setdefault(mechanism, form)
        if form is not plainest:
            pairs.append(_instance(form, {"form": form, "plainest": plainest}, form.strategies))
    return pairs


def _instance(form: Form, fixed: Mapping[str, Any], strategies: Mapping[str, Any]) -> Instance:
    only = (*FLOATS, *CUPY) if form.compiled else () if form.layout is None else WITHOUT_JAX
    return Instance(form.name, fixed, strategies, form.exact, only)


def _strategy(domain: Domain, annotation: Any) -> Strategy:
    """Return how an array of this domain and annotation is drawn."""
    strategy = STRATEGY_OF[domain]
    if "float64" not in annotation.dtypes and not strategy.complex:
        assert strategy.fill is not None
        strategy = replace(strategy, fill=pairs(strategy.fill, strategy.fill), complex=True)
    return replace(strategy, axes=annotation.dim_str.replace("...", ""))


def _positional(function: FormFunction) -> dict[str, Any]:
    """Return the annotations of the positional arguments."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}


def _variants(function: FormFunction, omit: Container[str | None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the annotations of the arguments not in `omit`, once for each combination of allowed shapes."""
    alternatives = {x: members(annotation) for x, annotation in _positional(function).items() if x not in omit}
    for combination in itertools.product(*alternatives.values()):
        several = [(x, a) for x, a in zip(alternatives, combination, strict=True) if len(alternatives[x]) > 1]
        label = ", ".join(f"{x} {a.dim_str.removeprefix('*batch ')}" for x, a in several)
        yield label, dict(zip(alternatives, combination, strict=True))


def _state(function: FormFunction, domain: Domain) -> Any:
    """Return how an initial state is drawn: an array, or a tuple of them."""
    (annotation,) = members(inspect.signature(function).parameters["state"].annotation)
    if typing.get_origin(annotation) is tuple:
        return tuple(_strategy(domain, item) for item in typing.get_args(annotation))
    return _strategy(domain, annotation)

"""Forms with an inner model, whose weights and state are nested tuples of arrays, as functions of plain arrays.

The statements for every mechanism know arguments that are arrays. Here the weights become arrays with names of their
own, `weights.W1`, which are put together again when the form is called. They have no layer norm: it divides by a
variance, and after a few tokens no bound is left. `proofs.identities.ttt` has it.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hypothesis import strategies as st

from models.forms import FormFunction
from models.mechanism import Layout
from proofs.checker.strategies import Strategy

LEFT = Strategy(number=lambda draw, sizes: draw(st.integers(1, sizes["T"] + 1)))  # tokens left of a mini-batch
FEWER = {"T": st.integers(2, 5)}  # each token has a gradient of its own; two batches and a rest are in 5
SMALLER = {"K": st.integers(1, 3), "T": st.integers(2, 4)}  # several layers are costly to bound


def members(annotation: Any) -> list[Any]:
    """Return the alternatives of a union, without None."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return [a for a in (typing.get_args(annotation) if union else (annotation,)) if a is not types.NoneType]


def nested_argument(function: FormFunction) -> str | None:
    """Return the name of the positional argument of a form that is no array, if there is one."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return next((p.name for p in positional if not hasattr(members(p.annotation)[0], "dim_str")), None)


def weight_axes(argument: str, layout: Layout) -> dict[str, str]:
    """Return the axes of every array of the weights, by name: {"weights.W1": "K D", "weights.b1": "1 D", …}."""
    return {
        f"{argument}.{letter}{i}": axes
        for i, layer in enumerate(layout.layers, start=1)
        for letter, axes in zip("Wb", layer, strict=False)
    }


def sizes(layout: Layout) -> Mapping[str, st.SearchStrategy[int]]:
    """Return the sizes of examples with weights of a layout, where they differ from those of others."""
    return FEWER if len(layout.layers) == 1 else SMALLER


def state_of(function: FormFunction, layout: Layout, draw: Callable[[str], Strategy]) -> Any:
    """Return how a state is drawn, `draw` saying it for an array of these axes: models, and the number of tokens left.

    The form annotates its state as a NamedTuple whose fields are models of the same layout, or an int.
    """
    model = tuple(tuple(draw(f"*batch {axes}") for axes in layer) for layer in layout.layers)
    return tuple(LEFT if kind is int else model for kind in typing.get_type_hints(state_class(function)).values())


def taking_arrays(function: FormFunction, argument: str, layout: Layout, norm: Iterable[str] = ()) -> FormFunction:
    """Return the form as a function of arrays: those of the weights are the last, in the order of `weight_axes`.

    With `norm`, two names, γ and β of a layer norm are two more arrays after them.
    """
    names, kind_of_state = [*weight_axes(argument, layout), *norm], state_class(function)
    (kind,) = members(inspect.signature(function).parameters[argument].annotation)
    pack: Any = (
        kind if hasattr(kind, "_fields") else tuple
    )  # a NamedTuple whose first field are the layers, or the layers

    @functools.wraps(function)
    def call(*arrays: Any, state: Any = None, **options: Any) -> Any:
        named_weights = [options.pop(name) for name in names if name in options]
        arrays, weights = (arrays, named_weights) if named_weights else (arrays[: -len(names)], arrays[-len(names) :])
        if not norm:
            options[argument] = pack(_layers(layout, weights))
        elif pack is tuple:
            options |= {argument: _layers(layout, weights[:-2]), "norm": tuple(weights[-2:])}
        else:
            options[argument] = pack(_layers(layout, weights[:-2]), tuple(weights[-2:]))
        return function(*arrays, state=None if state is None else kind_of_state(*state), **options)

    return typing.cast(FormFunction, call)


def state_class(function: FormFunction) -> Any:
    """Return the NamedTuple that a form with an inner model has as its state."""
    (kind,) = members(inspect.signature(function).parameters["state"].annotation)
    return kind


def _layers(layout: Layout, arrays: Any) -> Any:
    queue = iter(arrays)
    return tuple(tuple(next(queue) for _ in layer) for layer in layout.layers)

"""Public functions that take lists: a primitive converts its arguments itself, these before they ask for a shape."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.conversion import argument

_OWN = ("asarray", "stop_gradient")  # which take anything
_MEMBER = "x"  # what one of several arrays is called
_ARRAYS = frozenset({"a", "b", "condition", "d", "indices", "logits", "targets", "values", "x", "x1", "x2", "y"})
_SEVERAL = frozenset({"arrays", "operands"})
_LISTS = (list, tuple, dict, str)
_NOT_ARRAYS = frozenset({*_LISTS, int, float, complex, bool})


def accept_lists() -> None:
    """Let the functions of `minigrad`, `minigrad.linalg` and `minigrad.fft` take lists where they take arrays."""
    for module in ("minigrad", "minigrad.primitives.linalg", "minigrad.primitives.fft"):
        for name, function in list(vars(sys.modules[module]).items()):
            is_primitive = inspect.isfunction(function) and function.__module__.startswith("minigrad.primitives")
            if (
                is_primitive
                and name not in _OWN
                and not name.startswith("_")
                and module in ("minigrad", function.__module__)
            ):
                setattr(sys.modules[module], name, _convert_arguments(function, module))


def _convert_arguments(function: Callable, module: str) -> Callable:
    """Return the function with a list converted that stands for an array, and a number that stands for the first."""
    parameters = list(inspect.signature(function).parameters.values())
    names = [_MEMBER if p.kind is p.VAR_POSITIONAL and p.name in _SEVERAL else p.name for p in parameters]
    places = [place for place, name in enumerate(names) if name in _ARRAYS | _SEVERAL]
    if not places:
        return function
    start, stop = places[0], None if parameters[places[-1]].kind is inspect.Parameter.VAR_POSITIONAL else places[-1] + 1

    def converted(place: int, value: Any) -> Any:
        name = names[min(place, len(names) - 1)]
        if name in _SEVERAL and isinstance(value, _LISTS):
            return [argument(v, f"{function.__name__}: argument {name}") for v in value]
        if name in _ARRAYS and isinstance(value, _LISTS):
            return argument(value, f"{function.__name__}: argument {name}")
        return np.asarray(value) if name in _ARRAYS and place == 0 and type(value) in _NOT_ARRAYS else value

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        for value in args[start:stop]:
            if type(value) in _NOT_ARRAYS:
                return function(*[converted(*given) for given in enumerate(args)], **options)
        return function(*args, **options)

    call.__module__ = module
    return call

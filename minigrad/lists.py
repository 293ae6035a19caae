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
_UNSUITABLE = (list, tuple, dict, str)


def accept_lists() -> None:
    """Let the functions of `minigrad`, `minigrad.linalg` and `minigrad.fft` take lists where they take arrays."""
    for module in ("minigrad", "minigrad.primitives.linalg", "minigrad.primitives.fft"):
        for name, function in list(vars(sys.modules[module]).items()):
            theirs = inspect.isfunction(function) and function.__module__.startswith("minigrad.primitives")
            if theirs and name not in _OWN and not name.startswith("_") and module in ("minigrad", function.__module__):
                setattr(sys.modules[module], name, _converting(function, module))


def _converting(function: Callable, module: str) -> Callable:
    """Return the function with a list converted that stands for an array, and a number that stands for the first."""
    parameters = inspect.signature(function).parameters.values()
    names = [_MEMBER if p.kind is p.VAR_POSITIONAL and p.name in _SEVERAL else p.name for p in parameters]
    if not _ARRAYS.union(_SEVERAL).intersection(names):
        return function

    def converted(value: Any, name: str) -> Any:
        return argument(value, f"{function.__name__}: argument {name}")

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if args and names[0] in _ARRAYS and isinstance(args[0], (int, float, complex)):
            args = (np.asarray(args[0]), *args[1:])
        for place, value in enumerate(args):
            if isinstance(value, _UNSUITABLE):
                name = names[min(place, len(names) - 1)]
                if name in _ARRAYS:
                    args = (*args[:place], converted(value, name), *args[place + 1 :])
                elif name in _SEVERAL:
                    members = [converted(v, name) if isinstance(v, _UNSUITABLE) else v for v in value]
                    args = (*args[:place], members, *args[place + 1 :])
        return function(*args, **options)

    call.__module__ = module
    return call

"""Nested containers of arrays: flattened into a list of leaves, and built again around other leaves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any


class Container:
    """Base of objects whose attributes may hold arrays (`nn.Module`): they are walked like dictionaries."""


def is_array(x: Any) -> bool:
    """Whether x is an array of some library, or a Tensor."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def map_arrays(f: Callable[[Any], Any], x: Any) -> Any:
    """The same containers with f of every array; anything else in them stays as it is."""
    if is_array(x):
        return f(x)
    if isinstance(x, dict):
        return {key: map_arrays(f, item) for key, item in x.items()}
    if isinstance(x, (list, tuple)):
        items = [map_arrays(f, item) for item in x]
        return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
    if isinstance(x, Container):
        twin = copy.copy(x)
        for name, item in vars(x).items():
            twin.__dict__[name] = map_arrays(f, item)
        return twin
    return x


def arrays_of(x: Any) -> list:
    """Every array in the containers, in order."""
    found: list = []
    map_arrays(found.append, x)
    return found


def rebuilt(x: Any, arrays: list) -> Any:
    """The containers of x around other arrays, given in the order of `arrays_of`."""
    queue = iter(arrays)
    return map_arrays(lambda _: next(queue), x)

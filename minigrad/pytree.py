"""Nested containers of arrays ("pytrees"): map a function over their leaves, flatten and unflatten them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np


class Container:
    """Base class of objects that are traversed like dictionaries of their attributes (`nn.Module`).

    Only arrays in attributes are leaves: a Python number there (an ε, a probability) is configuration.
    """


def is_array(x: Any) -> bool:
    """Return whether x is an array of some library, or a Tensor."""
    return isinstance(x, np.ndarray) or hasattr(x, "_node") or (hasattr(x, "shape") and hasattr(x, "dtype"))


def is_container(x: Any) -> bool:
    """Return whether x is traversed: a dict, a list, a tuple or a `Container`."""
    return isinstance(x, (dict, list, tuple, Container))


def is_leaf(x: Any) -> bool:
    """Return whether x is a leaf of differentiation: an array, a Python float or a complex number."""
    return is_array(x) or isinstance(x, (float, complex))


def unchanged(x: Any) -> Any:
    """Return x itself."""
    return x


def map_arrays(f: Callable[[Any], Any], x: Any) -> Any:
    """Apply f to every array in the containers; anything else in them stays as it is."""
    return _map(f, x, unchanged, is_array)


def map_leaves(f: Callable[[Any], Any], x: Any, other: Callable[[Any], Any] = unchanged) -> Any:
    """Apply f to every leaf in the containers, and `other` to anything else but a `Container`'s attributes."""
    return _map(f, x, other, is_leaf)


def _map(f: Callable, x: Any, other: Callable, is_selected: Callable[[Any], bool]) -> Any:
    if is_selected(x):
        return f(x)
    if isinstance(x, dict):
        items = {key: _map(f, item, other, is_selected) for key, item in x.items()}
        if type(x) is dict:
            return items
        copied = copy.copy(x)  # a subclass keeps its other attributes, such as a default factory
        copied.update(items)
        return copied
    if isinstance(x, (list, tuple)):
        members = [_map(f, item, other, is_selected) for item in x]
        return x._make(members) if hasattr(x, "_make") else type(x)(members)
    if isinstance(x, Container):
        instance = copy.copy(x)
        for name, item in vars(x).items():
            instance.__dict__[name] = map_arrays(f, item)
        return instance
    return other(x)


def arrays_of(x: Any) -> list:
    """Return a list of the arrays in the containers, in order."""
    arrays: list = []
    map_arrays(arrays.append, x)
    return arrays


def leaves_of(x: Any) -> list:
    """Return a list of the leaves in the containers, in order."""
    if is_leaf(x):
        return [x]
    leaves: list = []
    map_leaves(leaves.append, x)
    return leaves


def replace_arrays(x: Any, arrays: list) -> Any:
    """Return the containers of x with other arrays in place of its own, in the order of `arrays_of`."""
    queue = iter(arrays)
    return map_arrays(lambda _: next(queue), x)


def matching_leaves(x: Any, y: Any, caller: str) -> list:
    """Return the elements of y at the positions of the leaves of x, in the order of `leaves_of(x)`.

    Raises ValueError when the containers of y and x differ in structure.
    """
    if is_leaf(x):
        return [y]
    if isinstance(x, (list, tuple)):
        if not isinstance(y, (list, tuple)) or len(y) != len(x):
            raise ValueError(f"{caller}: got {_describe(y)}, expected {_describe(x)}")
        return [leaf for a, b in zip(x, y, strict=True) for leaf in matching_leaves(a, b, caller)]
    if isinstance(x, dict):
        if not isinstance(y, dict) or x.keys() != y.keys():
            raise ValueError(f"{caller}: got {_describe(y)}, expected {_describe(x)}")
        return [leaf for key in x for leaf in matching_leaves(x[key], y[key], caller)]
    if isinstance(x, Container):
        if type(x) is not type(y):
            raise ValueError(f"{caller}: got {_describe(y)}, expected {_describe(x)}")
        return [leaf for leaf, _ in zip(arrays_of(y), arrays_of(x), strict=True)]
    return []


def _describe(x: Any) -> str:
    if isinstance(x, dict):
        return f"a {type(x).__name__} with the keys {list(x)}"
    return f"a {type(x).__name__}" + (f" of {len(x)}" if isinstance(x, (list, tuple)) else "")

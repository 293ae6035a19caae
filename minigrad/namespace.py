"""Which library's functions fit an array: the one place where array libraries are told apart."""

from __future__ import annotations

import sys
from typing import Any

import array_api_compat
import numpy as np

_SCALARS = (bool, int, float, complex, type(None))


def namespace(*arrays: Any) -> Any:
    """The array namespace shared by the arrays: minigrad for Tensors, else the library that made them.

    A NumPy array beside a Tensor is a constant, and beside an array of exact numbers (whose namespace is
    `minigrad.exact`) a mask. Python scalars and None fit anywhere; with nothing else the answer is NumPy.
    Raises TypeError when arrays come from two libraries.
    """
    common = None
    for array in arrays:
        if type(array) is np.ndarray and array.dtype.kind != "O":  # by far the most frequent case
            xp = np
        elif isinstance(array, _SCALARS):
            continue
        else:
            xp = _namespace_of(array)
        if common is None or xp is common:
            common = xp
        else:
            common = _promote(common, xp)
    return np if common is None else common


def _namespace_of(array: Any) -> Any:
    if isinstance(array, (np.ndarray, np.generic)):
        return sys.modules["minigrad.exact"] if array.dtype == object else np
    if hasattr(array, "_node"):
        return sys.modules["minigrad"]
    try:
        return array_api_compat.array_namespace(array)
    except TypeError:
        raise TypeError(f"namespace: got {type(array).__name__}, expected an array of a known library") from None


def _promote(one: Any, other: Any) -> Any:
    """The namespace of the two that can take the other's arrays."""
    for strong in (sys.modules["minigrad"], sys.modules["minigrad.exact"]):
        if strong in (one, other) and (strong is sys.modules["minigrad"] or np in (one, other)):
            return strong
    raise TypeError(f"namespace: got arrays of {one.__name__} and of {other.__name__}, expected one library")


def to_numpy(array: Any) -> np.ndarray:
    """An array at the host, as NumPy's: CuPy brings its arrays there only when it is asked by name."""
    return array.get() if hasattr(array, "get") else np.asarray(array)

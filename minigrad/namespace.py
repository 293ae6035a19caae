"""The array namespace of given arrays; the one place where array libraries are distinguished."""

from __future__ import annotations

import sys
from typing import Any

import array_api_compat
import numpy as np

_SCALARS = (bool, int, float, complex, type(None))


def namespace(*arrays: Any) -> Any:
    """Return the array namespace common to the arrays: minigrad for Tensors, else the arrays' library.

    NumPy arrays may be mixed with Tensors, as constants, and with arrays of exact numbers (whose namespace is
    `minigrad.exact`), as masks. Python scalars and None are ignored; NumPy is the default.
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


def _promote(first: Any, second: Any) -> Any:
    """Return whichever of two namespaces accepts the other's arrays."""
    for xp in (sys.modules["minigrad"], sys.modules["minigrad.exact"]):
        if xp in (first, second) and (xp is sys.modules["minigrad"] or np in (first, second)):
            return xp
    raise TypeError(f"namespace: got arrays of {first.__name__} and of {second.__name__}, expected one library")


def to_numpy(array: Any) -> np.ndarray:
    """Convert an array to NumPy, copying from the device if necessary, which CuPy does only on request."""
    return array.get() if hasattr(array, "get") else np.asarray(array)

"""Which library's functions fit an array: the one place where array libraries are told apart."""

from __future__ import annotations

import sys
from typing import Any

import array_api_compat
import numpy as np

_SCALARS = (bool, int, float, complex, type(None))


def namespace(*arrays: Any) -> Any:
    """The array namespace shared by the arrays: minigrad for Tensors, else the library that made them.

    Python scalars and None fit any namespace and are passed over; a NumPy array of objects gets
    `minigrad.exact`. With nothing but scalars the answer is NumPy.
    Raises TypeError when two arrays come from two libraries (a NumPy array beside a Tensor is a constant).
    """
    found = None
    for array in arrays:
        if isinstance(array, _SCALARS):
            continue
        xp = _namespace_of(array)
        if found is None or found is xp:
            found = xp
        elif xp is sys.modules["minigrad"] or (found is np and xp is sys.modules["minigrad.exact"]):
            found = xp  # a Tensor outranks a constant, and an array of exact numbers outranks its masks
        elif found is not sys.modules["minigrad"] and not (xp is np and found is sys.modules["minigrad.exact"]):
            raise TypeError(f"namespace: arrays of {found.__name__} and {xp.__name__} together, expected one library")
    return np if found is None else found


def _namespace_of(array: Any) -> Any:
    if isinstance(array, (np.ndarray, np.generic)):
        return sys.modules["minigrad.exact"] if array.dtype == object else np
    if hasattr(array, "_node"):
        return sys.modules["minigrad"]
    try:
        return array_api_compat.array_namespace(array)
    except TypeError:
        raise TypeError(f"namespace: {type(array).__name__} is not an array of a known library") from None

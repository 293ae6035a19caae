"""What enters the engine: arrays of any library, numbers and nested lists, made into arrays that it can keep."""

from __future__ import annotations

import functools
import sys
from typing import Any

import array_api_compat
import numpy as np

from minigrad.namespace import namespace
from minigrad.pytree import is_array


def as_array(value: Any, who: str) -> Any:
    """Return an array of some library; numbers and nested lists of them become NumPy's.

    NumPy's arrays come out without a subclass and in the machine's byte order. Raises TypeError for anything else.
    """
    if type(value) is np.ndarray and value.dtype.isnative:
        return value
    if isinstance(value, np.ndarray):
        return _plain(value, who)
    if is_array(value):
        return value
    _refuse_pair(value, who)
    try:
        raw = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{who}: got a {type(value).__name__} that is no array ({_line(error)})") from None
    if raw.dtype.kind not in "biufcO" or isinstance(raw.flat[0] if raw.size else 0, (str, bytes, dict, type(None))):
        raise TypeError(f"{who}: got {type(value).__name__}, expected an array or a number")
    return raw


def argument(value: Any, who: str) -> Any:
    """Return what stands where a primitive takes an array, as an array, a Tensor or a number.

    A list that holds Tensors becomes one Tensor. Raises TypeError for what can be none of them.
    """
    if isinstance(value, list) and _holds_tensor(value):
        return sys.modules["minigrad"].stack([argument(v, who) for v in value])
    if isinstance(value, (list, tuple, np.ndarray, str, bytes, dict, set)):
        return as_array(value, who)
    return value


def _plain(array: np.ndarray, who: str) -> np.ndarray:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise TypeError(f"{who}: got a masked array, expected one without missing elements")
    array = np.asarray(array)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _holds_tensor(value: Any) -> bool:
    return hasattr(value, "_node") or (isinstance(value, (list, tuple)) and any(map(_holds_tensor, value)))


def _refuse_pair(value: Any, who: str) -> None:
    """Raise TypeError for a tuple with an array in it, such as the (y, state) that a mechanism returns."""
    if isinstance(value, tuple) and any(is_array(v) and len(v.shape) for v in value):
        held = ", ".join(type(v).__name__ for v in value)
        raise TypeError(f"{who}: got the tuple ({held}), expected one array, such as the first of a pair (y, state)")


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". The")[0]


def to_common_library(values: list) -> list | None:
    """Return the values with NumPy's arrays brought, as constants, to the other library there is; else None.

    So what a function makes of nothing (zeros, a mask, a range) goes with whatever arrays its Tensors hold.
    """
    others = [v for v in values if is_array(v) and not isinstance(v, (np.ndarray, np.generic))]
    if not others or not any(type(v) is np.ndarray for v in values):
        return None
    xp = namespace(*others)
    return [xp.asarray(v) if type(v) is np.ndarray else v for v in values]


def copy_if_mutable(raw: Any) -> Any:
    """Return a copy of what its owner may change: an array or a list. What cannot change is returned as it is."""
    if type(raw) is np.ndarray:
        return raw.copy()
    if type(raw) in _IMMUTABLE:
        return raw
    if isinstance(raw, (list, np.ndarray)):
        return np.array(raw)
    if not is_array(raw) or hasattr(raw, "_node") or isinstance(raw, np.generic) or array_api_compat.is_jax_array(raw):
        return raw
    return raw.clone() if hasattr(raw, "clone") else raw.copy()


@functools.cache
def differentiable(dtype: Any) -> bool:
    """Return whether numbers of a dtype have derivatives: floating, complex and exact ones do, integers not."""
    kind = getattr(dtype, "kind", None)
    if kind is None:
        return dtype.is_floating_point or dtype.is_complex
    return kind in "fcO" or dtype.name in _SMALL_FLOATS


def is_differentiable(leaf: Any) -> bool:
    """Return whether a leaf has a gradient: Python's own floats and complex numbers do."""
    return not hasattr(leaf, "dtype") or differentiable(leaf.dtype)


_IMMUTABLE = frozenset({int, float, complex, bool, slice, tuple, type(None)})
_SMALL_FLOATS = ("bfloat16",)  # of ml_dtypes, which NumPy takes for a kind of its own


@functools.cache
def is_complex(dtype: Any) -> bool:
    """Return whether a dtype, of any library, is complex."""
    kind = getattr(dtype, "kind", None)
    return kind == "c" if kind is not None else dtype.is_complex

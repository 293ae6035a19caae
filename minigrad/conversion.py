"""Conversion of arguments: arrays of any library, numbers and nested lists into arrays that the engine may save."""

from __future__ import annotations

import functools
import sys
from typing import Any

import array_api_compat
import numpy as np

from minigrad.namespace import namespace
from minigrad.pytree import is_array


def as_array(value: Any, caller: str) -> Any:
    """Convert to an array: that of another library unchanged, numbers and nested lists of them to NumPy's.

    A NumPy array loses its subclass and gets native byte order. Raises TypeError for anything else.
    """
    if type(value) is np.ndarray and value.dtype.isnative:
        return value
    if isinstance(value, np.ndarray):
        return _plain(value, caller)
    if is_array(value):
        return value
    _refuse_pair(value, caller)
    try:
        raw = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{caller}: got a {type(value).__name__} that is no array ({_line(error)})") from None
    if raw.dtype.kind not in "biufcO" or isinstance(raw.flat[0] if raw.size else 0, (str, bytes, dict, type(None))):
        raise TypeError(f"{caller}: got {type(value).__name__}, expected an array or a number")
    return raw


def argument(value: Any, caller: str) -> Any:
    """Convert an argument of a primitive to an array, a Tensor or a number; a list that holds Tensors to one Tensor.

    Raises TypeError for what can be converted to none of them.
    """
    if isinstance(value, list) and holds_tensor(value):
        return sys.modules["minigrad"].stack([argument(v, caller) for v in value])
    if isinstance(value, (list, tuple, np.ndarray, str, bytes, dict, set)):
        return as_array(value, caller)
    return value


def _plain(array: np.ndarray, caller: str) -> np.ndarray:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise TypeError(f"{caller}: got a masked array, expected one without missing elements")
    array = np.asarray(array)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def holds_tensor(value: Any) -> bool:
    """Return whether a value is a Tensor, or a nested list or tuple that holds one."""
    return hasattr(value, "_node") or (isinstance(value, (list, tuple)) and any(map(holds_tensor, value)))


def _refuse_pair(value: Any, caller: str) -> None:
    """Raise TypeError for a tuple with an array in it, such as the (y, state) that a mechanism returns."""
    if isinstance(value, tuple) and any(is_array(v) and len(v.shape) for v in value):
        types = ", ".join(type(v).__name__ for v in value)
        raise TypeError(
            f"{caller}: got the tuple ({types}), expected one array, such as the first of a pair (y, state)"
        )


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". The")[0]


def to_common_library(values: list) -> list | None:
    """Convert NumPy arrays among the values to the other library that is among them; return None if there is none.

    So an array that a function creates (zeros, a mask, a range) combines with Tensors over any library.
    """
    foreign = [v for v in values if is_array(v) and not isinstance(v, (np.ndarray, np.generic))]
    if not foreign or not any(type(v) is np.ndarray for v in values):
        return None
    xp = namespace(*foreign)
    return [xp.asarray(v) if type(v) is np.ndarray else v for v in values]


def to_library_of(x: Any, array: Any) -> Any:
    """Convert a NumPy array to the library and the device of x, an array or a Tensor; return all else unchanged."""
    x = x._value if hasattr(x, "_node") else x
    if not isinstance(array, np.ndarray) or isinstance(x, (np.ndarray, np.generic)) or not hasattr(x, "dtype"):
        return array
    return namespace(x).asarray(array, device=getattr(x, "device", None))  # arrays that JAX traces have none


def copy_if_mutable(raw: Any) -> Any:
    """Return a copy of an array or a list, which its owner may change in place; anything immutable itself."""
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
    """Return whether a dtype can be differentiated: floating, complex and exact numbers, but not integers."""
    kind = getattr(dtype, "kind", None)
    if kind is None:
        return dtype.is_floating_point or dtype.is_complex
    return kind in "fcO" or dtype.name in _SMALL_FLOATS


def is_differentiable(leaf: Any) -> bool:
    """Return whether a leaf has a gradient: a float or complex number, or an array of a differentiable dtype."""
    return not hasattr(leaf, "dtype") or differentiable(leaf.dtype)


_IMMUTABLE = frozenset({int, float, complex, bool, slice, tuple, type(None)})
_SMALL_FLOATS = ("bfloat16",)  # of ml_dtypes, whose kind is "V" to NumPy


@functools.cache
def is_complex(dtype: Any) -> bool:
    """Return whether a dtype, of any library, is complex."""
    kind = getattr(dtype, "kind", None)
    return kind == "c" if kind is not None else dtype.is_complex

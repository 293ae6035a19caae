"""Data types: their limits, kinds and promotion."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from minigrad.engine import unwrap
from minigrad.namespace import namespace
from minigrad.pytree import is_array


class FloatInfo(NamedTuple):
    """The limits of a floating type, as Python numbers."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: Any


class IntegerInfo(NamedTuple):
    """The limits of an integer type, as Python numbers."""

    bits: int
    max: int
    min: int
    dtype: Any


def library_of(dtype: Any) -> Any:
    """Return the namespace of the library that a dtype belongs to; NumPy for Python's types and None."""
    if dtype is None or dtype in (bool, int, float, complex):
        return np
    if dtype in (object, np.dtype(object)):
        return sys.modules["minigrad.exact"]
    if "torch" in type(dtype).__module__:
        import array_api_compat.torch as torch

        return torch
    return np


def _holds_numbers(x: Any) -> bool:
    """Return whether x is an array and not a scalar type of NumPy's, which has the attributes of an array too."""
    return is_array(x) and not isinstance(x, type)


def _dtype_of(x: Any) -> Any:
    return x.dtype if _holds_numbers(x) else x


def finfo(type: Any) -> FloatInfo:
    """Return the limits of a floating dtype, of a complex one's parts, or of an array's."""
    dtype = _dtype_of(type)
    info = library_of(dtype).finfo(dtype)
    part = np.dtype(info.dtype) if isinstance(info, np.finfo) else dtype
    return FloatInfo(*(int(info.bits), float(info.eps), float(info.max), float(info.min)), float(info.tiny), part)


def iinfo(type: Any) -> IntegerInfo:
    """Return the limits of an integer dtype, or of an array's."""
    dtype = _dtype_of(type)
    info = library_of(dtype).iinfo(dtype)
    part = np.dtype(info.dtype) if isinstance(info, np.iinfo) else dtype
    return IntegerInfo(int(info.bits), int(info.max), int(info.min), part)


def isdtype(dtype: Any, kind: Any) -> bool:
    """Return whether a dtype is another, of a kind such as "integral" or "real floating", or one of a tuple."""
    return library_of(dtype).isdtype(dtype, kind)


def can_cast(from_: Any, to: Any) -> bool:
    """Return whether a dtype, or an array's, can be cast to another under the standard's promotion rules."""
    dtype = _dtype_of(from_)
    return library_of(dtype).can_cast(dtype, to)


def result_type(*arrays_and_dtypes: Any) -> Any:
    """Return the dtype that arrays, dtypes and Python numbers are promoted to."""
    raw = [unwrap(x) for x in arrays_and_dtypes]
    arrays = [x for x in raw if _holds_numbers(x)]
    dtypes = [x for x in raw if not _holds_numbers(x) and not isinstance(x, (int, float, complex))]
    xp = namespace(*arrays) if arrays else library_of(dtypes[0] if dtypes else None)
    return (np if xp is sys.modules["minigrad.exact"] else xp).result_type(*raw)


def __array_namespace_info__() -> Any:
    """Return the namespace's capabilities, devices and dtypes: NumPy's, whose arrays it creates."""
    return np.__array_namespace_info__()

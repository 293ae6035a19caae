"""Checks and conversions of arguments that several functions share."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.exceptions import AxisError

from minigrad.conversion import argument, as_array, is_complex
from minigrad.engine import unwrap
from minigrad.namespace import namespace


def integer(value: Any, caller: str, name: str) -> int:
    """Return a Python int for any integer scalar, NumPy's included. Raise TypeError for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{caller}: {name} is {type(value).__name__}, expected an integer") from None


def integers(value: Any, caller: str, name: str) -> tuple[int, ...]:
    """Return a tuple of Python ints for one integer or a sequence of integers."""
    if type(value) is tuple and set(map(type, value)) <= {int}:
        return value
    if hasattr(value, "__iter__") and getattr(value, "ndim", None) != 0:
        return tuple([integer(v, caller, name) for v in value])
    return (integer(value, caller, name),)


def normalize_axis(axis: Any, ndim: int, caller: str) -> int:
    """Return a non-negative axis. Raise AxisError (an IndexError and a ValueError) where there is no such axis."""
    axis = axis if type(axis) is int else integer(axis, caller, "axis")
    if not -ndim <= axis < ndim:
        raise AxisError(f"{caller}: got axis {axis}, expected one of an array of {ndim} axes")
    return axis % ndim


def normalize_axes(axis: Any, ndim: int, caller: str) -> tuple[int, ...]:
    """Return a tuple of non-negative axes, all of them for None. Raise ValueError for a repeated axis."""
    if axis is None:
        return tuple(range(ndim))
    if type(axis) is int:
        return (normalize_axis(axis, ndim, caller),)
    axes = tuple(normalize_axis(a, ndim, caller) for a in integers(axis, caller, "axis"))
    if len(set(axes)) < len(axes):
        raise ValueError(f"{caller}: got axes {axes}, expected each axis once")
    return axes


def normalize_optional_axis(axis: Any, ndim: int, caller: str) -> int:
    """Return a non-negative axis; None is the axis of a vector. Raise ValueError for None otherwise."""
    if axis is None and ndim != 1:
        raise ValueError(f"{caller}: axis is None, expected an axis for an array of {ndim} axes")
    return normalize_axis(0 if axis is None else axis, ndim, caller)


def sizes(shape: Any, caller: str) -> tuple[int, ...]:
    """Return a shape as a tuple of Python ints."""
    return integers(shape, caller, "shape")


def array(x: Any, caller: str, name: str = "x") -> Any:
    """Convert argument `name` of function `caller` to an array or a Tensor.

    Numbers and nested lists become NumPy arrays, a list that holds Tensors becomes a Tensor. Raises TypeError for
    anything else.
    """
    if hasattr(x, "dtype"):
        return x
    caller = f"{caller}: argument {name}"
    return as_array(argument(x, caller), caller)


def filled_like(shape: Any, value: Any, like: Any) -> Any:
    """Return a constant array of zeros or ones with the library, dtype and device of another array."""
    raw = unwrap(like)
    device = None if isinstance(raw, (np.ndarray, np.generic)) else getattr(raw, "device", None)  # not of JAX tracers
    device_option = {} if device is None else {"device": device}
    xp = namespace(raw)
    return (xp.ones if value else xp.zeros)(tuple(shape), dtype=raw.dtype, **device_option)


def refuse_complex(x: Any, caller: str) -> None:
    """Raise TypeError for complex numbers, which have no order."""
    if is_complex(x.dtype):
        raise TypeError(f"{caller}: got {x.dtype}, expected real numbers")


@functools.cache
def _is_half(dtype: Any) -> bool:
    """Return whether a dtype of any library is float16 or bfloat16."""
    return str(dtype).endswith("float16") or (getattr(dtype, "kind", "") == "f" and dtype.itemsize == 2)


def upcast_half(f: Callable) -> Callable:
    """Decorate f to compute in float32 for float16 and bfloat16 arguments, and to round its results once.

    A float16 sum of ones stops growing at 2048 and overflows at 65,504, and LAPACK has no 16-bit routines.
    With an option `dtype`, which states the precision, nothing is converted.
    """

    @functools.wraps(f)
    def apply(*args: Any, **options: Any) -> Any:
        dtype = getattr(args[0], "dtype", None) if args else None
        if dtype is None or not _is_half(dtype) or options.get("dtype") is not None:  # by far the most frequent case
            return f(*args, **options)
        arrays = [a for a in args if hasattr(a, "dtype")]
        if not all(_is_half(a.dtype) for a in arrays):
            return f(*args, **options)
        half, xp = arrays[0].dtype, namespace(*arrays)
        single = namespace(*map(unwrap, arrays)).float32
        result = f(*(xp.astype(a, single) if hasattr(a, "dtype") else a for a in args), **options)

        def round_back(y: Any) -> Any:
            return xp.astype(y, half) if getattr(y, "dtype", None) == single else y

        if isinstance(result, tuple):
            return (
                type(result)(*map(round_back, result)) if hasattr(result, "_fields") else tuple(map(round_back, result))
            )
        return round_back(result)

    return apply

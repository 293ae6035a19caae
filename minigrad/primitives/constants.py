"""What has no derivative: new arrays, comparisons, and choices; their results are constants for gradients."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine import constant, unwrap
from minigrad.namespace import namespace


def _library_of(dtype: Any) -> Any:
    """The library that a dtype belongs to; NumPy when it does not say."""
    if dtype is None or dtype in (bool, int, float, complex):
        return np
    if dtype in (object, np.dtype(object)):
        return sys.modules["minigrad.exact"]
    if "torch" in type(dtype).__module__:
        import array_api_compat.torch as torch

        return torch
    return np


def zeros(shape: Any, *, dtype: Any = None) -> Any:
    """An array of zeros."""
    return _library_of(dtype).zeros(shape, dtype=dtype)


def ones(shape: Any, *, dtype: Any = None) -> Any:
    """An array of ones."""
    return _library_of(dtype).ones(shape, dtype=dtype)


def full(shape: Any, fill_value: Any, *, dtype: Any = None) -> Any:
    """An array of one value."""
    return _library_of(dtype).full(shape, fill_value, dtype=dtype)


def eye(n: int, m: int | None = None, *, k: int = 0, dtype: Any = None) -> Any:
    """The identity matrix, or a matrix with ones on its k-th diagonal."""
    return _library_of(dtype).eye(n, m, k=k, dtype=dtype)


def arange(start: Any, stop: Any = None, step: Any = 1, *, dtype: Any = None) -> Any:
    """start, start + step, … below stop; with one argument, from 0."""
    start, stop = (0, start) if stop is None else (start, stop)
    return _library_of(dtype).arange(start, stop, step, dtype=dtype)


def linspace(start: float, stop: float, num: int, *, dtype: Any = None, endpoint: bool = True) -> Any:
    """num equally spaced numbers from start to stop."""
    return _library_of(dtype).linspace(start, stop, num, dtype=dtype, endpoint=endpoint)


def zeros_like(x: Any) -> Any:
    """Zeros in the shape and number system of x."""
    return namespace(unwrap(x)).zeros_like(unwrap(x))


def ones_like(x: Any) -> Any:
    """Ones in the shape and number system of x."""
    return namespace(unwrap(x)).ones_like(unwrap(x))


def asarray(x: Any, *, dtype: Any = None) -> Any:
    """x as an array; a Tensor stays one."""
    if hasattr(x, "_node"):
        return x if dtype is None or x.dtype == dtype else x.astype(dtype)
    return _library_of(dtype).asarray(x, dtype=dtype)


def _cut(name: str) -> Callable:
    """The library's own function of raw arrays; a Tensor among the arguments makes the result a constant Tensor."""

    def apply(*args: Any, **options: Any) -> Any:
        raw = [unwrap(a) for a in args]
        made = getattr(namespace(*(a for a in raw if hasattr(a, "dtype"))), name)(*raw, **options)
        if sum(hasattr(a, "_node") for a in args) == 0:
            return made
        return tuple(map(constant, made)) if isinstance(made, tuple) else constant(made)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The array library's own {name}; constant for gradients."
    return apply


all, any, argmax, argmin, count_nonzero, nonzero, searchsorted, unique_values = map(
    _cut, ("all", "any", "argmax", "argmin", "count_nonzero", "nonzero", "searchsorted", "unique_values")
)
equal, not_equal, less, less_equal, greater, greater_equal = map(
    _cut, ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
)
logical_and, logical_or, logical_not, logical_xor = map(
    _cut, ("logical_and", "logical_or", "logical_not", "logical_xor")
)
isfinite, isinf, isnan, floor, ceil, round, trunc, signbit, floor_divide, nextafter = map(
    _cut, ("isfinite", "isinf", "isnan", "floor", "ceil", "round", "trunc", "signbit", "floor_divide", "nextafter")
)
bitwise_and, bitwise_or, bitwise_xor, bitwise_invert, bitwise_left_shift, bitwise_right_shift = map(
    _cut, [f"bitwise_{name}" for name in ("and", "or", "xor", "invert", "left_shift", "right_shift")]
)

"""What has no derivative: comparisons, choices and counts; their results are constants for gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine import Tensor, constant, unwrap
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array, integers, one_axis


def _axes(axis: Any, ndim: int, who: str) -> Any:
    found = tuple(one_axis(a, ndim, who) for a in integers(axis, who, "axis"))
    return found[0] if np.ndim(axis) == 0 else found


def _constant(made: Any) -> Any:
    """Return a constant Tensor, or a tuple of them."""
    if isinstance(made, tuple):
        parts = map(_constant, made)
        return type(made)(*parts) if hasattr(made, "_fields") else tuple(parts)
    return constant(made if hasattr(made, "dtype") else np.asarray(made))


def _cut(name: str, parameters: str) -> Callable:
    """Return the library's own function of raw arrays; with a Tensor among its arguments it gives a constant Tensor."""

    def apply(*args: Any, **options: Any) -> Any:
        raw = [unwrap(a) for a in args]
        if options.get("axis") is not None:
            raw[0] = array(raw[0], name)
            options["axis"] = _axes(options["axis"], raw[0].ndim, name)
        options = {key: unwrap(option) for key, option in options.items()}
        made = getattr(namespace(*(a for a in raw if hasattr(a, "dtype"))), name)(*raw, **options)
        return _constant(made) if Tensor in map(type, args) else made

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"Return the array library's own {name}; constant for gradients."
    apply.__signature__ = inspect.signature(eval(f"lambda {parameters}: None"))  # type: ignore[attr-defined]
    return apply


def _cuts(names: str, parameters: str) -> Any:
    return (_cut(name, parameters) for name in names.split())


all, any, count_nonzero = _cuts("all any count_nonzero", "x, /, *, axis=None, keepdims=False")
argmax, argmin = _cuts("argmax argmin", "x, /, *, axis=None, keepdims=False")
equal, not_equal, less, less_equal, greater, greater_equal = _cuts(
    "equal not_equal less less_equal greater greater_equal", "x1, x2, /"
)
logical_and, logical_or, logical_xor = _cuts("logical_and logical_or logical_xor", "x1, x2, /")
floor_divide, nextafter = _cuts("floor_divide nextafter", "x1, x2, /")
bitwise_and, bitwise_or, bitwise_xor, bitwise_left_shift, bitwise_right_shift = _cuts(
    "bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift", "x1, x2, /"
)
bitwise_invert, logical_not, isfinite, isinf, isnan = _cuts("bitwise_invert logical_not isfinite isinf isnan", "x, /")
floor, ceil, round, trunc, signbit = _cuts("floor ceil round trunc signbit", "x, /")
nonzero, unique_all, unique_counts, unique_inverse, unique_values = _cuts(
    "nonzero unique_all unique_counts unique_inverse unique_values", "x, /"
)
isin = _cut("isin", "x1, x2, /, *, invert=False")
searchsorted = _cut("searchsorted", "x1, x2, /, *, side='left', sorter=None")

"""Functions without a derivative: comparisons, rounding, counts and indices; their results are constants."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine import Tensor, constant, unwrap
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array, integers, normalize_axis

_NUMBERS = (bool, int, float, complex)  # left to the array library's promotion where they are not the first argument


def _axes(axis: Any, ndim: int, caller: str) -> Any:
    axes = tuple(normalize_axis(a, ndim, caller) for a in integers(axis, caller, "axis"))
    return axes[0] if np.ndim(axis) == 0 else axes


def _constant(result: Any) -> Any:
    """Wrap a result in a constant Tensor, a tuple of results in a tuple of them."""
    if isinstance(result, tuple):
        parts = map(_constant, result)
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    return constant(result if hasattr(result, "dtype") else np.asarray(result))


def _nondifferentiable(name: str, parameters: str) -> Callable:
    """Return the array library's function of that name, extended to Tensors: then its result is a constant Tensor."""
    signature = inspect.signature(eval(f"lambda {parameters}: None"))
    names = list(signature.parameters)

    def apply(*args: Any, **options: Any) -> Any:
        arrays = [a if n and isinstance(a, _NUMBERS) else array(a, name, names[n]) for n, a in enumerate(args)]
        raw = [unwrap(a) for a in arrays]
        if options.get("axis") is not None:
            options["axis"] = _axes(options["axis"], raw[0].ndim, name)
        options = {key: unwrap(option) for key, option in options.items()}
        result = getattr(namespace(*(a for a in raw if hasattr(a, "dtype"))), name)(*raw, **options)
        return _constant(result) if Tensor in map(type, arrays) else result

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"Return the array library's own {name}; constant for gradients."
    apply.__signature__ = signature  # type: ignore[attr-defined]
    return apply


def _nondifferentiables(names: str, parameters: str) -> Any:
    return (_nondifferentiable(name, parameters) for name in names.split())


all, any, count_nonzero = _nondifferentiables("all any count_nonzero", "x, /, *, axis=None, keepdims=False")
argmax, argmin = _nondifferentiables("argmax argmin", "x, /, *, axis=None, keepdims=False")
equal, not_equal, less, less_equal, greater, greater_equal = _nondifferentiables(
    "equal not_equal less less_equal greater greater_equal", "x1, x2, /"
)
logical_and, logical_or, logical_xor = _nondifferentiables("logical_and logical_or logical_xor", "x1, x2, /")
floor_divide, nextafter = _nondifferentiables("floor_divide nextafter", "x1, x2, /")
bitwise_and, bitwise_or, bitwise_xor, bitwise_left_shift, bitwise_right_shift = _nondifferentiables(
    "bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift", "x1, x2, /"
)
bitwise_invert, logical_not, isfinite, isinf, isnan = _nondifferentiables(
    "bitwise_invert logical_not isfinite isinf isnan", "x, /"
)
floor, ceil, round, trunc, signbit = _nondifferentiables("floor ceil round trunc signbit", "x, /")
nonzero, unique_all, unique_counts, unique_inverse, unique_values = _nondifferentiables(
    "nonzero unique_all unique_counts unique_inverse unique_values", "x, /"
)
isin = _nondifferentiable("isin", "x1, x2, /, *, invert=False")
searchsorted = _nondifferentiable("searchsorted", "x1, x2, /, *, side='left', sorter=None")

"""Reductions, cumulative sums and products, and the linear recurrence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad.compiled import scan_kernel
from minigrad.engine import primitive, unwrap
from minigrad.namespace import namespace
from minigrad.primitives.arguments import (
    array,
    filled_like,
    normalize_axes,
    normalize_axis,
    normalize_optional_axis,
    refuse_complex,
    upcast_half,
)
from minigrad.primitives.elementwise import astype, conj, where
from minigrad.primitives.indexing import take_along_axis
from minigrad.primitives.shapes import broadcast_to, concat, flip, reshape

Axis = int | tuple[int, ...] | None


def _axes(axis: Axis, ndim: int, caller: str) -> Axis:
    """Return the reduced axes as non-negative integers, or None for all of them, which libraries reduce faster."""
    return None if axis is None else normalize_axes(axis, ndim, caller)


def _count(shape: tuple, axis: Axis) -> int:
    """Return the number of elements that are reduced to one."""
    return math.prod(shape[a] for a in normalize_axes(axis, len(shape), "count"))


def keepdims_shape(shape: tuple, axis: Axis) -> tuple:
    """Return the shape of a reduction with keepdims=True."""
    axes = normalize_axes(axis, len(shape), "reduction")
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def expand_reduced(g, shape, axis):
    """Return the cotangent of a reduction broadcast over the reduced axes."""
    kept = keepdims_shape(shape, axis)
    if type(g) is np.ndarray:  # spares an ordinary backward pass the checks of two primitives
        return np.broadcast_to(g.reshape(kept), shape)
    return broadcast_to(reshape(g, kept), shape)


@primitive(x=lambda g, shape, axis: expand_reduced(g, shape, axis))
def _sum(xp, x, *, axis, keepdims):
    if xp is np:  # a method spares NumPy's dispatch
        return x.sum(axis=axis, keepdims=keepdims)
    return xp.sum(x, axis=axis, keepdims=keepdims)


@upcast_half
def sum(x: Any, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """Return Σ xᵢ; integers are added in NumPy's default integer, 16-bit floats in float32."""
    x = array(x, "sum")
    x = x if dtype is None else astype(x, dtype)
    result = _sum(x, axis=_axes(axis, x.ndim, "sum"), keepdims=keepdims)
    return result if dtype is None or result.dtype == dtype else astype(result, dtype)


@upcast_half
def mean(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return Σ xᵢ / n."""
    x = array(x, "mean")
    axis = _axes(axis, x.ndim, "mean")
    return _sum(x, axis=axis, keepdims=keepdims) / _count(x.shape, axis)


def real_square(x: Any) -> Any:
    """Return |x|² as a real array."""
    y = x * conj(x)
    return y if y.dtype == x.dtype and conj(x) is x else y.real


@primitive(
    x=lambda g, x, axis, dof: (
        expand_reduced(g * (2 / dof if dof else math.inf), x.shape, axis) * (x - mean(x, axis=axis, keepdims=True))
    )
)
def _var(xp, x, *, axis, keepdims, dof):
    d = x - xp.sum(x, axis=axis, keepdims=True) / _count(x.shape, axis)
    return xp.sum(real_square(d), axis=axis, keepdims=keepdims) / dof


@upcast_half
def var(x: Any, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """Return Σ |xᵢ − x̄|² / (n − correction)."""
    x = array(x, "var")
    axis = _axes(axis, x.ndim, "var")
    return _var(x, axis=axis, keepdims=keepdims, dof=np.maximum(_count(x.shape, axis) - correction, 0).item())


@primitive(x=lambda g, out: where(out == 0, 0, g / (2 * where(out == 0, 1, out))))
def safe_sqrt(xp, x):
    """Return √x with derivative 0 at x = 0: the convention for standard deviations and norms."""
    return xp.sqrt(x)


@upcast_half
def std(x: Any, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """Return the square root of var; its gradient is 0 where all numbers are equal, as in PyTorch."""
    return safe_sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


# ---- extremes


def _extremum_vjp(g, x, out, axis):
    """Return the cotangent divided equally among the elements that attain the extremum; NaNs attain NaN."""
    attained = (x == reshape(out, keepdims_shape(x.shape, axis))) | (x != x)
    xp = namespace(unwrap(attained), unwrap(x))
    ones = xp.where(unwrap(attained), xp.ones_like(unwrap(x)), xp.zeros_like(unwrap(x)))
    g = expand_reduced(g, x.shape, axis)
    return where(attained, g / xp.sum(ones, axis=axis, keepdims=True), 0)


@primitive(x=_extremum_vjp)
def _max(xp, x, *, axis, keepdims):
    return xp.max(x, axis=axis, keepdims=keepdims)


@primitive(x=_extremum_vjp)
def _min(xp, x, *, axis, keepdims):
    return xp.min(x, axis=axis, keepdims=keepdims)


def max(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the largest xᵢ; equal ones share the gradient. Raises TypeError for complex numbers."""
    x = array(x, "max")
    refuse_complex(x, "max")
    return _max(x, axis=_axes(axis, x.ndim, "max"), keepdims=keepdims)


def min(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the smallest xᵢ; equal ones share the gradient. Raises TypeError for complex numbers."""
    x = array(x, "min")
    refuse_complex(x, "min")
    return _min(x, axis=_axes(axis, x.ndim, "min"), keepdims=keepdims)


# ---- running sums and products


@primitive(x=lambda g, axis: flip(_cumulative_sum(flip(g, axis=axis), axis=axis), axis=axis))
def _cumulative_sum(xp, x, *, axis):
    if xp is not np or x.dtype.kind not in "fc" or axis == x.ndim - 1:
        return xp.cumulative_sum(x, axis=axis)
    result = np.moveaxis(x.copy(), axis, 0)  # slice by slice: several times faster than np.cumsum along this axis
    for before, now in zip(result, result[1:], strict=False):
        now += before
    return np.moveaxis(result, 0, axis)


@primitive(
    x=lambda g, x, out, axis: (
        scan(*_adjoint_recurrence(x, g, axis), axis=axis, reverse=True) * conj(_shift_by_one(out, axis))
    )
)
def _cumulative_prod(xp, x, *, axis):
    """Return Πₛ≤ₜ xₛ, the recurrence hₜ = xₜ hₜ₋₁ from h₋₁ = 1: its adjoint is the recurrence run backwards."""
    return xp.cumulative_prod(x, axis=axis)


def _cumulative(f, first, x, axis, dtype, include_initial, caller):
    x = array(x, caller)
    axis = normalize_optional_axis(axis, x.ndim, caller)
    y = f(x if dtype is None else astype(x, dtype), axis=axis)
    y = y if dtype is None or y.dtype == dtype else astype(y, dtype)
    if not include_initial:
        return y
    shape = tuple(1 if i == axis else n for i, n in enumerate(y.shape))
    return concat([filled_like(shape, first, y), y], axis=axis)


@upcast_half
def cumulative_sum(x: Any, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """Return Σₛ≤ₜ xₛ, after a leading 0 if include_initial."""
    return _cumulative(_cumulative_sum, 0, x, axis, dtype, include_initial, "cumulative_sum")


@upcast_half
def cumulative_prod(x: Any, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """Return Πₛ≤ₜ xₛ, after a leading 1 if include_initial."""
    return _cumulative(_cumulative_prod, 1, x, axis, dtype, include_initial, "cumulative_prod")


def _prod_vjp(g, x, axis):
    """Return g Πⱼ≠ᵢ xⱼ from the products before and after i: without division, so it holds at zeros and ±∞."""
    axes = normalize_axes(axis, x.ndim, "prod")
    order = (*(i for i in range(x.ndim) if i not in axes), *axes)
    transposed = namespace(x).permute_dims(x, order)
    flat = reshape(transposed, (*transposed.shape[: x.ndim - len(axes)], _count(x.shape, axis)))
    before = _shift_by_one(_cumulative_prod(flat, axis=flat.ndim - 1), -1)
    after = flip(_shift_by_one(_cumulative_prod(flip(flat, axis=-1), axis=flat.ndim - 1), -1), axis=-1)
    products = reshape(before * after, tuple(transposed.shape))
    return expand_reduced(g, x.shape, axis) * conj(
        namespace(x).permute_dims(products, tuple(np.argsort(order).tolist()))
    )


@primitive(x=_prod_vjp)
def _prod(xp, x, *, axis, keepdims):
    return xp.prod(x, axis=axis, keepdims=keepdims)


@upcast_half
def prod(x: Any, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """Return Π xᵢ; the gradient is correct at zeros too."""
    x = array(x, "prod")
    x = x if dtype is None else astype(x, dtype)
    result = _prod(x, axis=_axes(axis, x.ndim, "prod"), keepdims=keepdims)
    return result if dtype is None or result.dtype == dtype else astype(result, dtype)


def cumulative_max(x: Any, *, axis: int) -> Any:
    """Return maxₛ≤ₜ xₛ; the gradient goes to the last element that attains it, as in PyTorch."""
    x = array(x, "cumulative_max")
    refuse_complex(x, "cumulative_max")
    raw, axis = unwrap(x), normalize_axis(axis, x.ndim, "cumulative_max")
    if raw.shape[axis] == 0:
        return x
    xp = namespace(raw)
    steps = xp.moveaxis(raw, axis, 0)
    best, at, indices = steps[0], xp.argmax(steps[:1], axis=0), []
    for t in range(len(steps)):
        at = xp.where((steps[t] >= best) | (steps[t] != steps[t]), t, at)
        best = xp.maximum(best, steps[t])
        indices.append(at)
    return take_along_axis(x, xp.moveaxis(xp.stack(indices), 0, axis), axis=axis)


# ---- the linear recurrence


def _slice(x, axis, start, stop):
    return x[(slice(None),) * (axis % x.ndim) + (slice(start, stop),)]


def _shift_by_one(h, axis, first=1):
    """Return hₜ₋₁ for every t, beginning with a constant."""
    return concat([filled_like(_slice(h, axis, 0, 1).shape, first, h), _slice(h, axis, 0, -1)], axis=axis)


def _adjoint_recurrence(a, g, axis):
    """Return the coefficients conj(aₜ₊₁) of the adjoint recurrence, and its input g."""
    return conj(concat([_slice(a, axis, 1, None), filled_like(_slice(a, axis, 0, 1).shape, 0, a)], axis=axis)), g


def _scan_x_vjp(g, a, axis, reverse):
    """Compute λₜ = gₜ + conj(aₜ₊₁) λₜ₊₁: the same recurrence, run the other way."""
    if reverse:
        return flip(_scan_x_vjp(flip(g, axis=axis), flip(a, axis=axis), axis, False), axis=axis)
    return scan(*_adjoint_recurrence(a, g, axis), axis=axis, reverse=True)


def _scan_a_vjp(g, a, out, axis, reverse):
    """Return ∂/∂aₜ: λₜ conj(hₜ₋₁)."""
    earlier = flip(_shift_by_one(flip(out, axis=axis), axis, 0), axis=axis) if reverse else _shift_by_one(out, axis, 0)
    return _scan_x_vjp(g, a, axis, reverse) * conj(earlier)


@primitive(a=_scan_a_vjp, x=lambda g, a, axis, reverse: _scan_x_vjp(g, a, axis, reverse))
def _scan(xp, a, x, *, axis, reverse):
    if kernel := scan_kernel(a, x):
        return kernel(a, x, axis, reverse)
    if x.shape[axis] == 0:
        return a * x
    before = (slice(None),) * (axis % x.ndim)
    steps = range(x.shape[axis])[:: -1 if reverse else 1]
    out = [x[(*before, steps[0])]]
    for t in steps[1:]:
        out.append(a[(*before, t)] * out[-1] + x[(*before, t)])
    return xp.stack(out[::-1] if reverse else out, axis=axis)


@upcast_half
def scan(a: Any, x: Any, *, axis: int = -2, reverse: bool = False) -> Any:
    """Compute the linear recurrence hₜ = aₜ hₜ₋₁ + xₜ along an axis, from h = 0 (Blelloch 1990, §1.4).

    Its adjoint is the same recurrence run backwards, λₜ = gₜ + conj(aₜ₊₁) λₜ₊₁ with dx = λ and
    da = λ conj(hₜ₋₁), so it is closed under differentiation.
    """
    a, x = array(a, "scan", "a"), array(x, "scan")
    shape = np.broadcast_shapes(tuple(a.shape), tuple(x.shape))
    axis = normalize_axis(axis, len(shape), "scan")
    return _scan(broadcast_to(a, shape), broadcast_to(x, shape), axis=axis, reverse=reverse)

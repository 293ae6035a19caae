"""Sums, products, extremes, and what is built from them; and the linear recurrence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad.engine import Tensor, primitive
from minigrad.kernels import scan_kernel
from minigrad.namespace import namespace
from minigrad.primitives.elementwise import conj, sqrt, where
from minigrad.primitives.indexing import take_along_axis
from minigrad.primitives.shapes import broadcast_to, concat, flip, reshape

Axis = int | tuple[int, ...] | None


def _axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    axes = range(ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return tuple(a % ndim for a in axes)


def kept(shape: tuple, axis: Axis) -> tuple:
    """A shape after a reduction that keeps the reduced axes with size 1."""
    axes = _axes(axis, len(shape))
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def spread(g, shape, axis):
    """A reduction's cotangent, repeated over what was reduced."""
    return broadcast_to(reshape(g, kept(shape, axis)), shape)


@primitive(x=lambda g, shape, axis: spread(g, shape, axis))
def sum(xp, x, *, axis=None, keepdims=False):
    return xp.sum(x, axis=axis, keepdims=keepdims)


def mean(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Σ xᵢ / n."""
    return sum(x, axis=axis, keepdims=keepdims) / math.prod(x.shape[a] for a in _axes(axis, x.ndim))


def var(x: Any, *, axis: Axis = None, correction: float = 0, keepdims: bool = False) -> Any:
    """Σ |xᵢ − x̅|² / (n − correction)."""
    d = x - mean(x, axis=axis, keepdims=True)
    count = math.prod(x.shape[a] for a in _axes(axis, x.ndim))
    return sum(real_square(d), axis=axis, keepdims=keepdims) / (count - correction)


def real_square(x: Any) -> Any:
    """|x|² as a real array."""
    y = x * conj(x)
    return y if y.dtype == x.dtype and conj(x) is x else y.real


def std(x: Any, *, axis: Axis = None, correction: float = 0, keepdims: bool = False) -> Any:
    """The square root of var."""
    return sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def _to_extreme(g, x, out, axis):
    """An extreme's cotangent goes to where it was attained, in equal parts."""
    attained = x == reshape(out, kept(x.shape, axis))
    count = namespace(attained).sum(attained * (x * 0 + 1), axis=axis, keepdims=True)
    g = spread(g, x.shape, axis)
    return where(attained, g / count, 0)


@primitive(x=_to_extreme)
def max(xp, x, *, axis=None, keepdims=False):
    return xp.max(x, axis=axis, keepdims=keepdims)


@primitive(x=_to_extreme)
def min(xp, x, *, axis=None, keepdims=False):
    return xp.min(x, axis=axis, keepdims=keepdims)


# ---- running sums and products


@primitive(x=lambda g, axis: flip(cumulative_sum(flip(g, axis=axis), axis=axis), axis=axis))
def cumulative_sum(xp, x, *, axis):
    if xp is not np or x.dtype.kind not in "fc" or axis in (-1, x.ndim - 1):
        return xp.cumulative_sum(x, axis=axis)
    made = np.moveaxis(x.copy(), axis, 0)  # slice by slice is several times faster than NumPy's own loop
    for before, now in zip(made, made[1:], strict=False):
        now += before
    return np.moveaxis(made, 0, axis)


@primitive(x=lambda g, x, out, axis: scan(*_shifted(x, g, axis), axis=axis, reverse=True) * conj(_before(out, axis)))
def cumulative_prod(xp, x, *, axis):
    """Πₛ≤ₜ xₛ, the recurrence hₜ = xₜ hₜ₋₁ from h₋₁ = 1: its adjoint is the recurrence run backwards."""
    return xp.cumulative_prod(x, axis=axis)


def prod(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Π xᵢ, with the right gradient at zeros too."""
    axes = _axes(axis, x.ndim)
    shape = kept(tuple(x.shape), axis)
    rest = [i for i in range(x.ndim) if i not in axes]
    flat = namespace(x).permute_dims(x, (*rest, *axes))
    flat = reshape(flat, (*(x.shape[i] for i in rest), math.prod(x.shape[a] for a in axes)))
    y = cumulative_prod(flat, axis=-1)[..., -1]
    return reshape(y, shape) if keepdims else y


def cumulative_max(x: Any, *, axis: int) -> Any:
    """maxₛ≤ₜ xₛ; the gradient goes to the first place where it was attained."""
    raw = x._value if isinstance(x, Tensor) else x
    xp, axis = namespace(raw), axis % x.ndim
    steps = xp.moveaxis(raw, axis, 0)
    best, at, places = steps[0], xp.zeros(steps.shape[1:], dtype=int), []
    for t in range(len(steps)):
        at = xp.where(steps[t] > best, t, at)
        best = xp.maximum(best, steps[t])
        places.append(at)
    return take_along_axis(x, xp.moveaxis(xp.stack(places), 0, axis), axis=axis)


# ---- the linear recurrence


def _slice(x, axis, start, stop):
    return x[(slice(None),) * (axis % x.ndim) + (slice(start, stop),)]


def _before(h, axis, first=1):
    """The sequence one step earlier: hₜ₋₁ for every t, beginning with a constant."""
    head = _slice(h, axis, 0, 1) * 0 + first
    return concat([head, _slice(h, axis, 0, -1)], axis=axis)


def _shifted(a, g, axis):
    """The coefficients conj(aₜ₊₁) of the adjoint recurrence, and its input g."""
    return conj(concat([_slice(a, axis, 1, None), _slice(a, axis, 0, 1) * 0], axis=axis)), g


def _adjoint_scan(g, a, axis, reverse):
    """λₜ = gₜ + conj(aₜ₊₁) λₜ₊₁: the same recurrence, run the other way."""
    if reverse:
        return flip(_adjoint_scan(flip(g, axis=axis), flip(a, axis=axis), axis, False), axis=axis)
    return scan(*_shifted(a, g, axis), axis=axis, reverse=True)


def _scan_a(g, a, out, axis, reverse):
    """∂/∂aₜ: λₜ conj(hₜ₋₁)."""
    earlier = flip(_before(flip(out, axis=axis), axis, 0), axis=axis) if reverse else _before(out, axis, 0)
    return _adjoint_scan(g, a, axis, reverse) * conj(earlier)


@primitive(a=_scan_a, x=lambda g, a, axis, reverse: _adjoint_scan(g, a, axis, reverse))
def _scan(xp, a, x, *, axis, reverse):
    if kernel := scan_kernel(a, x):
        return kernel(a, x, axis, reverse)
    a, x = xp.moveaxis(a, axis, 0), xp.moveaxis(x, axis, 0)
    h, out = x[0] * 0, []
    for t in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
        h = a[t] * h + x[t]
        out.append(h)
    return xp.moveaxis(xp.stack(out[::-1] if reverse else out), 0, axis)


def scan(a: Any, x: Any, *, axis: int = -2, reverse: bool = False) -> Any:
    """The linear recurrence hₜ = aₜ hₜ₋₁ + xₜ along an axis, from h = 0 (Blelloch 1990, §1.4).

    Its adjoint is the same recurrence run backwards, λₜ = gₜ + conj(aₜ₊₁) λₜ₊₁ with dx = λ and
    da = λ conj(hₜ₋₁), so it is closed under differentiation.
    """
    shape = np.broadcast_shapes(tuple(a.shape), tuple(x.shape))
    return _scan(broadcast_to(a, shape), broadcast_to(x, shape), axis=axis % len(shape), reverse=reverse)

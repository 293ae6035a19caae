"""Normalisations along an axis: softmax, its logarithm, cross-entropy, and the root-mean-square norm.

For float16 and bfloat16 they compute in float32 and round once, at the end.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad.bounds import check_indices
from minigrad.compiled import chain
from minigrad.conversion import to_library_of
from minigrad.engine import primitive, unwrap
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array, normalize_axes, upcast_half
from minigrad.primitives.elementwise import complex_valued, conj, exp, sqrt
from minigrad.primitives.elementwise import where as choose
from minigrad.primitives.indexing import take_along_axis
from minigrad.primitives.reductions import expand_reduced, keepdims_shape, mean
from minigrad.primitives.reductions import sum as sum_
from minigrad.primitives.shapes import reshape

_LARGE = 4096  # elements of a matrix from which a loop over matrices is faster


def _array_with(x: Any, axis: Any, caller: str) -> Any:
    """Return x as an array. Raise AxisError where it has no such axis; a number counts as a vector of one element."""
    x = array(x, caller)
    normalize_axes(axis, max(x.ndim, 1), caller)
    return x


# ---- softmax


@upcast_half
def softmax(x: Any, *, axis: int = -1, where: Any = None) -> Any:
    """Return exp(xᵢ − max x) / Σⱼ exp(xⱼ − max x) over the elements where `where` holds, and 0 elsewhere.

    Where `where` holds nowhere along the axis the result is 0; without `where`, if all are −∞, it is NaN.
    """
    return _softmax(_array_with(x, axis, "softmax"), axis=axis, where=where)


@primitive(x=lambda g, out, axis: softmax_adjoint(g, conj(out), axis=axis))
def _softmax(xp, x, *, axis=-1, where=None):
    if xp is np and x.dtype.kind == "f" and x.ndim > 2 and axis == -1 and math.prod(x.shape[-2:]) >= _LARGE:
        return _matrix_by_matrix(x, where)
    if where is None:
        y = xp.exp(x - _largest(xp, x, axis))
        return y / xp.sum(y, axis=axis, keepdims=True)
    x = xp.where(to_library_of(x, where), x, -math.inf)
    y = xp.exp(x - _finite(xp, _largest(xp, x, axis)))
    total = xp.sum(y, axis=axis, keepdims=True)
    return y / xp.where(total == 0, 1, total)


def _largest(xp, x, axis):
    """Return the maximum of the real part along an axis; −∞ if the axis is empty."""
    x = xp.real(x) if complex_valued(x) else x
    return xp.max(x, axis=axis, keepdims=True) if 0 not in x.shape else xp.sum(x, axis=axis, keepdims=True) - math.inf


def _finite(xp, x):
    """Return x with 0 where it is not finite, so that it can be subtracted from infinities."""
    return xp.where(xp.isfinite(x), x, 0)


def _matrix_by_matrix(x, where):
    """Return the softmax of the last axis, computed in place one matrix at a time so that it stays in cache."""
    result = np.empty_like(x)
    hidden = None if where is None else np.broadcast_to(~np.asarray(where), x.shape)
    for i in np.ndindex(x.shape[:-2]):
        y = result[i]
        np.copyto(y, x[i])
        if hidden is not None:
            np.copyto(y, -np.inf, where=hidden[i])
        top = y.max(axis=-1, keepdims=True)
        y -= top if hidden is None else _finite(np, top)
        np.exp(y, out=y)
        total = y.sum(axis=-1, keepdims=True)
        y /= total if hidden is None else np.where(total == 0, 1, total)
    return result


def _adjoint_out(h, g, out, axis):
    """Return the cotangent of out in out (g − Σ g·out), given the cotangent h of the result."""
    along = sum_(h * conj(out), axis=axis, keepdims=True)
    return h * conj(g - sum_(g * out, axis=axis, keepdims=True)) - conj(g) * along


@primitive(
    x=lambda g, out_, axis: softmax_adjoint(g, conj(out_), axis=axis),
    out_=lambda g, x, out_, axis: _adjoint_out(g, x, out_, axis),
)
def softmax_adjoint(xp, x, out_, *, axis=-1):
    """Return out (g − Σ g·out) for the softmax `out_` and its cotangent g = x; a self-adjoint map of real g."""
    if xp is np and axis == -1:
        y = x - np.einsum("...i,...i->...", x, out_)[..., None]
        y *= out_
        return y
    return out_ * (x - xp.sum(x * out_, axis=axis, keepdims=True))


# ---- its logarithm


@upcast_half
def logsumexp(x: Any, *, axis: int = -1, keepdims: bool = False) -> Any:
    """Return log Σ exp xᵢ = max x + log Σ exp(xᵢ − max x); −∞ where all xᵢ are."""
    return _logsumexp(_array_with(x, axis, "logsumexp"), axis=axis, keepdims=keepdims)


def _shares(x, out, axis):
    """Return ∂out/∂x = softmax x, with 0 for finite numbers where another is +∞."""
    return choose(x - reshape(out, keepdims_shape(x.shape, axis)) == -math.inf, 0, softmax(x, axis=axis))


@primitive(x=lambda g, x, out, axis: expand_reduced(g, x.shape, axis) * conj(_shares(x, out, axis)))
def _logsumexp(xp, x, *, axis=-1, keepdims=False):
    top = _largest(xp, x, axis)
    total = xp.sum(xp.exp(x - _finite(xp, top)), axis=axis, keepdims=True)
    y = xp.log(xp.where(total == 0, 1, total)) + top
    return y if keepdims else xp.squeeze(y, axis=axis)


@upcast_half
def log_softmax(x: Any, *, axis: int = -1) -> Any:
    """Return xᵢ − log Σⱼ exp xⱼ, with max x subtracted from x first, so that a common offset costs no accuracy."""
    return _log_softmax(_array_with(x, axis, "log_softmax"), axis=axis)


@primitive(x=lambda g, out, axis: g - conj(exp(out)) * sum_(g, axis=axis, keepdims=True))
def _log_softmax(xp, x, *, axis=-1):
    if 0 in x.shape:
        return xp.zeros_like(x)
    below = x - _largest(xp, x, axis)
    return below - xp.log(xp.sum(xp.exp(below), axis=axis, keepdims=True))


def cross_entropy(logits: Any, targets: Any) -> Any:
    """Return the mean of −log softmax(logits)[target] in nats; logits (*batch, classes), integer targets (*batch).

    Raises IndexError for a target that is no class, TypeError for one that is no integer, ValueError for other shapes.
    """
    logits, targets = array(logits, "cross_entropy", "logits"), array(targets, "cross_entropy", "targets")
    *batch, classes = logits.shape
    targets = check_indices("cross_entropy", "targets", targets, classes, "a class")
    if tuple(targets.shape) != tuple(batch):
        raise ValueError(f"cross_entropy: targets have shape {tuple(targets.shape)}, expected {tuple(batch)}")
    return _cross_entropy(logits, targets=targets)


@upcast_half
def _cross_entropy(logits, *, targets):
    return -mean(take_along_axis(log_softmax(logits), targets[..., None], axis=-1))


# ---- the root-mean-square norm


@upcast_half
def rms_norm(x: Any, *, axis: int = -1, eps: float = 1e-6) -> Any:
    """Return x / √(mean x² + ε) (Zhang and Sennrich 2019, eq. 4)."""
    x = array(x, "rms_norm")
    normalize_axes(axis, x.ndim, "rms_norm")
    return _rms_norm(x, axis=axis, eps=eps)


@primitive(x=lambda g, x, out, axis, eps: _rms_adjoint(g, x, out, axis, eps))
def _rms_norm(xp, x, *, axis=-1, eps=1e-6):
    if 0 in x.shape:
        return xp.zeros_like(x)
    if _in_whole_vectors(x, axis) and (compiled := chain("rms_norm", x)):
        return compiled(x, eps)
    return x / _root_mean_square(x, axis, eps)


def _rms_adjoint(g, x, out, axis, eps):
    """Return (g − out · mean(g · out)) / √(mean x² + ε)."""
    if 0 in x.shape:
        return g
    if _in_whole_vectors(x, axis) and (compiled := chain("rms_norm_adjoint", g, x, out)):
        return compiled(g, x, out, eps)
    out = conj(out)
    return (g - out * mean(g * out, axis=axis, keepdims=True)) / conj(_root_mean_square(x, axis, eps))


def _root_mean_square(x, axis, eps):
    """Return √(mean x² + ε), scaled by max |x| so that no square overflows and no significant one underflows.

    The scale is constant for gradients, since the result does not depend on it.
    """
    raw, root = unwrap(x), math.sqrt(eps)
    xp = namespace(raw)
    unit = xp.maximum(xp.max(xp.abs(raw), axis=axis, keepdims=True), root)
    unit = xp.where(unit < math.inf, unit, 1)
    x = x / unit
    return unit * sqrt(mean(x * x, axis=axis, keepdims=True) + (root / unit) ** 2)


def _in_whole_vectors(x, axis):
    return axis == -1 and x.shape[-1] % 16 == 0  # of float32, in 512 bits

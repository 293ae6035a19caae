"""The linear algebra extension of the array API standard: norms are here, the rest is imported."""

# ruff: noqa: F401 - products and factorizations belong to the extension too
from __future__ import annotations

import math
from typing import Any

from minigrad.engine import primitive
from minigrad.primitives.arguments import array, normalize_axes, upcast_half
from minigrad.primitives.determinants import det, slogdet
from minigrad.primitives.dtypes import finfo
from minigrad.primitives.einsum import einsum
from minigrad.primitives.elementwise import abs as abs_
from minigrad.primitives.elementwise import astype, real, where
from minigrad.primitives.factorizations import cholesky, eigh, eigvalsh, pinv, qr, svd, svdvals
from minigrad.primitives.nondifferentiable import count_nonzero
from minigrad.primitives.products import (
    cross,
    diagonal,
    diagonal_matrix,
    matmul,
    outer,
    tensordot,
    trace,
    vecdot,
)
from minigrad.primitives.reductions import expand_reduced, real_square, safe_sqrt
from minigrad.primitives.reductions import max as max_
from minigrad.primitives.reductions import min as min_
from minigrad.primitives.reductions import sum as sum_
from minigrad.primitives.shapes import matrix_transpose
from minigrad.primitives.solves import inv, matrix_power, solve, solve_triangular


def _powered(x, out, axis, ord):
    """Return (|xᵢ| / ‖x‖)^(p − 1) sign(xᵢ), and 0 where either vanishes."""
    size = abs_(x)
    total = expand_reduced(out, x.shape, axis)
    usable = (size != 0) & (total != 0) & (total != math.inf)
    size, total = where(usable, size, 1), where(usable, total, 1)
    return where(usable, x / size * (size / total) ** (ord - 1), 0)


@primitive(x=lambda g, x, out, axis, ord: expand_reduced(g, x.shape, axis) * _powered(x, out, axis, ord))
def _p_norm(xp, x, *, axis, keepdims, ord):
    return xp.sum(xp.abs(x) ** ord, axis=axis, keepdims=keepdims) ** (1 / ord)


@upcast_half
def vector_norm(x: Any, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Any:
    """Return (Σ |xᵢ|ᵖ)^(1/p) over the axes for p = ord.

    ±∞ give the extremes of |xᵢ|, 0 the number of nonzeros. Where the norm is 0 its gradient is taken as 0.
    """
    x = array(x, "vector_norm")
    axis = normalize_axes(axis, x.ndim, "vector_norm")
    if ord == 2:
        return safe_sqrt(sum_(real_square(x), axis=axis, keepdims=keepdims))
    if ord in (1, math.inf, -math.inf):
        return {1: sum_, math.inf: max_, -math.inf: min_}[ord](abs_(x), axis=axis, keepdims=keepdims)
    if ord == 0:
        return astype(count_nonzero(x, axis=axis, keepdims=keepdims), real(x).dtype)
    return _p_norm(x, axis=axis, keepdims=keepdims, ord=ord)


norm = vector_norm


@upcast_half
def matrix_norm(x: Any, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """Return a norm of the matrices in the last two axes.

    "fro" is the root of the squares' sum, "nuc" the sum of the singular values, ±2 the largest and the smallest of
    them, ±1 those of the columns' and ±∞ of the rows' absolute sums.
    """
    x = array(x, "matrix_norm")
    if x.ndim < 2:
        raise ValueError(f"matrix_norm: got shape {tuple(x.shape)}, expected at least two axes")
    if ord in ("fro", None):
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord not in ("nuc", 1, -1, 2, -2, math.inf, -math.inf):
        raise ValueError(f"matrix_norm: got ord {ord!r}, expected 'fro', 'nuc', ±1, ±2 or ±∞")
    if ord in ("nuc", 2, -2):
        parts = svdvals(x)
    else:
        parts = sum_(abs_(x), axis=-2 if ord in (1, -1) else -1)
    extreme = sum_ if ord == "nuc" else max_ if ord > 0 else min_
    result = extreme(parts, axis=-1)
    return result[..., None, None] if keepdims else result


def matrix_rank(x: Any, *, rtol: Any = None) -> Any:
    """Return the number of singular values above rtol times the largest; constant for gradients."""
    x = array(x, "matrix_rank")
    if x.ndim < 2:
        raise ValueError(f"matrix_rank: got shape {tuple(x.shape)}, expected at least two axes")
    s = svdvals(x)
    if rtol is None:
        rtol = max(x.shape[-2:]) * finfo(s.dtype).eps
    rtol = rtol[..., None] if getattr(rtol, "ndim", 0) else rtol
    return count_nonzero(s > max_(s, axis=-1, keepdims=True) * rtol, axis=-1)

"""Determinants; their gradients are polynomials, computed without an inverse."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from minigrad.engine import is_complex, primitive
from minigrad.primitives.arguments import upcast_half
from minigrad.primitives.elementwise import conj, imag, stop_gradient
from minigrad.primitives.products import adjoint, trace
from minigrad.primitives.shapes import matrix_transpose, reshape, stack
from minigrad.primitives.solves import inv, square
from minigrad.transforms import vjp


@primitive(a=lambda g, a: g[..., None, None] * conj(cofactors(a)))
def _det(xp, a):
    return xp.linalg.det(a)


@upcast_half
def det(a: Any) -> Any:
    """Return the determinant of a square matrix; its gradient is correct at singular matrices too."""
    return _det(square(a, "det"))


def cofactors(a: Any) -> Any:
    """Return the cofactor matrix ∂ det a/∂a, for exact numbers from the minors, else from an SVD."""
    return _minors(a) if a.dtype == object else _cofactors(a)


def _minors(a):
    n = a.shape[-1]
    others = [[k for k in range(n) if k != i] for i in range(n)]
    minors = [(-1) ** (i + j) * _det(a[..., others[i], :][..., others[j]]) for i in range(n) for j in range(n)]
    return reshape(stack(minors, axis=-1), (*a.shape[:-2], n, n)) if n else a


def _products_without(xp, s, count):
    """Return Π sₖ over k ≠ i, or over k ≠ i, j with a zero diagonal, without dividing."""
    n = s.shape[-1]
    eye = xp.eye(n, dtype=bool)
    excluded = eye if count == 1 else eye[:, None, :] | eye[None, :, :]
    result = xp.prod(
        xp.where(excluded, xp.ones_like(s[..., *(None,) * count, :]), s[..., *(None,) * count, :]), axis=-1
    )
    return result if count == 1 else xp.where(eye, xp.zeros_like(result), result)


def _factors(xp, a):
    """Return u, s, v with a = u diag(s) vᴴ, and δ = det u · det vᴴ, |δ| = 1; δ is NaN if a is not finite."""
    finite = xp.all(xp.isfinite(a), axis=(-2, -1))
    u, s, vh = xp.linalg.svd(xp.where(finite[..., None, None], a, xp.zeros_like(a)), full_matrices=False)
    phase = xp.linalg.det(u) * xp.linalg.det(vh)
    phase = xp.where(finite, phase, xp.full_like(phase, math.nan))
    return u, s, xp.conj(xp.matrix_transpose(vh)), phase[..., None, None]


@primitive(a=lambda g, a: conj(_second(a, conj(g))))
def _cofactors(xp, a):
    """Return δ ū diag(Πₖ≠ᵢ sₖ) vᵀ, where a = u s vᴴ and det a = δ Π s."""
    u, s, v, phase = _factors(xp, a)
    products = xp.astype(_products_without(xp, s, 1), a.dtype)
    return phase * ((xp.conj(u) * products[..., None, :]) @ xp.matrix_transpose(v))


@primitive(
    a=lambda g, a, x: _third(g, a, x),
    x=lambda g, a: conj(_second(a, conj(g))),
)
def _second(xp, a, x):
    """Return the derivative of the cofactors along x.

    In the basis of the singular vectors, b = uᴴ x v: pᵢⱼ = Πₖ≠ᵢ,ⱼ sₖ weights bⱼⱼ on the diagonal and −bⱼᵢ off it.
    """
    u, s, v, phase = _factors(xp, a)
    pairs = xp.astype(_products_without(xp, s, 2), a.dtype)
    b = xp.conj(xp.matrix_transpose(u)) @ x @ v
    on_diagonal = (pairs @ xp.linalg.diagonal(b)[..., None])[..., 0]
    inner = on_diagonal[..., None] * xp.eye(s.shape[-1], dtype=a.dtype) - pairs * xp.matrix_transpose(b)
    return phase * (xp.conj(u) @ inner @ xp.matrix_transpose(v))


def _third(g, a, x):
    """Return the third derivative in terms of the inverse, so a must be regular, unlike at lower orders."""

    def along(a):
        solved = matrix_transpose(inv(a))
        product = matrix_transpose(x) @ solved
        return det(a)[..., None, None] * (trace(product)[..., None, None] * solved - solved @ product)

    return vjp(along, a)[1](g)[0]


# ---- logarithms of determinants


class SlogdetResult(NamedTuple):
    """The result of slogdet."""

    sign: Any
    logabsdet: Any


@primitive(a=lambda g, a: g[..., None, None] * adjoint(inv(a)))
def _logabsdet(xp, a):
    return xp.linalg.slogdet(a)[1]


@primitive(a=lambda g, a, out: _phase_rule(g, a, out))
def _sign(xp, a):
    return xp.linalg.slogdet(a)[0]


def _phase_rule(g, a, out):
    """Return the cotangent of a: the phase of the determinant changes by Im tr(a⁻¹ da)."""
    return adjoint(inv(a)) * (imag(g * conj(out)) * 1j)[..., None, None]


@upcast_half
def slogdet(a: Any) -> SlogdetResult:
    """Return the sign (for complex numbers the phase) of the determinant and the logarithm of its modulus."""
    a = square(a, "slogdet")
    return SlogdetResult(_sign(a if is_complex(a.dtype) else stop_gradient(a)), _logabsdet(a))

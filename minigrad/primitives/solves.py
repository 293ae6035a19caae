"""Solutions of linear systems."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.engine import Tensor, constant, primitive, unwrap
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array, integer, upcast_half
from minigrad.primitives.products import adjoint, matmul
from minigrad.primitives.shapes import broadcast_to, tril, triu


def square(x: Any, caller: str) -> Any:
    """Return x as an array of square matrices. Raise ValueError when it is none."""
    x = array(x, caller, "a")
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"{caller}: got shape {tuple(x.shape)}, expected square matrices")
    return x


def _solve_b(g, a):
    return _solve(*_broadcast_batch(adjoint(a), g))


@primitive(a=lambda g, a, out: -_solve_b(g, a) @ adjoint(out), b=_solve_b)
def _solve(xp, a, b):
    return xp.linalg.solve(a, b)


def _broadcast_batch(a, b):
    """Broadcast the batch axes of both, which CuPy's solver does not."""
    batch = np.broadcast_shapes(tuple(a.shape[:-2]), tuple(b.shape[:-2]))
    return broadcast_to(a, (*batch, *a.shape[-2:])), broadcast_to(b, (*batch, *b.shape[-2:]))


@upcast_half
def solve(a: Any, b: Any) -> Any:
    """Return x with a x = b, for square a; b is a matrix, or a vector when it has one axis.

    Raises LinAlgError when a is singular; on CuPy's arrays the result is not finite instead.
    """
    a, b = square(a, "solve"), array(b, "solve", "b")
    return solve(a, b[:, None])[..., 0] if b.ndim == 1 else _solve(*_broadcast_batch(a, b))


@upcast_half
def inv(a: Any) -> Any:
    """Return a⁻¹. Raises LinAlgError when a is singular; on CuPy's arrays the result is not finite instead."""
    a = square(a, "inv")
    return _solve(*_broadcast_batch(a, namespace(unwrap(a)).eye(a.shape[-1], dtype=a.dtype)))


def matrix_power(a: Any, n: int) -> Any:
    """Return a @ … @ a with n factors, by repeated squaring; of the inverse for negative n."""
    a, n = square(a, "matrix_power"), integer(n, "matrix_power", "n")
    if n < 0:
        return matrix_power(inv(a), -n)
    if n == 0:
        eye = broadcast_to(namespace(unwrap(a)).eye(a.shape[-1], dtype=a.dtype), tuple(a.shape))
        return constant(eye) if isinstance(a, Tensor) else eye
    if n == 1:
        return a
    half = matrix_power(a, n // 2)
    return matmul(matmul(half, half), a) if n % 2 else matmul(half, half)


def _triangle(x, lower, unit):
    """Return the triangle of x that a triangular solve uses."""
    k = 1 if unit else 0
    return tril(x, k=-k) if lower else triu(x, k=k)


def _triangular_b(g, a, lower, unit_diagonal):
    return solve_triangular(adjoint(a), g, lower=not lower, unit_diagonal=unit_diagonal)


def _triangular_a(g, a, out, lower, unit_diagonal):
    return _triangle(-_triangular_b(g, a, lower, unit_diagonal) @ adjoint(out), lower, unit_diagonal)


@primitive(a=_triangular_a, b=_triangular_b)
def _solve_triangular(xp, a, b, *, lower, unit_diagonal):
    if xp is np and a.size and b.size:
        from scipy.linalg import solve_triangular as scipy_solve

        return scipy_solve(a, b, lower=lower, unit_diagonal=unit_diagonal, check_finite=False)
    a = xp.tril(a) if lower else xp.triu(a)
    if unit_diagonal:
        eye = xp.eye(a.shape[-1], dtype=a.dtype)
        a = xp.where(eye == 1, eye, a)
    return xp.linalg.solve(a, b)


@upcast_half
def solve_triangular(a: Any, b: Any, *, lower: bool = False, unit_diagonal: bool = False) -> Any:
    """Return x with a x = b, using one triangle of a only, with ones on its diagonal if unit_diagonal."""
    a, b = square(a, "solve_triangular"), array(b, "solve_triangular", "b")
    options = {"lower": lower, "unit_diagonal": unit_diagonal}
    if b.ndim == 1:
        return solve_triangular(a, b[:, None], **options)[..., 0]
    return _solve_triangular(*_broadcast_batch(a, b), **options)

"""Products and solves."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from minigrad.engine import primitive
from minigrad.namespace import namespace
from minigrad.primitives.elementwise import conj, real, sqrt
from minigrad.primitives.reductions import real_square
from minigrad.primitives.reductions import sum as sum_
from minigrad.primitives.shapes import broadcast_to, expand_dims, matrix_transpose, reshape, tril, triu
from minigrad.threads import product


def _adjoint(x):
    return conj(matrix_transpose(x))


def _flat(x):
    return reshape(x, (-1, x.shape[-1]))


def _product(x, y):
    """x @ y; of NumPy arrays in the package's own threads."""
    if not (type(x) is np.ndarray and type(y) is np.ndarray):
        return x @ y
    if y.ndim == 2 and x.ndim > 2 and x.flags.c_contiguous:
        return product(x.reshape(-1, x.shape[-1]), y).reshape(*x.shape[:-1], y.shape[-1])  # one instead of a batch
    return product(x, y)


@primitive(
    x=lambda g, y: _product(g, _adjoint(y)),
    y=lambda g, x, y: _product(_adjoint(_flat(x)), _flat(g)) if y.ndim == 2 else _product(_adjoint(x), g),
)
def _matmul(xp, x, y):
    return _product(x, y)


def matmul(x: Any, y: Any) -> Any:
    """x @ y over the last two axes, the others broadcast; a vector is a row on the left and a column on the right.

    Raises ValueError for a scalar.
    """
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError("matmul: got a scalar, expected arrays of at least one axis")
    if x.ndim == 1:
        y_ = expand_dims(y, axis=-1) if y.ndim == 1 else y
        return (_matmul(x[None, :], y_))[..., 0, 0] if y.ndim == 1 else _matmul(x[None, :], y_)[..., 0, :]
    if y.ndim == 1:
        return _matmul(x, y[:, None])[..., 0]
    return _matmul(x, y)


def vecdot(x: Any, y: Any, *, axis: int = -1) -> Any:
    """Σ conj(xᵢ) yᵢ."""
    return sum_(conj(x) * y, axis=axis)


def outer(x: Any, y: Any) -> Any:
    """xᵢ yⱼ."""
    return x[:, None] * y[None, :]


def tensordot(x: Any, y: Any, *, axes: int | tuple = 2) -> Any:
    """The sum of products over the last `axes` axes of x and the first of y, or over the pairs named."""
    left, right = (range(x.ndim - axes, x.ndim), range(axes)) if isinstance(axes, int) else axes
    letters = iter(string.ascii_letters)
    a = [next(letters) for _ in range(x.ndim)]
    b = [next(letters) for _ in range(y.ndim)]
    for i, j in zip(left, right, strict=True):
        b[j % y.ndim] = a[i % x.ndim]
    kept = [c for c in a if c not in b] + [c for c in b if c not in a]
    return einsum(f"{''.join(a)},{''.join(b)}->{''.join(kept)}", x, y)


# ---- einsum


def _einsum_rule(g, i, xs, subscripts):
    """The cotangent of operand i is an einsum too: the result and the other operands, into operand i's axes."""
    *terms, result = subscripts.replace("->", ",").split(",")
    others = [(t, conj(x)) for j, (t, x) in enumerate(zip(terms, xs, strict=True)) if j != i]
    lost = [c for c in terms[i] if c not in result and all(c not in t for t, _ in others)]  # summed in operand i alone
    kept = "".join(c for c in terms[i] if c not in lost)
    g = einsum(f"{','.join([result, *(t for t, _ in others)])}->{kept}", g, *(x for _, x in others))
    sizes = dict(zip(terms[i], xs[i].shape, strict=True))
    g = reshape(g, tuple(1 if c in lost else sizes[c] for c in terms[i]))
    return broadcast_to(g, tuple(xs[i].shape))


@primitive(xs=_einsum_rule)
def _einsum(xp, *xs, subscripts):
    return xp.einsum(subscripts, *xs, optimize=True) if xp is np and len(xs) > 1 else xp.einsum(subscripts, *xs)


def einsum(subscripts: str, *operands: Any) -> Any:
    """The sum of products that the subscripts name (Einstein's convention, as numpy.einsum).

    Raises ValueError when the subscripts do not fit the operands.
    """
    terms, result = _explicit(subscripts, operands)
    terms, matrices = _without_diagonals(terms, list(operands))
    return _einsum(*matrices, subscripts=",".join(terms) + "->" + result)


def _explicit(subscripts: str, operands: tuple) -> tuple[list[str], str]:
    """Subscripts with ellipses written as letters and the result always given."""
    left, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ValueError(f"einsum: {subscripts!r} names {len(terms)} operands, got {len(operands)}")
    free = [c for c in string.ascii_letters if c not in subscripts]
    widest = 0
    for n, (term, x) in enumerate(zip(terms, operands, strict=True)):
        extra = x.ndim - len(term.replace("...", ""))
        if extra < 0 or (extra and "..." not in term):
            raise ValueError(f"einsum: operand {n} has {x.ndim} axes (shape {tuple(x.shape)}), expected {term!r}")
        widest = max(widest, extra)
        terms[n] = term.replace("...", "".join(free[len(free) - extra :]))
    ellipsis = "".join(free[len(free) - widest :])
    if not arrow:
        letters = "".join(terms)
        result = ellipsis + "".join(sorted(c for c in set(letters) - set(ellipsis) if letters.count(c) == 1))
    return terms, result.replace("...", ellipsis)


def _without_diagonals(terms: list[str], operands: list) -> tuple[list[str], list]:
    """A letter twice in one term is a diagonal: its second place gets a new letter and an identity matrix."""
    terms = list(terms)
    for n in range(len(operands)):
        for c in set(terms[n]):
            while terms[n].count(c) > 1:
                new = next(a for a in string.ascii_letters if all(a not in t for t in terms))
                at = terms[n].rindex(c)
                xp = namespace(operands[n])
                terms[n] = terms[n][:at] + new + terms[n][at + 1 :]
                terms.append(c + new)
                operands.append(xp.eye(operands[n].shape[at], dtype=operands[n].dtype))
    return terms, operands


# ---- solves and their relatives


def _solve_b(g, a):
    return solve(_adjoint(a), g)


@primitive(a=lambda g, a, out: -_solve_b(g, a) @ _adjoint(out), b=_solve_b)
def _solve(xp, a, b):
    return xp.linalg.solve(a, b)


def _in_step(a, b):
    """Both with the batch axes that they have together: CuPy's solver does not broadcast."""
    batch = np.broadcast_shapes(tuple(a.shape[:-2]), tuple(b.shape[:-2]))
    return broadcast_to(a, (*batch, *a.shape[-2:])), broadcast_to(b, (*batch, *b.shape[-2:]))


def solve(a: Any, b: Any) -> Any:
    """x with a x = b, for square a; b is a matrix, or a vector when it has one axis.

    Raises LinAlgError when a is singular; on CuPy's arrays the result is not finite instead.
    """
    return solve(a, b[:, None])[..., 0] if b.ndim == 1 else _solve(*_in_step(a, b))


def inv(a: Any) -> Any:
    """a⁻¹."""
    xp = namespace(a)
    return solve(a, broadcast_to(xp.eye(a.shape[-1], dtype=a.dtype), tuple(a.shape)))


def _half(x, lower, unit):
    """The triangle that a triangular solve reads."""
    k = 1 if unit else 0
    return tril(x, k=-k) if lower else triu(x, k=k)


def _triangular_b(g, a, lower, unit_diagonal):
    return solve_triangular(_adjoint(a), g, lower=not lower, unit_diagonal=unit_diagonal)


def _triangular_a(g, a, out, lower, unit_diagonal):
    return _half(-_triangular_b(g, a, lower, unit_diagonal) @ _adjoint(out), lower, unit_diagonal)


@primitive(a=_triangular_a, b=_triangular_b)
def _solve_triangular(xp, a, b, *, lower, unit_diagonal):
    if xp is np:
        from scipy.linalg import solve_triangular as scipy_solve

        return scipy_solve(a, b, lower=lower, unit_diagonal=unit_diagonal)
    a = xp.tril(a) if lower else xp.triu(a)
    if unit_diagonal:
        one = xp.eye(a.shape[-1], dtype=a.dtype)
        a = a * (1 - one) + one
    return xp.linalg.solve(a, b)


def solve_triangular(a: Any, b: Any, *, lower: bool = False, unit_diagonal: bool = False) -> Any:
    """x with a x = b, reading one triangle of a only (and ones on its diagonal if unit_diagonal)."""
    options = {"lower": lower, "unit_diagonal": unit_diagonal}
    if b.ndim == 1:
        return solve_triangular(a, b[:, None], **options)[..., 0]
    return _solve_triangular(*_in_step(a, b), **options)


def diagonal(x: Any, *, offset: int = 0) -> Any:
    """The elements x[…, i, i + offset]."""
    rows = np.arange(max(0, min(x.shape[-2] + min(offset, 0), x.shape[-1] - max(offset, 0))))
    return x[..., rows - min(offset, 0), rows + max(offset, 0)]


def trace(x: Any, *, offset: int = 0) -> Any:
    """Σ x[…, i, i + offset]."""
    return sum_(diagonal(x, offset=offset), axis=-1)


def norm(x: Any, *, axis: int | tuple | None = None, keepdims: bool = False) -> Any:
    """The Euclidean norm √Σ|xᵢ|² over the axes; its gradient at zero is not defined."""
    return sqrt(sum_(real_square(x), axis=axis, keepdims=keepdims))


vector_norm = norm


@primitive(a=lambda g, a, out: _det_rule(g, a, out))
def _det(xp, a):
    return xp.linalg.det(a)


def _det_rule(g, a, out):
    """∂ det a/∂a = det a · a⁻ᵀ."""
    return conj(matrix_transpose(inv(a))) * (g * conj(out))[..., None, None]


def det(a: Any) -> Any:
    """The determinant of a square matrix."""
    return _det(a)


@primitive(a=lambda g, out: _cholesky_rule(g, out))
def cholesky(xp, a):
    return xp.linalg.cholesky(a)


def _cholesky_rule(g, out):
    """L⁻ᴴ Φ(Lᴴ g) L⁻¹, made Hermitian, with Φ the lower triangle and half the diagonal (Murray 2016, eq. 10)."""
    p = _adjoint(out) @ g
    p = tril(p) - diagonal_matrix(diagonal(p)) / 2
    s = solve_triangular(_adjoint(out), p, lower=False)
    s = _adjoint(solve_triangular(_adjoint(out), _adjoint(s), lower=False))
    return (s + _adjoint(s)) / 2


def diagonal_matrix(d: Any) -> Any:
    """The matrix with d on its diagonal and zeros elsewhere."""
    return d[..., None] * namespace(d).eye(d.shape[-1], dtype=real(d).dtype)

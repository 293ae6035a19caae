"""Cholesky, eigenvalue, singular value and QR factorizations, and the pseudo-inverse.

Each primitive returns its factors concatenated in a single array, so that one rule receives all cotangents. Where
eigenvalues or singular values coincide, the factors are not differentiable; terms that divide by their difference are
set to 0, which is correct for every function that does not depend on the choice of vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minigrad.engine import is_complex, primitive, unwrap
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array, upcast_half
from minigrad.primitives.elementwise import real, where
from minigrad.primitives.products import adjoint, diagonal, diagonal_matrix
from minigrad.primitives.shapes import concat, matrix_transpose, tril, triu
from minigrad.primitives.solves import solve_triangular, square


def _safe_divide(x, d):
    """Return x / d, and 0 where d = 0."""
    return where(d == 0, 0, x / where(d == 0, 1, d))


def _differences(s):
    """Return sⱼ − sᵢ."""
    return s[..., None, :] - s[..., :, None]


def _matrices(x, caller):
    x = array(x, caller, "a")
    if x.ndim < 2:
        raise ValueError(f"{caller}: got shape {tuple(x.shape)}, expected matrices")
    return x


# ---- Cholesky


@primitive(a=lambda g, out: _cholesky_rule(g, out))
def _cholesky(xp, a):
    return xp.linalg.cholesky(a)


def _cholesky_rule(g, out):
    """Return L⁻ᴴ Φ(Lᴴ g) L⁻¹, made Hermitian, with Φ the lower triangle and half the diagonal (Murray 2016, eq. 10)."""
    p = adjoint(out) @ g
    p = tril(p) - diagonal_matrix(diagonal(p)) / 2
    s = solve_triangular(adjoint(out), p, lower=False)
    s = adjoint(solve_triangular(adjoint(out), adjoint(s), lower=False))
    return (s + adjoint(s)) / 2


@upcast_half
def cholesky(a: Any, *, upper: bool = False) -> Any:
    """Return L with a = L Lᴴ, or Lᴴ if upper; of a, Hermitian, one triangle is read.

    Raises LinAlgError unless a is positive definite.
    """
    a = square(a, "cholesky")
    return adjoint(_cholesky(adjoint(a))) if upper else _cholesky(a)


# ---- eigenvalues


class EighResult(NamedTuple):
    """The result of eigh."""

    eigenvalues: Any
    eigenvectors: Any


def _eigh_rule(g, out):
    """Return V (diag(g_λ) + Vᴴ g_V / (λⱼ − λᵢ)) Vᴴ, made Hermitian (Giles 2008, §3.1; Boeddeker et al. 2017)."""
    w, v = real(out[..., 0, :]), out[..., 1:, :]
    inner = diagonal_matrix(real(g[..., 0, :])) + _safe_divide(adjoint(v) @ g[..., 1:, :], _differences(w))
    result = v @ inner @ adjoint(v)
    return (result + adjoint(result)) / 2


@primitive(a=_eigh_rule)
def _eigh(xp, a):
    w, v = xp.linalg.eigh(a)
    return xp.concat([xp.astype(w, v.dtype)[..., None, :], v], axis=-2)


@upcast_half
def eigh(a: Any) -> EighResult:
    """Return the eigenvalues, ascending, and eigenvectors (columns) of a Hermitian matrix; one triangle is read."""
    packed = _eigh(square(a, "eigh"))
    return EighResult(real(packed[..., 0, :]), packed[..., 1:, :])


def eigvalsh(a: Any) -> Any:
    """Return the eigenvalues of a Hermitian matrix, ascending."""
    return eigh(a).eigenvalues


# ---- singular values


class SVDResult(NamedTuple):
    """The result of svd."""

    U: Any
    S: Any
    Vh: Any


def _svd_rule(g, out, shape):
    """Return U ((Uᴴg_U)ₛ/E S + S (Vᴴg_V)ₛ/E + diag(g_S)) Vᴴ, with xₛ = x − xᴴ and Eᵢⱼ = sⱼ² − sᵢ² (Townsend 2016).

    The components of g_U and g_V orthogonal to the ranges of U and V are divided by S and added; for complex numbers
    the diagonal has a term for the phase of the vectors (Wan and Zhang 2019).
    """
    m = shape[-2]
    (u, s, v), (gu, gs, gv) = ((x[..., :m, :], real(x[..., m, :]), x[..., m + 1 :, :]) for x in (out, g))
    squares = _differences(s * s)
    rotation_u, rotation_v = (adjoint(x) @ y for x, y in ((u, gu), (v, gv)))
    rotation_u, rotation_v = rotation_u - adjoint(rotation_u), rotation_v - adjoint(rotation_v)
    inner = _safe_divide(rotation_u, squares) * s[..., None, :] + s[..., :, None] * _safe_divide(rotation_v, squares)
    inner = inner + diagonal_matrix(gs)
    if is_complex(out.dtype):
        inner = inner + diagonal_matrix(_safe_divide(diagonal(rotation_u), 2 * s))
    outside_u, outside_v = (_safe_divide(y, s[..., None, :]) for y in (gu, gv))
    outside_u, outside_v = (y - x @ (adjoint(x) @ y) for x, y in ((u, outside_u), (v, outside_v)))
    return (u @ inner + outside_u) @ adjoint(v) + u @ adjoint(outside_v)


@primitive(a=_svd_rule)
def _svd(xp, a):
    u, s, vh = xp.linalg.svd(a, full_matrices=False)
    return xp.concat([u, xp.astype(s, u.dtype)[..., None, :], xp.conj(xp.matrix_transpose(vh))], axis=-2)


@upcast_half
def svd(a: Any, *, full_matrices: bool = True) -> SVDResult:
    """Return U, S and Vh with a = U diag(S) Vh.

    The vectors that full_matrices adds to U or Vh are constant for gradients, as in PyTorch.
    """
    a = _matrices(a, "svd")
    packed, m = _svd(a), a.shape[-2]
    u, s, vh = packed[..., :m, :], real(packed[..., m, :]), adjoint(packed[..., m + 1 :, :])
    if full_matrices and a.shape[-2] != a.shape[-1]:
        raw, k = unwrap(a), s.shape[-1]
        full = namespace(raw).linalg.svd(raw, full_matrices=True)
        u = concat([u, full[0][..., :, k:]], axis=-1)
        vh = concat([vh, full[2][..., k:, :]], axis=-2)
    return SVDResult(u, s, vh)


def svdvals(a: Any) -> Any:
    """Return the singular values of a matrix, descending."""
    return svd(a, full_matrices=False).S


# ---- QR


class QRResult(NamedTuple):
    """The result of qr."""

    Q: Any
    R: Any


def _qr_rule(g, out, shape):
    """Return (g_Q + Q copyltu(M)) R⁻ᴴ with M = R g_Rᴴ − g_Qᴴ Q (Walter and Lehmann 2010; Liao et al. 2019)."""
    m = shape[-2]
    (q, r), (gq, gr) = ((x[..., :m, :], matrix_transpose(x[..., m:, :])) for x in (out, g))
    inner = triu(gr @ adjoint(r) - adjoint(q) @ gq)
    inner = inner + adjoint(inner) - diagonal_matrix(real(diagonal(inner)))
    return adjoint(solve_triangular(r, adjoint(gq + q @ inner), lower=False))


@primitive(a=_qr_rule)
def _qr(xp, a):
    q, r = xp.linalg.qr(a)
    return xp.concat([q, xp.matrix_transpose(r)], axis=-2)


def _no_rule(shape):
    raise ValueError(f"qr: the complete Q of {shape[-2]} × {shape[-1]} has no gradient, use mode='reduced'")


@primitive(a=_no_rule)
def _complete_qr(xp, a):
    return xp.concat(list(xp.linalg.qr(a, mode="complete")), axis=-1)


@upcast_half
def qr(a: Any, *, mode: str = "reduced") -> QRResult:
    """Return Q with orthonormal columns and R, upper triangular, with a = Q R.

    Raises ValueError for the gradient of a complete Q of more rows than columns, which is not determined.
    """
    a = _matrices(a, "qr")
    m, n = a.shape[-2:]
    if mode not in ("reduced", "complete"):
        raise ValueError(f"qr: got mode {mode!r}, expected 'reduced' or 'complete'")
    if mode == "complete" and m > n:
        packed = _complete_qr(a)
        return QRResult(packed[..., :m], packed[..., m:])
    packed = _qr(a[..., :, :m] if m < n else a)
    q, r = packed[..., :m, :], matrix_transpose(packed[..., m:, :])
    return QRResult(q, concat([r, adjoint(q) @ a[..., :, m:]], axis=-1) if m < n else r)


# ---- pseudo-inverse


def _pinv_rule(g, a, out):
    """Return −PᴴgPᴴ + (1 − aP) gᴴ P Pᴴ + Pᴴ P gᴴ (1 − Pa), P the pseudo-inverse (Golub and Pereyra 1973, eq. 4.12)."""
    p, ph, gh = out, adjoint(out), adjoint(g)
    right, left = (gh @ p) @ ph, ph @ (p @ gh)
    return right - a @ (p @ right) + left - (left @ p) @ a - ph @ g @ ph


@primitive(a=_pinv_rule)
def _pinv(xp, a, *, rtol):
    return xp.linalg.pinv(a) if rtol is None else xp.linalg.pinv(a, rtol=rtol)


@upcast_half
def pinv(a: Any, *, rtol: Any = None) -> Any:
    """Return the Moore–Penrose pseudo-inverse; singular values below rtol times the largest count as 0."""
    return _pinv(_matrices(a, "pinv"), rtol=unwrap(rtol))

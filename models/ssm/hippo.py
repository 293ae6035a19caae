"""HiPPO: online projection of a function's past onto orthogonal polynomials, as a linear system of their coefficients.

At every time t, f on the past is projected onto N orthonormal functions gₙ under a measure that says how much each
moment of the past matters (Gu et al. 2020, section 2.2). The coefficients c(t) then obey

    legs     ċ = (A c + B f)/t    all of the past, every moment alike              theorem 2, appendix D.3
    legt     ċ = A c + B f        the last window of length 1, alike               theorem 1, appendix D.1
    lagt     ċ = A c + B f        all of the past, fading as e^(−age)              theorem 1, appendix D.2
    fourier  ċ = A c + B f        the last window, by sines and cosines            Gu et al. 2023, S4-FouT

Here A is what HiPPO 2020 writes as −A (S4 has the sign in A), so that it is stable. Of the four, legs and lagt are
exact: legt and fourier would have to know f at the far end of the window, and take what they themselves remember of it.
(Gu et al. 2023 is "How to Train Your HiPPO".)

    f        the signal, (T,): samples, held constant between them.
    c        the coefficients, (*batch, N).
    age      how long ago: 0 is now. 1 is the beginning of everything for legs, the far end of the window for legt and
             fourier; lagt's ages have no end.

    A = S − P Pᵀ     S normal, P of rank 1 (legt: 2)      Gu et al. 2022 (S4), theorem 1 and appendix C.1
    S = V Λ Vᴴ       V unitary, Λ from S's skew-symmetric part

Deviations: legt is orthonormal, as in appendix D.1 (theorem 1 prints the scaling of the LMU). Scaled legs starts from
c = f₁ e₀ and holds the input with log(k/(k−1)), where the authors' code starts with a step of A₁ and uses log((t+1)/t).
Euler's and the bilinear method take the sample uₖ, appendix B.3 the one before.

The talk calls the projection a Taylor approximation (talk on Mamba, slide 14). It is not one: a Taylor polynomial fits
f at a point, these fit it on the whole past. Arrays here are NumPy's, in double precision.

An N below 1, a measure or a method that there is not, and an f that is not finite raise ValueError.
"""

from collections.abc import Callable

import numpy as np
from numpy.polynomial import laguerre, legendre
from numpy.typing import ArrayLike, NDArray

from models.ssm.discretize import METHODS

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


def legs(N: int) -> tuple[Real, Real]:
    """Return A (N, N), B (N,) of the scaled Legendre measure: −√(2n+1)√(2k+1) below the diagonal, −(n+1) on it."""
    root = _roots("legs", N)
    return -np.tril(np.outer(root, root), -1) - np.diag(np.arange(1.0, N + 1)), root


def legt(N: int) -> tuple[Real, Real]:
    """Return A (N, N), B (N,) of the sliding window: −√(2n+1)√(2k+1), times (−1)^(n−k) above the diagonal."""
    root, n = _roots("legt", N), np.arange(N)
    sign = np.where(n[:, None] >= n, 1.0, (-1.0) ** (n[:, None] - n))
    return -np.outer(root, root) * sign, root


def lagt(N: int) -> tuple[Real, Real]:
    """Return A (N, N), B (N,) of the fading measure: −1 on the diagonal and below."""
    _check_size("lagt", N)
    return -np.tril(np.ones((N, N))), np.ones(N)


def fourier(N: int) -> tuple[Real, Real]:
    """Return A (N, N), B (N,) for 1, √2 cos 2πt, √2 sin 2πt, √2 cos 4πt, …; an odd N has a sine for every cosine."""
    _check_size("fourier", N)
    g = _fourier_basis(N, np.zeros(1))[0]
    turn = np.zeros(N - 1)
    turn[1::2] = 2 * np.pi * np.arange(1, (N - 1) // 2 + 1)
    return np.diag(turn, -1) - np.diag(turn, 1) - 2 * np.outer(g, g), 2 * g


MEASURES: dict[str, Callable[[int], tuple[Real, Real]]] = {"legs": legs, "legt": legt, "lagt": lagt, "fourier": fourier}


# Projection and reconstruction


def project(f: ArrayLike, N: int, *, measure: str = "legs", delta: float = 1.0, method: str = "bilinear") -> Real:
    """Return the coefficients after each sample of f (T,), by a recurrence in N numbers: (T, N).

    delta is the time between samples, in windows (legt, fourier) or decay times (lagt). To legs it is all the same
    (Gu et al. 2020, proposition 3). Of the methods, "zoh" has no error beyond that of f held constant.
    """
    samples = np.asarray(f, dtype=np.float64)
    if samples.ndim != 1 or not samples.size:
        raise ValueError(f"hippo.project: f has shape {samples.shape}, expected (T,) with at least one sample")
    if not np.isfinite(samples).all():
        raise ValueError("hippo.project: f holds NaN or infinity, expected finite samples")
    if method not in METHODS:
        raise ValueError(f"hippo.project: method is {method!r}, expected one of {', '.join(METHODS)}")
    A, B = _measure("project", measure)(N)
    if measure == "legs":
        return _scaled(samples, A, B, method)
    A_bar, B_bar = METHODS[method](A, B, delta)
    c, history = np.zeros(N), []
    for sample in samples:
        c = A_bar @ c + B_bar * sample
        history.append(c)
    return np.array(history)


def _scaled(f: Real, A: Real, B: Real, method: str) -> Real:
    """Return the coefficients for ċ = (A c + B f)/t, from c = f₁ e₀: before the first sample f is constant.

    Between t = k − 1 and k: 1/k replaces 1/t, as in the authors' code (Gu et al. 2020, appendix B.3, has 1/(k+1) and
    1/k), except that zero-order hold takes the integral of 1/t, log(k/(k − 1)): in the time log t it is invariant.
    """
    c = np.zeros(len(B))
    c[0] = f[0]
    history = [c]
    for k in range(2, len(f) + 1):
        A_bar, B_bar = METHODS[method](A, B, np.log(k / (k - 1)) if method == "zoh" else 1 / k)
        c = A_bar @ c + B_bar * f[k - 1]
        history.append(c)
    return np.array(history)


def reconstruct(c: ArrayLike, ages: ArrayLike, *, measure: str = "legs") -> Real:
    """Return the function that the coefficients (*batch, N) remember, at ages (P,): Σ cₙ gₙ, (*batch, P)."""
    coefficients = np.asarray(c, dtype=np.float64)
    return np.asarray(coefficients @ basis(coefficients.shape[-1], ages, measure=measure).T)


def basis(N: int, ages: ArrayLike, *, measure: str = "legs") -> Real:
    """Return the N orthonormal functions at ages (P,): (P, N)."""
    age = np.asarray(ages, dtype=np.float64)
    _measure("basis", measure)
    _check_size("basis", N)
    if measure == "fourier":
        return _fourier_basis(N, age)
    if measure == "lagt":
        return np.asarray(laguerre.lagvander(age, N - 1))
    return np.asarray(legendre.legvander(1 - 2 * age, N - 1) * _roots("basis", N))


def _fourier_basis(N: int, age: Real) -> Real:
    n = np.arange(N)
    angle = 2 * np.pi * ((n + 1) // 2) * age[:, None]
    return np.where(n == 0, 1.0, np.sqrt(2) * np.where(n % 2 == 1, np.cos(angle), np.sin(angle)))


# Decomposition of the matrix


def nplr(N: int, measure: str = "legs") -> tuple[Real, Real]:
    """Return S (N, N), normal, and P (N, rank) with A = S − P Pᵀ: S is a multiple of I and a skew-symmetric matrix."""
    A, B = _measure("nplr", measure)(N)
    even = np.arange(N) % 2 == 0
    columns = np.stack([B * even, B * ~even], axis=-1) if measure == "legt" else B[:, None] / np.sqrt(2)
    return A + columns @ columns.T, columns


def dplr(N: int, measure: str = "legs") -> tuple[Complex, Complex, Complex, Complex]:
    """Return Λ, P, B (N/2,) and V (N, N/2): the system in S's eigenvectors, one of each conjugate pair, Im Λ > 0.

    Completed by their conjugates, Vᴴ A V = diag(Λ) − P Pᴴ, and B = Vᴴ B. The output of the real system for a real
    input is twice the real part of that of this half. By `eigh`, since S's skew part is i times a Hermitian matrix:
    V is unitary to rounding, where A's own eigenvectors have no digits left (proofs.identities.nplr).
    """
    if measure not in ("legs", "lagt"):
        raise ValueError(f"hippo.dplr: measure is {measure!r}, expected legs or lagt: normal plus rank one")
    _check_size("dplr", N)
    if N % 2:
        raise ValueError(f"hippo.dplr: N is {N}, expected an even number: eigenvalues come in conjugate pairs")
    S, P = nplr(N, measure)
    imaginary, vectors = np.linalg.eigh(-0.5j * (S - S.T))
    V = np.asarray(vectors[:, N // 2 :], dtype=np.complex128)
    eigenvalues = -0.5 + 1j * imaginary[N // 2 :]  # of both measures S is −½I + the skew part
    return eigenvalues, V.conj().T @ P[:, 0], V.conj().T @ MEASURES[measure](N)[1], V


# Checks of arguments


def _roots(label: str, N: int) -> Real:
    """Return √(2n + 1), (N,)."""
    _check_size(label, N)
    return np.sqrt(2 * np.arange(N) + 1.0)


def _measure(label: str, measure: str) -> Callable[[int], tuple[Real, Real]]:
    if measure not in MEASURES:
        raise ValueError(f"hippo.{label}: measure is {measure!r}, expected one of {', '.join(MEASURES)}")
    return MEASURES[measure]


def _check_size(label: str, N: int) -> None:
    if not isinstance(N, int | np.integer) or N < 1:
        raise ValueError(f"hippo.{label}: N is {N!r}, expected an integer of at least 1")

"""Final states of diagonal systems hₜ = A hₜ₋₁ + uₜ from h₀ = 0, and their cotangents; M systems of N poles.

    hₙ  = Σₜ Aₙ^(T−t) uₜ                              t = 1 … T
    duₜ = Re Σₙ conj(dhₙ) Aₙ^(T−t)
    dAₙ = dhₙ conj(Σₜ (T−t) Aₙ^(T−t−1) uₜ)            the conjugate of the derivative, as everywhere in minigrad

With u reversed these are the products with a Vandermonde matrix and its transpose of `models.kernels.vandermonde`:
`sums` is Σₗ Aₙˡ uₗ, and fills an array with its derivative by A if given one; `responses` is 2 Re Σₙ wₙ Aₙˡ.
"""

from typing import Any

import numpy as np

from models.kernels.vandermonde import responses, sums


def forward(u: Any, A: Any) -> tuple[Any, Any]:
    """Return h (M, N) and what `backward` needs, for real u (M, T) and complex A (M, N)."""
    return sums(u[:, ::-1], A), (u, A)


def backward(saved: tuple[Any, Any], dh: Any) -> tuple[Any, Any]:
    """Return the cotangents of u and A from that of h."""
    u, A = saved
    slope = np.empty(A.shape, A.dtype)
    sums(u[:, ::-1], A, slope)
    return responses(dh.conj(), A, u.shape[1])[:, ::-1] / 2, dh * slope.conj()

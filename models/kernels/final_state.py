"""Final states of diagonal systems, hₙ = Σₜ Aₙ^(T−t) uₜ, and the adjoint, by the sums and responses of `vandermonde`.

duₜ = Re Σₙ conj(dhₙ) Aₙ^(T−t)          dAₙ = dhₙ conj(Σₜ (T−t) Aₙ^(T−t−1) uₜ)          adjoint, Jᴴ
"""

from typing import Any

import numpy as np

from models.kernels.vandermonde import responses, sums


def forward(u: Any, A: Any) -> tuple[Any, Any]:
    """Return (h, saved) for real u (M, T) and complex A (M, N): h (M, N)."""
    return sums(u[:, ::-1], A), (u, A)


def backward(saved: tuple[Any, Any], dh: Any) -> tuple[Any, Any]:
    """Return the cotangents of u and A from that of h."""
    u, A = saved
    Q = np.empty(A.shape, A.dtype)
    sums(u[:, ::-1], A, Q)
    return responses(dh.conj(), A, u.shape[1])[:, ::-1] / 2, dh * Q.conj()

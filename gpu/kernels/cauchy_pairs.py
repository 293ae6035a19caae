"""Cauchy sums over conjugate pairs of poles at the roots of unity, as in S4, by the kernels of `cauchy.cu`.

    Sₖ(ω) = Σₙ vₖₙ / (is − c λₙ) + conj(vₖₙ) / (is − c conj λₙ)         s = sin ω, c = cos ω, ω = πl/L
          = (1/c) Σₙ wₖₙ / (z − μₙ)              z = i tan ω, w = [v ‖ conj v], μ = [λ ‖ conj λ]

In floating point c is never 0: at ω = π/2 it is about 6e-17, so that z is large and the quotient equals its limit.
"""

from typing import Any

import numpy as np

from gpu.kernels import cauchy
from gpu.launch import check, empty, to_device_of

Saved = tuple[Any, Any, Any, Any, tuple[int, ...]]  # w, z, μ, 1/c, and the shape of v


def forward(v: Any, poles: Any, *, length: int) -> tuple[Any, Saved]:
    """Return (S, saved) for complex v (D, K, N) and poles (D, N): S (D, K, ⌊L/2⌋ + 1), complex.

    Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("cauchy_pairs", dtypes="FD", v=v, poles=poles)
    channels, sums, states = v.shape
    angles = np.pi * np.arange(length // 2 + 1) / length
    nodes = np.tile(1j * np.tan(angles), (channels * sums, 1))
    z, secants = (to_device_of(v, x.astype(v.dtype)) for x in (nodes, 1 / np.cos(angles)))
    w, mu = empty(v, (channels, sums, 2 * states)), empty(v, (channels, sums, 2 * states))
    w[..., :states], w[..., states:] = v, v.conj()
    mu[..., :states], mu[..., states:] = poles[:, None], poles.conj()[:, None]
    w, mu = (x.reshape(channels * sums, 2 * states) for x in (w, mu))
    S = cauchy.forward(w, z, mu) * secants
    return S.reshape(channels, sums, len(angles)), (w, z, mu, secants, v.shape)


def backward(saved: Saved, dS: Any) -> tuple[Any, Any]:
    """Return the cotangents of v and the poles from that of S."""
    w, z, mu, secants, (channels, sums, states) = saved
    check("cauchy_pairs", dtypes="FD", dS=dS)
    dw, _, dmu = cauchy.backward(w, z, mu, dS.reshape(z.shape) * secants)
    dw, dmu = (g.reshape(channels, sums, 2 * states) for g in (dw, dmu))
    dv, dpoles = (g[..., :states] + g[..., states:].conj() for g in (dw, dmu))
    return dv, dpoles.sum(axis=1)

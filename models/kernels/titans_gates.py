"""The two nested decays of Titans, unrolled in batches by two scans, and their adjoint.

    G[t, s] = ηₜ G[t−1, s],  G[s, s] = θₛ                    weights of gradients in the surprise
    mix[t, s] = aₜ mix[t−1, s] + G[t, s]                     and in the memory: (Γ H)[t, s] θₛ
    hₜ = ηₜ hₜ₋₁,  pₜ = aₜ pₜ₋₁ + hₜ,  γₜ = aₜ γₜ₋₁           weights of S and M at its start: h₀ = γ₀ = 1, p₀ = 0

No matrices are multiplied and no gates divided by: C² multiplications a batch of C tokens. The adjoint runs backwards.
"""

from typing import Any

import numpy as np

from minigrad.compiled.simd import kernel
from minigrad.compiled.threads import share


def forward(theta: Any, eta: Any, a: Any, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mix (M, T, C), the last row of every G, (M, T), and γ, p, h, (M, T, 3), of gates (M, T).

    `cuts` are where batches begin, and T.
    """
    rows, length = theta.shape
    mix = np.zeros((rows, length, int(np.diff(cuts).max())), theta.dtype)
    last, fades = np.empty_like(theta), np.empty((rows, length, 3), theta.dtype)
    share(lambda part, first, last_row: _forward(theta, eta, a, cuts, mix, last, fades, first, last_row), rows)
    return mix, last, fades


def backward(
    theta: Any, eta: Any, a: Any, cuts: np.ndarray, mix: Any, fades: Any, dmix: Any, dlast: Any, dfades: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cotangents of theta, eta and a."""
    dtheta, deta, da = (np.zeros_like(theta) for _ in range(3))

    def work(part: int, first: int, last: int) -> None:
        _backward(theta, eta, a, cuts, mix, fades, dmix, dlast, dfades, dtheta, deta, da, first, last)

    share(work, len(theta))
    return dtheta, deta, da


@kernel
def _forward(theta, eta, a, cuts, mix, last, fades, first, last_row):
    G = np.empty(mix.shape[2], mix.dtype)
    for b in range(first, last_row):
        for start, stop in zip(cuts[:-1], cuts[1:]):  # noqa: B905
            gamma, p, h = 1.0, 0.0, 1.0
            for t in range(start, stop):
                i = t - start
                gamma, h = a[b, t] * gamma, eta[b, t] * h
                p = a[b, t] * p + h
                fades[b, t, 0], fades[b, t, 1], fades[b, t, 2] = gamma, p, h
                for s in range(i):
                    G[s] *= eta[b, t]
                    mix[b, t, s] = a[b, t] * mix[b, t - 1, s] + G[s]
                G[i] = mix[b, t, i] = theta[b, t]
            for s in range(stop - start):
                last[b, start + s] = G[s]


@kernel
def _backward(theta, eta, a, cuts, mix, fades, dmix, dlast, dfades, dtheta, deta, da, first, last):
    size = mix.shape[2]
    G, to_mix, to_G = np.empty((size, size), mix.dtype), np.empty(size, mix.dtype), np.empty(size, mix.dtype)
    for b in range(first, last):
        for start, stop in zip(cuts[:-1], cuts[1:]):  # noqa: B905
            for i in range(stop - start):
                for s in range(i):
                    G[i, s] = eta[b, start + i] * G[i - 1, s]
                G[i, i] = theta[b, start + i]
            to_mix[:] = 0
            for s in range(stop - start):
                to_G[s] = dlast[b, start + s]
            to_gamma = to_p = to_h = 0.0
            for t in range(stop - 1, start - 1, -1):
                i = t - start
                to_gamma += dfades[b, t, 0]
                to_p += dfades[b, t, 1]
                to_h += dfades[b, t, 2] + to_p
                da[b, t] += to_gamma * (fades[b, t - 1, 0] if i else 1.0) + to_p * (fades[b, t - 1, 1] if i else 0.0)
                deta[b, t] += to_h * (fades[b, t - 1, 2] if i else 1.0)
                to_gamma, to_p, to_h = a[b, t] * to_gamma, a[b, t] * to_p, eta[b, t] * to_h
                for s in range(i + 1):
                    to_mix[s] += dmix[b, t, s]
                    to_G[s] += to_mix[s]
                dtheta[b, t] = to_G[i]
                for s in range(i):
                    da[b, t] += to_mix[s] * mix[b, t - 1, s]
                    deta[b, t] += to_G[s] * G[i - 1, s]
                    to_mix[s], to_G[s] = a[b, t] * to_mix[s], eta[b, t] * to_G[s]

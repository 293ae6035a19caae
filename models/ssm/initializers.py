"""Initial eigenvalues of S4D, one of each conjugate pair of N (Gu et al. 2022, S4D, section 4).

They are initial values of trained parameters: plain NumPy arrays, as those of `models.ssm.hippo`.
"""

import numpy as np

from models.ssm import hippo


def lin(N: int) -> np.ndarray:
    """Return S4D-Lin: Λₙ = −½ + iπn, (N/2,). Raises ValueError for odd N."""
    n = np.arange(_pairs("lin", N))
    return -0.5 + 1j * np.pi * n


def inv(N: int) -> np.ndarray:
    """Return S4D-Inv: Λₙ = −½ + i (N/π) (N/(2n + 1) − 1), (N/2,). Raises ValueError for odd N."""
    n = np.arange(_pairs("inv", N))
    return -0.5 + 1j * N / np.pi * (N / (2 * n + 1) - 1)


def legs(N: int) -> np.ndarray:
    """Return S4D-LegS: the eigenvalues of the normal part of HiPPO-LegS, (N/2,). Raises ValueError for odd N."""
    _pairs("legs", N)
    return hippo.dplr(N)[0]


def _pairs(name: str, N: int) -> int:
    if N < 2 or N % 2:
        raise ValueError(f"initializers.{name}: N is {N}, expected an even number: eigenvalues come in conjugate pairs")
    return N // 2

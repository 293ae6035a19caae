"""Where the eigenvalues of S4D start, of N of them the half that is stored (Gu et al. 2022, S4D, section 4).

They are constants that training moves from here on: plain NumPy arrays, as `models.ssm.hippo` makes them.
"""

import numpy as np

from models.ssm import hippo


def lin(N: int) -> np.ndarray:
    """S4D-Lin: Λₙ = −½ + iπn, (N/2,). Raises ValueError for odd N."""
    n = np.arange(_pairs("lin", N))
    return -0.5 + 1j * np.pi * n


def inv(N: int) -> np.ndarray:
    """S4D-Inv: Λₙ = −½ + i (N/π) (N/(2n + 1) − 1), (N/2,). Raises ValueError for odd N."""
    n = np.arange(_pairs("inv", N))
    return -0.5 + 1j * N / np.pi * (N / (2 * n + 1) - 1)


def legs(N: int) -> np.ndarray:
    """S4D-LegS: the eigenvalues of HiPPO-LegS without its part of rank one, (N/2,). Raises ValueError for odd N."""
    _pairs("legs", N)
    return hippo.dplr(N)[0]


def _pairs(name: str, N: int) -> int:
    if N < 2 or N % 2:
        raise ValueError(f"initializers.{name}: N is {N}, expected an even number: eigenvalues come in conjugate pairs")
    return N // 2

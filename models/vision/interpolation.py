"""Interpolation of maps of features: along each axis a product with a matrix, so it is linear and differentiable.

    y[u] = Σ_k w(k − x) c[k],  x = (u + ½) n/m − ½             m places from n, whose ends are at the ends of the axis

    linear    w(d) = 1 − |d|                                                                       |d| ≤ 1
    bicubic   w(d) = (a + 2)|d|³ − (a + 3)|d|² + 1                                                 |d| ≤ 1
                     a|d|³ − 5a|d|² + 8a|d| − 4a                                                   1 < |d| < 2
                                                         Keys 1981, eq. 4 and 15, where a = −½; here a = −¾

    c[k] beyond the ends is the value at the end. For fewer places than before nothing is averaged (no antialiasing).

These are PyTorch's `interpolate` with align_corners=False, by which published vision models interpolate positions.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from minigrad import namespace
from minigrad.conversion import to_library_of
from models.forms import Array

A = -0.75


def linear(n: int, m: int) -> np.ndarray:
    """Return the matrix (m, n) that interpolates n places linearly at m."""
    return _matrix(n, m, (0, 1), lambda d: 1 - d)


def bicubic(n: int, m: int) -> np.ndarray:
    """Return the matrix (m, n) that interpolates n places by cubic convolution at m."""

    def weight(d: np.ndarray) -> np.ndarray:
        near = ((A + 2) * d - (A + 3)) * d * d + 1
        return np.where(d <= 1, near, ((A * d - 5 * A) * d + 8 * A) * d - 4 * A)

    return _matrix(n, m, (-1, 0, 1, 2), weight)


def resize(
    x: Float[Array, "*batch H W C"], height: int, width: int, kind: Callable[[int, int], np.ndarray] = bicubic
) -> Float[Array, "*batch height width C"]:
    """Return x at height × width places; x itself where it has as many. Raises ValueError where there would be none."""
    for name, size in (("height", height), ("width", width)):
        if size < 1:
            raise ValueError(f"interpolation.resize: {name} is {size}, expected at least 1")
    H, W = x.shape[-3:-1]
    if (H, W) == (height, width):
        return x
    xp = namespace(x)
    rows, columns = (xp.astype(to_library_of(x, kind(*sizes)), x.dtype) for sizes in ((H, height), (W, width)))
    y = rows @ xp.reshape(x, (*x.shape[:-2], W * x.shape[-1]))  # (*batch, height, W C)
    return columns @ xp.reshape(y, (*x.shape[:-3], height, W, x.shape[-1]))


def _matrix(n: int, m: int, taps: tuple[int, ...], weight: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the matrix (m, n) of the weights at the taps around each place, clamped to the ends."""
    x = (np.arange(m) + 0.5) * (n / m) - 0.5
    floor = np.floor(x).astype(int)
    matrix = np.zeros((m, n))
    for tap in taps:
        np.add.at(matrix, (np.arange(m), np.clip(floor + tap, 0, n - 1)), weight(np.abs(floor + tap - x)))
    return matrix

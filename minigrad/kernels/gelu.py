"""The GELU in its tanh form, with its first two derivatives, in one pass.

    gelu x = x s,  s = ½ (1 + tanh p) = 1 / (1 + e),  e = e^(−2p),  p = √(2/π) (x + 0.044715 x³)
    gelu′ x = s + x k D          gelu″ x = D (2k + x (k′ + k² (1 − 2s)))          k = 2p′, D = s · se, s′ = kD

Hendrycks and Gimpel 2016. 1 − s is se, which keeps its digits where s is nearly 1; e is at most 2¹²⁰, so that se is
not 0 · ∞ where s is nearly 0.
"""

import math

import numpy as np

from minigrad.kernels.layout import vector
from minigrad.simd import exp2, fma, kernel, lanes, largest, load, one, splat, store

ROOT, CUBIC, LOG2E = math.sqrt(2 / math.pi), 0.044715, math.log2(math.e)


def gelu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gelu x, gelu′ x and gelu″ x of a contiguous array, in the thread that calls."""
    size, step = x.size, vector(x)
    whole = np.zeros(size + -size % step, x.dtype)
    whole[:size] = x.reshape(-1)
    made = np.empty((3, whole.size), x.dtype)
    _gelu(whole, *made)
    value, slope, curve = made[:, :size].reshape(3, *x.shape)
    return value, slope, curve


@kernel
def _gelu(x, value, slope, curve):
    for i in range(0, x.size, lanes(x)):
        a = load(x, i)
        squares = a * a * splat(x, CUBIC)
        e = exp2(splat(x, 0) - largest(splat(x, -120), a * (one(a) + squares) * splat(x, 2 * ROOT * LOG2E)))
        s = one(a) / (one(a) + e)
        rate = fma(squares, splat(x, 3), one(a)) * splat(x, 2 * ROOT)
        spread = s * (s * e)
        store(value, i, a * s)
        store(slope, i, fma(a * rate, spread, s))
        turn = fma(rate * rate, s * e - s, a * splat(x, 12 * ROOT * CUBIC))
        store(curve, i, spread * fma(a, turn, rate + rate))

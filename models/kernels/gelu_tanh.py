"""The GELU in its tanh form, with its first two derivatives, in one pass.

    gelu x = x s,  s = ½ (1 + tanh p) = σ(2p),  p = √(2/π) (x + 0.044715 x³)
    gelu′ x = s + x r D          gelu″ x = D (2r + x (r′ − r² tanh p))          r = 2p′, D = s (1 − s), s′ = r D

Hendrycks and Gimpel 2016. With k = e^−|p|, s = t²/(1 + k²) for t = k where p < 0, else 1, and D = (k/(1 + k²))²: each
keeps its digits where s is nearly 0 or 1. k = 2^−|x|w, and w is kept in two parts, so that its rounding costs nothing.
"""

import math

import numpy as np
from numba import njit

from minigrad.compiled.layout import vector
from minigrad.compiled.simd import (
    exp2_of_long_product,
    fma,
    kernel,
    lanes,
    largest,
    load,
    one,
    splat,
    store,
    where_negative,
)

ROOT, CUBIC = math.sqrt(2 / math.pi), 0.044715
# √(2/π) log₂ e and 0.044715 times it, and what their rounding to float64 left.
LINEAR, LINEAR_LOW = 1.1511040990721624, 6.56641302038486e-17
CUBE, CUBE_LOW = 0.05147161979001175, -2.98908870035937e-18
FAR = 32.0  # from here on s is 0 or 1


def gelu_tanh(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gelu x, gelu′ x and gelu″ x of a contiguous array, in the thread that calls."""
    size, step = x.size, vector(x)
    whole = np.zeros(size + -size % step, x.dtype)
    whole[:size] = x.reshape(-1)
    results = np.empty((3, whole.size), x.dtype)
    _gelu(whole, *results)
    value, slope, curve = results[:, :size].reshape(3, *x.shape)
    return value, slope, curve


@njit(inline="always")
def _in_two(like, number, low):
    """Return a constant as a vector and what its rounding to the vector's floats left."""
    high = splat(like, number)
    if like.itemsize == 4:
        return high, splat(like, number - np.float64(np.float32(number)))
    return high, splat(like, low)


@njit(inline="always")
def _exponent(like, x):
    """Return w = √(2/π) log₂ e (1 + 0.044715 x²) and what its rounding left."""
    linear, linear_low = _in_two(like, LINEAR, LINEAR_LOW)
    cube, cube_low = _in_two(like, CUBE, CUBE_LOW)
    square = x * x
    product = cube * square
    w = linear + product
    added = w - linear
    low = (linear - (w - added)) + (product - added)  # Knuth's exact sum
    low = low + fma(cube, square, splat(like, 0) - product)  # and the exact products before it
    return w, fma(cube, fma(x, x, splat(like, 0) - square), fma(cube_low, square, low + linear_low))


@kernel
def _gelu(x, value, slope, curve):
    zero, two = splat(x, 0), splat(x, 2)
    for i in range(0, x.size, lanes(x)):
        whole = load(x, i)
        a = zero - largest(splat(x, -FAR), zero - largest(splat(x, -FAR), whole))
        w, low = _exponent(x, a)
        k = exp2_of_long_product(zero - largest(zero - a, a), w, low)
        d = fma(k, k, one(k))
        t = where_negative(a, k, one(k))
        s = t * t / d
        root = k / d
        tanh = where_negative(a, k * k - one(k), one(k) - k * k) / d
        rate = fma(a * a, splat(x, 3 * CUBIC), one(a)) * splat(x, 2 * ROOT)
        store(value, i, whole * t * t / d)
        store(slope, i, fma(a * rate * root, root, s))  # D = root² last, for it may hold few digits
        turn = a * splat(x, 12 * ROOT * CUBIC) - rate * rate * tanh
        store(curve, i, root * fma(a, turn, two * rate) * root)

"""Activations, gates, norms and their adjoints in one pass over memory each, where NumPy makes one for each operation.

Arguments are NumPy arrays of one dtype, float32 or float64; results are new arrays. `minigrad.primitives` defines these
functions, and computes them itself for small arrays and for those of other libraries. The logistic function is

    σ(x) = t²/(1 + k²),  k = e^(−|x|/2),  t = k where x < 0, else 1

since k is not subnormal wherever σ(x) or x σ(x) is above 0, so that only the last product can lose digits to underflow.
Softplus, cross-entropy and AdamW are not here, since they gain nothing: NumPy's logarithm is vectorised, and AdamW's
updates in place stay in the cache.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from minigrad.compiled.layout import laid_out, vector
from minigrad.compiled.simd import (
    exp,
    exp2_of_long_product,
    fma,
    kernel,
    lanes,
    largest,
    load,
    one,
    polynomial,
    splat,
    store,
    total,
    where_negative,
)
from minigrad.compiled.threads import share


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return σ(x)."""
    return _map(_sigmoid, x)


def sigmoid_adjoint(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return g σ(x) σ(−x)."""
    return _map(_sigmoid_adjoint, g, x)


def sech_squared(x: np.ndarray) -> np.ndarray:
    """Return 1/cosh² x."""
    return _map(_sech_squared, x)


def silu(x: np.ndarray) -> np.ndarray:
    """Return x σ(x)."""
    return _map(_silu, x)


def silu_adjoint(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return g (σ(x) + x σ(x) σ(−x))."""
    return _map(_silu_adjoint, g, x)


def gelu(x: np.ndarray) -> np.ndarray:
    """Return x Φ(x)."""
    return _map(_gelu, x)


def gelu_adjoint(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return g (Φ(x) + x φ(x))."""
    return _map(_gelu_adjoint, g, x)


def rms_norm(x: np.ndarray, eps: float) -> np.ndarray:
    """Return x / √(mean x² + ε) along the last axis, whose length is a multiple of the vector's."""
    return _rows(_rms_norm, eps, x)


def rms_norm_adjoint(g: np.ndarray, x: np.ndarray, y: np.ndarray, eps: float) -> np.ndarray:
    """Return (g − y mean(g y)) / √(mean x² + ε), y the norm of x, along the last axis, a multiple of the vector's."""
    return _rows(_rms_norm_adjoint, eps, g, x, y)


def swiglu(x: np.ndarray) -> np.ndarray:
    """Return SiLU(a) b for rows [a ‖ b], (*batch, 2 H) → (*batch, H), H at least the length of a vector."""
    rows = _flat(x)
    out = np.empty((len(rows), x.shape[-1] // 2), x.dtype)
    share(lambda part, first, last: _swiglu(rows, out, first, last), len(rows))
    return out.reshape(*x.shape[:-1], out.shape[1])


def swiglu_adjoint(x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return [g b SiLU′(a) ‖ g SiLU(a)] for rows x = [a ‖ b]."""
    rows, g = _flat(x), _flat(g)
    out = np.empty_like(rows)
    share(lambda part, first, last: _swiglu_adjoint(rows, g, out, first, last), len(rows))
    return out.reshape(x.shape)


def rotary(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Return [a cos − b sin ‖ a sin + b cos] for rows x = [a ‖ b], (*batch, T, 2 H), and cos and sin (T, H).

    H is at least the length of a vector.
    """
    rows, cos, sin = _flat(x), np.ascontiguousarray(cos), np.ascontiguousarray(sin)
    out = np.empty_like(rows)
    share(lambda part, first, last: _rotary(rows, cos, sin, out, first, last), len(rows))
    return out.reshape(x.shape)


def _flat(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def _map(compute: Any, *inputs: np.ndarray) -> np.ndarray:
    """Run a kernel over all vectors of arrays of one shape, on all threads, and return what it computes."""
    shape, size, step = inputs[0].shape, inputs[0].size, vector(inputs[0])
    flat = [laid_out(x, size, to=(step,)) for x in inputs]
    out = np.empty_like(flat[0])
    share(lambda part, first, last: compute(*flat, out, first * step, last * step), out.size // step)
    return out[:size].reshape(shape)


def _rows(compute: Any, eps: float, *inputs: np.ndarray) -> np.ndarray:
    """Run a kernel over all rows of arrays of one shape, on all threads, and return what it computes."""
    shape = inputs[0].shape
    rows = [_flat(x) for x in inputs]
    out = np.empty_like(rows[0])
    share(lambda part, first, last: compute(*rows, out, eps, first, last), len(out))
    return out.reshape(shape)


@njit(inline="always")
def _zero(x):
    return one(x) - one(x)


@njit(inline="always")
def decaying_exp(x):
    """Return e^(−|x|); NaN for NaN, which `largest` returns where it is the second argument."""
    return exp(_zero(x) - largest(_zero(x) - x, x))


@njit(inline="always")
def logistic(like, x):
    """Return t, u and d with σ(x) = t²/d and σ(−x) = u²/d; `like` gives the dtype."""
    k = decaying_exp(x * splat(like, 0.5))
    return where_negative(x, k, one(x)), where_negative(x, one(x), k), fma(k, k, one(x))


@njit(inline="always")
def _gated(like, x):
    """Return x σ(x)."""
    t, _, d = logistic(like, x)
    return x * t * t / d


@njit(inline="always")
def _gated_slope(like, x):
    """Return x σ(x) and its derivative, σ(x) + x σ(x) σ(−x)."""
    t, u, d = logistic(like, x)
    value = x * t * t / d
    return value, fma(value, u * u, t * t) / d


@kernel
def _sigmoid(x, out, first, last):
    for i in range(first, last, lanes(x)):
        t, _, d = logistic(x, load(x, i))
        store(out, i, t * t / d)


@kernel
def _sigmoid_adjoint(g, x, out, first, last):
    for i in range(first, last, lanes(x)):
        k = decaying_exp(load(x, i) * splat(x, 0.5))
        root = k / fma(k, k, one(k))
        store(out, i, load(g, i) * root * root)


@kernel
def _sech_squared(x, out, first, last):
    for i in range(first, last, lanes(x)):
        k = decaying_exp(load(x, i))
        root = (k + k) / fma(k, k, one(k))
        store(out, i, root * root)


@kernel
def _silu(x, out, first, last):
    for i in range(first, last, lanes(x)):
        store(out, i, _gated(x, load(x, i)))


@kernel
def _silu_adjoint(g, x, out, first, last):
    for i in range(first, last, lanes(x)):
        _, slope = _gated_slope(x, load(x, i))
        store(out, i, load(g, i) * slope)


# Φ(−u) e^(u²/2) (1 + u), u ≥ 0, as a polynomial in (u − 4)/(u + 4), the variable of Shepherd and Laframboise 1981, from
# interpolation at Chebyshev's nodes: coefficients of rising powers, to 1e-9 (32 bits) and 5e-17 (64 bits).
_tail = polynomial(
    {
        32: (
            0.4720532063565995,
            -0.09670347042745923,
            0.013999649972160097,
            0.028600168143397546,
            -0.032198086440637604,
            0.017937695942263972,
            -0.0050008404391387725,
            -0.00029126749523318687,
            0.0006903034856566645,
            -8.455401787143764e-05,
            -8.059327401204448e-05,
            1.256854669748779e-05,
            7.500679584443513e-06,
        ),
        64: (
            0.47205320650984467,
            -0.09670347732652607,
            0.013999634724424333,
            0.02860036405357749,
            -0.03219783742802203,
            0.01793609747886859,
            -0.005002378592511494,
            -0.00028562308680939413,
            0.0006948971219073166,
            -9.443033944152223e-05,
            -8.785330394797745e-05,
            2.1250446856208376e-05,
            1.3627395285352675e-05,
            -3.433372216853275e-06,
            -2.6144101706596152e-06,
            4.0671730125154447e-07,
            5.548340462207789e-07,
            -1.237153366992197e-09,
            -1.1446850712758079e-07,
            -1.7932121916642413e-08,
            2.0257667136861587e-08,
            5.474708632048689e-09,
            -2.6180348731255444e-09,
            -6.763267210562454e-10,
            1.7873545221852657e-10,
        ),
    }
)
_QUARTER, _QUARTER_LOW = 0.36067376022224085, 5.088818435232758e-18  # log₂ e / 4 in two parts
_DENSITY = 1 / math.sqrt(2 * math.pi)


@njit(inline="always")
def _normal(like, x):
    """Return u = min(|x|, 80), Φ(−u) e^(u²/2) and h = e^(−u²/4).

    h² may be subnormal, with few digits: callers multiply by h twice, last.
    """
    size = largest(_zero(x) - x, x)
    u = _zero(x) - largest(splat(like, -80), _zero(x) - size)
    tail = _tail((u - splat(like, 4)) / (u + splat(like, 4))) / (u + one(u))
    low = splat(like, _QUARTER - np.float64(np.float32(_QUARTER))) if like.itemsize == 4 else splat(like, _QUARTER_LOW)
    rate = u * splat(like, _QUARTER)
    rounding = fma(u, splat(like, _QUARTER), _zero(x) - rate)
    return u, tail, exp2_of_long_product(_zero(x) - u, rate, fma(u, low, rounding))


@kernel
def _gelu(x, out, first, last):
    for i in range(first, last, lanes(x)):
        a = load(x, i)
        u, tail, h = _normal(x, a)
        store(out, i, where_negative(a, a * tail * h * h, a - u * tail * h * h))


@kernel
def _gelu_adjoint(g, x, out, first, last):
    for i in range(first, last, lanes(x)):
        a = load(x, i)
        _, tail, h = _normal(x, a)
        rise = a * splat(x, _DENSITY)
        slope = where_negative(a, (tail + rise) * h * h, one(a) + (rise - tail) * h * h)
        store(out, i, load(g, i) * slope)


@njit(inline="always")
def _at(like, i, size):
    """Return i, or where one at i would end beyond `size` the start of the last whole vector, which overlaps."""
    return min(i, size - lanes(like))


@kernel
def _swiglu(x, out, first, last):
    size = out.shape[1]
    for row in range(first, last):
        for i in range(0, size, lanes(x)):
            at = _at(x, i, size)
            a, b = load(x, 2 * row * size + at), load(x, (2 * row + 1) * size + at)
            store(out, row * size + at, _gated(x, a) * b)


@kernel
def _swiglu_adjoint(x, g, out, first, last):
    size = g.shape[1]
    for row in range(first, last):
        for i in range(0, size, lanes(x)):
            at = _at(x, i, size)
            left, right = 2 * row * size + at, (2 * row + 1) * size + at
            a, h = load(x, left), load(g, row * size + at)
            value, slope = _gated_slope(x, a)
            store(out, left, h * load(x, right) * slope)
            store(out, right, h * value)


@kernel
def _rotary(x, cos, sin, out, first, last):
    length, size = cos.shape
    for row in range(first, last):
        angles = row % length * size
        for i in range(0, size, lanes(x)):
            at = _at(x, i, size)
            left, right = 2 * row * size + at, (2 * row + 1) * size + at
            a, b, c, s = load(x, left), load(x, right), load(cos, angles + at), load(sin, angles + at)
            store(out, left, a * c - b * s)
            store(out, right, fma(a, s, b * c))


@njit
def _root(x, row, squares, eps):
    """Return √(mean x² + ε) of a row from its sum of squares.

    Where mean + ε is so small or large that squares may have under- or overflowed, recompute it with x / max |x|.
    """
    width = x.shape[1]
    mean = np.float64(squares) / width + eps
    least = 2.0**-100 if x.itemsize == 4 else 2.0**-960
    if least < mean < np.inf:
        return math.sqrt(mean)
    unit = np.float64(np.max(np.abs(x[row])))
    if not 0 < unit < np.inf:
        return math.sqrt(mean)
    scaled = 0.0
    for column in range(width):
        scaled += (x[row, column] / unit) ** 2
    return math.hypot(unit * math.sqrt(scaled / width), math.sqrt(eps))


@kernel
def _rms_norm(x, out, eps, first, last):
    width = x.shape[1]
    for row in range(first, last):
        squares, start, end = splat(x, 0), row * width, (row + 1) * width
        for i in range(start, end, lanes(x)):
            squares = fma(load(x, i), load(x, i), squares)
        root = splat(x, _root(x, row, total(squares), eps))
        for i in range(start, end, lanes(x)):
            store(out, i, load(x, i) / root)


@kernel
def _rms_norm_adjoint(g, x, y, out, eps, first, last):
    width = x.shape[1]
    for row in range(first, last):
        squares, products, start, end = splat(x, 0), splat(x, 0), row * width, (row + 1) * width
        for i in range(start, end, lanes(x)):
            squares = fma(load(x, i), load(x, i), squares)
            products = fma(load(g, i), load(y, i), products)
        root, along = splat(x, _root(x, row, total(squares), eps)), splat(x, -total(products) / width)
        for i in range(start, end, lanes(x)):
            store(out, i, fma(load(y, i), along, load(g, i)) / root)

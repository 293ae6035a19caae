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
from minigrad.compiled.normal import DENSITY, normal_tail
from minigrad.compiled.simd import (
    exp,
    fma,
    kernel,
    lanes,
    largest,
    load,
    one,
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


@kernel
def _gelu(x, out, first, last):
    for i in range(first, last, lanes(x)):
        a = load(x, i)
        u, tail, h = normal_tail(x, a)
        store(out, i, where_negative(a, a * tail * h * h, a - u * tail * h * h))


@kernel
def _gelu_adjoint(g, x, out, first, last):
    for i in range(first, last, lanes(x)):
        a = load(x, i)
        _, tail, h = normal_tail(x, a)
        rise = a * splat(x, DENSITY)
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

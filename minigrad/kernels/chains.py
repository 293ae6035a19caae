"""Element-wise chains in one pass each, where NumPy makes one for every operation: raw arrays in, a new one out.

    σ(x) = 1/(1 + 2^(−x log₂ e))          SiLU, RMSNorm, SwiGLU, the turn of pairs, and their adjoints

`minigrad.primitives` says what they compute, and computes it where an array is small or not NumPy's. Softplus, the
cross-entropy and AdamW gain nothing here: NumPy's logarithm is vectorised, and its updates in place stay in the cache.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from minigrad.kernels.layout import laid_out, vector
from minigrad.simd import exp2_of_product, fma, kernel, lanes, load, one, splat, store, total
from minigrad.threads import share

LOG2E = math.log2(math.e)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """σ(x)."""
    return _map(_sigmoid, x)


def silu(x: np.ndarray) -> np.ndarray:
    """x σ(x)."""
    return _map(_silu, x)


def silu_adjoint(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """g σ(x) (1 + x (1 − σ(x)))."""
    return _map(_silu_adjoint, g, x)


def rms_norm(x: np.ndarray, eps: float) -> np.ndarray:
    """x / √(mean x² + ε) along the last axis, which holds whole vectors."""
    return _rows(_rms_norm, eps, x)


def rms_norm_adjoint(g: np.ndarray, x: np.ndarray, out: np.ndarray, eps: float) -> np.ndarray:
    """(g − out · mean(g · out)) / √(mean x² + ε) along the last axis, which holds whole vectors."""
    return _rows(_rms_norm_adjoint, eps, g, x, out)


def swiglu(x: np.ndarray) -> np.ndarray:
    """SiLU(a) b for rows [a ‖ b], (*batch, 2 H) → (*batch, H), of at least one vector each."""
    rows = _flat(x)
    out = np.empty((len(rows), x.shape[-1] // 2), x.dtype)
    share(lambda part, first, last: _swiglu(rows, out, first, last), len(rows))
    return out.reshape(*x.shape[:-1], out.shape[1])


def swiglu_adjoint(x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """[g b SiLU′(a) ‖ g SiLU(a)] for rows x = [a ‖ b]."""
    rows, g = _flat(x), _flat(g)
    out = np.empty_like(rows)
    share(lambda part, first, last: _swiglu_adjoint(rows, g, out, first, last), len(rows))
    return out.reshape(x.shape)


def turn(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """[a cos − b sin ‖ a sin + b cos] for rows x = [a ‖ b], (*batch, T, 2 H), and angles (T, H)."""
    rows, cos, sin = _flat(x), np.ascontiguousarray(cos), np.ascontiguousarray(sin)
    out = np.empty_like(rows)
    share(lambda part, first, last: _turn(rows, cos, sin, out, first, last), len(rows))
    return out.reshape(x.shape)


def _flat(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def _map(compute: Any, *inputs: np.ndarray) -> np.ndarray:
    """A kernel of one vector after the other, over arrays of one shape."""
    shape, size, step = inputs[0].shape, inputs[0].size, vector(inputs[0])
    flat = [laid_out(x, size, to=(step,)) for x in inputs]
    out = np.empty_like(flat[0])
    share(lambda part, first, last: compute(*flat, out, first * step, last * step), out.size // step)
    return out[:size].reshape(shape)


def _rows(compute: Any, eps: float, *inputs: np.ndarray) -> np.ndarray:
    """A kernel of one row after the other."""
    shape = inputs[0].shape
    rows = [_flat(x) for x in inputs]
    out = np.empty_like(rows[0])
    share(lambda part, first, last: compute(*rows, out, eps, first, last), len(out))
    return out.reshape(shape)


@njit(inline="always")
def _squashed(like, x):
    return one(x) / (one(x) + exp2_of_product(x, splat(like, -LOG2E)))


@kernel
def _sigmoid(x, out, first, last):
    for i in range(first, last, lanes(x)):
        store(out, i, _squashed(x, load(x, i)))


@kernel
def _silu(x, out, first, last):
    for i in range(first, last, lanes(x)):
        a = load(x, i)
        store(out, i, a * _squashed(x, a))


@kernel
def _silu_adjoint(g, x, out, first, last):
    for i in range(first, last, lanes(x)):
        a = load(x, i)
        s = _squashed(x, a)
        store(out, i, load(g, i) * (s * fma(a, one(a) - s, one(a))))


@njit(inline="always")
def _at(like, i, size):
    """Where the vector from i on starts, moved back so that it ends in the row: some numbers are made twice."""
    return min(i, size - lanes(like))


@kernel
def _swiglu(x, out, first, last):
    size = out.shape[1]
    for row in range(first, last):
        for i in range(0, size, lanes(x)):
            at = _at(x, i, size)
            a, b = load(x, 2 * row * size + at), load(x, (2 * row + 1) * size + at)
            store(out, row * size + at, a * _squashed(x, a) * b)


@kernel
def _swiglu_adjoint(x, g, out, first, last):
    size = g.shape[1]
    for row in range(first, last):
        for i in range(0, size, lanes(x)):
            at = _at(x, i, size)
            left, right = 2 * row * size + at, (2 * row + 1) * size + at
            a, h = load(x, left), load(g, row * size + at)
            s = _squashed(x, a)
            store(out, left, h * load(x, right) * (s * fma(a, one(a) - s, one(a))))
            store(out, right, h * (a * s))


@kernel
def _turn(x, cos, sin, out, first, last):
    length, size = cos.shape
    for row in range(first, last):
        angles = row % length * size
        for i in range(0, size, lanes(x)):
            at = _at(x, i, size)
            left, right = 2 * row * size + at, (2 * row + 1) * size + at
            a, b, c, s = load(x, left), load(x, right), load(cos, angles + at), load(sin, angles + at)
            store(out, left, a * c - b * s)
            store(out, right, fma(a, s, b * c))


@kernel
def _rms_norm(x, out, eps, first, last):
    width = x.shape[1]
    for row in range(first * width, last * width, width):
        squares = splat(x, 0)
        for i in range(row, row + width, lanes(x)):
            squares = fma(load(x, i), load(x, i), squares)
        root = splat(x, math.sqrt(total(squares) / width + eps))
        for i in range(row, row + width, lanes(x)):
            store(out, i, load(x, i) / root)


@kernel
def _rms_norm_adjoint(g, x, y, out, eps, first, last):
    width = x.shape[1]
    for row in range(first * width, last * width, width):
        squares = products = splat(x, 0)
        for i in range(row, row + width, lanes(x)):
            squares = fma(load(x, i), load(x, i), squares)
            products = fma(load(g, i), load(y, i), products)
        root, along = splat(x, math.sqrt(total(squares) / width + eps)), splat(x, -total(products) / width)
        for i in range(row, row + width, lanes(x)):
            store(out, i, fma(load(y, i), along, load(g, i)) / root)

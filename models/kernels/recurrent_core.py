"""Shared by the kernels of recurrent networks: time-first arrays, products, and σ and tanh with their derivatives.

A step multiplies one token of every sequence by the recurrent weights, so time is the first axis, and the rows of a
step, one a sequence, are contiguous. The G gates of a token lie side by side, each padded with zeros to whole pairs of
vectors: (T, B, G · H′). h and c stay 0 there, since the padding of x and of the weights is 0.

The weights, which a step reads whole, are in panels of two vectors of columns: a panel is contiguous, and stays in the
first-level cache for all sequences of a thread.
"""

from typing import Any

import numpy as np
from numba import njit

from minigrad.compiled.fused_elementwise import decaying_exp, logistic
from minigrad.compiled.layout import vector
from minigrad.compiled.simd import fma, kernel, lanes, load, one, polynomial, splat, store, where_negative

# tanh x ≈ x + x³ P(x²) / Q(x²) below 0.625, with the coefficients of Cephes (Moshier 1989).
_P = polynomial(
    {
        32: (-3.33332819422e-1, 1.33314422036e-1, -5.37397155531e-2, 2.06390887954e-2, -5.70498872745e-3),
        64: (-1.61468768441708447952e3, -9.92877231001918586564e1, -9.64399179425052238628e-1),
    }
)
_Q = polynomial({32: (1.0,), 64: (4.84406305325125486048e3, 2.23548839060100448583e3, 1.12811678491632931402e2, 1.0)})
NEAR = 0.625


def time_first(x: Any, count: int, length: int, gates: int) -> np.ndarray:
    """Return x (*batch, T, G·H) as a new array (T, B, G·H′)."""
    x = np.reshape(x, (count, length, gates, x.shape[-1] // gates))
    out = np.zeros((length, count, gates, padded(x)), x.dtype)
    out[..., : x.shape[-1]] = np.swapaxes(x, 0, 1)
    return out.reshape(length, count, gates * out.shape[-1])


def sequence_first(x: np.ndarray, shape: tuple[int, ...], gates: int) -> np.ndarray:
    """Return x (T, B, G·H′) as an array of this shape (*batch, T, G·H): the inverse of `time_first`."""
    x = np.swapaxes(x.reshape(*x.shape[:2], gates, x.shape[2] // gates), 0, 1)
    return x[..., : shape[-1] // gates].reshape(shape)


def recurrent_weights(U: Any, gates: int) -> np.ndarray:
    """Return U (G·H, H) as (G·H′, H′)."""
    size = U.shape[-1]
    out = np.zeros((gates, padded(U), padded(U)), U.dtype)
    out[:, :size, :size] = np.reshape(U, (gates, size, size))
    return out.reshape(-1, out.shape[-1])


def without_padding(dU: np.ndarray, shape: tuple[int, ...], gates: int) -> np.ndarray:
    """Return dU (G·H′, H′) as an array of this shape (G·H, H): the inverse of `recurrent_weights`."""
    size = shape[-1]
    return dU.reshape(gates, -1, dU.shape[-1])[:, :size, :size].reshape(shape)


def panels(W: np.ndarray) -> np.ndarray:
    """Return W (R, C), C in whole pairs of vectors, as (C / c, R, c) with c of one pair."""
    return np.ascontiguousarray(np.swapaxes(W.reshape(len(W), -1, vector(W, 2)), 0, 1))


def padded(x: Any) -> int:
    """Return H′, the last axis of x in whole pairs of vectors."""
    return x.shape[-1] + -x.shape[-1] % vector(x, 2)


@kernel
def add_product(x, W, out):
    """Compute x W, added to out, for W in panels; where rows are no multiple of four the last is recomputed."""
    (count, columns), (parts, rows, width), step = out.shape, W.shape, lanes(W)
    for part in range(parts):
        for t in range(0, count, 4):
            t1, t2, t3 = min(t + 1, count - 1), min(t + 2, count - 1), min(t + 3, count - 1)
            start = part * width
            at0, at1 = t * columns + start, t1 * columns + start
            at2, at3 = t2 * columns + start, t3 * columns + start
            a00, a01, a10, a11 = load(out, at0), load(out, at0 + step), load(out, at1), load(out, at1 + step)
            a20, a21, a30, a31 = load(out, at2), load(out, at2 + step), load(out, at3), load(out, at3 + step)
            for r in range(rows):
                w0, w1 = load(W, (part * rows + r) * width), load(W, (part * rows + r) * width + step)
                x0, x1, x2, x3 = splat(W, x[t, r]), splat(W, x[t1, r]), splat(W, x[t2, r]), splat(W, x[t3, r])
                a00, a01, a10, a11 = fma(x0, w0, a00), fma(x0, w1, a01), fma(x1, w0, a10), fma(x1, w1, a11)
                a20, a21, a30, a31 = fma(x2, w0, a20), fma(x2, w1, a21), fma(x3, w0, a30), fma(x3, w1, a31)
            for at, left, right in ((at0, a00, a01), (at1, a10, a11), (at2, a20, a21), (at3, a30, a31)):
                store(out, at, left)
                store(out, at + step, right)


@njit(inline="always")
def sigmoid_grad(like, x):
    """Return σ(x) and σ(x) σ(−x), which keeps its digits where σ(x) is nearly 1."""
    t, u, d = logistic(like, x)
    root = t * u / d
    return t * t / d, root * root


@njit(inline="always")
def tanh_grad(like, x):
    """Return tanh x and 1/cosh² x, both to a few ulps."""
    k = decaying_exp(x)
    square = k * k
    d = square + one(x)
    root = (k + k) / d
    far = (one(x) - square) / d
    far = where_negative(x, splat(like, 0) - far, far)
    z = x * x
    near = fma(x * z, _P(z) / _Q(z), x)
    return where_negative(z - splat(like, NEAR * NEAR), near, far), root * root

"""The short causal convolution of every channel alone, one pass forward and one back.

    yₜ = Σⱼ wⱼ xₜ₋ⱼ          x₋₁, x₋₂, … are what came before

backward:  dxₜ = Σⱼ wⱼ dyₜ₊ⱼ          dwⱼ = Σₜ dyₜ xₜ₋ⱼ

Work    a vector is some neighbouring channels at one token; a slab of 64 channels (float64: 32) of one sequence is a
        thread's unit, whose last W tokens stay in the first-level cache.
"""

from typing import Any, NamedTuple

import numpy as np

from minigrad.compiled.layout import cut_out, flat_count, laid_out, vector
from minigrad.compiled.simd import BITS, fma, kernel, lanes, load, splat, store
from minigrad.compiled.threads import share

VECTORS = 2048 // BITS  # in a slab


class Saved(NamedTuple):
    """Residuals of the backward pass: the padded inputs, and the shapes of the arguments."""

    x: np.ndarray  # (batch, T, D')
    w: np.ndarray  # (W, D')
    before: np.ndarray  # (batch, W − 1, D')
    shapes: tuple[tuple[int, ...], ...]  # of x, w and before


def forward(x: Any, w: Any, before: Any) -> tuple[Any, Saved]:
    """Return (y, saved) for x (*batch, T, D), w (D, W) and before (*batch, W − 1, D)."""
    shapes, count, multiples = (x.shape, w.shape, before.shape), flat_count(x.shape), (vector(x),)
    x = laid_out(x, count, *x.shape[-2:], to=multiples)
    before = laid_out(before, count, *before.shape[-2:], to=multiples)
    w, y = laid_out(w.T, *w.shape[::-1], to=multiples), np.empty_like(x)
    share(lambda part, first, last: _forward(x, w, before, y, first, last), _slabs(x))
    return cut_out(y, shapes[0]), Saved(x, w, before, shapes)


def backward(saved: Saved, dy: Any) -> tuple[Any, Any, Any]:
    """Return the cotangents of x, w and before from that of y."""
    x, w, before, shapes = saved
    dy = laid_out(dy, len(x), *dy.shape[-2:], to=(vector(x),))
    dx, dbefore, dw = np.empty_like(x), np.zeros_like(before), np.zeros((len(x), *w.shape), w.dtype)
    share(lambda part, first, last: _backward(x, w, before, dy, dx, dw, dbefore, first, last), _slabs(x))
    return cut_out(dx, shapes[0]), cut_out(dw.sum(axis=0), shapes[1][::-1]).T, cut_out(dbefore, shapes[2])


def _slabs(x: np.ndarray) -> int:
    return len(x) * -(-x.shape[2] // vector(x, VECTORS))


@kernel
def _forward(x, w, before, y, first, last):
    _, length, channels = x.shape
    taps, step, width = w.shape[0], lanes(x), VECTORS * lanes(x)
    slabs = -(-channels // width)
    for item in range(first, last):
        b, start = item // slabs, item % slabs * width
        stop = min(start + width, channels)
        for t in range(length):
            taps_inside = min(taps, t + 1)  # taps that reach no further than the first token
            for d in range(start, stop, step):
                total = splat(x, 0)
                for j in range(taps_inside):
                    total = fma(load(w, j * channels + d), load(x, (b * length + t - j) * channels + d), total)
                for j in range(taps_inside, taps):
                    earlier = (b * (taps - 1) + taps - 1 + t - j) * channels + d
                    total = fma(load(w, j * channels + d), load(before, earlier), total)
                store(y, (b * length + t) * channels + d, total)


@kernel
def _backward(x, w, before, dy, dx, dw, dbefore, first, last):
    _, length, channels = x.shape
    taps, step, width = w.shape[0], lanes(x), VECTORS * lanes(x)
    slabs = -(-channels // width)
    for item in range(first, last):
        b, start = item // slabs, item % slabs * width
        stop = min(start + width, channels)
        for t in range(length):
            taps_inside, taps_ahead = min(taps, t + 1), min(taps, length - t)
            for d in range(start, stop, step):
                g, total = load(dy, (b * length + t) * channels + d), splat(x, 0)
                for j in range(taps_ahead):
                    total = fma(load(w, j * channels + d), load(dy, (b * length + t + j) * channels + d), total)
                store(dx, (b * length + t) * channels + d, total)
                for j in range(taps_inside):
                    at = (b * taps + j) * channels + d
                    store(dw, at, fma(g, load(x, (b * length + t - j) * channels + d), load(dw, at)))
                for j in range(taps_inside, taps):
                    at, earlier = (b * taps + j) * channels + d, (b * (taps - 1) + taps - 1 + t - j) * channels + d
                    store(dw, at, fma(g, load(before, earlier), load(dw, at)))
                    store(dbefore, earlier, fma(g, load(w, j * channels + d), load(dbefore, earlier)))

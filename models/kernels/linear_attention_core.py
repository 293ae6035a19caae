"""The loop over tokens that linear attention, gated or not, its adjoint and those of the delta rules share.

    Sₜ = Diag(aₜ) Sₜ₋₁ + kₜᵀ vₜ          yₜ = qₜ Sₜ          aₜ = 1 without decay

Work    a vector is some neighbouring columns of S in one row. Two vectors of columns of one sequence are a thread's
        unit: the K rows of them stay in the first-level cache while `walk` goes along time, two tokens a pass, so that
        it loads and stores S half as often.
Sums    all run along rows, vector by vector: none across the lanes.

Sequences are (batch, T', K'), padded with zeros to an even number of tokens and to pairs of vectors: see `sequence`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.compiled.layout import laid_out, vector
from minigrad.compiled.simd import assign, fetch, fma, kernel, lanes, load, room, splat, store
from minigrad.compiled.threads import share

STEPS = 32  # tokens between two boundary states, even; an argument of kernels, whose cache on disk ignores globals
AHEAD = 8  # tokens by which a prefetch precedes the load, where memory is read downwards


def sequence(x: Any, *shape: int) -> np.ndarray:
    """Return x (*batch, T, K) as (batch, T', K')."""
    return laid_out(x, *shape, to=(2, vector(x, 2)))


def memory(S: Any, *shape: int) -> np.ndarray:
    """Return S (*batch, K, V) as a new (batch, K', V')."""
    laid = laid_out(S, *shape, to=(vector(S, 2), vector(S, 2)))
    return laid.copy() if np.may_share_memory(laid, S) else laid


def share_columns(work: Callable[[int, int, int], object], v: np.ndarray) -> None:
    """Call work(part, first, last) for parts of all pairs of vectors that v (batch, T', V') has columns for."""
    share(work, v.shape[0] * v.shape[2] // vector(v, 2))


def attend(
    q: Any, k: Any, v: Any, S: Any, *, a: Any = None, boundary_states: Any = None, backwards: bool = False
) -> np.ndarray:
    """Return y (batch, T', V') and leave the last state in S (batch, K', V'); backwards, the last is the first.

    `a` (batch, T', K') are the decays, and every 32nd state goes to `kept` (batch, ⌈T' / 32⌉, K', V').
    """
    y = np.empty_like(v)
    share_columns(lambda part, first, last: walk(q, k, v, a, S, y, boundary_states, STEPS, backwards, first, last), v)
    return y


@kernel
def walk(q, k, v, a, S, y, boundary_states, steps, backwards, first, last):
    """Run the recurrence for the units from `first` to `last`."""
    _, length, rows = q.shape
    step, width = lanes(v), 2 * lanes(v)
    slabs = v.shape[2] // width
    X = room(v, rows, width)
    for item in range(first, last):
        b, start = item // slabs, item % slabs * width
        assign(X, S[b, :, start : start + width])
        for i in range(0, length, 2):
            if boundary_states is not None:
                if i % steps == 0:
                    assign(boundary_states[b, i // steps, :, start : start + width], X)
            t, u = (length - 1 - i, length - 2 - i) if backwards else (i, i + 1)
            at, after = (b * length + t) * v.shape[2] + start, (b * length + u) * v.shape[2] + start
            v00, v01, v10, v11 = load(v, at), load(v, at + step), load(v, after), load(v, after + step)
            if backwards:
                fetch(q, (b * length + u - AHEAD) * rows, 2 * rows)
                fetch(k, (b * length + u - AHEAD) * rows, 2 * rows)
                fetch(v, at - AHEAD * v.shape[2], width)
                fetch(v, after - AHEAD * v.shape[2], width)
            y00 = y01 = y10 = y11 = splat(v, 0)
            for r in range(rows):
                s0, s1 = load(X, r * width), load(X, r * width + step)
                if a is not None:
                    s0, s1 = splat(v, a[b, t, r]) * s0, splat(v, a[b, t, r]) * s1
                s0, s1 = fma(splat(v, k[b, t, r]), v00, s0), fma(splat(v, k[b, t, r]), v01, s1)
                y00, y01 = fma(splat(v, q[b, t, r]), s0, y00), fma(splat(v, q[b, t, r]), s1, y01)
                if a is not None:
                    s0, s1 = splat(v, a[b, u, r]) * s0, splat(v, a[b, u, r]) * s1
                s0, s1 = fma(splat(v, k[b, u, r]), v10, s0), fma(splat(v, k[b, u, r]), v11, s1)
                y10, y11 = fma(splat(v, q[b, u, r]), s0, y10), fma(splat(v, q[b, u, r]), s1, y11)
                store(X, r * width, s0)
                store(X, r * width + step, s1)
            store(y, at, y00)
            store(y, at + step, y01)
            store(y, after, y10)
            store(y, after + step, y11)
        assign(S[b, :, start : start + width], X)

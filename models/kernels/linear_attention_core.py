"""A loop over tokens for linear attention with or without a decay, for its adjoint, and for those of the delta rules.

    Sₜ = Diag(aₜ) Sₜ₋₁ + kₜᵀ vₜ          yₜ = qₜ Sₜ

t counts the tokens in the order in which they are visited, the last one first with `backwards`. In an adjoint a token's
decay therefore acts one token later: the caller shifts the decays.

A SIMD vector holds neighbouring columns of one row of S. The unit of work is a slab of S of one sequence, two vectors
wide: its K' rows are copied to a buffer, which stays in the first-level cache while `walk` visits the tokens, two a
pass, so that it loads and stores S half as often. qₜ Sₜ adds up the rows in vectors; nothing is summed across lanes.

    q, k      (batch, T', K'), T' even, K' padded to whole pairs of vectors; see `sequence`
    v, y      (batch, T', V'), padded alike
    a         (batch, T', K'); None is a decay of 1. Decays are padded with 1, all others with 0.
    S         (batch, K', V')
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.compiled.layout import laid_out, vector
from minigrad.compiled.simd import assign, fetch, fma, kernel, lanes, load, room, splat, store
from minigrad.compiled.threads import share

STEPS = 32  # tokens between two boundary states, even; passed as an argument, since Numba's cache ignores globals
AHEAD = 8  # tokens by which a prefetch precedes the load, where the last token is visited first


def sequence(x: Any, *shape: int) -> np.ndarray:
    """Return x (*batch, T, K), broadcast to `shape` (batch, T, K), as (batch, T', K')."""
    return laid_out(x, *shape, to=(2, vector(x, 2)))


def memory(S: Any, *shape: int) -> np.ndarray:
    """Return a copy of S (*batch, K, V) as (batch, K', V'), which kernels may overwrite."""
    laid = laid_out(S, *shape, to=(vector(S, 2), vector(S, 2)))
    return laid.copy() if np.may_share_memory(laid, S) else laid


def share_columns(work: Callable[[int, int, int], object], v: np.ndarray) -> None:
    """Call work(part, first, last) in each thread for its slabs first ≤ i < last; v is (batch, T', V')."""
    share(work, v.shape[0] * v.shape[2] // vector(v, 2))


def attend(
    q: Any, k: Any, v: Any, S: Any, *, a: Any = None, boundary_states: Any = None, backwards: bool = False
) -> np.ndarray:
    """Return y (batch, T', V') and leave in S the state after the token that is visited last.

    The states before the visits 0, 32, 64, … go to `boundary_states` (batch, ⌈T' / 32⌉, K', V'), unless that is None.
    """
    y = np.empty_like(v)
    share_columns(lambda part, first, last: walk(q, k, v, a, S, y, boundary_states, STEPS, backwards, first, last), v)
    return y


@kernel
def walk(q, k, v, a, S, y, boundary_states, steps, backwards, first, last):
    """Run the recurrence for the slabs first ≤ i < last; y01 is the second vector of the first of two tokens."""
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

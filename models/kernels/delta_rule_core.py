"""Two loops over tokens: the delta rule with or without a decay α, and the part of its adjoint that makes dv and dβ.

    eₜ = vₜ − kₜ αₜ Sₜ₋₁          Sₜ = αₜ Sₜ₋₁ + βₜ kₜᵀ eₜ          yₜ = qₜ Sₜ
    dSₜ = Rₜ + qₜᵀ dyₜ          dvₜ = βₜ kₜ dSₜ          dβₜ = (kₜ dSₜ) eₜᵀ          Rₜ₋₁ = αₜ (dSₜ − kₜᵀ dvₜ)

αₜ is a number, or one for each row of S, then read as a diagonal matrix. Rₜ is the cotangent of Sₜ from the tokens
after t, R_T that of the last state. The kernels of the two delta rules compute dq, dk, dα and R₀ from e and dv.

A token needs kₜ Sₜ₋₁, which depends on the update of the token before it. So one pass over S updates it for two tokens,
reads it with their queries, and multiplies the updated S by the keys of the two tokens of the next pass. The product of
the second of them lacks the update of the first, which adds a multiple of its error, in the adjoint of dy and dv:

    kₜ₊₁ Sₜ = αₜ kₜ₊₁ Sₜ₋₁ + (kₜ₊₁ kₜᵀ) βₜ eₜ          kₜ₋₁ Rₜ₋₁ = αₜ (kₜ₋₁ Rₜ + (kₜ₋₁ qₜᵀ) dyₜ − (kₜ₋₁ kₜᵀ) dvₜ)

A number αₜ multiplies the products once they are there. A diagonal αₜ stands between key and state, and multiplies the
keys before:

    kₜ αₜ Sₜ₋₁ = (kₜ αₜ) Sₜ₋₁          kₜ₊₁ αₜ₊₁ Sₜ = (kₜ₊₁ αₜ₊₁ αₜ) Sₜ₋₁ + (kₜ₊₁ αₜ₊₁ kₜᵀ) βₜ eₜ
    kₜ₋₁ Rₜ₋₁ = (kₜ₋₁ αₜ) Rₜ + (kₜ₋₁ αₜ qₜᵀ) dyₜ − (kₜ₋₁ αₜ kₜᵀ) dvₜ

Threads and layout are those of `models.kernels.linear_attention_core`: the SIMD lanes hold columns of S, which are
entries of v, and loops run over its rows, which are entries of k.

    q, k      (batch, T', K'), K' padded to whole pairs of vectors, T' even; see `sequence`
    v, y, e   (batch, T', V')
    beta      (batch, T'), see `per_token`
    a         (batch, T') or (batch, T', K'); None is α = 1. Decays are padded with 1, all others with 0.
    S, R      (batch, K', V')

In the loops x01 is the second vector of columns for the first token of a pass, x10 the first one for the second token.
"""

from typing import Any

import numpy as np

from minigrad.compiled.layout import laid_out, vector
from minigrad.compiled.simd import assign, fetch, fma, kernel, lanes, load, room, splat, store, total
from models.kernels.linear_attention_core import AHEAD, STEPS, share_columns


def per_token(x: Any, count: int) -> np.ndarray:
    """Return x (*batch, T) as (batch, T'), T' even."""
    return laid_out(x, count, x.shape[-1], to=(2,))


def attend(q: Any, k: Any, v: Any, beta: Any, a: Any, S: Any, boundary_states: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return y and e, and leave the last state in S.

    The states before tokens 0, 32, 64, … go to `boundary_states` (batch, ⌈T' / 32⌉, K', V'), unless that is None.
    """
    y, e = np.empty_like(v), np.empty_like(v)
    decayed = ahead = k  # kₜ αₜ, and the keys that multiply the state before a pass
    if a is not None and a.ndim == k.ndim:
        decayed = k * a
        ahead = decayed.copy()
        ahead[:, 1::2] *= a[:, ::2]

    def work(part: int, first: int, last: int) -> None:
        _forward(q, k, decayed, ahead, v, beta, a, S, y, e, boundary_states, STEPS, first, last)

    share_columns(work, v)
    return y, e


def attend_backward(q: Any, k: Any, beta: Any, a: Any, e: Any, dy: Any, R: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return dv (batch, T', V') and dβ (batch, T') from dy, e and R, the cotangent of the last state."""
    dv, dbeta = np.empty_like(dy), np.empty((dy.shape[2] // vector(dy, 2), *beta.shape), dy.dtype)  # a term a slab
    ahead = k  # the keys that multiply the cotangent before a pass
    if a is not None and a.ndim == k.ndim:
        ahead = k.copy()
        ahead[:, ::2] *= a[:, 1::2]
    share_columns(lambda part, first, last: _backward(q, k, ahead, beta, a, e, dy, R, dv, dbeta, first, last), dy)
    return dv, dbeta.sum(axis=0)


@kernel
def _forward(q, k, decayed, ahead, v, beta, a, S, y, e, boundary_states, steps, first, last):
    _, length, rows = q.shape
    step, width = lanes(v), 2 * lanes(v)
    slabs = v.shape[2] // width
    X = room(v, rows, width)
    for item in range(first, last):
        b, start = item // slabs, item % slabs * width
        assign(X, S[b, :, start : start + width])
        n00, n01, n10, n11 = _read_keys(X, ahead, b, 0, 1)
        for t in range(0, length, 2):
            if boundary_states is not None:
                if t % steps == 0:
                    assign(boundary_states[b, t // steps, :, start : start + width], X)
            at, after = (b * length + t) * v.shape[2] + start, (b * length + t + 1) * v.shape[2] + start
            coming = min(t + 2, length - 2)  # after the last pass any two tokens: their products are not used
            if a is not None and a.ndim == 2:
                n00, n01 = splat(v, a[b, t]) * n00, splat(v, a[b, t]) * n01
                n10, n11 = splat(v, a[b, t]) * n10, splat(v, a[b, t]) * n11
            e00, e01 = load(v, at) - n00, load(v, at + step) - n01
            u00, u01 = splat(v, beta[b, t]) * e00, splat(v, beta[b, t]) * e01
            kk = _product(k, b * length + t, decayed, b * length + t + 1)
            n10, n11 = fma(kk, u00, n10), fma(kk, u01, n11)
            if a is not None and a.ndim == 2:
                n10, n11 = splat(v, a[b, t + 1]) * n10, splat(v, a[b, t + 1]) * n11
            e10, e11 = load(v, after) - n10, load(v, after + step) - n11
            u10, u11 = splat(v, beta[b, t + 1]) * e10, splat(v, beta[b, t + 1]) * e11
            n00 = n01 = n10 = n11 = y00 = y01 = y10 = y11 = splat(v, 0)
            for r in range(rows):
                s0, s1 = load(X, r * width), load(X, r * width + step)
                if a is not None:
                    s0, s1 = splat(v, _decay(a, b, t, r)) * s0, splat(v, _decay(a, b, t, r)) * s1
                s0, s1 = fma(splat(v, k[b, t, r]), u00, s0), fma(splat(v, k[b, t, r]), u01, s1)
                y00, y01 = fma(splat(v, q[b, t, r]), s0, y00), fma(splat(v, q[b, t, r]), s1, y01)
                if a is not None:
                    s0, s1 = splat(v, _decay(a, b, t + 1, r)) * s0, splat(v, _decay(a, b, t + 1, r)) * s1
                s0, s1 = fma(splat(v, k[b, t + 1, r]), u10, s0), fma(splat(v, k[b, t + 1, r]), u11, s1)
                y10, y11 = fma(splat(v, q[b, t + 1, r]), s0, y10), fma(splat(v, q[b, t + 1, r]), s1, y11)
                k0, k1 = splat(v, ahead[b, coming, r]), splat(v, ahead[b, coming + 1, r])
                n00, n01, n10, n11 = fma(k0, s0, n00), fma(k0, s1, n01), fma(k1, s0, n10), fma(k1, s1, n11)
                store(X, r * width, s0)
                store(X, r * width + step, s1)
            for i, output, error in (
                (at, y00, e00),
                (at + step, y01, e01),
                (after, y10, e10),
                (after + step, y11, e11),
            ):
                store(y, i, output)
                store(e, i, error)
        assign(S[b, :, start : start + width], X)


@kernel
def _backward(q, k, ahead, beta, a, e, dy, R, dv, dbeta, first, last):
    _, length, rows = q.shape
    step, width = lanes(dy), 2 * lanes(dy)
    slabs = dy.shape[2] // width
    X = room(dy, rows, width)
    for item in range(first, last):
        b, start = item // slabs, item % slabs * width
        assign(X, R[b, :, start : start + width])
        n00, n01, n10, n11 = _read_keys(X, ahead, b, length - 1, length - 2)
        for t in range(length - 1, 0, -2):
            at, before = (b * length + t) * dy.shape[2] + start, (b * length + t - 1) * dy.shape[2] + start
            row, row_before, coming = b * length + t, b * length + t - 1, max(t - 2, 1)
            fetch(q, (row_before - AHEAD) * rows, 2 * rows)
            fetch(k, (row_before - AHEAD) * rows, 2 * rows)
            for place in (at - AHEAD * dy.shape[2], before - AHEAD * dy.shape[2]):
                fetch(dy, place, width)
                fetch(e, place, width)
            g00, g01, g10, g11 = load(dy, at), load(dy, at + step), load(dy, before), load(dy, before + step)
            kq_own = _product(k, row, q, row)
            n00, n01 = fma(kq_own, g00, n00), fma(kq_own, g01, n01)
            w00, w01 = splat(dy, -beta[b, t]) * n00, splat(dy, -beta[b, t]) * n01  # w = −dv
            kq, kk = _product(ahead, row_before, q, row), _product(ahead, row_before, k, row)
            n10, n11 = fma(kk, w00, fma(kq, g00, n10)), fma(kk, w01, fma(kq, g01, n11))
            if a is not None and a.ndim == 2:
                n10, n11 = splat(dy, a[b, t]) * n10, splat(dy, a[b, t]) * n11
            kq_own = _product(k, row_before, q, row_before)
            n10, n11 = fma(kq_own, g10, n10), fma(kq_own, g11, n11)
            w10, w11 = splat(dy, -beta[b, t - 1]) * n10, splat(dy, -beta[b, t - 1]) * n11
            dbeta[item % slabs, b, t] = total(fma(n00, load(e, at), n01 * load(e, at + step)))
            dbeta[item % slabs, b, t - 1] = total(fma(n10, load(e, before), n11 * load(e, before + step)))
            for place, w in ((at, w00), (at + step, w01), (before, w10), (before + step, w11)):
                store(dv, place, splat(dy, 0) - w)
            n00 = n01 = n10 = n11 = splat(dy, 0)
            for r in range(rows):
                s0, s1 = load(X, r * width), load(X, r * width + step)
                s0, s1 = fma(splat(dy, q[b, t, r]), g00, s0), fma(splat(dy, q[b, t, r]), g01, s1)
                s0, s1 = fma(splat(dy, k[b, t, r]), w00, s0), fma(splat(dy, k[b, t, r]), w01, s1)
                if a is not None:
                    s0, s1 = splat(dy, _decay(a, b, t, r)) * s0, splat(dy, _decay(a, b, t, r)) * s1
                s0, s1 = fma(splat(dy, q[b, t - 1, r]), g10, s0), fma(splat(dy, q[b, t - 1, r]), g11, s1)
                s0, s1 = fma(splat(dy, k[b, t - 1, r]), w10, s0), fma(splat(dy, k[b, t - 1, r]), w11, s1)
                if a is not None:
                    s0, s1 = splat(dy, _decay(a, b, t - 1, r)) * s0, splat(dy, _decay(a, b, t - 1, r)) * s1
                k0, k1 = splat(dy, ahead[b, coming, r]), splat(dy, ahead[b, coming - 1, r])
                n00, n01, n10, n11 = fma(k0, s0, n00), fma(k0, s1, n01), fma(k1, s0, n10), fma(k1, s1, n11)
                store(X, r * width, s0)
                store(X, r * width + step, s1)


@kernel
def _decay(a, b, t, r):
    """Return the decay of row r by token t."""
    if a.ndim == 2:
        return a[b, t]
    return a[b, t, r]


@kernel
def _read_keys(X, k, b, t, u):
    """Return kₜ X and kᵤ X, each as two vectors."""
    rows, width = X.shape
    n00 = n01 = n10 = n11 = splat(X, 0)
    for r in range(rows):
        s0, s1 = load(X, r * width), load(X, r * width + lanes(X))
        k0, k1 = splat(X, k[b, t, r]), splat(X, k[b, u, r])
        n00, n01, n10, n11 = fma(k0, s0, n00), fma(k0, s1, n01), fma(k1, s0, n10), fma(k1, s1, n11)
    return n00, n01, n10, n11


@kernel
def _product(x, t, y, u):
    """Return xₜ · yᵤ in every lane; t and u number the rows of all sequences."""
    rows = x.shape[2]
    products = splat(x, 0)
    for r in range(0, rows, lanes(x)):
        products = fma(load(x, t * rows + r), load(y, u * rows + r), products)
    return splat(x, total(products))

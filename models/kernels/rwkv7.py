"""RWKV-7's memory in one pass, and its adjoint in two.

    zₜ = aₜ Sₜ₋₁          Sₜ = Diag(αₜ) Sₜ₋₁ + bₜᵀ zₜ + kₜᵀ vₜ          yₜ = rₜ Sₜ          Peng et al. 2025, eq. 17

backward, with Dₜ the cotangent of Sₜ, from the last token to the first:

    dvₜ = kₜ Dₜ          dzₜ = bₜ Dₜ          Dₜ₋₁ = Diag(αₜ) Dₜ + aₜᵀ dzₜ + rₜ₋₁ᵀ dyₜ₋₁
    drₜ = dyₜ Sₜᵀ        daₜ = dzₜ Sₜ₋₁ᵀ      dbₜ = zₜ Dₜᵀ          dkₜ = vₜ Dₜᵀ          d log αₜ = αₜ Σᵥ (Dₜ ⊙ Sₜ₋₁)

The first line has values in the lanes; with z and dz known the second has keys in the lanes.

Work    as in `models.kernels.linear_attention_core`: a slab of two vectors of columns of one sequence's S, whose rows
        stay in the first-level cache. A pass over them updates S for a token and reads it with the next one's a.
Memory  z, and S every 32 tokens. The adjoint recomputes the 32 in between, for two vectors of keys a thread.
Cost    five multiplications and four additions a token and entry of S forward, about four times that back.

    r, k, a, b, α    (batch, T', K'), padded; see `sequence`. Decays are padded with 1, all others with 0.
    v, y, z          (batch, T', V')
    S, D             (batch, K', V')
"""

from typing import Any, NamedTuple

import numpy as np

from minigrad.compiled.layout import cut_out, flat_count
from minigrad.compiled.simd import assign, fma, kernel, lanes, load, room, splat, store
from models.kernels.gated_linear_attention import decays
from models.kernels.linear_attention_core import STEPS, memory, sequence, share_columns


class Saved(NamedTuple):
    """Residuals of the backward pass: the padded inputs, z, every 32nd state, and the shapes of the inputs."""

    r: np.ndarray  # (batch, T', K')
    k: np.ndarray
    v: np.ndarray  # (batch, T', V')
    a: np.ndarray
    b: np.ndarray
    alpha: np.ndarray
    z: np.ndarray  # (batch, T', V')
    boundary_states: np.ndarray  # (batch, ⌈T' / 32⌉, K', V')
    shapes: tuple[tuple[int, ...], ...]  # of r, v and S


def forward(r: Any, k: Any, v: Any, a: Any, b: Any, log_decay: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved): r, k, a, b, log_decay (*batch, T, K), v (*batch, T, V), S (*batch, K, V)."""
    count, shapes = flat_count(r.shape), (r.shape, v.shape, S.shape)
    alpha = decays(log_decay, r.shape)
    r, k, v, a, b = (sequence(x, count, *x.shape[-2:]) for x in (r, k, v, a, b))
    S = memory(S, count, *S.shape[-2:])
    y, z = np.empty_like(v), np.empty_like(v)
    states = np.empty((count, -(-v.shape[1] // STEPS), *S.shape[1:]), v.dtype)
    share_columns(lambda part, first, last: _forward(r, k, v, a, b, alpha, S, y, z, states, STEPS, first, last), v)
    return (cut_out(y, shapes[1]), cut_out(S, shapes[2])), Saved(r, k, v, a, b, alpha, z, states, shapes)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of r, k, v, a, b, log_decay and S from those of y and of the last S."""
    r, k, v, a, b, alpha, z, states, (keys, values, state) = saved
    count = flat_count(keys)
    dy = sequence(cotangents[0], count, *values[-2:])
    dv, dz = np.empty_like(v), np.empty_like(v)
    D = memory(cotangents[1], count, *state[-2:])
    share_columns(lambda part, first, last: _backward_values(r, k, a, b, alpha, dy, D, dv, dz, first, last), v)
    D = memory(np.swapaxes(cotangents[1], -1, -2), count, *state[:-3:-1])
    dr, dk, da, db, dg = (np.empty_like(r) for _ in range(5))
    inputs, outputs = (r, k, v, a, b, alpha, z, dz, dy), (dr, dk, da, db, dg)
    share_columns(lambda part, first, last: _backward_keys(inputs, states, STEPS, D, outputs, first, last), r)
    of_keys = (cut_out(x, keys) for x in (da, db, dg))
    return cut_out(dr, keys), cut_out(dk, keys), cut_out(dv, values), *of_keys, cut_out(np.swapaxes(D, -1, -2), state)


@kernel
def _forward(r, k, v, a, b, alpha, S, y, z, states, steps, first, last):
    _, length, rows = r.shape
    step, width = lanes(v), 2 * lanes(v)
    slabs = v.shape[2] // width
    X = room(v, rows, width)
    for item in range(first, last):
        n, start = item // slabs, item % slabs * width
        assign(X, S[n, :, start : start + width])
        z0 = z1 = splat(v, 0)
        for i in range(rows):
            z0 = fma(splat(v, a[n, 0, i]), load(X, i * width), z0)
            z1 = fma(splat(v, a[n, 0, i]), load(X, i * width + step), z1)
        for t in range(length):
            if t % steps == 0:
                assign(states[n, t // steps, :, start : start + width], X)
            at, after = (n * length + t) * v.shape[2] + start, min(t + 1, length - 1)
            store(z, at, z0)
            store(z, at + step, z1)
            v0, v1 = load(v, at), load(v, at + step)
            y0 = y1 = next0 = next1 = splat(v, 0)
            for i in range(rows):
                decay, b_i, k_i = splat(v, alpha[n, t, i]), splat(v, b[n, t, i]), splat(v, k[n, t, i])
                s0 = fma(k_i, v0, fma(b_i, z0, decay * load(X, i * width)))
                s1 = fma(k_i, v1, fma(b_i, z1, decay * load(X, i * width + step)))
                y0, y1 = fma(splat(v, r[n, t, i]), s0, y0), fma(splat(v, r[n, t, i]), s1, y1)
                next0, next1 = fma(splat(v, a[n, after, i]), s0, next0), fma(splat(v, a[n, after, i]), s1, next1)
                store(X, i * width, s0)
                store(X, i * width + step, s1)
            store(y, at, y0)
            store(y, at + step, y1)
            z0, z1 = next0, next1
        assign(S[n, :, start : start + width], X)


@kernel
def _backward_values(r, k, a, b, alpha, dy, D, dv, dz, first, last):
    """Compute dv and dz; X holds Dₜ when token t is visited."""
    _, length, rows = r.shape
    step, width = lanes(dy), 2 * lanes(dy)
    slabs = dy.shape[2] // width
    X = room(dy, rows, width)
    for item in range(first, last):
        n, start = item // slabs, item % slabs * width
        assign(X, D[n, :, start : start + width])
        at = (n * length + length - 1) * dy.shape[2] + start
        dy0, dy1 = load(dy, at), load(dy, at + step)
        dz0 = dz1 = splat(dy, 0)
        for i in range(rows):
            d0 = fma(splat(dy, r[n, length - 1, i]), dy0, load(X, i * width))
            d1 = fma(splat(dy, r[n, length - 1, i]), dy1, load(X, i * width + step))
            dz0, dz1 = fma(splat(dy, b[n, length - 1, i]), d0, dz0), fma(splat(dy, b[n, length - 1, i]), d1, dz1)
            store(X, i * width, d0)
            store(X, i * width + step, d1)
        for t in range(length - 1, -1, -1):
            at, before = (n * length + t) * dy.shape[2] + start, max(t - 1, 0)
            store(dz, at, dz0)
            store(dz, at + step, dz1)
            there = (n * length + before) * dy.shape[2] + start
            dy0, dy1 = load(dy, there), load(dy, there + step)
            dv0 = dv1 = next0 = next1 = splat(dy, 0)
            for i in range(rows):
                d0, d1 = load(X, i * width), load(X, i * width + step)
                dv0, dv1 = fma(splat(dy, k[n, t, i]), d0, dv0), fma(splat(dy, k[n, t, i]), d1, dv1)
                decay, a_i, r_i = splat(dy, alpha[n, t, i]), splat(dy, a[n, t, i]), splat(dy, r[n, before, i])
                d0 = fma(r_i, dy0, fma(a_i, dz0, decay * d0))
                d1 = fma(r_i, dy1, fma(a_i, dz1, decay * d1))
                next0, next1 = fma(splat(dy, b[n, before, i]), d0, next0), fma(splat(dy, b[n, before, i]), d1, next1)
                store(X, i * width, d0)
                store(X, i * width + step, d1)
            store(dv, at, dv0)
            store(dv, at + step, dv1)
            dz0, dz1 = next0, next1


@kernel
def _backward_keys(inputs, states, steps, D, outputs, first, last):
    """Compute dr, dk, da, db, d log α and the cotangent of the initial state; S and X hold transposes."""
    r, k, v, a, b, alpha, z, dz, dy = inputs
    dr, dk, da, db, dg = outputs
    _, length, rows = v.shape
    step, width = lanes(r), 2 * lanes(r)
    slabs = r.shape[2] // width
    S, X = room(r, steps + 1, rows, width), room(r, rows, width)
    for item in range(first, last):
        n, start = item // slabs, item % slabs * width
        assign(X, D[n, :, start : start + width])
        for chunk in range(states.shape[1] - 1, -1, -1):
            assign(S[0], states[n, chunk, start : start + width].T)
            begin, end = chunk * steps, min(chunk * steps + steps, length)
            for t in range(begin, end):  # the states of this chunk once more
                at = (n * length + t) * r.shape[2] + start
                k0, k1, b0, b1 = load(k, at), load(k, at + step), load(b, at), load(b, at + step)
                decay0, decay1 = load(alpha, at), load(alpha, at + step)
                r0 = r1 = a0 = a1 = splat(r, 0)
                for j in range(rows):
                    place = ((t - begin) * rows + j) * width
                    s0, s1 = load(S, place), load(S, place + step)
                    a0, a1 = fma(splat(r, dz[n, t, j]), s0, a0), fma(splat(r, dz[n, t, j]), s1, a1)
                    z_j, v_j = splat(r, z[n, t, j]), splat(r, v[n, t, j])
                    s0, s1 = fma(v_j, k0, fma(z_j, b0, decay0 * s0)), fma(v_j, k1, fma(z_j, b1, decay1 * s1))
                    r0, r1 = fma(splat(r, dy[n, t, j]), s0, r0), fma(splat(r, dy[n, t, j]), s1, r1)
                    store(S, place + rows * width, s0)
                    store(S, place + rows * width + step, s1)
                store(dr, at, r0)
                store(dr, at + step, r1)
                store(da, at, a0)
                store(da, at + step, a1)
            for t in range(end - 1, begin - 1, -1):
                at = (n * length + t) * r.shape[2] + start
                r0, r1, a0, a1 = load(r, at), load(r, at + step), load(a, at), load(a, at + step)
                decay0, decay1 = load(alpha, at), load(alpha, at + step)
                k0 = k1 = b0 = b1 = g0 = g1 = splat(r, 0)
                for j in range(rows):
                    place = ((t - begin) * rows + j) * width
                    d0, d1 = load(X, j * width), load(X, j * width + step)
                    d0, d1 = fma(splat(r, dy[n, t, j]), r0, d0), fma(splat(r, dy[n, t, j]), r1, d1)
                    k0, k1 = fma(splat(r, v[n, t, j]), d0, k0), fma(splat(r, v[n, t, j]), d1, k1)
                    b0, b1 = fma(splat(r, z[n, t, j]), d0, b0), fma(splat(r, z[n, t, j]), d1, b1)
                    g0, g1 = fma(d0, load(S, place), g0), fma(d1, load(S, place + step), g1)
                    dz_j = splat(r, dz[n, t, j])
                    store(X, j * width, fma(dz_j, a0, decay0 * d0))
                    store(X, j * width + step, fma(dz_j, a1, decay1 * d1))
                for output, left, right in ((dk, k0, k1), (db, b0, b1), (dg, decay0 * g0, decay1 * g1)):
                    store(output, at, left)
                    store(output, at + step, right)
        assign(D[n, :, start : start + width], X)

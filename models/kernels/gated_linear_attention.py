"""Gated linear attention in one pass, and its adjoint in two.

    Sₜ = Diag(αₜ) Sₜ₋₁ + kₜᵀ vₜ          yₜ = qₜ Sₜ                  Yang et al. 2024 (GLA), section 4.1

backward, with dSₜ = Diag(αₜ₊₁) dSₜ₊₁ + qₜᵀ dyₜ the cotangent of Sₜ, from the last token to the first:

    dvₜ = kₜ dSₜ                        a linear attention with the decay of the token after, against the order of time
    dqₜ = dyₜ Sₜᵀ          dkₜ = vₜ dSₜᵀ          d log αₜ = αₜ ⊙ Σᵥ (dSₜ ⊙ Sₜ₋₁)

Summed over time, q ⊙ dq − k ⊙ dk would give d log α too, without S and dS meeting; but where gates shut, what is left
of it are rounding errors.

Work    and layout as in `models.kernels.linear_attention_core`, keys in the lanes of the adjoint.
Memory  S every 32 tokens. The adjoint recomputes the 32 in between, for two vectors of keys a thread.
Cost    three multiplications and two additions a token and entry of S forward, about four times that back.

One decay per token stands for equal decays of all channels: its cotangent is the sum of theirs.
"""

from typing import Any, NamedTuple

import numpy as np

from minigrad.compiled.layout import cut_out, flat_count
from minigrad.compiled.simd import assign, fma, kernel, lanes, load, room, splat, store
from models.kernels.linear_attention_core import STEPS, attend, memory, sequence, share_columns


class Saved(NamedTuple):
    """Residuals of the backward pass: the padded inputs, every 32nd state, and the shapes of the inputs."""

    q: np.ndarray  # (batch, T', K')
    k: np.ndarray
    v: np.ndarray  # (batch, T', V')
    a: np.ndarray  # α, (batch, T', K')
    boundary_states: np.ndarray  # (batch, ⌈T' / 32⌉, K', V')
    shapes: tuple[tuple[int, ...], ...]  # of q, v, log_decay and S


def forward(q: Any, k: Any, v: Any, log_decay: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V), S (*batch, K, V).

    log_decay is (*batch, T, K), or (*batch, T) for one decay of all channels.
    """
    count = flat_count(q.shape)
    rows, columns, shapes = (count, *q.shape[-2:]), (count, *v.shape[-2:]), (q.shape, v.shape, log_decay.shape, S.shape)
    q, k, v, a = sequence(q, *rows), sequence(k, *rows), sequence(v, *columns), decays(log_decay, q.shape)
    S = memory(S, count, *S.shape[-2:])
    boundary_states = np.empty((count, -(-v.shape[1] // STEPS), *S.shape[1:]), v.dtype)
    y = attend(q, k, v, S, a=a, boundary_states=boundary_states)
    return (cut_out(y, shapes[1]), cut_out(S, shapes[3])), Saved(q, k, v, a, boundary_states, shapes)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v, log_decay and S from those of y and of the last S."""
    q, k, v, a, boundary_states, (keys, values, gates, state) = saved
    count = flat_count(keys)
    dy = sequence(cotangents[0], count, *values[-2:])
    later = np.concatenate([a[:, 1:], np.ones_like(a[:, :1])], axis=1)
    dv = attend(k, q, dy, memory(cotangents[1], count, *state[-2:]), a=later, backwards=True)
    dS = memory(np.swapaxes(cotangents[1], -1, -2), count, *state[:-3:-1])
    dq, dk, da = adjoint(q, k, v, a, None, dy, boundary_states, dS)
    da = cut_out(da, keys)
    return (
        cut_out(dq, keys),
        cut_out(dk, keys),
        cut_out(dv, values),
        da if da.shape == gates else da.sum(axis=-1),
        cut_out(np.swapaxes(dS, -1, -2), state),
    )


def decays(log_decay: Any, keys: tuple[int, ...]) -> np.ndarray:
    """Return α for each channel, (batch, T', K'), 1 in the padding, from log_decay (*batch, T, K), or without K."""
    count = flat_count(keys)
    if len(log_decay.shape) == len(keys):
        return np.exp(sequence(log_decay, count, *keys[-2:]))
    logarithms = sequence(log_decay, count, keys[-2], 1)[..., :1]
    width = sequence(np.empty(0, log_decay.dtype), 0, *keys[-2:]).shape[-1]
    return np.ascontiguousarray(np.broadcast_to(np.exp(logarithms), (*logarithms.shape[:2], width)))


def adjoint(q: Any, k: Any, u: Any, a: Any, w: Any, dy: Any, boundary_states: Any, dS: Any) -> tuple[Any, Any, Any]:
    """Return the cotangents of q, k and log a for the updates kᵀ u, and leave that of the initial state in dS.

    dS is (batch, V', K'). With `w` (batch, T', V') u depends on S through the errors v − k S of the delta rule, whose
    cotangents are w.
    """
    dq, dk, da = (np.empty_like(q) for _ in range(3))
    share_columns(
        lambda part, first, last: _adjoint(q, k, u, a, w, dy, boundary_states, STEPS, dS, dq, dk, da, first, last), q
    )
    return dq, dk, da


@kernel
def _adjoint(q, k, u, a, w, dy, boundary_states, steps, dS, dq, dk, da, first, last):
    _, length, rows = u.shape
    step, width = lanes(q), 2 * lanes(q)
    slabs = q.shape[2] // width
    S, R = room(q, steps + 1, rows, width), room(q, rows, width)
    for item in range(first, last):
        b, start = item // slabs, item % slabs * width
        assign(R, dS[b, :, start : start + width])
        for chunk in range(boundary_states.shape[1] - 1, -1, -1):
            assign(S[0], boundary_states[b, chunk, start : start + width].T)
            begin, end = chunk * steps, min(chunk * steps + steps, length)
            for t in range(begin, end):  # the states of this chunk once more
                at = (b * length + t) * q.shape[2] + start
                k0, k1, a0, a1 = load(k, at), load(k, at + step), load(a, at), load(a, at + step)
                q0 = q1 = d0 = d1 = splat(q, 0)
                for r in range(rows):
                    place = ((t - begin) * rows + r) * width
                    s0, s1 = a0 * load(S, place), a1 * load(S, place + step)
                    if w is not None:
                        d0, d1 = fma(splat(q, w[b, t, r]), s0, d0), fma(splat(q, w[b, t, r]), s1, d1)
                    s0, s1 = fma(splat(q, u[b, t, r]), k0, s0), fma(splat(q, u[b, t, r]), k1, s1)
                    q0, q1 = fma(splat(q, dy[b, t, r]), s0, q0), fma(splat(q, dy[b, t, r]), s1, q1)
                    store(S, place + rows * width, s0)
                    store(S, place + rows * width + step, s1)
                store(dq, at, q0)
                store(dq, at + step, q1)
                store(dk, at, splat(q, 0) - d0)
                store(dk, at + step, splat(q, 0) - d1)
            for t in range(end - 1, begin - 1, -1):
                at = (b * length + t) * q.shape[2] + start
                q0, q1, k0, k1 = load(q, at), load(q, at + step), load(k, at), load(k, at + step)
                a0, a1 = load(a, at), load(a, at + step)
                g0 = g1 = splat(q, 0)
                d0, d1 = load(dk, at), load(dk, at + step)
                for r in range(rows):
                    place = ((t - begin) * rows + r) * width
                    r0, r1 = load(R, r * width), load(R, r * width + step)
                    r0, r1 = fma(splat(q, dy[b, t, r]), q0, r0), fma(splat(q, dy[b, t, r]), q1, r1)
                    d0, d1 = fma(splat(q, u[b, t, r]), r0, d0), fma(splat(q, u[b, t, r]), r1, d1)
                    if w is not None:
                        r0, r1 = fma(splat(q, -w[b, t, r]), k0, r0), fma(splat(q, -w[b, t, r]), k1, r1)
                    g0, g1 = fma(r0, load(S, place), g0), fma(r1, load(S, place + step), g1)
                    store(R, r * width, a0 * r0)
                    store(R, r * width + step, a1 * r1)
                store(dk, at, d0)
                store(dk, at + step, d1)
                store(da, at, a0 * g0)
                store(da, at + step, a1 * g1)
        assign(dS[b, :, start : start + width], R)

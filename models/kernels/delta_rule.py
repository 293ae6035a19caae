"""The delta rule in one pass, and its adjoint in three, none of which keeps a state.

    eₜ = vₜ − kₜ Sₜ₋₁          Sₜ = Sₜ₋₁ + βₜ kₜᵀ eₜ          yₜ = qₜ Sₜ          Schlag et al. 2021, section 4.2

backward, with dSₜ the cotangent of Sₜ:

    dSₜ = dSₜ₊₁ − kₜ₊₁ᵀ dvₜ₊₁ + qₜᵀ dyₜ          dvₜ = βₜ kₜ dSₜ          against the order of time, values in the lanes
    dqₜ = dyₜ Sₜᵀ                                −dvₜ Sₜ₋₁ᵀ, part of dkₜ   in the order of time, keys in the lanes
                                                 βₜ eₜ dSₜᵀ, the rest     against it, keys in the lanes

Once e and dv are known, S and dS are sums of known products, and nothing but the order of time relates them: neither is
kept, and two tokens go at each pass. (With gates d log α needs both at once: see `models.kernels.gated_delta_rule`.)
Sₜ₋₁ could be had from Sₜ by taking back what was written; but Sₜ − βₜ kₜᵀ eₜ has lost the digits that eₜ outweighs.

Work    and layout as in `models.kernels.delta_rule_core`, which makes e and dv, and `linear_attention_core`.
Memory  e, of the size of y.
Cost    three multiplications and additions a token and entry of S forward, nine back.
"""

from typing import Any, NamedTuple

import numpy as np

from minigrad.compiled.layout import cut_out, flat_count
from minigrad.compiled.simd import assign, fetch, fma, kernel, lanes, load, room, splat, store
from models.kernels.delta_rule_core import attend, attend_backward, per_token
from models.kernels.linear_attention_core import AHEAD, memory, sequence, share_columns


class Saved(NamedTuple):
    """Residuals of the backward pass: the padded inputs, e, and the shapes of the inputs."""

    q: np.ndarray  # (batch, T', K')
    k: np.ndarray
    beta: np.ndarray  # (batch, T')
    e: np.ndarray  # (batch, T', V')
    S: Any  # the state before the first token, as it came
    keys: tuple[int, ...]
    values: tuple[int, ...]


def forward(q: Any, k: Any, v: Any, beta: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V), beta (*batch, T) and S (*batch, K, V)."""
    count, keys, values = flat_count(q.shape), q.shape, v.shape
    q, k, v = (sequence(x, count, *x.shape[-2:]) for x in (q, k, v))
    beta, after = per_token(beta, count), memory(S, count, *S.shape[-2:])
    y, e = attend(q, k, v, beta, None, after, None)
    return (cut_out(y, values), cut_out(after, S.shape)), Saved(q, k, beta, e, S, keys, values)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v, beta and S from those of y and of the last S."""
    q, k, beta, e, S, keys, values = saved
    count = flat_count(keys)
    dy, dS = sequence(cotangents[0], count, *values[-2:]), memory(cotangents[1], count, *S.shape[-2:])
    dv, dbeta = attend_backward(q, k, beta, None, e, dy, dS)
    dq, dk = np.empty_like(q), np.empty_like(k)
    before, dS = (memory(np.swapaxes(x, -1, -2), count, *S.shape[:-3:-1]) for x in (S, cotangents[1]))
    share_columns(lambda part, first, last: _reads(k, beta, e, dv, dy, before, dq, dk, first, last), q)
    share_columns(lambda part, first, last: _writes(q, k, beta, e, dv, dy, dS, dk, first, last), q)
    return (
        cut_out(dq, keys),
        cut_out(dk, keys),
        cut_out(dv, values),
        cut_out(dbeta, keys[:-1], axes=1),
        cut_out(np.swapaxes(dS, -1, -2), S.shape),
    )


@kernel
def _reads(k, beta, e, w, dy, S, dq, dk, first, last):
    """Compute dyₜ Sₜᵀ for every token, into dq, and −dvₜ Sₜ₋₁ᵀ, into dk; w is dv."""
    _, length, rows = e.shape
    step, width = lanes(k), 2 * lanes(k)
    slabs = k.shape[2] // width
    X = room(k, rows, width)
    for item in range(first, last):
        b, start = item // slabs, item % slabs * width
        assign(X, S[b, :, start : start + width])
        for t in range(0, length, 2):
            at, after = (b * length + t) * k.shape[2] + start, (b * length + t + 1) * k.shape[2] + start
            strength, next_strength = splat(k, beta[b, t]), splat(k, beta[b, t + 1])
            k00, k01 = strength * load(k, at), strength * load(k, at + step)
            k10, k11 = next_strength * load(k, after), next_strength * load(k, after + step)
            q00 = q01 = q10 = q11 = d00 = d01 = d10 = d11 = splat(k, 0)
            for r in range(rows):
                s0, s1 = load(X, r * width), load(X, r * width + step)
                d00, d01 = fma(splat(k, -w[b, t, r]), s0, d00), fma(splat(k, -w[b, t, r]), s1, d01)
                s0, s1 = fma(splat(k, e[b, t, r]), k00, s0), fma(splat(k, e[b, t, r]), k01, s1)
                q00, q01 = fma(splat(k, dy[b, t, r]), s0, q00), fma(splat(k, dy[b, t, r]), s1, q01)
                d10, d11 = fma(splat(k, -w[b, t + 1, r]), s0, d10), fma(splat(k, -w[b, t + 1, r]), s1, d11)
                s0, s1 = fma(splat(k, e[b, t + 1, r]), k10, s0), fma(splat(k, e[b, t + 1, r]), k11, s1)
                q10, q11 = fma(splat(k, dy[b, t + 1, r]), s0, q10), fma(splat(k, dy[b, t + 1, r]), s1, q11)
                store(X, r * width, s0)
                store(X, r * width + step, s1)
            for place, x, g in ((at, q00, d00), (at + step, q01, d01), (after, q10, d10), (after + step, q11, d11)):
                store(dq, place, x)
                store(dk, place, g)


@kernel
def _writes(q, k, beta, e, w, dy, dS, dk, first, last):
    """Compute βₜ eₜ dSₜᵀ for every token, added to dk; w is dv."""
    _, length, rows = e.shape
    step, width = lanes(k), 2 * lanes(k)
    slabs = k.shape[2] // width
    X = room(k, rows, width)
    for item in range(first, last):
        b, start = item // slabs, item % slabs * width
        assign(X, dS[b, :, start : start + width])
        for t in range(length - 1, 0, -2):
            at, before = (b * length + t) * k.shape[2] + start, (b * length + t - 1) * k.shape[2] + start
            k00, k01, k10, k11 = load(k, at), load(k, at + step), load(k, before), load(k, before + step)
            q00, q01, q10, q11 = load(q, at), load(q, at + step), load(q, before), load(q, before + step)
            d00 = d01 = d10 = d11 = splat(k, 0)
            for coming in (at - AHEAD * k.shape[2], before - AHEAD * k.shape[2]):
                fetch(q, coming, width)
                fetch(k, coming, width)
                fetch(dk, coming, width)
            coming = (b * length + t - 1 - AHEAD) * rows
            fetch(e, coming, 2 * rows)
            fetch(w, coming, 2 * rows)
            fetch(dy, coming, 2 * rows)
            for r in range(rows):
                s0, s1 = load(X, r * width), load(X, r * width + step)
                s0, s1 = fma(splat(k, dy[b, t, r]), q00, s0), fma(splat(k, dy[b, t, r]), q01, s1)
                d00, d01 = fma(splat(k, e[b, t, r]), s0, d00), fma(splat(k, e[b, t, r]), s1, d01)
                s0, s1 = fma(splat(k, -w[b, t, r]), k00, s0), fma(splat(k, -w[b, t, r]), k01, s1)
                s0, s1 = fma(splat(k, dy[b, t - 1, r]), q10, s0), fma(splat(k, dy[b, t - 1, r]), q11, s1)
                d10, d11 = fma(splat(k, e[b, t - 1, r]), s0, d10), fma(splat(k, e[b, t - 1, r]), s1, d11)
                s0, s1 = fma(splat(k, -w[b, t - 1, r]), k10, s0), fma(splat(k, -w[b, t - 1, r]), k11, s1)
                store(X, r * width, s0)
                store(X, r * width + step, s1)
            strength, earlier_strength = splat(k, beta[b, t]), splat(k, beta[b, t - 1])
            store(dk, at, fma(strength, d00, load(dk, at)))
            store(dk, at + step, fma(strength, d01, load(dk, at + step)))
            store(dk, before, fma(earlier_strength, d10, load(dk, before)))
            store(dk, before + step, fma(earlier_strength, d11, load(dk, before + step)))
        assign(dS[b, :, start : start + width], X)

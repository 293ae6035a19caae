"""The selective scan in one pass, and its adjoint: no array of size T × D × N is ever formed.

    hₜ = exp(Δₜ A) ⊙ hₜ₋₁ + Δₜ uₜ Bₜ          yₜ = Cₜ hₜ + D uₜ          Gu and Dao 2023 (Mamba), eq. 2, 4

backward, with dhₜ the cotangent of hₜ, from the last token to the first:

    dhₜ = dyₜ Cₜ + cₜ₊₁          cₜ = dhₜ ⊙ exp(Δₜ A)          q = cₜ ⊙ hₜ₋₁          r = Σₙ dhₜₙ Bₜₙ
    duₜ = Δₜ r + D dyₜ           dΔₜ = Σₙ qₙ Aₙ + uₜ r
    dA = Σₜ Δₜ q                dBₜ = Σ_d Δₜ uₜ dhₜ            dCₜ = Σ_d dyₜ hₜ           dD = Σₜ dyₜ uₜ

Work    a vector is some neighbouring channels at one token. Forward, a thread's unit is a slab of 64 channels
        (float64: 32) of one sequence, whose N states stay in the first-level cache from token to token. Backward, it
        is one vector of channels, 32 tokens at a time: Δ, Δu and dy of those tokens are loaded; then each state
        recomputes hₜ₋₁ and exp(Δₜ A) of all, and goes back with c and dA in registers. Only the vectors whose sums are
        dB and dC leave the first-level cache, once for a chunk of 32 tokens.
Memory  the state every 32 tokens. A thread needs room for 2 · 32 · N vectors, whatever T is.
Cost    an exponential, four multiplications and additions a token, channel and state forward; about thrice that back.

exp(ΔA) is 2^(Δ · A log₂ e): the factor enters A once. Sums over channels end in a partial sum a thread.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from minigrad.compiled.layout import laid_out, vector
from minigrad.compiled.simd import BITS, assign, exp2_of_product, fma, kernel, lanes, load, room, splat, store, total
from minigrad.compiled.threads import get_num_threads, share

STEPS = 32  # tokens between two boundary states
VECTORS = 2048 // BITS  # in a slab
LOG2E, LN2 = math.log2(math.e), math.log(2)


class Saved(NamedTuple):
    """Residuals of the backward pass: the padded inputs, and every 32nd state."""

    u: np.ndarray  # (batch, T, D')
    delta: np.ndarray
    rates: np.ndarray  # A log₂ e, (N, D')
    B: np.ndarray  # (batch, T, N)
    C: np.ndarray
    D: np.ndarray  # (D',)
    boundary_states: np.ndarray  # (batch, ⌈T / 32⌉, N, D')
    shape: tuple[int, ...]  # of u as it came


def forward(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, h: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, h), saved) for u, delta (*batch, T, D), A (D, N), B, C (*batch, T, N), D (D,), h (*batch, D, N)."""
    *batch, length, channels = u.shape
    states, count, whole = A.shape[1], math.prod(batch), (vector(u),)
    u, delta = (laid_out(x, count, length, channels, to=whole) for x in (u, delta))
    rates = laid_out((A.astype(np.float64) * LOG2E).astype(A.dtype).T, states, channels, to=whole)
    B, C = (laid_out(x, count, length, states, to=(1,)) for x in (B, C))
    D = laid_out(D, channels, to=whole)
    h = laid_out(np.swapaxes(h, -1, -2), count, states, channels, to=whole).copy()
    y = np.empty_like(u)
    boundary_states = np.empty((count, -(-length // STEPS), states, u.shape[-1]), u.dtype)
    share(lambda part, first, last: _forward(u, delta, rates, B, C, D, h, y, boundary_states, first, last), _slabs(u))
    saved = Saved(u, delta, rates, B, C, D, boundary_states, (*batch, length, channels))
    return (y[..., :channels].reshape(saved.shape), _states(h, saved)), saved


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of u, delta, A, B, C, D and h from those of y and of the last h."""
    u, delta, rates, B, C, D, boundary_states, shape = saved
    *batch, length, channels = shape
    (count, *_), states, threads, whole = u.shape, B.shape[-1], get_num_threads(), (vector(u),)
    dy = laid_out(cotangents[0], count, length, channels, to=whole)
    dh = laid_out(np.swapaxes(cotangents[1], -1, -2), count, states, channels, to=whole).copy()
    du, ddelta = np.empty_like(u), np.empty_like(u)
    dA, dD = np.zeros((threads, *rates.shape), u.dtype), np.zeros((threads, *D.shape), u.dtype)
    dB, dC = (np.zeros((threads, *B.shape), u.dtype) for _ in "BC")

    def work(part: int, first: int, last: int) -> None:
        _backward(
            u,
            delta,
            rates,
            B,
            C,
            D,
            boundary_states,
            dy,
            dh,
            du,
            ddelta,
            dA[part],
            dB[part],
            dC[part],
            dD[part],
            first,
            last,
        )

    share(work, count * u.shape[-1] // vector(u), most=threads)
    du, ddelta = (g[..., :channels].reshape(shape) for g in (du, ddelta))
    dB, dC = (g.sum(axis=0).reshape(*batch, length, states) for g in (dB, dC))
    return du, ddelta, dA.sum(axis=0).T[:channels], dB, dC, dD.sum(axis=0)[:channels], _states(dh, saved)


def _states(h: np.ndarray, saved: Saved) -> np.ndarray:
    """Return (batch, N, D') → (*batch, D, N)."""
    *batch, _, channels = saved.shape
    return np.swapaxes(h[..., :channels], -1, -2).reshape(*batch, channels, h.shape[-2])


def _slabs(u: np.ndarray) -> int:
    count, _, channels = u.shape
    return count * -(-channels // vector(u, VECTORS))


@kernel
def _forward(u, delta, rates, B, C, D, h, y, boundary_states, first, last):
    _, length, channels = u.shape
    states, width, step = rates.shape[0], VECTORS * lanes(u), lanes(u)
    slabs = -(-channels // width)
    H, R = room(u, states, width), room(u, states, width)
    for item in range(first, last):
        b, start = item // slabs, item % slabs * width
        stop = min(start + width, channels)
        assign(H[:, : stop - start], h[b, :, start:stop])
        assign(R[:, : stop - start], rates[:, start:stop])
        for t in range(length):
            if t % STEPS == 0:
                assign(boundary_states[b, t // STEPS, :, start:stop], H[:, : stop - start])
            row = (b * length + t) * channels
            for d in range(start, stop, step):
                x, dt = load(u, row + d), load(delta, row + d)
                delta_u, y_d = dt * x, load(D, d) * x
                for n in range(states):
                    place = n * width + d - start
                    a = exp2_of_product(dt, load(R, place))
                    state = fma(a, load(H, place), delta_u * splat(u, B[b, t, n]))
                    store(H, place, state)
                    y_d = fma(state, splat(u, C[b, t, n]), y_d)
                store(y, row + d, y_d)
        assign(h[b, :, start:stop], H[:, : stop - start])


@kernel
def _backward(u, delta, rates, B, C, D, boundary_states, dy, dh, du, ddelta, dA, dB, dC, dD, first, last):
    _, length, channels = u.shape
    states, step = rates.shape[0], lanes(u)
    vectors, chunks = channels // step, boundary_states.shape[1]
    dt, delta_u, g = room(u, STEPS, step), room(u, STEPS, step), room(u, STEPS, step)
    sum_qA, r = room(u, STEPS, step), room(u, STEPS, step)  # Σ q A log₂ e and r
    h, a = room(u, STEPS, step), room(u, STEPS, step)
    to_B, to_C = room(u, states, STEPS, step), room(u, states, STEPS, step)
    for b in range(first // vectors, -(-last // vectors)):
        for chunk in range(chunks - 1, -1, -1):
            begin, count = chunk * STEPS, min(STEPS, length - chunk * STEPS)
            to_B[:], to_C[:] = 0, 0
            for d in range(max(first - b * vectors, 0) * step, min(last - b * vectors, vectors) * step, step):
                d_skip = load(dD, d)
                for t in range(count):
                    at, row = t * step, (b * length + begin + t) * channels + d
                    store(dt, at, load(delta, row))
                    store(delta_u, at, load(delta, row) * load(u, row))
                    store(g, at, load(dy, row))
                    store(sum_qA, at, splat(u, 0))
                    store(r, at, splat(u, 0))
                    d_skip = fma(load(dy, row), load(u, row), d_skip)
                store(dD, d, d_skip)
                for n in range(states):
                    place, rate = (b * states + n) * channels + d, load(rates, n * channels + d)
                    state = load(boundary_states, ((b * chunks + chunk) * states + n) * channels + d)
                    for t in range(count):
                        at = t * step
                        decay = exp2_of_product(load(dt, at), rate)
                        store(h, at, state)
                        store(a, at, decay)
                        state = fma(decay, state, load(delta_u, at) * splat(u, B[b, begin + t, n]))
                    c, d_rate = load(dh, place), load(dA, n * channels + d)
                    for t in range(count - 1, -1, -1):
                        at, total_at = t * step, (n * STEPS + t) * step
                        d_state = fma(load(g, at), splat(u, C[b, begin + t, n]), c)
                        store(to_B, total_at, fma(d_state, load(delta_u, at), load(to_B, total_at)))
                        store(to_C, total_at, fma(load(g, at), state, load(to_C, total_at)))
                        c, state = d_state * load(a, at), load(h, at)
                        q = c * state
                        d_rate = fma(q, load(dt, at), d_rate)
                        store(sum_qA, at, fma(q, rate, load(sum_qA, at)))
                        store(r, at, fma(d_state, splat(u, B[b, begin + t, n]), load(r, at)))
                    store(dh, place, c)
                    store(dA, n * channels + d, d_rate)
                for t in range(count):
                    at, row = t * step, (b * length + begin + t) * channels + d
                    store(ddelta, row, fma(load(u, row), load(r, at), load(sum_qA, at) * splat(u, LN2)))
                    store(du, row, fma(load(dt, at), load(r, at), load(g, at) * load(D, d)))
            for t in range(count):
                for n in range(states):
                    dB[b, begin + t, n] = total(load(to_B, (n * STEPS + t) * step))
                    dC[b, begin + t, n] = total(load(to_C, (n * STEPS + t) * step))

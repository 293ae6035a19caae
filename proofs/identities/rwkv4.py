"""RWKV-4's WKV: a softmax over the past whose bias falls linearly with age, and the recurrence that computes it."""

from __future__ import annotations

import math
from typing import Annotated, Any

from minigrad import namespace
from models.attention import softmax
from models.memory import gated_linear_attention
from models.recurrent import rwkv4
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import BETAS, LARGE, ChunkSize, Strategy, elements
from proofs.identities.lti import delay

CHAPTER = 20

PENG = "peng2023rwkv"

Keys = Annotated[Any, Strategy("*batch T D", LARGE)]
Values = Annotated[Any, Strategy("*batch T D", LARGE)]
Decay = Annotated[Any, Strategy("D", BETAS)]
Bonus = Annotated[Any, Strategy("D", LARGE)]
Mean = Annotated[Any, Strategy("*batch D", LARGE)]
Lse = Annotated[Any, Strategy("*batch D", LARGE)]
Shift = Annotated[Any, Strategy("D", elements(1, 1000, -1000, "1/3", -7))]


@identity("The recurrence is the quotient of sums over all tokens", source=f"{PENG}, eq. 16")
def quotient_of_sums(k: Keys, v: Values, w: Decay, u: Bonus):
    return rwkv4.recurrent(k, v, w, u)[0], quotient(k, v, w, u, offset=1)


@refuted(
    "The last token's weight has decayed by a step when the next one reads it (t − i steps)",
    source=f"{PENG}, eq. 16, which has t − 1 − i",
)
def one_more_step(k: Keys, v: Values, w: Decay, u: Bonus):
    return rwkv4.recurrent(k, v, w, u)[0], quotient(k, v, w, u, offset=0)


@identity(
    "It is the published recurrence of numerator, denominator and greatest exponent, whose state is another",
    source=f"{PENG}, appendix D",
)
def published_recurrence(k: Keys, v: Values, w: Decay, u: Bonus, chunk_size: ChunkSize):
    xp, y = namespace(k, v, w, u), []
    a = b = 0 * (k[..., 0, :] * v[..., 0, :])
    p = a - math.inf
    for t in range(k.shape[-2]):
        k_t, v_t = k[..., t, :], v[..., t, :]
        q = xp.maximum(p, u + k_t)
        e1, e2 = xp.exp(p - q), xp.exp(u + k_t - q)
        y.append((e1 * a + e2 * v_t) / (e1 * b + e2))
        q = xp.maximum(p - w, k_t)
        e1, e2 = xp.exp(p - w - q), xp.exp(k_t - q)
        a, b, p = e1 * a + e2 * v_t, e1 * b + e2, q
    return rwkv4.chunkwise(k, v, w, u, chunk_size=chunk_size), (xp.stack(y, axis=-2), (a / b, p + xp.log(b)))


@identity(
    "A constant added to all exponents changes no output; the state's lse grows by it. No exponential overflows",
    source=f"{PENG}, appendix D",
)
def shift_of_exponents(k: Keys, v: Values, w: Decay, u: Bonus, mean: Mean, lse: Lse, shift: Shift):
    y, (last, weights) = rwkv4.recurrent(k, v, w, u, state=(mean, lse))
    return rwkv4.recurrent(k + shift, v, w, u, state=(mean, lse + shift)), (y, (last, weights + shift))


@identity(
    "In each channel it is softmax attention with scores kᵢ, the bias −(t − 1 − i) w for i < t, and u for i = t",
    source=f"{PENG}, section 3.1.2, on attention free transformers; zhai2021, eq. 2",
)
def softmax_with_linear_bias(k: Keys, v: Values, w: Decay, u: Bonus):
    xp = namespace(k, v, w, u)
    age = xp.arange(k.shape[-2], dtype=w.dtype)[:, None]
    between = age - 1 - age.mT  # t − 1 − i
    bias = xp.where(between < 0, u[:, None, None], -between * w[:, None, None])  # (D, T, T); after t all are masked
    keys, values = (xp.moveaxis(x, -1, -2)[..., None] for x in (k, v))  # a head a channel: (*batch, D, T, 1)
    y, _ = softmax.quadratic(xp.ones_like(keys), keys, values, scale=1.0, bias=bias)
    return rwkv4.parallel(k, v, w, u)[0], xp.moveaxis(y[..., 0], -1, -2)


@identity(
    "Numerator and denominator are gated linear attention with one key channel, k = e^k, values (v, 1) and α = e^−w, "
    "read before the token is written, which the bonus adds: it is linear attention once it is normalised",
    source=f"talk-titans, 1:21:15, made precise; {PENG}, appendix D",
)
def normalised_gated_linear_attention(k: Keys, v: Values, w: Decay, u: Bonus):
    xp, y = namespace(k, v, w, u), []
    for d in range(k.shape[-1]):
        key, value = xp.exp(k[..., d : d + 1]), xp.stack([v[..., d], xp.ones_like(v[..., d])], axis=-1)
        log_decay = -w[d] + 0 * k[..., d]
        sums, _ = gated_linear_attention.recurrent(xp.ones_like(key), key, value, log_decay)
        sums = delay(sums) + xp.exp(u[d]) * key * value
        y.append(sums[..., :1] / sums[..., 1:])
    return rwkv4.recurrent(k, v, w, u)[0], xp.concat(y, axis=-1)


@identity("With u = w the current token is weighed as the past is: wkv is the decayed mean", source=f"{PENG}, eq. 16")
def bonus_of_a_step(k: Keys, v: Values, w: Decay, mean: Mean, lse: Lse):
    y, (last, _) = rwkv4.recurrent(k, v, w, w, state=(mean, lse))
    return y[..., -1, :], last


@identity("Without decay and bonus it is the mean of the values, weighted by e^k", source=f"{PENG}, eq. 16")
def no_decay(k: Keys, v: Values, w: Decay):
    xp = namespace(k, v)
    sums = xp.cumulative_sum(xp.exp(k) * v, axis=-2), xp.cumulative_sum(xp.exp(k), axis=-2)
    return rwkv4.parallel(k, v, 0 * w, 0 * w)[0], sums[0] / sums[1]


def quotient(k: Any, v: Any, w: Any, u: Any, *, offset: int) -> Any:
    """Return Σ e^(kᵢ − (t − offset − i) w) vᵢ over the sum of weights, with e^(u + kₜ) for i = t, of each token."""
    xp, y = namespace(k, v, w, u), []
    for t in range(k.shape[-2]):
        weights = [xp.exp(k[..., i, :] - (t - offset - i) * w) for i in range(t)] + [xp.exp(u + k[..., t, :])]
        y.append(sum(weight * v[..., i, :] for i, weight in enumerate(weights)) / sum(weights))
    return xp.stack(y, axis=-2)

"""Blocks of recurrent networks and of RWKV, written out token by token from their papers, beside the block.

The block has the same weights, drawn for every parameter. The right side names nothing of the block or the mechanism.
"""

from __future__ import annotations

import math
from typing import Any

import minigrad as mg
from models.blocks import MIXERS, BlockConfig
from proofs.checker.statements import bounded
from proofs.identities.blocks import tokens
from proofs.layers import (
    PRECISIONS,
    TO_HALF_THE_DIGITS,
    Seed,
    Weights,
    compare,
    heads,
    layer_norm,
    linear,
    mixed_channels,
    outer,
    rng,
    sigmoid,
    times,
    unit,
)

CHAPTER = 19

WIDTH, H = 6, 2  # heads of 3 channels: norms of 2 are ±1
RWKV4, RWKV7 = "peng2023rwkv", "peng2025rwkv7"


def make(mixer: str) -> Any:
    form = "recurrent" if mixer in ("rnn", "lstm") else "chunkwise"
    return MIXERS[mixer](BlockConfig(WIDTH, H, form=form, chunk_size=2, start=MIXERS[mixer].starts[-1]), rng())


@bounded(
    "A simple recurrent network: h = tanh(W h + U x + b), output = a ⊙ σ(b), a, b = GELU(h) V + c" + TO_HALF_THE_DIGITS,
    source="elman1990; minigrad, models/blocks/system.py, for what follows the network",
    over=PRECISIONS,
    only=("float64",),
)
def rnn(seed: Seed, precision: str):
    def written_out(w: Weights, x: Any) -> Any:
        h, y = 0 * x[..., 0, :], []
        for (x_t,) in tokens(linear(w, "enter", x)):
            h = mg.tanh(h @ w["W"].mT + x_t)
            y.append(h)
        return mixed_channels(w, mg.stack(y, axis=-2))

    return compare(make("rnn"), written_out, seed, precision, WIDTH)


@bounded(
    "An LSTM: i, f, g, o = W x + U h + b, c = σ(f) c + σ(i) tanh g, h = σ(o) tanh c, and the same output"
    + TO_HALF_THE_DIGITS,
    source="gers2000, section 3; minigrad, models/blocks/system.py, for what follows the network",
    over=PRECISIONS,
    only=("float64",),
)
def lstm(seed: Seed, precision: str):
    def written_out(w: Weights, x: Any) -> Any:
        h, c, y = 0 * x[..., 0, :], 0 * x[..., 0, :], []
        for (x_t,) in tokens(x):
            i, f, g, o = heads(x_t @ w["W"].mT + h @ w["U"].mT + w["b"], 4)
            c = sigmoid(f) * c + sigmoid(i) * mg.tanh(g)
            h = sigmoid(o) * mg.tanh(c)
            y.append(h)
        return mixed_channels(w, mg.stack(y, axis=-2))

    return compare(make("lstm"), written_out, seed, precision, WIDTH)


def before(x: Any) -> Any:
    """Return the token before each, 0 before the first."""
    return mg.concat([0 * x[..., :1, :], x[..., :-1, :]], axis=-2)


def squared_relu(x: Any) -> Any:
    return mg.where(x > 0, x * x, 0)


@bounded(
    "RWKV-4: xₖ = μ xₜ + (1 − μ) xₜ₋₁ and so on, wkv the quotient of Σ e^(kᵢ − (t−1−i)w) vᵢ + e^(u + k) v and the same "
    "sum without v, w = e^decay, o = W_o (σ(r) wkv); then σ(r) W_v max(W_k xₖ, 0)² of LayerNorm(x + o)"
    + TO_HALF_THE_DIGITS,
    source=f"{RWKV4}, eq. 11–18",
    over=PRECISIONS,
    only=("float64",),
)
def rwkv4(seed: Seed, precision: str):
    return compare(make("rwkv4"), written_out_rwkv4, seed, precision, WIDTH)


def written_out_rwkv4(w: Weights, x: Any) -> Any:
    def shifted(prefix: str, row: str, x: Any) -> Any:
        mu = w[f"{prefix}.time_mix_{row}"]
        return linear(w, f"{prefix}.{row}", mu * x + (1 - mu) * before(x))

    r, k, v = (shifted("attention", row, x) for row in ("receptance", "key", "value"))
    decay, bonus, wkv = mg.exp(w["attention.time_decay"]), w["attention.time_first"], []
    for t in range(x.shape[-2]):
        exponents = [k[..., i, :] - (t - 1 - i) * decay for i in range(t)] + [bonus + k[..., t, :]]
        weights = [mg.exp(exponent) for exponent in exponents]
        wkv.append(sum(weight * v[..., i, :] for i, weight in enumerate(weights)) / sum(weights))
    o = linear(w, "attention.output", sigmoid(r) * mg.stack(wkv, axis=-2))
    z = layer_norm(x + o, 1e-5) * w["norm.weight"] + w["norm.bias"]
    hidden = squared_relu(shifted("feed_forward", "key", z))
    return o + sigmoid(shifted("feed_forward", "receptance", z)) * linear(w, "feed_forward.value", hidden)


@bounded(
    "RWKV-7: x□ = xₜ + (xₜ₋₁ − xₜ) x_□, S = diag(α) S + κ̂a (−κ̂S) + k̃ vᵀ, α = exp(−e^−½ σ(w₀ + tanh(x W₁) W₂)), "
    "a = σ(a₀ + x A₁ A₂), κ̂ = k κ over its length, k̃ = k (1 + (a − 1) k_a), y = GroupNorm(r S) + Σ(r k̃ r_k) v, "
    "o = W_o (g y), g = σ(x G₁) G₂; then W_v max(W_k xₖ, 0)² of LayerNorm(x + o)" + TO_HALF_THE_DIGITS,
    source=f"{RWKV7}, eq. 17 and sections 4.1 and 4.2",
    over=PRECISIONS,
    only=("float64",),
)
def rwkv7(seed: Seed, precision: str):
    return compare(make("rwkv7"), written_out_rwkv7, seed, precision, WIDTH)


def written_out_rwkv7(w: Weights, x: Any) -> Any:
    def shifted(name: str, x: Any) -> Any:
        return x + (before(x) - x) * w[name]

    xr, xw, xk, xv, xa, xg = (shifted(f"att.x_{row}", x) for row in "rwkvag")
    r, k, v = (linear(w, f"att.{row}", part) for row, part in (("receptance", xr), ("key", xk), ("value", xv)))
    alpha = mg.exp(-math.exp(-0.5) * sigmoid(w["att.w0"] + mg.tanh(xw @ w["att.w1"]) @ w["att.w2"]))
    a = sigmoid(w["att.a0"] + xa @ w["att.a1"] @ w["att.a2"])
    rows = (r, k * (1 + (a - 1) * w["att.k_a"]), v, a, alpha, k * w["att.k_k"])
    y = []
    for h, (r_h, k_h, v_h, a_h, alpha_h, removal) in enumerate(zip(*(heads(row, H) for row in rows), strict=True)):
        S, read = 0 * outer(k_h[..., 0, :], v_h[..., 0, :]), []
        for r_t, k_t, v_t, a_t, alpha_t, kappa in tokens(r_h, k_h, v_h, a_h, alpha_h, unit(removal, 0)):
            S = alpha_t[..., :, None] * S - outer(kappa * a_t, times(kappa, S)) + outer(k_t, v_t)
            read.append(times(r_t, S))
        bonus = mg.sum(r_h * k_h * w["att.r_k"][h], axis=-1, keepdims=True) * v_h
        gain, bias = (heads(w[f"att.ln_x.{name}"], H)[h] for name in ("weight", "bias"))
        y.append(layer_norm(mg.stack(read, axis=-2), 64e-5) * gain + bias + bonus)
    g = sigmoid(xg @ w["att.g1"]) @ w["att.g2"]
    o = linear(w, "att.output", g * mg.concat(y, axis=-1))
    z = layer_norm(x + o, 1e-5) * w["norm.weight"] + w["norm.bias"]
    return o + linear(w, "ffn.value", squared_relu(linear(w, "ffn.key", shifted("ffn.x_k", z))))

"""Blocks of attention and of matrix memories: projections, a short convolution, gates, and a norm on what is read.

Each is written out token by token from its paper, beside the block with the same weights, drawn for every parameter.
The left side is the block; the right side uses nothing of the block's or the mechanism's file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad.conversion import to_library_of
from models.blocks import MIXERS, BlockConfig, latent_attention
from proofs.checker.statements import bounded, identity
from proofs.checker.strategies import LARGE, Strategy, elements
from proofs.layers import (
    PRECISIONS,
    TO_HALF_THE_DIGITS,
    Seed,
    Weights,
    compare,
    convolve,
    drawn_weights,
    heads,
    linear,
    outer,
    parts,
    rms_norm,
    rng,
    sigmoid,
    silu,
    softmax,
    softplus,
    times,
    unit,
    with_weights,
)

CHAPTER = 18

FLOATS = ("float64", "float32", "gradient")  # exponentials are not rational, and a block of weights is costly to bound
SIZES = {"T": st.integers(1, 4), "*batch": st.sampled_from([(), (2,)])}
CONFIG = BlockConfig(width=4, heads=2, conv=3, form="chunkwise", chunk_size=2)
H = CONFIG.heads

Inputs = Annotated[Any, Strategy(f"*batch T {CONFIG.width}", LARGE, sizes=SIZES)]


QUARTERS = elements("1/4", "-1/4", "1/5", 0, "-1/7", "2/9")
SmallInputs = Annotated[
    Any, Strategy(f"*batch T {CONFIG.width}", QUARTERS, sizes=SIZES)
]  # for exponents, and gates, that are not extreme


def make(mixer: str) -> Any:
    """Return the block that the registry has under this name."""
    if mixer == "softmax":
        return MIXERS[mixer](replace(CONFIG, heads=4, form="quadratic", conv=2, kv_heads=2, head_size=4), rng())
    return MIXERS[mixer](CONFIG, rng())


def queries_keys_values(w: Weights, x: Any) -> list[Any]:
    """Return q, k, v (*batch, T, width): the convolution of x W_qkv."""
    width = x.shape[-1]
    return parts(convolve(w, "conv", linear(w, "qkv", x)), width, width, width)


def output(w: Weights, y: list[Any], x: Any) -> Any:
    """Return ([RMSNorm(y₁) ‖ … ‖ RMSNorm(y_H)] ⊙ SiLU(x W_g)) W_o for the outputs y of the heads."""
    normed = [rms_norm(y_h, 1e-6) * w["norm.weight"] for y_h in y]
    return linear(w, "output", mg.concat(normed, axis=-1) * silu(linear(w, "gate", x)))


def rotated(x: Any, position: int) -> Any:
    """Return x (*batch, K) with the channels c and c + K/2 turned by the angle position · 10000^(−2c/K)."""
    K = x.shape[-1]
    angles = position * 10_000.0 ** (-2 * np.arange(K // 2) / K)
    cos, sin = (mg.astype(to_library_of(x, table), x.dtype) for table in (np.cos(angles), np.sin(angles)))
    a, b = x[..., : K // 2], x[..., K // 2 :]
    return mg.concat([a * cos - b * sin, a * sin + b * cos], axis=-1)


def tokens(*rows: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the values of every token, (*batch, channels)."""
    for t in range(rows[0].shape[-2]):
        yield tuple(row[..., t, :] for row in rows)


@identity(
    "Softmax attention with grouped queries: y = Σₛ softmaxₛ(R[t] q · R[s] k / √K) v over s ≤ t, head h with keys and "
    "values ⌊h G/H⌋, and R[t] turns the channels c and c + K/2 by t 10000^(−2c/K)",
    source="vaswani2017, eq. 1; ainslie2023, section 2.2; su2021, eq. 15",
    over=drawn_weights(lambda: make("softmax")),
    only=FLOATS,
)
def softmax_attention(x: SmallInputs, w: Weights):
    q, k, v = parts(convolve(w, "conv", linear(w, "qkv", x)), 16, 8, 8)
    y = []
    for h, q_h in enumerate(heads(q, 4)):
        k_h, v_h, y_h = heads(k, 2)[h // 2], heads(v, 2)[h // 2], []
        for t in range(x.shape[-2]):
            scores = [mg.sum(rotated(q_h[..., t, :], t) * rotated(k_h[..., s, :], s), axis=-1) for s in range(t + 1)]
            weights = softmax(mg.stack(scores, axis=-1) / 4**0.5)
            y_h.append(sum(weights[..., s : s + 1] * v_h[..., s, :] for s in range(t + 1)))
        y.append(mg.stack(y_h, axis=-2))
    return with_weights(make("softmax"), w)(x)[0], linear(w, "output", mg.concat(y, axis=-1))


@identity(
    "Linear attention without the normaliser: φ(x) = elu(x) + 1, S = S + φ(k) vᵀ, y = φ(q)ᵀ S; v passes SiLU",
    source="katharopoulos2020, eq. 7 and 18",
    over=drawn_weights(lambda: make("linear_attention")),
    only=FLOATS,
)
def linear_attention(x: Inputs, w: Weights):
    q, k, v = queries_keys_values(w, x)
    q, k, v = *(mg.where(row > 0, row + 1, mg.exp(row)) for row in (q, k)), silu(v)
    y = []
    for q_h, k_h, v_h in zip(heads(q, H), heads(k, H), heads(v, H), strict=True):
        S, y_h = 0, []
        for q_t, k_t, v_t in tokens(q_h, k_h, v_h):
            S = S + outer(k_t, v_t)
            y_h.append(times(q_t, S))
        y.append(mg.stack(y_h, axis=-2))
    return with_weights(make("linear_attention"), w)(x)[0], output(w, y, x)


@identity(
    "Gated linear attention: S = diag(α) S + k vᵀ, y = qᵀ S, α = σ(x W₁ W₂ + b)^(1/16); q, k and v pass SiLU",
    source="yang2024gla, section 4.4; fla, fla/layers/gla.py",
    over=drawn_weights(lambda: make("gated_linear_attention")),
    only=FLOATS,
)
def gated_linear_attention(x: SmallInputs, w: Weights):
    q, k, v = (silu(row) for row in queries_keys_values(w, x))
    log_alpha = mg.log(sigmoid(linear(w, "decay_out", linear(w, "decay_in", x)))) / 16
    y = []
    for q_h, k_h, v_h, g_h in zip(heads(q, H), heads(k, H), heads(v, H), heads(log_alpha, H), strict=True):
        S, y_h = 0, []
        for q_t, k_t, v_t, g_t in tokens(q_h, k_h, v_h, g_h):
            S = mg.exp(g_t)[..., :, None] * S + outer(k_t, v_t)
            y_h.append(times(q_t, S))
        y.append(mg.stack(y_h, axis=-2))
    return with_weights(make("gated_linear_attention"), w)(x)[0], output(w, y, x)


@bounded(
    "DeltaNet: S = S + β k (v − kᵀS)ᵀ, y = qᵀ S, β = σ(x W_β); q, k and v pass SiLU, q and k then have length 1"
    + TO_HALF_THE_DIGITS,
    source="yang2024deltanet, section 3.3; schlag2021, eq. 24",
    over=PRECISIONS,
    only=("float64",),
)
def delta_rule(seed: Seed, precision: str):
    return compare(make("delta_rule"), written_out_delta_rule, seed, precision, CONFIG.width)


def written_out_delta_rule(w: Weights, x: Any) -> Any:
    q, k, v = (silu(row) for row in queries_keys_values(w, x))
    beta = sigmoid(linear(w, "beta", x))
    y = []
    for q_h, k_h, v_h, b_h in zip(heads(q, H), heads(k, H), heads(v, H), heads(beta, H), strict=True):
        S, y_h = 0, []
        for q_t, k_t, v_t, b_t in tokens(unit(q_h, 1e-6), unit(k_h, 1e-6), v_h, b_h):
            S = S + outer(k_t, b_t * (v_t - times(k_t, S)))
            y_h.append(times(q_t, S))
        y.append(mg.stack(y_h, axis=-2))
    return output(w, y, x)


@bounded(
    "Gated DeltaNet: S = α S + β k (v − α kᵀS)ᵀ, y = qᵀ S, α = exp(−exp(A_log) softplus(x W_α + b)), one a head; "
    "q, k, v and β as in DeltaNet" + TO_HALF_THE_DIGITS,
    source="yang2025gated, eq. 10 and section 3.4; dao2024mamba2, section 7.1",
    over=PRECISIONS,
    only=("float64",),
)
def gated_delta_rule(seed: Seed, precision: str):
    return compare(make("gated_delta_rule"), written_out_gated_delta_rule, seed, precision, CONFIG.width)


def written_out_gated_delta_rule(w: Weights, x: Any) -> Any:
    q, k, v = (silu(row) for row in queries_keys_values(w, x))
    beta = sigmoid(linear(w, "beta", x))
    alpha = mg.exp(-mg.exp(w["decay_log_rate"]) * softplus(linear(w, "decay", x) + w["decay_bias"]))
    y = []
    for q_h, k_h, v_h, b_h, a_h in zip(*(heads(row, H) for row in (q, k, v, beta, alpha)), strict=True):
        S, y_h = 0, []
        for q_t, k_t, v_t, b_t, a_t in tokens(unit(q_h, 1e-6), unit(k_h, 1e-6), v_h, b_h, a_h):
            S = a_t[..., None] * S
            S = S + outer(k_t, b_t * (v_t - times(k_t, S)))
            y_h.append(times(q_t, S))
        y.append(mg.stack(y_h, axis=-2))
    return output(w, y, x)


@bounded(
    "Kimi Delta Attention: gated DeltaNet with α = exp(−exp(A_log) softplus(x W_fa W_fb + b)), one a channel, q/√K, "
    "and the norm's output times σ(x W_ga W_gb)" + TO_HALF_THE_DIGITS,
    source="kimi2025, eq. 1 and section 4",
    over=PRECISIONS,
    only=("float64",),
)
def kda(seed: Seed, precision: str):
    return compare(make("kda"), written_out_kda, seed, precision, CONFIG.width)


def written_out_kda(w: Weights, x: Any) -> Any:
    mixed = convolve(w, "conv1d", mg.concat([linear(w, f"{row}_proj", x) for row in "qkv"], axis=-1))
    q, k, v = heads(silu(mixed), 3)
    beta = sigmoid(linear(w, "b_proj", x))
    low = linear(w, "forget_gate.f_a_proj", x)
    steps = softplus(linear(w, "forget_gate.f_b_proj", low) + w["forget_gate.dt_bias"])
    rates, y = mg.exp(w["forget_gate.A_log"]), []
    for h, (q_h, k_h, v_h, b_h, s_h) in enumerate(zip(*(heads(row, H) for row in (q, k, v, beta, steps)), strict=True)):
        S, y_h = 0, []
        for q_t, k_t, v_t, b_t, s_t in tokens(unit(q_h, 1e-6), unit(k_h, 1e-6), v_h, b_h, s_h):
            S = mg.exp(-rates[h] * s_t)[..., :, None] * S
            S = S + outer(k_t, b_t * (v_t - times(k_t, S)))
            y_h.append(times(q_t, S) / q_h.shape[-1] ** 0.5)
        y.append(rms_norm(mg.stack(y_h, axis=-2), 1e-5) * w["o_norm.weight"])
    gate = sigmoid(linear(w, "g_b_proj", linear(w, "g_a_proj", x)))
    return linear(w, "o_proj", mg.concat(y, axis=-1) * gate)


LATENT = latent_attention.LatentAttentionConfig(
    width=CONFIG.width, heads=H, channels=2, shared=1, values=3, rank=3, form="quadratic"
)


@bounded(
    "Multi-head latent attention: c, k_R = W_DKV x, k = [W_UK c ‖ k_R] and v = W_UV c of a normed c, head by head, "
    "y = Σₛ softmaxₛ(q·k/√(K + J)) v over s ≤ t" + TO_HALF_THE_DIGITS,
    source="deepseek2024v2, eq. 9–11 and 14–19; kimi2025, section 4: no rotation",
    over=PRECISIONS,
    only=("float64",),
)
def multi_head_latent_attention(seed: Seed, precision: str):
    block = latent_attention.LatentAttentionBlock(LATENT, rng())
    return compare(block, written_out_latent_attention, seed, precision, CONFIG.width)


def written_out_latent_attention(w: Weights, x: Any) -> Any:
    c, shared = parts(linear(w, "kv_a_proj_with_mqa", x), LATENT.rank, LATENT.shared)
    up = linear(w, "kv_b_proj", rms_norm(c, 1e-6) * w["kv_a_layernorm.weight"])
    y = []
    for q_h, up_h in zip(heads(linear(w, "q_proj", x), H), heads(up, H), strict=True):
        k, v_h = parts(up_h, LATENT.channels, LATENT.values)
        k_h, y_h = mg.concat([k, shared], axis=-1), []
        for t in range(x.shape[-2]):
            scores = [mg.sum(q_h[..., t, :] * k_h[..., s, :], axis=-1) / 3**0.5 for s in range(t + 1)]
            weights = softmax(mg.stack(scores, axis=-1))
            y_h.append(sum(weights[..., s : s + 1] * v_h[..., s, :] for s in range(t + 1)))
        y.append(mg.stack(y_h, axis=-2))
    return linear(w, "o_proj", mg.concat(y, axis=-1))

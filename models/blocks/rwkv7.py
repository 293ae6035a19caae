"""The RWKV-7 block (Peng et al. 2025, sections 4.1–4.2), under the published parameter names.

    x□          = xₜ + (xₜ₋₁ − xₜ) ∘ x_□               token shift, for □ in r, w, k, v, a, g
    r, k, v     = receptance(xr), key(xk), value(xv)
    α           = exp(−e^−½ σ(w0 + tanh(xw w1) w2))    the decay of a channel
    a           = σ(a0 + xa a1 a2)                     the in-context learning rate
    g           = σ(xg g1) g2                          the gate of the output
    κ̂           = k ∘ k_k over its length, head by head; k̃ = k ∘ (1 + (a − 1) ∘ k_a)
    y           = the memory of models/recurrent/rwkv7 for r, k̃, v, −κ̂, κ̂ ∘ a and α
    time mixing = output(g ∘ (GroupNorm(y) + Σ (r ∘ k̃ ∘ r_k) v))     Σ over a head's channels: a bonus of the token
    channel mixing = value(max(key(xk), 0)²)

    y = time mixing(x),  out = y + channel mixing(LN(x + y))

In the paper all layers but the first move v towards the first layer's, v ← v + (v_first − v) ∘ σ(v0 + xv v1 v2), as
`TimeMix` does where it is given v_first. Deviations of the block, which knows no other layer: it leaves that out; its
second sublayer reads the block's input x, which is normalised, plus y, where the paper's reads the residual stream; and
it starts with the authors' token shift and decay of a first layer. Projections start as all of ours; the authors start
some at 0.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.nn import LayerNorm, Linear, Module
from models.attention.multihead import merge_heads, split_heads
from models.blocks.block import Block, BlockConfig
from models.blocks.token_shift import MixState, RWKVState, ramp, token_shift
from models.recurrent import rwkv7

NORM_EPS = 64e-5  # of the authors' code, for heads of 64


@dataclass(frozen=True)
class RWKV7Config:
    """The sizes of a block: the ranks of the four low-rank maps, and `hidden` channels of channel mixing."""

    width: int
    heads: int
    hidden: int
    decay_rank: int
    rate_rank: int
    gate_rank: int
    value_rank: int = 0  # 0 where values are the layer's own
    form: str = "fused"
    chunk_size: int = 16


class TimeMix(Block):
    """Time mixing: the token shift, the projections to the inputs of the memory, norm, bonus and gate.

    Parameters are float32 unless `dtype` says otherwise.
    """

    mechanism = rwkv7

    def __init__(self, config: RWKV7Config, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.form, self.chunk_size, self.heads, width = config.form, config.chunk_size, config.heads, config.width
        powers = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)
        shifts = [(1 - ramp(width) ** power).astype(dtype) for power in powers]
        self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g = shifts
        self.w0 = (-6.5 + 5 * (np.arange(width) / max(width - 1, 1)) ** 0.85).astype(dtype)
        self.a0 = np.zeros(width, dtype)
        self.w1, self.w2 = _low_rank(width, config.decay_rank, rng, dtype)
        self.a1, self.a2 = _low_rank(width, config.rate_rank, rng, dtype)
        self.g1, self.g2 = _low_rank(width, config.gate_rank, rng, dtype)
        if config.value_rank:
            self.v0 = np.ones(width, dtype)
            self.v1, self.v2 = _low_rank(width, config.value_rank, rng, dtype)
        self.k_k, self.k_a = np.full(width, 0.85, dtype), np.ones(width, dtype)
        self.r_k = np.zeros((config.heads, width // config.heads), dtype)
        self.receptance, self.key, self.value, self.output = (
            Linear(width, width, bias=False, rng=rng, dtype=dtype) for _ in range(4)
        )
        self.ln_x = GroupNorm(width, config.heads, eps=NORM_EPS, dtype=dtype)

    def __call__(self, x: Any, state: MixState | None = None, v_first: Any = None) -> tuple[Any, MixState]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        out, state, _ = self.mix(x, state, v_first)
        return out, state

    def mix(self, x: Any, state: MixState | None = None, v_first: Any = None) -> tuple[Any, MixState, Any]:
        """Return (out, state, v), with v `(*batch, T, width)` as a first layer's is `v_first` of the others."""
        last, S = (None, None) if state is None else state
        x, before, last = token_shift(x, last, self.x_r)
        change = before - x
        xr, xw, xk, xv, xa, xg = (
            x + change * weight for weight in (self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g)
        )
        r, k, v = self.receptance(xr), self.key(xk), self.value(xv)
        if v_first is not None:
            v = v + (v_first - v) * mg.sigmoid(self.v0 + xv @ self.v1 @ self.v2)
        log_decay = -math.exp(-0.5) * mg.sigmoid(self.w0 + mg.tanh(xw @ self.w1) @ self.w2)
        a, g = mg.sigmoid(self.a0 + xa @ self.a1 @ self.a2), mg.sigmoid(xg @ self.g1) @ self.g2
        kappa = unit(split_heads(k * self.k_k, self.heads))
        heads = (r, k * (1 + (a - 1) * self.k_a), v, a, log_decay)
        r, k, v_heads, a, log_decay = (split_heads(part, self.heads) for part in heads)
        y, S = self.run(r, k, v_heads, -kappa, kappa * a, log_decay, state=S)
        bonus = mg.sum(r * k * self.r_k[:, None, :], axis=-1, keepdims=True) * v_heads
        return self.output(g * (self.ln_x(y) + merge_heads(bonus))), MixState(last, S), v


class ChannelMix(Module):
    """Channel mixing: the token shift, and an MLP with squared ReLUs."""

    def __init__(self, config: RWKV7Config, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.x_k = (1 - ramp(config.width)).astype(dtype)
        self.key = Linear(config.width, config.hidden, bias=False, rng=rng, dtype=dtype)
        self.value = Linear(config.hidden, config.width, bias=False, rng=rng, dtype=dtype)

    def __call__(self, x: Any, last: Any = None) -> tuple[Any, Any]:
        """Return (out, last), out `(*batch, T, width)` as x is; the last input continues at the next token."""
        x, before, last = token_shift(x, last, self.x_k)
        k = mg.relu(self.key(x + (before - x) * self.x_k))
        return self.value(k * k), last


class RWKV7Block(Block):
    """Time mixing, then channel mixing."""

    mechanism = rwkv7
    default_chunk_size = 16
    mixes_channels = True

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        sizes = as_published(config)
        self.att = TimeMix(sizes, rng)
        self.norm = LayerNorm(config.width)
        self.ffn = ChannelMix(sizes, rng)

    def __call__(self, x: Any, state: RWKVState | None = None) -> tuple[Any, RWKVState]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        time, last = (None, None) if state is None else state
        y, time = self.att(x, time)
        mixed, last = self.ffn(self.norm(x + y), last)
        return y + mixed, RWKVState(time, last)


class GroupNorm(LayerNorm):
    """LayerNorm of each head's outputs alone, (*batch, H, T, V) → (*batch, T, width); gain and bias are per channel."""

    def __init__(self, width: int, heads: int, *, eps: float, dtype: Any = np.float32) -> None:
        super().__init__(width, eps=eps, dtype=dtype)
        self.heads = heads

    def __call__(self, y: Any) -> Any:
        centred = y - mg.mean(y, axis=-1, keepdims=True)
        return merge_heads(mg.rms_norm(centred, axis=-1, eps=self.eps)) * self.weight + self.bias


def as_published(config: BlockConfig) -> RWKV7Config:
    """Return the sizes of the authors' models of this width, with the model's heads where theirs have 64 channels."""
    width = config.width
    rank, gate_rank = (max(32, 32 * round(size / 32)) for size in (1.8 * width**0.5, 0.6 * width**0.8))
    return RWKV7Config(
        width, config.heads, 4 * width, rank, rank, gate_rank, form=config.form, chunk_size=config.chunk_size
    )


def unit(x: Any) -> Any:
    """Return x over its length, which the authors' code takes for at least 10⁻¹²."""
    return x / mg.sqrt(mg.sum(x * x, axis=-1, keepdims=True) + 1e-24)


def _low_rank(width: int, rank: int, rng: np.random.Generator, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors of a map of this rank that is 0 at first: 0 and small numbers."""
    return np.zeros((width, rank), dtype), (0.1 * rng.standard_normal((rank, width)) / rank**0.5).astype(dtype)

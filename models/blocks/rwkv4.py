"""The RWKV-4 block (Peng et al. 2023, sections 3.1–3.3), under the parameter names of Hugging Face.

    xₖ, xᵥ, xᵣ = μ ∘ xₜ + (1 − μ) ∘ xₜ₋₁              token shift, a μ each                   eq. 11–13
    rₜ, kₜ, vₜ = W_r xᵣ, W_k xₖ, W_v xᵥ               receptance, key, value                  eq. 11–13
    o          = W_o (σ(r) ∘ wkv)                     time mixing, w = exp(time_decay)        eq. 16–17
    o′         = σ(W_r′ xᵣ′) ∘ W_v′ max(W_k′ xₖ′, 0)²     channel mixing                      eq. 14–15, 18

    y = time mixing(x),  out = y + channel mixing(LN(x + y))

Deviations: the paper's second sublayer reads the residual stream, which a block does not see: here it reads the block's
input x, which is normalised, plus y. A block does not know which layer it is: the initial μ, w and u are those of the
authors' first. Projections start as all of ours; the authors start some at 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.nn import LayerNorm, Linear, Module
from models.blocks.block import Block, BlockConfig
from models.blocks.token_shift import MixState, RWKVState, ramp, token_shift
from models.recurrent import rwkv4


@dataclass(frozen=True)
class RWKV4Config:
    """The sizes of a block: `inner` channels of WKV, `hidden` ones of channel mixing."""

    width: int
    inner: int
    hidden: int
    form: str = "chunkwise"
    chunk_size: int = 16


class TimeMix(Block):
    """Time mixing: the token shift, WKV, and its sigmoid gate, the receptance.

    Parameters are float32 unless `dtype` says otherwise.
    """

    mechanism = rwkv4

    def __init__(self, config: RWKV4Config, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.form, self.chunk_size, (width, inner) = config.form, config.chunk_size, (config.width, config.inner)
        channel = np.arange(inner)
        self.time_decay = (-5 + 8 * (channel / max(inner - 1, 1)) ** 0.7).astype(dtype)
        self.time_first = (np.log(0.3) + 0.5 * ((channel + 1) % 3 - 1)).astype(dtype)
        self.time_mix_key, self.time_mix_value = ramp(width).astype(dtype), ramp(width).astype(dtype)
        self.time_mix_receptance = np.sqrt(ramp(width)).astype(dtype)
        self.key, self.value, self.receptance = (
            Linear(width, inner, bias=False, rng=rng, dtype=dtype) for _ in range(3)
        )
        self.output = Linear(inner, width, bias=False, rng=rng, dtype=dtype)

    def __call__(self, x: Any, state: MixState | None = None) -> tuple[Any, MixState]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        last, memory = (None, None) if state is None else state
        x, before, last = token_shift(x, last, self.time_mix_key)
        k = self.key(mix(x, before, self.time_mix_key))
        v = self.value(mix(x, before, self.time_mix_value))
        r = self.receptance(mix(x, before, self.time_mix_receptance))
        w = mg.namespace(self.time_decay).exp(self.time_decay)
        wkv, memory = self.run(k, v, w, self.time_first, state=memory)
        return self.output(mg.sigmoid(r) * wkv), MixState(last, memory)


class ChannelMix(Module):
    """Channel mixing: the token shift, and an MLP with squared ReLUs and a sigmoid gate, the receptance."""

    def __init__(self, config: RWKV4Config, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.time_mix_key = ramp(config.width).astype(dtype)
        self.time_mix_receptance = ramp(config.width).astype(dtype)
        self.key = Linear(config.width, config.hidden, bias=False, rng=rng, dtype=dtype)
        self.value = Linear(config.hidden, config.width, bias=False, rng=rng, dtype=dtype)
        self.receptance = Linear(config.width, config.width, bias=False, rng=rng, dtype=dtype)

    def __call__(self, x: Any, last: Any = None) -> tuple[Any, Any]:
        """Return (out, last), out `(*batch, T, width)` as x is; the last input continues at the next token."""
        x, before, last = token_shift(x, last, self.time_mix_key)
        k = mg.relu(self.key(mix(x, before, self.time_mix_key)))
        r = self.receptance(mix(x, before, self.time_mix_receptance))
        return mg.sigmoid(r) * self.value(k * k), last


class RWKV4Block(Block):
    """Time mixing, then channel mixing."""

    mechanism = rwkv4
    default_form = "chunkwise"
    default_chunk_size = 16
    mixes_channels = True

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        width = config.width
        sizes = RWKV4Config(width, width, 4 * width, config.form, config.chunk_size)
        self.attention = TimeMix(sizes, rng)
        self.norm = LayerNorm(width)
        self.feed_forward = ChannelMix(sizes, rng)

    def __call__(self, x: Any, state: RWKVState | None = None) -> tuple[Any, RWKVState]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        time, last = (None, None) if state is None else state
        y, time = self.attention(x, time)
        mixed, last = self.feed_forward(self.norm(x + y), last)
        return y + mixed, RWKVState(time, last)


def mix(x: Any, before: Any, weight: Any) -> Any:
    """Return μ x + (1 − μ) × the input before; RWKV-7 weighs them the other way round."""
    return weight * x + (1 - weight) * before

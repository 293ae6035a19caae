"""The layer of Kimi Linear (Kimi Team 2025, section 4) around Kimi Delta Attention, under published parameter names.

    q, k, v   = SiLU(conv(x W_q)), SiLU(conv(x W_k)), SiLU(conv(x W_v))      H heads of K channels; no biases
    q, k      ← q / (‖q‖ √K), k / ‖k‖
    log α     = −exp(A_log) · softplus(x W_fa W_fb + dt_bias)                one a channel; W_fa W_fb of rank K
    β         = σ(x W_b)                                                     one a head
    y         = KDA(q, k, v, β, log α)
    output    = (RMSNorm(y) ⊙ σ(x W_ga W_gb)) W_o                            normalised head by head, the gate of rank K

Initial values are those of Mamba-2's steps: A uniform in 1…16, softplus(dt_bias) log-uniform in 0.001…0.1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.nn import Conv1d, Linear, Module, RMSNorm
from models.attention.multihead import merge_heads, split_heads
from models.blocks.block import Block, BlockConfig, BlockState, per_head, unit
from models.blocks.mamba import split, step_bias
from models.memory import gated_delta_rule


@dataclass(frozen=True)
class KimiDeltaAttentionConfig:
    """The sizes of a block: `heads` of `channels` channels, which need not be `width` together."""

    width: int
    heads: int
    channels: int
    conv: int = 4
    eps: float = 1e-5
    form: str = "fused"  # over a sequence: any of `models.memory.gated_delta_rule`
    chunk_size: int = 8


class ForgetGate(Module):
    """The log decay of every channel, log α = −exp(A_log) · softplus(x W_fa W_fb + dt_bias)."""

    def __init__(self, config: KimiDeltaAttentionConfig, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        inner = config.heads * config.channels
        self.f_a_proj = Linear(config.width, config.channels, bias=False, rng=rng, dtype=dtype)
        self.f_b_proj = Linear(config.channels, inner, bias=False, rng=rng, dtype=dtype)
        self.dt_bias = step_bias(inner, rng).astype(dtype)
        self.A_log = np.log(rng.uniform(1.0, 16.0, size=config.heads)).astype(dtype)

    def __call__(self, x: Any) -> Any:
        """Return log α (*batch, H, T, K) for x (*batch, T, width)."""
        rate = mg.namespace(x, self.A_log).exp(self.A_log)[:, None, None]
        steps = mg.softplus(self.f_b_proj(self.f_a_proj(x)) + self.dt_bias)
        return -rate * split_heads(steps, self.A_log.shape[0])


class KimiDeltaAttentionBlock(Block):
    """S = (I − β kᵀ k) Diag(α) S + β kᵀ v, y = q S; parameters are float32 unless `dtype` says otherwise."""

    mechanism = gated_delta_rule
    default_chunk_size = 8  # a decay for each channel takes an array of C × C × K a chunk

    def __init__(
        self, config: KimiDeltaAttentionConfig | BlockConfig, rng: np.random.Generator, dtype: Any = np.float32
    ) -> None:
        if isinstance(config, BlockConfig):
            config = as_published(config)
        self.heads, self.channels = config.heads, config.channels
        self.form, self.chunk_size = config.form, config.chunk_size
        width, inner = config.width, config.heads * config.channels
        self.q_proj, self.k_proj, self.v_proj = (
            Linear(width, inner, bias=False, rng=rng, dtype=dtype) for _ in range(3)
        )
        self.conv1d = Conv1d(3 * inner, config.conv, bias=False, rng=rng, dtype=dtype)
        self.forget_gate = ForgetGate(config, rng, dtype)
        self.b_proj = Linear(width, config.heads, bias=False, rng=rng, dtype=dtype)
        self.g_a_proj = Linear(width, config.channels, bias=False, rng=rng, dtype=dtype)
        self.g_b_proj = Linear(config.channels, inner, bias=False, rng=rng, dtype=dtype)
        self.o_norm = RMSNorm(config.channels, eps=config.eps, dtype=dtype)
        self.o_proj = Linear(inner, width, bias=False, rng=rng, dtype=dtype)

    def __call__(self, x: Any, state: BlockState | None = None) -> tuple[Any, BlockState]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        conv, S = (None, None) if state is None else state
        mixed = mg.namespace(x).concat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], axis=-1)
        mixed, conv = self.conv1d(mixed, conv)
        parts = split(mg.silu(mixed), *[self.heads * self.channels] * 3)
        q, k, v = (split_heads(part, self.heads) for part in parts)
        beta = per_head(mg.sigmoid(self.b_proj(x)))
        y, S = self.run(unit(q) * self.channels**-0.5, unit(k), v, beta, self.forget_gate(x), state=S)
        gate = mg.sigmoid(self.g_b_proj(self.g_a_proj(x)))
        return self.o_proj(merge_heads(self.o_norm(y)) * gate), BlockState(conv, S)


def as_published(config: BlockConfig) -> KimiDeltaAttentionConfig:
    """Return the sizes of a block whose heads have `width` channels together."""
    return KimiDeltaAttentionConfig(
        config.width,
        config.heads,
        config.width // config.heads,
        conv=config.conv,
        form=config.form,
        chunk_size=config.chunk_size,
    )

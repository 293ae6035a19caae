"""The Mamba-2 block (Dao and Gu 2024, section 7.1 and figure 6), under the published parameter names.

z, xBC, δ = in_proj(input)                    gate, input of the convolution, a number per head
x, B, C   = SiLU(conv(xBC))                   H heads of P channels; G groups of N numbers for B and C
Δ         = clip(softplus(δ + dt_bias))       one step a head
y         = SSD(x, Δ, −exp(A_log), B, C) + D x
output    = out_proj(RMSNorm(y ⊙ SiLU(z)))    normalised group by group
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import minigrad as mg
from minigrad.nn import Conv1d, Linear, RMSNorm
from models.attention.multihead import merge_heads, split_heads
from models.blocks.block import Block, BlockConfig, per_head
from models.blocks.mamba import split, step_bias
from models.ssm import ssd


@dataclass(frozen=True)
class Mamba2Config:
    """The sizes of a block: `heads` of `inner / heads` channels, which share B and C in `groups`."""

    width: int
    inner: int
    heads: int
    states: int = 128
    groups: int = 1
    conv: int = 4
    eps: float = 1e-5
    bias: bool = False
    conv_bias: bool = True
    form: str = "fused"  # over a sequence: any of `models.ssm.ssd`, chunkwise with its own chunks
    limits: tuple[float, float] = (0.0, float("inf"))  # bounds to which steps are clipped
    chunk_size: int = 64


class Mamba2State(NamedTuple):
    """State of a Mamba-2 block: the last inputs of its convolution, and S."""

    conv: Any
    S: Any


class GroupedNorm(RMSNorm):
    """RMSNorm of each of G groups of the channels of x (…, width) alone."""

    def __init__(self, width: int, groups: int, *, eps: float, dtype: Any = np.float32) -> None:
        super().__init__(width, eps=eps, dtype=dtype)
        self.groups = groups

    def __call__(self, x: Any) -> Any:
        xp = mg.namespace(x)
        parts = xp.reshape(x, (*x.shape[:-1], self.groups, x.shape[-1] // self.groups))
        return xp.reshape(mg.rms_norm(parts, axis=-1, eps=self.eps), x.shape) * self.weight


class Mamba2Block(Block):
    """A gated, normalised SSD; parameters are float32 unless `dtype` says otherwise."""

    mechanism = ssd
    default_states = 64
    mixes_channels = True

    def __init__(self, config: Mamba2Config | BlockConfig, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        if isinstance(config, BlockConfig):
            config = as_published(config)
        self.heads, self.groups, self.states = config.heads, config.groups, config.states
        self.form, self.limits, self.chunk_size = config.form, config.limits, config.chunk_size
        mixed = config.inner + 2 * self.groups * self.states
        self.in_proj = Linear(config.width, config.inner + mixed + self.heads, bias=config.bias, rng=rng, dtype=dtype)
        self.conv1d = Conv1d(mixed, config.conv, bias=config.conv_bias, rng=rng, dtype=dtype)
        self.dt_bias = step_bias(self.heads, rng).astype(dtype)
        self.A_log = np.log(rng.uniform(1.0, 16.0, size=self.heads)).astype(dtype)
        self.D = np.ones(self.heads, dtype)
        self.norm = GroupedNorm(config.inner, self.groups, eps=config.eps, dtype=dtype)
        self.out_proj = Linear(config.inner, config.width, bias=config.bias, rng=rng, dtype=dtype)

    def __call__(self, x: Any, state: Mamba2State | None = None) -> tuple[Any, Mamba2State]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        conv, S = (None, None) if state is None else state
        inner, shared = self.norm.weight.shape[0], self.groups * self.states
        z, mixed, low = split(self.in_proj(x), inner, inner + 2 * shared, self.heads)
        mixed, conv = self.conv1d(mixed, conv)
        u, B, C = split(mg.silu(mixed), inner, shared, shared)
        u, B, C = split_heads(u, self.heads), self.for_heads(B), self.for_heads(C)
        delta = per_head(mg.clip(mg.softplus(low + self.dt_bias), *self.limits))
        A = -mg.namespace(self.A_log).exp(self.A_log)
        y, S = self.run(u, delta, A, B, C, state=S)
        y = merge_heads(y + self.D[:, None, None] * u)
        return self.out_proj(self.norm(y * mg.silu(z))), Mamba2State(conv, S)

    def for_heads(self, x: Any) -> Any:
        """Return B or C for each head, `(*batch, H, T, N)`: neighbouring heads share a group's."""
        return mg.repeat(split_heads(x, self.groups), self.heads // self.groups, axis=-3)


def as_published(config: BlockConfig) -> Mamba2Config:
    """Return the sizes of a block of this width: twice the channels, as section 7.1 has them, in the model's heads."""
    return Mamba2Config(
        config.width,
        2 * config.width,
        config.heads,
        config.states,
        conv=config.conv,
        form=config.form,
        chunk_size=config.chunk_size,
    )

"""The Mamba block (Gu and Dao 2023, section 3.4 and figure 3), under the published parameter names.

    x, z    = in_proj(input)                      twice E·width channels
    u       = SiLU(conv(x))                       a causal convolution of each channel alone
    δ, B, C = x_proj(u)                           selection: R, N and N numbers a token
    Δ       = softplus(dt_proj(δ))                from rank R to one step a channel      section 3.6
    y       = selective scan(u, Δ, −exp(A_log), B, C, D)
    output  = out_proj(y ⊙ SiLU(z))

Deviation: B̄ = ΔB, as in the published code, where the paper writes zero-order hold.

The variants "delta", "BC" and "none" let only these depend on the input (the paper's ablation, section 4.6.2). What
does not is a constant: Δ one number a channel, B and C vectors that all channels share and that begin as S4D's, B = 1.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import minigrad as mg
from minigrad.nn import Conv1d, Linear
from models.blocks.block import Block, BlockConfig
from models.ssm import selective_scan


@dataclass(frozen=True)
class MambaConfig:
    """The sizes of a block: `inner` is the paper's E·D, `rank` its R, `states` its N."""

    width: int
    inner: int
    states: int = 16
    rank: int = 1
    conv: int = 4
    bias: bool = False
    conv_bias: bool = True
    form: str = "fused"
    chunk_size: int = 64
    variant: str = "all"
    norm_eps: float | None = None  # of an RMSNorm without weights on δ, B and C, which Falcon-Mamba has


class MambaState(NamedTuple):
    """State of a Mamba block: the last inputs of its convolution, and h."""

    conv: Any
    h: Any


class MambaBlock(Block):
    """A gated selective scan; parameters are float32 unless `dtype` says otherwise."""

    mechanism = selective_scan
    default_states = 16
    variants = ("all", "delta", "BC", "none")
    mixes_channels = True

    def __init__(self, config: MambaConfig | BlockConfig, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        if isinstance(config, BlockConfig):
            config = as_published(config)
        self.form, self.chunk_size, self.norm_eps = config.form, config.chunk_size, config.norm_eps
        inner, self.rank, self.states = config.inner, config.rank, config.states
        self.in_proj = Linear(config.width, 2 * inner, bias=config.bias, rng=rng, dtype=dtype)
        self.conv1d = Conv1d(inner, config.conv, bias=config.conv_bias, rng=rng, dtype=dtype)
        self.x_proj = Linear(inner, self.rank + 2 * self.states, bias=False, rng=rng, dtype=dtype)
        self.dt_proj = Linear(self.rank, inner, rng=rng, dtype=dtype)
        self.dt_proj.bias = step_bias(inner, rng).astype(dtype)
        rates = np.arange(1.0, self.states + 1)  # S4D-Real, section 3.6: Aₙ = −(n + 1)
        self.A_log = np.broadcast_to(np.log(rates), (inner, self.states)).astype(dtype)
        self.D = np.ones(inner, dtype)
        self.variant = config.variant
        if self.variant in ("delta", "none"):
            self.B, self.C = np.ones(self.states, dtype), rng.standard_normal(self.states).astype(dtype)
        self.out_proj = Linear(inner, config.width, bias=config.bias, rng=rng, dtype=dtype)

    def __call__(self, x: Any, state: MambaState | None = None) -> tuple[Any, MambaState]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        conv, h = (None, None) if state is None else state
        x, z = split(self.in_proj(x), self.D.shape[0], self.D.shape[0])
        x, conv = self.conv1d(x, conv)
        u = mg.silu(x)
        low, B, C = split(self.x_proj(u), self.rank, self.states, self.states)
        if self.norm_eps is not None:
            low, B, C = (mg.rms_norm(part, axis=-1, eps=self.norm_eps) for part in (low, B, C))
        if self.variant in ("BC", "none"):
            low = 0 * low  # Δ = softplus(bias)
        if self.variant in ("delta", "none"):
            B, C = 0 * B + self.B, 0 * C + self.C
        A = -mg.namespace(self.A_log).exp(self.A_log)
        y, h = self.run(u, mg.softplus(self.dt_proj(low)), A, B, C, self.D, state=h)
        return self.out_proj(y * mg.silu(z)), MambaState(conv, h)


def as_published(config: BlockConfig) -> MambaConfig:
    """Return the sizes of the published models: E = 2 (section 3.4) and R = ⌈width / 16⌉ (the authors' code)."""
    width, states = config.width, config.states
    return MambaConfig(
        width,
        2 * width,
        states,
        -(-width // 16),
        config.conv,
        form=config.form,
        chunk_size=config.chunk_size,
        variant=config.variant or "all",
    )


def split(x: Any, *sizes: int) -> list[Any]:
    """Return the channels of x in consecutive parts of these sizes."""
    ends = np.cumsum(sizes)
    return [x[..., end - size : end] for size, end in zip(sizes, ends, strict=True)]


def step_bias(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return softplus⁻¹ of steps log-uniform in 0.001…0.1, as the authors' code; section 3.6 has them uniform."""
    return np.log(np.expm1(np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), size=count))))

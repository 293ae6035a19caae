"""Base blocks: project x to queries, keys and values, apply a mixer along time, and project back.

    q, k, v = conv(x W_qkv)                      a causal convolution of width 4, one filter a channel
    y       = mixer(q, k, v, gates of x)         H heads of K = width / H channels
    out     = y W_o                              softmax
    out     = (RMSNorm(y) ⊙ SiLU(x W_g)) W_o     the memories: the norm takes the place of a normaliser

The short convolution comes from H3 and is used by DeltaNet (Yang et al. 2024) and Gated DeltaNet (Yang et al. 2025,
§3.4); norm and gate on the output come from RetNet and are used by GLA (Yang et al. 2024, §4.4). Deviation: softmax,
linear attention and GLA were published without the convolution. Here every block has it, so that two models differ by
their mixer only; a width of 0 leaves it out.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np

import minigrad as mg
from minigrad.nn import Conv1d, Linear, Module, RMSNorm
from models.attention.multihead import merge_heads, split_heads
from models.forms import mechanisms

EPSILON = 1e-6


@dataclass(frozen=True)
class BlockConfig:
    """The sizes of a block, the form that runs over sequences, and its chunk size.

    `states` is the size N of a state space and `start` the initial value of its matrix, "hippo" or "random"; blocks
    without a state space have no use for them, as those without heads have none for `heads`. `conv` 0 is no
    convolution, and `variant` one of the block's `variants`, which have all of its weights, used or not. The rest is
    for softmax attention: G heads of keys and values, K channels a head, whether projections have biases, the scheme of
    positions, and the θ of rotary ones. 0, "" and () are what is usual.
    """

    width: int = 128
    heads: int = 4
    conv: int = 4
    form: str = ""
    chunk_size: int = 0
    states: int = 0
    start: str = ""
    variant: str = ""
    kv_heads: int = 0
    head_size: int = 0
    bias: bool = False
    positions: str = ""
    frequencies: tuple[float, ...] = ()


class BlockState(NamedTuple):
    """State of a block: the last inputs of its convolution, and its memory."""

    conv: Any
    memory: Any


class Block(Module):
    """A layer around a mechanism: which mechanism it runs, in which form, and its default sizes."""

    mechanism: ModuleType
    default_form: ClassVar[str] = "fused"
    default_chunk_size: ClassVar[int] = 64
    default_states: ClassVar[int] = 0
    single_step: ClassVar[str] = "recurrent"  # the form for one token at a time
    least_conv: ClassVar[int] = 1  # the least width of the convolution: 0 where the block does without one
    starts: ClassVar[tuple[str, ...]] = ("",)  # allowed values of `BlockConfig.start`, the default first
    variants: ClassVar[tuple[str, ...]] = ("",)  # allowed values of `BlockConfig.variant`, the default first
    schemes: ClassVar[tuple[str, ...]] = ("",)  # allowed values of `BlockConfig.positions`, the default first
    mixes_channels: ClassVar[bool] = False  # whether the block mixes channels, so that no MLP follows it

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        self.form, self.chunk_size = config.form, config.chunk_size

    def __call__(self, x, state=None):
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        raise NotImplementedError

    @classmethod
    def forms(cls) -> list[str]:
        """Return the names of the forms that can run this block over a sequence."""
        return list(mechanisms()[cls.mechanism.__name__.removeprefix("models.")])

    def run(self, *inputs, state, **options):
        """Run the mechanism: the configured form over a sequence, the single-step form over one token."""
        form = self.single_step if inputs[0].shape[-2] == 1 else self.form
        if form == "chunkwise":
            options["chunk_size"] = self.chunk_size
        return getattr(self.mechanism, form)(*inputs, state=state, **options)


class HeadsBlock(Block):
    """Projections, a short convolution and heads around `mix`, which each mixer's own block supplies."""

    least_conv = 0

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        size = config.head_size or config.width // config.heads
        channels = (self.heads + 2 * self.kv_heads) * size
        self.qkv = Linear(config.width, channels, bias=config.bias, rng=rng)
        self.conv = Conv1d(channels, config.conv, rng=rng) if config.conv else None
        self.output = Linear(self.heads * size, config.width, bias=config.bias, rng=rng)

    def __call__(self, x, state: BlockState | None = None):
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        conv, memory = (None, None) if state is None else state
        qkv, conv = self.project(x, conv)
        q, k, v = self.split(qkv)
        y, memory = self.mix(q, k, v, x, memory)
        return self.output(self.read(y, x)), BlockState(conv, memory)

    def project(self, x, conv):
        """Return x W_qkv, convolved if the block does that, and the new state of the convolution."""
        qkv = self.qkv(x)
        return (qkv, None) if self.conv is None else self.conv(qkv, conv)

    def split(self, qkv):
        """Return q `(*batch, H, T, K)` and k, v `(*batch, G, T, K)` from `(*batch, T, (H + 2G)·K)`."""
        size = qkv.shape[-1] // (self.heads + 2 * self.kv_heads)
        k, v = self.heads * size, (self.heads + self.kv_heads) * size  # the first channels of keys and values
        q_, k_, v_ = qkv[..., :k], qkv[..., k:v], qkv[..., v:]
        return split_heads(q_, self.heads), split_heads(k_, self.kv_heads), split_heads(v_, self.kv_heads)

    def mix(self, q, k, v, x, memory):
        """Return (y, memory) for q, k, v as `split` returns them; gates are made of x `(*batch, T, width)`."""
        raise NotImplementedError

    def read(self, y, x):
        """Return `(*batch, T, width)` from the heads' outputs y, `(*batch, H, T, K)`."""
        return merge_heads(y)


class MemoryBlock(HeadsBlock):
    """A block whose memory is a matrix of fixed size: RMSNorm a head and a SiLU gate on what is read from it."""

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.gate = Linear(config.width, config.width, bias=False, rng=rng)
        self.norm = RMSNorm(config.width // config.heads)

    def read(self, y, x):
        """Return (RMSNorm(y) ⊙ SiLU(x W_g)), heads merged."""
        return merge_heads(self.norm(y)) * mg.silu(self.gate(x))


def per_head(gate):
    """Return `(*batch, H, T)` from one number a head and token, `(*batch, T, H)`."""
    return mg.namespace(gate).matrix_transpose(gate)


def unit(x):
    """Return x over its length along the last axis: keys of length 1 keep I − β k kᵀ from growing for β ≤ 2."""
    xp = mg.namespace(x)
    return x / xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True) + EPSILON)

"""Base blocks: project x to queries, keys and values, apply a mixer along time, and project back.

    q, k, v = conv(x W_qkv)                      a causal convolution of width 4, one filter a channel
    y       = mixer(q, k, v, gates of x)         H heads of K = width / H channels
    out     = y W_o                              softmax
    out     = (RMSNorm(y) ⊙ SiLU(x W_g)) W_o     the memories: the norm takes the place of a normaliser

The short convolution comes from H3 and is used by DeltaNet (Yang et al. 2024) and Gated DeltaNet (Yang et al. 2025,
§3.4); norm and gate on the output come from RetNet and are used by GLA (Yang et al. 2024, §4.4). Deviation: softmax,
linear attention and GLA were published without the convolution. Here every block has it, so that two models differ by
their mixer only.
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
    without a state space have no use for them, as those without heads have none for `heads`.
    """

    width: int = 128
    heads: int = 4
    conv: int = 4
    form: str = ""
    chunk_size: int = 0
    states: int = 0
    start: str = ""


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
    starts: ClassVar[tuple[str, ...]] = ("",)  # allowed values of `BlockConfig.start`, the default first
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

    def run(self, *inputs, state):
        """Run the mechanism: the configured form over a sequence, the single-step form over one token."""
        form = self.single_step if inputs[0].shape[-2] == 1 else self.form
        options = {"chunk_size": self.chunk_size} if form == "chunkwise" else {}
        return getattr(self.mechanism, form)(*inputs, state=state, **options)


class HeadsBlock(Block):
    """Projections, a short convolution and heads around `mix`, which each mixer's own block supplies."""

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.heads = config.heads
        self.qkv = Linear(config.width, 3 * config.width, bias=False, rng=rng)
        self.conv = Conv1d(3 * config.width, config.conv, rng=rng)
        self.output = Linear(config.width, config.width, bias=False, rng=rng)

    def __call__(self, x, state: BlockState | None = None):
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        conv, memory = (None, None) if state is None else state
        qkv, conv = self.conv(self.qkv(x), conv)
        q, k, v = self.split(qkv)
        y, memory = self.mix(q, k, v, x, memory)
        return self.output(self.read(y, x)), BlockState(conv, memory)

    def split(self, qkv):
        """Return q, k, v `(*batch, H, T, K)` from `(*batch, T, 3·width)`."""
        width = qkv.shape[-1] // 3
        return tuple(split_heads(qkv[..., i * width : (i + 1) * width], self.heads) for i in range(3))

    def mix(self, q, k, v, x, memory):
        """Return (y, memory) for q, k, v `(*batch, H, T, K)`; gates are made of x `(*batch, T, width)`."""
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

"""OLMo-hybrid: layers of the gated delta rule, and between them some of softmax attention.

    gated delta rule     x ← x + delta(norm(x)),     x ← x + mlp(norm(x))
    softmax              x ← x + norm(softmax(x)),   x ← x + norm(mlp(x))       norms after, as in OLMo 2

    q, k, v = silu(conv([x W_q ‖ x W_k ‖ x W_v])), q and k of length 1 in each head
    delta   = (RMSNorm(y / √K) ⊙ silu(x W_g)) W_o,  y the gated delta rule's (Yang et al. 2025, eq. 10)
    β       = 2 σ(x W_b), so that I − β k kᵀ has eigenvalues down to −1 (Grazzi et al. 2024), or σ(x W_b)
    log α   = −exp(A_log) softplus(x W_a + b)
    softmax = attention of RMSNorm(x W_q), RMSNorm(x W_k) and x W_v, the norms over all heads at once

Values have V channels a head, and H heads; queries and keys have K channels and G heads, each for H/G heads of values.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.nn import Conv1d, Embedding, Linear, Module, RMSNorm
from models.attention.multihead import merge_heads, split_heads
from models.blocks.block import Block, BlockConfig, BlockState, per_head, unit
from models.blocks.softmax import SoftmaxBlock
from models.language.lm import LanguageModel
from models.memory import gated_delta_rule

OUTPUT_EPS = 1e-5  # of the norm on what is read from the memory


@dataclass(frozen=True)
class HybridConfig:
    """The sizes of a model; `types` says which layers are of softmax attention, every fourth one if it is None."""

    vocab: int
    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    key_heads: int
    value_heads: int
    key_size: int
    value_size: int
    conv: int = 4
    negative: bool = True  # whether β goes up to 2
    bias: bool = False  # in the projections of softmax attention
    eps: float = 1e-6
    frequencies: tuple[float, ...] = ()  # of rotary positions; without any there are none
    tied: bool = False
    types: tuple[bool, ...] | None = None

    def attends(self, layer: int) -> bool:
        """Return whether a layer is of softmax attention; of fewer than four it is the last one."""
        if self.types is not None:
            return self.types[layer]
        return layer % 4 == 3 or layer == self.layers - 1 < 3

    @property
    def convolved(self) -> tuple[int, int, int]:
        """The channels of queries, keys and values before the convolution."""
        keys = self.key_heads * self.key_size
        return keys, keys, self.value_heads * self.value_size


class GatedDeltaNet(Block):
    """The gated delta rule between projections, with a convolution and an output norm and gate."""

    mechanism = gated_delta_rule

    def __init__(self, config: HybridConfig, rng: np.random.Generator) -> None:
        super().__init__(BlockConfig(form=self.default_form), rng)
        width, heads, values = config.width, config.value_heads, config.value_heads * config.value_size
        self.key_heads, self.value_heads, self.strength = config.key_heads, heads, 2 if config.negative else 1
        self.keys = config.convolved[0]
        self.qkv = Linear(width, sum(config.convolved), bias=False, rng=rng)
        self.conv = Conv1d(sum(config.convolved), config.conv, bias=False, rng=rng)
        self.beta, self.decay = (Linear(width, heads, bias=False, rng=rng) for _ in range(2))
        self.decay_log_rate = np.log(rng.uniform(1.0, 16.0, size=heads)).astype(np.float32)
        self.decay_bias = np.log(np.expm1(np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), heads)))).astype(np.float32)
        self.gate = Linear(width, values, bias=False, rng=rng)
        self.norm = RMSNorm(config.value_size, eps=OUTPUT_EPS)
        self.output = Linear(values, width, bias=False, rng=rng)

    def __call__(self, x: Any, state: BlockState | None = None) -> tuple[Any, BlockState]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        conv, memory = (None, None) if state is None else state
        qkv, conv = self.conv(self.qkv(x), conv)
        qkv = mg.silu(qkv)
        q, k = (unit(split_heads(qkv[..., i * self.keys : (i + 1) * self.keys], self.key_heads)) for i in range(2))
        v = split_heads(qkv[..., 2 * self.keys :], self.value_heads)
        xp = mg.namespace(x, self.decay_log_rate)
        q, k = (xp.repeat(row, self.value_heads // self.key_heads, axis=-3) for row in (q, k))
        beta = self.strength * mg.sigmoid(self.beta(x))
        log_decay = -xp.exp(self.decay_log_rate) * mg.softplus(self.decay(x) + self.decay_bias)
        y, memory = self.run(q / q.shape[-1] ** 0.5, k, v, per_head(beta), per_head(log_decay), state=memory)
        return self.output(merge_heads(self.norm(y)) * mg.silu(self.gate(x))), BlockState(conv, memory)


class NormedSoftmax(SoftmaxBlock):
    """Softmax attention with RMSNorm on all queries and on all keys of a token."""

    def __init__(self, config: HybridConfig, rng: np.random.Generator) -> None:
        attention = BlockConfig(
            config.width,
            config.heads,
            conv=0,
            form=self.default_form,
            kv_heads=config.kv_heads,
            bias=config.bias,
            positions="rotary" if config.frequencies else "none",
            frequencies=config.frequencies,
        )
        super().__init__(attention, rng)
        size = config.width // config.heads
        self.q_norm = RMSNorm(config.heads * size, eps=config.eps)
        self.k_norm = RMSNorm(config.kv_heads * size, eps=config.eps)

    def project(self, x: Any, conv: Any) -> tuple[Any, Any]:
        """Return [RMSNorm(x W_q) ‖ RMSNorm(x W_k) ‖ x W_v]; there is no convolution."""
        qkv, conv = super().project(x, conv)
        queries = self.q_norm.weight.shape[0]
        values = queries + self.k_norm.weight.shape[0]  # the first channel of values
        parts = self.q_norm(qkv[..., :queries]), self.k_norm(qkv[..., queries:values]), qkv[..., values:]
        return mg.namespace(qkv).concat(parts, axis=-1), conv


class Layer(Module):
    """One layer of either kind; its norms come before the block and the MLP, or after them."""

    def __init__(self, config: HybridConfig, attends: bool, rng: np.random.Generator) -> None:
        self.norms_first = not attends
        self.block = NormedSoftmax(config, rng) if attends else GatedDeltaNet(config, rng)
        self.block_norm, self.mlp_norm = (RMSNorm(config.width, eps=config.eps) for _ in range(2))
        self.mlp_in = Linear(config.width, 2 * config.hidden, bias=False, rng=rng)
        self.mlp_out = Linear(config.hidden, config.width, bias=False, rng=rng)

    def __call__(self, x: Any, state: BlockState | None = None) -> tuple[Any, BlockState]:
        """Return (x, state) for x `(*batch, T, width)`."""
        if self.norms_first:
            mixed, state = self.block(self.block_norm(x), state)
            x = x + mixed
            return x + self.mlp(self.mlp_norm(x)), state
        mixed, state = self.block(x, state)
        x = x + self.block_norm(mixed)
        return x + self.mlp_norm(self.mlp(x)), state

    def mlp(self, x: Any) -> Any:
        """Return the SwiGLU of x."""
        return self.mlp_out(mg.swiglu(self.mlp_in(x)))


class OlmoHybrid(LanguageModel):
    """Logits of the next token at every position; parameters are float32."""

    def __init__(self, config: HybridConfig, rng: np.random.Generator) -> None:
        self.embedding = Embedding(config.vocab, config.width, rng=rng)
        layers: list[Any] = [Layer(config, config.attends(i), rng) for i in range(config.layers)]
        self.layers = layers
        self.norm = RMSNorm(config.width, eps=config.eps)
        self.scheme, self.max_positions, self.position_embedding = "none", 0, None
        self.head = None if config.tied else Linear(config.width, config.vocab, bias=False, rng=rng)

"""The layer of multi-head latent attention (DeepSeek-AI 2024, section 2.1), under published parameter names.

    q           = x W_Q                                     or RMSNorm(x W_DQ) W_UQ, eq. 12–13
    c, k_R      = RMSNorm(x W_DKV), x W_KR                  eq. 9 and 15: one a token, for all heads
    o           = MLA(q, [c ‖ k_R], W_UK, W_UV)             `models.attention.latent`
    output      = [o₁ ‖ … ‖ o_H] W_O                        eq. 19

Nothing is rotated, so that attention has no positions, as in Kimi Linear (Kimi Team 2025, section 4: NoPE). The norms
of the latents are in no equation of the paper; its section 3.1.2 names them. Over a sequence the keys and values are
made, for one token the up-projections are absorbed. The state is the latents so far.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.nn import Linear, Module, RMSNorm
from models.attention import latent, softmax
from models.attention.multihead import merge_heads, split_heads
from models.blocks.mamba import split


@dataclass(frozen=True)
class LatentAttentionConfig:
    """The sizes of a block: K, J, V and R of `models.attention.latent`, and the rank of the queries if any."""

    width: int
    heads: int
    channels: int
    shared: int
    values: int
    rank: int
    query_rank: int | None = None
    bias: bool = False  # of the projections from and to x, but for a whole W_Q
    eps: float = 1e-6
    form: str = "fused"  # over a sequence: any of `models.attention.softmax`


class LatentAttentionBlock(Module):
    """Causal attention to one latent vector a token; parameters are float32 unless `dtype` says otherwise."""

    def __init__(self, config: LatentAttentionConfig, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.config = config
        heads, K, J, V, R = config.heads, config.channels, config.shared, config.values, config.rank

        def linear(inputs: int, outputs: int, *, bias: bool = False) -> Linear:
            return Linear(inputs, outputs, bias=bias, rng=rng, dtype=dtype)

        if config.query_rank is None:
            self.q_proj = linear(config.width, heads * (K + J))
        else:
            self.q_a_proj = linear(config.width, config.query_rank, bias=config.bias)
            self.q_a_layernorm = RMSNorm(config.query_rank, eps=config.eps, dtype=dtype)
            self.q_b_proj = linear(config.query_rank, heads * (K + J))
        self.kv_a_proj_with_mqa = linear(config.width, R + J, bias=config.bias)
        self.kv_a_layernorm = RMSNorm(R, eps=config.eps, dtype=dtype)
        self.kv_b_proj = linear(R, heads * (K + V))
        self.o_proj = linear(heads * V, config.width, bias=config.bias)

    def __call__(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        xp, config = mg.namespace(x), self.config
        c, k_R = split(self.kv_a_proj_with_mqa(x), config.rank, config.shared)
        latents = xp.concat([self.kv_a_layernorm(c), k_R], axis=-1)
        arguments = split_heads(self.queries(x), config.heads), latents, *self.up_projections()
        if x.shape[-2] == 1:
            o, state = latent.absorbed(softmax.quadratic, *arguments, state=state)
        else:
            o, state = latent.expanded(getattr(softmax, config.form), *arguments, state=state)
        return self.o_proj(merge_heads(o)), state

    def queries(self, x: Any) -> Any:
        """Return the queries of all heads, `(*batch, T, H·(K + J))`."""
        if self.config.query_rank is None:
            return self.q_proj(x)
        return self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))

    def up_projections(self) -> tuple[Any, Any]:
        """Return W_UK `(H, K, R)` and W_UV `(H, V, R)`, which a file holds head by head, keys before values."""
        W, config = self.kv_b_proj.weight, self.config
        W = mg.namespace(W).reshape(W, (config.heads, config.channels + config.values, config.rank))
        return W[:, : config.channels], W[:, config.channels :]

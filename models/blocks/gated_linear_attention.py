"""The gated linear attention block (Yang et al. 2024, §4.4), with a data-dependent gate per key channel.

    log α = logsigmoid(x W₁ W₂ + b) / 16,   W₁ of rank 16: gates start near 1, so that little is forgotten at first

Deviations: SiLU on q, k and v; RMSNorm for LayerNorm on the output; d_k = d_v, where the paper
has d_k = d_v / 2; no bias on the output gate.
"""

import numpy as np

import minigrad as mg
from minigrad.nn import Linear
from models.attention.multihead import split_heads
from models.memory import gated_linear_attention

from .block import BlockConfig, MemoryBlock

RANK = 16
TEMPERATURE = 16.0


class GatedLinearAttentionBlock(MemoryBlock):
    """S = diag(α) S + k vᵀ, y = q S."""

    mechanism = gated_linear_attention
    default_chunk_size = 8  # a decay for each channel takes an array of C × C × K a chunk

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.decay_in = Linear(config.width, RANK, bias=False, rng=rng)
        self.decay_out = Linear(RANK, config.width, rng=rng)

    def mix(self, q, k, v, x, memory):
        """Return (y, memory): y for log α = logsigmoid(x W₁ W₂ + b) / 16."""
        log_decay = mg.log_sigmoid(self.decay_out(self.decay_in(x))) / TEMPERATURE
        return self.run(mg.silu(q), mg.silu(k), mg.silu(v), split_heads(log_decay, self.heads), state=memory)

"""The DeltaNet block (Schlag et al. 2021, eq. 24; Yang et al. 2024) around the delta rule.

k ← SiLU(k) / ‖SiLU(k)‖, q alike;   β = σ(x W_β), one a head
"""

import numpy as np

import minigrad as mg
from minigrad.nn import Linear
from models.memory import delta_rule

from .block import BlockConfig, MemoryBlock, per_head, unit


class DeltaRuleBlock(MemoryBlock):
    """S = S + β k (v − kᵀS)ᵀ, y = q S."""

    mechanism = delta_rule
    default_chunk_size = 16  # the triangular system of a chunk costs C³

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.beta = Linear(config.width, config.heads, bias=False, rng=rng)

    def mix(self, q, k, v, x, memory):
        """Return (y, memory): y for unit keys and queries, and β = σ(x W_β)."""
        beta = per_head(mg.sigmoid(self.beta(x)))
        return self.run(unit(mg.silu(q)), unit(mg.silu(k)), mg.silu(v), beta, state=memory)

"""The Gated DeltaNet block (Yang et al. 2025, eq. 10 and §3.4) around the gated delta rule.

    log α = −exp(A_log) · softplus(x W_α + b), one a head: Mamba-2's gate and initial values, A uniform in 1…16,
    softplus(b) log-uniform in 0.001…0.1;   k, q and β as in DeltaNet

Deviations: values are as wide as keys (fla: expand_v = 2); A starts in 1…16 (the authors' code and fla: 0…16).
"""

import numpy as np

import minigrad as mg
from minigrad.nn import Linear
from models.memory import gated_delta_rule

from .block import BlockConfig, per_head, unit
from .delta_rule import DeltaRuleBlock


class GatedDeltaRuleBlock(DeltaRuleBlock):
    """S = α S + β k (v − α kᵀS)ᵀ, y = q S."""

    mechanism = gated_delta_rule

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.decay = Linear(config.width, config.heads, bias=False, rng=rng)
        self.decay_log_rate = np.log(rng.uniform(1.0, 16.0, size=config.heads)).astype(np.float32)
        step = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), size=config.heads))
        self.decay_bias = np.log(np.expm1(step)).astype(np.float32)  # softplus⁻¹(step)

    def mix(self, q, k, v, x, memory):
        """Return (y, memory): y for unit keys and queries, β, and log α = −exp(A_log) · softplus(x W_α + b)."""
        beta = per_head(mg.sigmoid(self.beta(x)))
        rate = mg.namespace(x, self.decay_log_rate).exp(self.decay_log_rate)
        log_decay = per_head(-rate * mg.softplus(self.decay(x) + self.decay_bias))
        return self.run(unit(mg.silu(q)), unit(mg.silu(k)), mg.silu(v), beta, log_decay, state=memory)

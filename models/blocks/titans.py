"""Titans as a layer (MAL, Behrouz et al. 2025, section 4.3, without attention: the paper's LMM): an MLP that learns.

    θ = 2 σ(x w) (1 − η) / b      log η = log σ(x w)      log(1 − α) = log σ(−x w)      one a head and token

Keys and queries pass SiLU and have length 1, as section 4.4 says; convolution, norm and gate are the paper's too. The
memory is an MLP of two layers, twice as wide inside (the paper tries depths of 1 to 4 and gives no width). The paper
leaves the range of θ open: in a batch of b tokens whose keys are all alike, 2/b is where a matrix memory would diverge
without momentum, and momentum takes every gradient 1/(1 − η) times. (Without that factor a language model of the study
diverged within 20 steps.) At first α is small, σ(−4), so that the memory keeps some 50 tokens.
"""

from typing import Any

import numpy as np

import minigrad as mg
from minigrad.nn import Linear
from models.blocks.block import BlockConfig, per_head, unit
from models.blocks.learner import LearnerBlock
from models.memory import titans


class TitansBlock(LearnerBlock):
    """S = η S − θ ∇, M = (1 − α) M + S, y = M(q)."""

    mechanism = titans
    default_form = "chunkwise"
    hidden = (2,)
    biased = False

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.momentum = Linear(config.width, config.heads, rng=rng)
        self.forget = Linear(config.width, config.heads, rng=rng)
        self.forget.bias = np.full(config.heads, -4, np.float32)

    def mix(self, q: Any, k: Any, v: Any, x: Any, memory: Any) -> tuple[Any, Any]:
        """Return (y, memory)."""
        momentum = self.momentum(x)
        theta = per_head(mg.sigmoid(self.rate(x)) * mg.sigmoid(-momentum)) * (2 / self.chunk_size)
        log_eta, log_decay = per_head(mg.log_sigmoid(momentum)), per_head(mg.log_sigmoid(-self.forget(x)))
        q, k, v = unit(mg.silu(q)), unit(mg.silu(k)), mg.silu(v)
        return self.run(q, k, v, theta, log_eta, log_decay, self.layers, state=memory)

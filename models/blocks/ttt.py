"""The TTT-Linear and TTT-MLP blocks (Sun et al. 2024, section 2.7): an inner model per head, trained at test time.

    η = η_base σ(x w + b) / K        one a head and token; η_base = 1 for TTT-Linear, 0.1 for TTT-MLP
    W₀, b₀, γ, β                     learned; W₀ begins with deviation 0.02, as in the published code

The division by K is the code's. Deviations from it: no share 1/i of a mini-batch's sum and no rotary positions in the
mini-batch (the paper has neither); convolution, norm and gate are those of the other memories here.

The target v is a learned view of the token, θ_V x. In the variants "input" and "random" it is x itself, or a random
projection of x that is never trained.
"""

from functools import cache
from typing import Any, ClassVar

import numpy as np

import minigrad as mg
from minigrad.conversion import to_library_of
from models.attention.multihead import split_heads
from models.blocks.block import BlockConfig, per_head
from models.blocks.learner import LearnerBlock
from models.memory import ttt


class TTTLinearBlock(LearnerBlock):
    """f(x) = x + LN(x W + b)."""

    mechanism = ttt
    single_step = "dual"
    deviation = 0.02
    variants = ("learned", "input", "random")
    base_rate: ClassVar[float] = 1.0

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.target = config.variant or self.variants[0]

    def mix(self, q: Any, k: Any, v: Any, x: Any, memory: Any) -> tuple[Any, Any]:
        """Return (y, memory)."""
        eta = per_head(mg.sigmoid(self.rate(x))) * (self.base_rate / k.shape[-1])
        if self.target != "learned":
            v = x if self.target == "input" else x @ to_library_of(x, random_projection(x.shape[-1]))
            v = split_heads(v, self.heads)
        return self.run(q, k, v, eta, ttt.Weights(self.layers, self.around), state=memory)


class TTTMLPBlock(TTTLinearBlock):
    """f(x) = x + LN(gelu(x W₁ + b₁) W₂ + b₂), four times as wide inside."""

    hidden = (4,)
    base_rate = 0.1


@cache
def random_projection(width: int) -> np.ndarray:
    """Return a fixed Gaussian matrix (width, width) that keeps squared lengths on average."""
    return (np.random.default_rng(0).standard_normal((width, width)) / width**0.5).astype(np.float32)

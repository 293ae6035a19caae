"""The TTT-Linear and TTT-MLP blocks (Sun et al. 2024, section 2.7): an inner model per head, trained at test time.

    η = η_base σ(x w + b) / K        one a head and token; η_base = 1 for TTT-Linear, 0.1 for TTT-MLP
    W₀, b₀, γ, β                     learned; W₀ begins with deviation 0.02, as in the published code

The division by K is the code's. Deviations from it: no share 1/i of a mini-batch's sum and no rotary positions in the
mini-batch (the paper has neither); convolution, norm and gate are those of the other memories here.
"""

from typing import Any, ClassVar

import minigrad as mg
from models.blocks.block import per_head
from models.blocks.learner import LearnerBlock
from models.memory import ttt


class TTTLinearBlock(LearnerBlock):
    """f(x) = x + LN(x W + b)."""

    mechanism = ttt
    single_step = "dual"
    deviation = 0.02
    base_rate: ClassVar[float] = 1.0

    def mix(self, q: Any, k: Any, v: Any, x: Any, memory: Any) -> tuple[Any, Any]:
        """Return (y, memory)."""
        eta = per_head(mg.sigmoid(self.rate(x))) * (self.base_rate / k.shape[-1])
        return self.run(q, k, v, eta, ttt.Weights(self.layers, self.around), state=memory)


class TTTMLPBlock(TTTLinearBlock):
    """f(x) = x + LN(gelu(x W₁ + b₁) W₂ + b₂), four times as wide inside."""

    hidden = (4,)
    base_rate = 0.1

"""The linear attention block (Katharopoulos et al. 2020, eq. 7, 16–20) with their feature map φ(x) = elu(x) + 1.

The normaliser φ(q)ᵀ Σ φ(k) of eq. 12 and 20 is a positive number a head and token, and the RMSNorm on the output
divides any such number out again, so it is not computed (the argument of Qin et al. 2022, "The Devil in Linear
Transformer").

Deviations: the paper has no SiLU on v, no norm on the output and no output gate.
"""

import minigrad as mg
from models.attention.feature_maps import elu_plus_one
from models.memory import linear_attention

from .block import MemoryBlock


class LinearAttentionBlock(MemoryBlock):
    """S = S + φ(k) vᵀ, y = φ(q) S."""

    mechanism = linear_attention

    def mix(self, q, k, v, x, memory):
        """Return (y, memory): y for φ(q), φ(k) and SiLU(v)."""
        return self.run(elu_plus_one(q), elu_plus_one(k), mg.silu(v), state=memory)

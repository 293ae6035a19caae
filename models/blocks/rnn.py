"""The simple recurrent network as a block, initialised from discretised HiPPO or at random.

    h = rnn(x U + b, W),   out = GLU(GELU(h))            Elman 1990

With the start "hippo", W is LegS's Ā by the bilinear method at Δ = 0.01, the middle of the steps that S4 starts from:
but for the tanh, the state before training is that of the state spaces.
"""

from typing import Any

import numpy as np

from minigrad.nn import Linear
from models.blocks.block import BlockConfig
from models.blocks.system import SystemBlock
from models.recurrent import rnn
from models.ssm import discretize, hippo

DELTA = 0.01


class RNNBlock(SystemBlock):
    """One network of `width` units: the channels see each other at every step."""

    mechanism = rnn
    default_states = 0

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        width = config.width
        self.enter = Linear(width, width, rng=rng)
        if config.start == "hippo":
            W = discretize.bilinear(*hippo.legs(width), DELTA)[0]
        else:
            W = rng.standard_normal((width, width)) / np.sqrt(width)
        self.W = W.astype(np.float32)

    def system(self, x: Any, state: Any) -> tuple[Any, Any]:
        """Return (h, state) for x `(*batch, T, width)`."""
        return self.run(self.enter(x), self.W, state=state)

"""The LSTM as a block.

    h = lstm(x; W, U, b),   out = GLU(GELU(h))           Hochreiter and Schmidhuber 1997; Gers et al. 2000

Weights start uniform between ±1/√width, as PyTorch's do. The biases start at 0, but for the forget gates': at 1, since
Gers et al. start them above 0, so that no cell forgets before it has learned what to keep.
"""

from typing import Any

import numpy as np

from models.blocks.block import BlockConfig
from models.blocks.system import SystemBlock
from models.recurrent import lstm


class LSTMBlock(SystemBlock):
    """One network of `width` units: the channels see each other at every step."""

    mechanism = lstm
    default_states = 0
    starts = ("",)

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        width = config.width
        limit = 1 / np.sqrt(width)
        self.W, self.U = (rng.uniform(-limit, limit, (4 * width, width)).astype(np.float32) for _ in range(2))
        self.b = np.zeros(4 * width, np.float32)
        self.b[width : 2 * width] = 1

    def system(self, x: Any, state: Any) -> tuple[Any, Any]:
        """Return (h, (h, c)) for x `(*batch, T, width)`."""
        return self.run(x, self.W, self.U, self.b, state=state)

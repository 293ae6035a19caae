"""The softmax attention block with rotary position embeddings (Vaswani et al. 2017; Su et al. 2021, eq. 15).

    y = softmax(R(q) R(k)ᵀ / √K) v,    R turns channels (c, c + K/2) of token t by the angle t · 10000^(−2c/K)

Deviation: the paper turns neighbouring channels (2c, 2c + 1); that is the same up to an order of channels, which the
projections learn.

The state is every key and value so far: it grows by 2·width numbers a token, and a token's cost grows with it.
"""

import numpy as np

from models.attention import positions, softmax

from .block import HeadsBlock


class SoftmaxBlock(HeadsBlock):
    """Multi-head causal softmax attention."""

    mechanism = softmax
    single_step = "quadratic"

    def mix(self, q, k, v, x, memory):
        """Return (y, memory); keys are stored rotated, so a token's position is the number of keys before it."""
        start = 0 if memory is None else memory[0].shape[-2]
        return self.run(rotate(q, start), rotate(k, start), v, state=memory)


def rotate(x, start: int, rows: int = 1):
    """Return x `(*batch, T, K)` with each pair of channels rotated by its token's position, counted from `start`.

    A token may have several rows, all at its position.
    """
    return positions.rotary(x, start + np.arange(x.shape[-2]) // rows)

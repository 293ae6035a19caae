"""The softmax attention block: grouped queries, and positions by any scheme of `models.attention.positions`.

    y[h] = softmax(R(q[h]) R(k[g])ᵀ scale + b[h]) v[g],    g = ⌊h G/H⌋             Ainslie et al. 2023, section 2.2

    rotary   R turns channels (c, c + K/2) of token t by the angle t θ_c, b = 0, scale = 1/√K    Su et al. 2021, eq. 15
    alibi    R = 1, b[h] = −m_h (t − s) for a key s before t, scale = 1/√K          Press et al. 2022, section 3
    t5       R = 1, b[h] an entry of a table for the bucket of s − t, scale = 1    Raffel et al. 2020, section 2.1
    other    R = 1, b = 0, scale = 1/√K: there are no positions, or they are in x

θ_c is 10000^(−2c/K), or whatever `frequencies` says.

Deviations: Su et al. turn neighbouring channels (2c, 2c + 1); that is the same up to an order of channels, which the
projections learn. Raffel et al. share one table among all layers; here each has its own.

The variants "2" and "4" retrieve that many times, as a modern Hopfield network does until it settles (Ramsauer et al.
2021, eq. 3): each retrieval but the last replaces the query by the mean of the keys under its own weights.

The state is every key and value so far: it grows by 2 G K numbers a token, and a token's cost grows with it.
"""

import numpy as np

from models.attention import positions, softmax
from models.attention.multihead import grouped

from .block import BlockConfig, BlockState, HeadsBlock

BUCKETS, FURTHEST = 32, 128  # of T5


class SoftmaxBlock(HeadsBlock):
    """Multi-head causal softmax attention."""

    mechanism = softmax
    single_step = "quadratic"
    variants = ("1", "2", "4")
    schemes = ("rotary", "none", "sinusoidal", "learned", "alibi", "t5")

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.retrievals = int(config.variant or self.variants[0])
        self.scheme = config.positions or self.schemes[0]
        size = config.head_size or config.width // config.heads
        self.scale = 1.0 if self.scheme == "t5" else size**-0.5
        if self.scheme == "rotary":
            self.frequencies = config.frequencies or tuple(positions.rotary_frequencies(size).tolist())
        if self.scheme == "t5":
            self.table = (rng.standard_normal((BUCKETS, config.heads)) / config.width**0.5).astype(np.float32)

    def mix(self, q, k, v, x, memory):
        """Return (y, memory); keys are stored rotated, so a token's position is the number of keys before it."""
        start = 0 if memory is None else memory[0].shape[-2]
        now, bias = start + np.arange(q.shape[-2]), None
        if self.scheme == "rotary":
            q, k = (positions.rotary(row, now, frequencies=np.array(self.frequencies)) for row in (q, k))
        elif self.scheme == "alibi":
            bias = positions.alibi(q, now, np.arange(now[-1] + 1))
        elif self.scheme == "t5":
            seen = np.arange(now[-1] + 1)
            bias = positions.t5_bias(self.table, now, seen, bidirectional=False, max_distance=FURTHEST)
        keys = None if memory is None else (memory[0], memory[0])
        for _ in range(self.retrievals - 1):
            q, _ = grouped(self.run, q, k, k, bias=bias, scale=self.scale, state=keys)
        return grouped(self.run, q, k, v, bias=bias, scale=self.scale, state=memory)


def tokens_before(state: BlockState | None) -> int:
    """Return how many tokens a block has read: as many as there are keys in its state."""
    return 0 if state is None else state.memory[0].shape[-2]


def rotate(x, start: int, rows: int = 1):
    """Return x `(*batch, T, K)` with each pair of channels rotated by its token's position, counted from `start`.

    A token may have several rows, all at its position.
    """
    return positions.rotary(x, start + np.arange(x.shape[-2]) // rows)

"""Memories that learn, in the study: their block is stable, their losses fall, a surprise is where it was planted."""

import numpy as np

from models.blocks import BlockConfig
from models.blocks.titans import TitansBlock


def test_titans_stays_finite_when_one_token_comes_again_and_again_with_long_momentum():
    rng = np.random.default_rng(0)
    block = TitansBlock(BlockConfig(width=16, heads=2, form="chunkwise", chunk_size=16), rng)
    block.rate.bias, block.momentum.bias = np.full(2, 5, np.float32), np.full(2, 4, np.float32)
    x = np.repeat(rng.standard_normal((1, 1, 16)).astype(np.float32), 400, axis=1)
    y, _ = block(x)
    assert np.isfinite(y).all()

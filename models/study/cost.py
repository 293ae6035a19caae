"""Cost of generation after T tokens: size of the state and time of the next token."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from models.language.config import Config
from models.language.lm import LanguageModel, state_numbers

PIECE = 128  # the prompt goes in by pieces, so that softmax's scores never need an array T × T


def cost_per_token(config: Config, lengths: list[int], repeats: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield, for each T in `lengths` (rising), {"T", "state_numbers", "seconds"}: the median of `repeats` next tokens.

    Weights are random: time does not depend on them. Every timing starts from the same state, so T stays what it is.
    """
    rng = np.random.default_rng(seed)
    model, state, tokens_read = LanguageModel(config, rng), None, 0
    for length in lengths:
        while tokens_read < length:
            size = min(PIECE, length - tokens_read)
            _, state = model(rng.integers(0, config.vocab, size=size), state)
            tokens_read += size
        token = rng.integers(0, config.vocab, size=1)
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            model(token, state)
            times.append(time.perf_counter() - begin)
        yield {"T": length, "state_numbers": state_numbers(state), "seconds": statistics.median(times)}

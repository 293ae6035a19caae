"""Cost of T tokens: of training, the time of a step; of generation, the size of the state and the time of a token."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import minigrad as mg
from models.language.config import Config
from models.language.lm import LanguageModel, state_numbers
from models.objectives import mean_loss

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


def cost_of_training(config: Config, lengths: list[int], repeats: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield, for each T in `lengths`, {"T", "seconds"}: the least of `repeats` losses and gradients of a sequence."""
    mg.keep_freed_memory()  # as in training
    rng = np.random.default_rng(seed)
    model = LanguageModel(config, rng)
    loss = mg.value_and_grad(lambda model, tokens: mean_loss(model(tokens[:, :-1])[0], tokens[:, 1:]))
    for length in lengths:
        tokens = rng.integers(0, config.vocab, size=(1, length + 1))
        loss(model, tokens)  # which may compile
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            loss(model, tokens)
            times.append(time.perf_counter() - begin)
        yield {"T": length, "seconds": min(times)}

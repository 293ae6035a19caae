"""Cost of T tokens: of training, the time of a step; of generation, the size of the state and the time of a token."""

import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import minigrad as mg
from models import room
from models.language.config import Config
from models.language.lm import LanguageModel, state_numbers
from models.objectives import mean_loss
from models.ssm import selective_scan

PIECE = 128  # the prompt goes in by pieces, so that softmax's scores never need an array T × T


def cost_per_token(
    config: Config, lengths: list[int], repeats: int, batch: int = 1, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield, for each T in `lengths` (rising), {"T", "state_numbers", "seconds"}: the median of `repeats` next tokens.

    A next token is one of each of `batch` sequences. Weights are random: time does not depend on them. Every timing
    starts from the same state, so T stays what it is.
    """
    rng = np.random.default_rng(seed)
    model, state, tokens_read = LanguageModel(config, rng), None, 0
    for length in lengths:
        while tokens_read < length:
            size = min(PIECE, length - tokens_read)
            _, state = model(rng.integers(0, config.vocab, size=(batch, size)), state)
            tokens_read += size
        token = rng.integers(0, config.vocab, size=(batch, 1))
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


def cost_of_scan(
    form: str, states: list[int], length: int, channels: int, repeats: int, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield, for each N in `states`, {"N", "seconds", "bytes"} of a selective scan and the gradients of its sum.

    Seconds are the least of `repeats`; bytes the most that were allocated at a time, beside the inputs.
    """
    mg.keep_freed_memory()
    rng, run = np.random.default_rng(seed), getattr(selective_scan, form)
    for N in states:
        u, delta = (rng.standard_normal((length, channels)).astype(np.float32) for _ in range(2))
        B, C = (rng.standard_normal((length, N)).astype(np.float32) for _ in range(2))
        A = -np.exp(rng.standard_normal((channels, N))).astype(np.float32)
        inputs = u, np.exp(delta - 3), A, B, C, np.ones(channels, np.float32)
        slopes = mg.value_and_grad(lambda *inputs: mg.sum(run(*inputs)[0]), tuple(range(len(inputs))))
        slopes(*inputs)  # which may compile
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            slopes(*inputs)
            times.append(time.perf_counter() - begin)
        yield {"N": N, "seconds": min(times), "bytes": room.peak(partial(slopes, *inputs))}

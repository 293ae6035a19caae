"""A model of sounds at half the rate that it was trained at, its weights as they are or its time steps doubled.

A state space with a step Δ is a system in continuous time. Samples half as dense are twice as far apart: with 2Δ it is
the same system (Gu et al. 2022, section 3.1 of S4D and 4.3 of S4).
"""

import math
from typing import Any

import numpy as np

from minigrad.nn import Module
from models.errors import UserError
from models.tasks import tones
from models.tasks.recall import accuracy

ROWS = 32  # sounds at a time


def at_half_the_rate(model: Any, rng: np.random.Generator, count: int, length: int) -> dict[str, float]:
    """Return the accuracy on sounds of this many samples: as the model is and, where it has steps, with these doubled.

    The model's steps are doubled in place.
    """
    samples, pitches = tones.sounds(rng, count, 2 * length)
    tokens, targets = tones.with_question(tones.at_half_the_rate(samples), pitches)

    def right() -> float:
        logits = [np.asarray(model(tokens[i : i + ROWS])[0][:, -1:]) for i in range(0, count, ROWS)]
        return accuracy(np.concatenate(logits), targets[:, -1:])

    found = {"as it is": right()}
    return found | {"steps doubled": right()} if double_steps(model) else found


def double_steps(model: Any) -> bool:
    """Double the time steps of all blocks; return whether there are any. Raises UserError where some have none."""
    blocks: list[Module] = [layer.block for layer in model.layers]
    steps = [hasattr(block, "log_delta") for block in blocks]
    if any(steps) != all(steps):
        raise UserError("model: expected time steps in all blocks or in none")
    for block in blocks if all(steps) else ():
        block.log_delta = block.log_delta + np.float32(math.log(2))  # type: ignore[attr-defined]
    return all(steps)

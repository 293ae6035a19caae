"""Recurrent networks beside torch.nn.LSTM and torch.nn.RNN, whose functions are called (`benchmarks.peers`).

A batch of 32 sequences: a step is a product of 32 rows with the recurrent weights, and each waits for the one before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.functions import InputsAndWeights, Side, forward_and_backward, minigrad, ours, pytorch, single_precision

TORCH = "benchmarks.peers.torch_recurrent"
SIZES = {"batch": 32, "length": 256, "channels": 128, "width": 256}


def gated(**sizes: int) -> InputsAndWeights:
    """Draw x, W, U and b, the weights as PyTorch begins with them."""
    return _draw(4, "W", "U", **sizes)


def simple(**sizes: int) -> InputsAndWeights:
    """Draw x, U, W and b, the weights as PyTorch begins with them."""
    return _draw(1, "U", "W", **sizes)


def _draw(
    gates: int, input_weights: str, recurrent_weights: str, batch: int, length: int, channels: int, width: int
) -> InputsAndWeights:
    rng, limit = np.random.default_rng(0), width**-0.5
    shapes = {
        input_weights: (gates * width, channels),
        recurrent_weights: (gates * width, width),
        "b": (gates * width,),
    }
    weights = {name: rng.uniform(-limit, limit, shape) for name, shape in shapes.items()}
    x, of_outputs = rng.standard_normal((batch, length, channels)), rng.standard_normal((batch, length, width))
    return single_precision(of_outputs, x=x, **weights)


def lstm_floor(**sizes: Any) -> dict:
    """Return the least work of four gates: five exponentials a unit, of σ and tanh."""
    return _floor(4, 5, **sizes)


def rnn_floor(**sizes: Any) -> dict:
    """Return the least work of a tanh a unit."""
    return _floor(1, 1, **sizes)


def _floor(
    gates: int, exponentials: int, *, backward: bool, batch: int, length: int, channels: int, width: int
) -> dict:
    """Return the least work: 2 G H (D + H) operations a token; each product has two gradients.

    x is read and y written; back, both again, and their gradients.
    """
    tokens, passes = batch * length, 3 if backward else 1
    return {
        "exponentials": tokens * width * exponentials * (1 + backward),
        "operations": 2 * tokens * gates * width * (channels + width) * passes,
        "bytes": 4 * passes * (tokens * (channels + width) + gates * width * (channels + width)),
    }


LSTM = (
    Side("minigrad fused", minigrad, "models.recurrent.lstm:fused"),
    Side("PyTorch, torch.nn.LSTM", pytorch, f"{TORCH}:lstm"),
    ours("minigrad projected, NumPy", "models.recurrent.lstm:projected"),
)
RNN = (
    Side("minigrad fused", minigrad, "benchmarks.ours:rnn"),
    Side("PyTorch, torch.nn.RNN", pytorch, f"{TORCH}:rnn"),
)
TITLE = "{}: 32 sequences of 256 tokens, 128 inputs, 256 units"
WORKLOADS = (
    *forward_and_backward("lstm", TITLE.format("The LSTM"), gated, LSTM, lstm_floor, SIZES),
    *forward_and_backward("rnn", TITLE.format("A simple recurrent network"), simple, RNN, rnn_floor, SIZES),
)

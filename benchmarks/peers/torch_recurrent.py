"""Recurrent networks in PyTorch: the functions that torch.nn.LSTM and torch.nn.RNN call, on one layer.

They take two biases, of which the second is 0 here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lstm(x: Tensor, W: Tensor, U: Tensor, b: Tensor) -> Tensor:
    """Return the outputs of an LSTM for x (B, L, D), as torch.nn.LSTM with `batch_first` computes them."""
    start = x.new_zeros(1, len(x), U.shape[1])
    return torch.lstm(x, (start, start), (W, U, b, torch.zeros_like(b)), True, 1, 0.0, True, False, True)[0]


def rnn(x: Tensor, U: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """Return the outputs of a simple network for x (B, L, D), as torch.nn.RNN with `batch_first` computes them."""
    start = x.new_zeros(1, len(x), W.shape[1])
    return torch.rnn_tanh(x, start, (U, W, b, torch.zeros_like(b)), True, 1, 0.0, True, False, True)[0]

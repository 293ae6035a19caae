"""Memories trained at test time, in PyTorch: the same dual forms of a mini-batch as ours, written plainly."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def ttt_linear(
    q: Tensor, k: Tensor, v: Tensor, eta: Tensor, W: Tensor, b: Tensor, gamma: Tensor, beta: Tensor, *, batch_size: int
) -> Tensor:
    """Return the outputs of TTT-Linear by its dual form, a mini-batch at a time (Sun et al. 2024, section 2.5)."""
    outputs = []
    for Q, K, V, rate in zip(*(x.split(batch_size, 1) for x in (q, k, v, eta[..., None])), strict=True):
        unit, deviation = _standardised(K @ W + b)
        g = gamma * (K + gamma * unit + beta - V)
        slope = (g - g.mean(-1, keepdim=True) - unit * (g * unit).mean(-1, keepdim=True)) / deviation
        mix = torch.tril(rate.mT * (Q @ K.mT + 1))
        outputs.append(Q + gamma * _standardised(Q @ W + b - mix @ slope)[0] + beta)
        W, b = W - (rate * K).mT @ slope, b - rate.mT @ slope
    return torch.cat(outputs, 1)


def _standardised(z: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(z, -1, correction=0, keepdim=True)
    deviation = torch.sqrt(variance + 1e-6)
    return (z - mean) / deviation, deviation


def titans_mlp(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    log_eta: Tensor,
    log_decay: Tensor,
    W1: Tensor,
    W2: Tensor,
    *,
    batch_size: int,
) -> Tensor:
    """Return the outputs of Titans with an MLP of two layers, a batch at a time (Behrouz et al. 2025, section 3.2)."""
    S1, S2, outputs = torch.zeros_like(W1), torch.zeros_like(W2), []
    sequences = (q, k, v, *(gate[..., None] for gate in (theta, log_eta, log_decay)))
    for Q, K, V, rate, log_h, log_g in zip(*(x.split(batch_size, 1) for x in sequences), strict=True):
        z = K @ W1
        hidden = _gelu(z)
        slope2 = hidden @ W2 - V
        slope1 = (slope2 @ W2.mT) * _gelu_slope(z)

        (gamma, Gamma), (h, H) = _since(log_g), _since(log_h)
        mix, past = Gamma @ H * rate.mT, Gamma @ h
        inner = _gelu(gamma * (Q @ W1) + past * (Q @ S1) - (mix * (Q @ K.mT)) @ slope1)
        outputs.append(gamma * (inner @ W2) + past * (inner @ S2) - (mix * (inner @ hidden.mT)) @ slope2)

        into_M, into_S = mix[:, -1:].mT, (H * rate.mT)[:, -1:].mT
        gamma_last, past_last, h = gamma[:, -1:], past[:, -1:], h[:, -1:]
        W1 = gamma_last * W1 + past_last * S1 - (into_M * K).mT @ slope1
        W2 = gamma_last * W2 + past_last * S2 - (into_M * hidden).mT @ slope2
        S1, S2 = h * S1 - (into_S * K).mT @ slope1, h * S2 - (into_S * hidden).mT @ slope2
    return torch.cat(outputs, 1)


def _since(log_kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the decay at t since the batch's start, (H, b, 1), and since token s, (H, b, b), 0 where s > t."""
    total = log_kept.cumsum(-2)
    return total.exp(), (total - total.mT).tril().exp().tril()


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_slope(x: Tensor) -> Tensor:
    root, cubic = math.sqrt(2 / math.pi), 0.044715
    t = torch.tanh(root * (x + cubic * x**3))
    return (1 + t) / 2 + x * (1 - t * t) * root * (1 + 3 * cubic * x * x) / 2

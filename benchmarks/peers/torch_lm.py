"""The softmax language model of `models/language/lm.py` in PyTorch, as a PyTorch user would write it for speed.

Same formulas, same parameter names and shapes, so that weights and gradients can be held to ours one by one. What
PyTorch offers as one function is used as one: rms_norm, silu, conv1d, cross_entropy, fused AdamW. Attention comes both
ways, as two products around a softmax and as `scaled_dot_product_attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-6
BASE = 10_000.0
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention as softmax(q kᵀ / √K) v, every score kept."""
    T = q.shape[-2]
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(future, float("-inf"))
    return torch.softmax(scores, -1) @ v


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention by PyTorch's own fused kernel."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def angles(T: int, K: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin of token t's angle t · BASE^(−2c/K) for each pair of channels c: made once, for all steps."""
    half = K // 2
    angle = torch.arange(T, dtype=torch.float32)[:, None] * BASE ** (-torch.arange(half, dtype=torch.float32) / half)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the channel pairs (c, c + K/2) of each token by its angle."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def logits(p: Mapping[str, Tensor], tokens: Tensor, *, layers: int, heads: int, attend: Attention) -> Tensor:
    """Return the logits (B, T, vocab) of tokens (B, T) under the parameters p."""
    x = F.embedding(tokens, p["embedding.weight"])
    B, T, width = x.shape
    turn = angles(T, width // heads)
    for i in range(layers):
        layer = f"layers.{i}."
        qkv = F.linear(_norm(x, p[layer + "block_norm.weight"]), p[layer + "block.qkv.weight"])
        qkv = convolve(qkv, p[layer + "block.conv.weight"], p[layer + "block.conv.bias"])
        q, k, v = qkv.view(B, T, 3, heads, -1).permute(2, 0, 3, 1, 4)
        y = attend(rotate(q, *turn), rotate(k, *turn), v).transpose(1, 2).reshape(B, T, width)
        x = x + F.linear(y, p[layer + "block.output.weight"])
        both = F.linear(_norm(x, p[layer + "mlp_norm.weight"]), p[layer + "mlp_in.weight"])
        gate, value = both.chunk(2, -1)
        x = x + F.linear(F.silu(gate) * value, p[layer + "mlp_out.weight"])
    return F.linear(_norm(x, p["norm.weight"]), p["embedding.weight"])


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the causal convolution of x (B, T, D) with one filter a channel, (D, width); the first entry is now."""
    D, width = weight.shape
    return F.conv1d(F.pad(x.mT, (width - 1, 0)), weight.flip(1)[:, None], bias, groups=D).mT


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, EPSILON)

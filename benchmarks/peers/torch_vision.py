"""Vision models and parts of them in PyTorch: as its own models have them, and as transformers has them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

EPSILON = 1e-6


def patch_embedding(pixels: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Return the embedded patches (B, rows, columns, D) as a convolution whose stride is its kernel's size."""
    return F.conv2d(pixels, w, b, stride=w.shape[-1]).permute(0, 2, 3, 1)


def windowed_attention(
    x: Tensor,
    qkv: Tensor,
    qkv_bias: Tensor,
    output: Tensor,
    output_bias: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    window: int,
    heads: int,
) -> Tensor:
    """Return attention in windows of x (B, H, W, D), whose scores have relative positions added, pair by pair."""
    B, H, W, D = x.shape
    below, right = -H % window, -W % window
    x = F.pad(x, (0, 0, 0, right, 0, below))
    down, across = (H + below) // window, (W + right) // window
    x = x.view(B, down, window, across, window, D).transpose(2, 3).reshape(-1, window * window, D)
    q, k, v = F.linear(x, qkv, qkv_bias).view(len(x), -1, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
    places = torch.arange(window)
    difference = places[:, None] - places + window - 1
    grid = q.unflatten(2, (window, window))  # (windows, heads, i, j, d)
    of_rows = torch.einsum("nhijd,ikd->nhijk", grid, rows[difference])
    of_columns = torch.einsum("nhijd,jld->nhijl", grid, columns[difference])
    bias = (of_rows[..., :, None] + of_columns[..., None, :]).flatten(4).flatten(2, 3)
    y = torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT + bias, -1) @ v
    y = F.linear(y.transpose(1, 2).flatten(2), output, output_bias)
    y = y.view(B, down, across, window, window, D).transpose(2, 3).reshape(B, H + below, W + right, D)
    return y[:, :H, :W]


def windowed_attention_hf(x: Tensor, *weights: Tensor, window: int, heads: int) -> Tensor:
    """Return the same by the layer of transformers, which gives the table of positions to PyTorch's attention."""
    layer = _layer(x.shape[-1], window, heads)
    windows, padded = layer.window_partition(x, window)
    names = ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias", "rel_pos_h", "rel_pos_w")
    y, _ = functional_call(layer.attn, dict(zip(names, weights, strict=True)), windows)
    return layer.window_unpartition(y, window, padded, x.shape[1:3])


@cache
def _layer(width: int, window: int, heads: int) -> Any:
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionLayer

    config = SamVisionConfig(hidden_size=width, num_attention_heads=heads, attn_implementation="sdpa")
    return SamVisionLayer(config, window)


def vit(pixels: Tensor, *weights: Tensor, layers: int, heads: int) -> Tensor:
    """Return the logits (B, classes) of ViT, given the weights in the order of `models.vision.vit.ViT`."""
    parameters = iter(weights)

    def take(count: int) -> list[Tensor]:
        return [next(parameters) for _ in range(count)]

    patch, bias, class_token, positions = take(4)
    x = patch_embedding(pixels, patch, bias).flatten(1, 2)
    B, _, D = x.shape
    z = torch.cat([class_token.expand(B, 1, D), x], 1) + positions

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, (D,), weight, bias, EPSILON)

    for _ in range(layers):
        norm1, norm2, (query, key, value), output, mlp_in, mlp_out = (take(count) for count in (2, 2, 3, 2, 2, 2))
        x = norm(z, *norm1)
        q, k, v = (F.linear(x, w).view(B, -1, heads, D // heads).transpose(1, 2) for w in (query, key, value))
        y = F.scaled_dot_product_attention(q, k, v)
        z = z + F.linear(y.transpose(1, 2).flatten(2), *output)
        z = z + F.linear(F.gelu(F.linear(norm(z, *norm2), *mlp_in)), *mlp_out)
    return F.linear(norm(z[:, 0], *take(2)), *take(2))

"""The image encoder: a Vision Transformer of windowed and global attention, and a neck.

z₀ = patches E + E_pos                                          Kirillov et al. 2023, appendix A, "Image encoder"
z′ = z + Attention(LN(z)),  z = z′ + MLP(LN(z′))                Dosovitskiy et al. 2021, eq. 2 and 3
embedding = LN(conv₃ₓ₃(LN(conv₁ₓ₁(z))))                         the neck, (H, W, D)

Attention   among the patches of a window, or of the whole map in a few layers that are spread evenly (Li et al.
            2022, ViTDet, section 3); with decomposed relative positions (`windows.py`)
z           (*batch, H, W, C), a map throughout: there is no class token, and no norm before the neck
"""

from typing import Any

import numpy as np

from minigrad import namespace
from minigrad.nn import LayerNorm, Linear, Module
from models.attention.multihead import merge_heads, split_heads
from models.blocks.mlp import PLAIN
from models.vision.encoder import FORMS
from models.vision.patches import PatchEmbedding
from models.vision.sam import windows
from models.vision.sam.config import ImageEncoderConfig
from models.vision.sam.layers import Conv2d

NECK_EPS = 1e-6


class MapAttention(Module):
    """Multi-head self-attention of the patches of a square map, with relative positions or without."""

    def __init__(self, config: ImageEncoderConfig, size: int, rng: np.random.Generator) -> None:
        width, self.heads, self.form = config.width, config.heads, config.form
        self.qkv = Linear(width, 3 * width, bias=config.qkv_bias, rng=rng)
        self.output = Linear(width, width, rng=rng)
        shape = (2 * size - 1, width // config.heads)
        self.rows: Any = np.zeros(shape, np.float32) if config.relative else None
        self.columns: Any = np.zeros(shape, np.float32) if config.relative else None

    def __call__(self, x):
        """Return a map (*batch, S, S, width), as x is."""
        xp, shape = namespace(x), x.shape
        x = xp.reshape(x, (*shape[:-3], shape[-3] * shape[-2], shape[-1]))
        projected, width = self.qkv(x), shape[-1]
        q, k, v = (split_heads(projected[..., i * width : (i + 1) * width], self.heads) for i in range(3))
        scale = q.shape[-1] ** -0.5
        if self.rows is not None:
            (q, k), scale = windows.with_positions(q, k, self.rows, self.columns, scale=scale), 1.0
        y, _ = FORMS[self.form](q, k, v, causal=False, scale=scale)
        return xp.reshape(self.output(merge_heads(y)), shape)


class ImageLayer(Module):
    """Attention, in windows of `window` × `window` patches or, where that is 0, global; and an MLP."""

    def __init__(self, config: ImageEncoderConfig, window: int, rng: np.random.Generator) -> None:
        self.attention_norm, self.mlp_norm = (LayerNorm(config.width, eps=config.eps) for _ in range(2))
        self.attention = MapAttention(config, window or config.grid, rng)
        self.mlp_in = Linear(config.width, config.hidden, rng=rng)
        self.mlp_out = Linear(config.hidden, config.width, rng=rng)
        self.activation, self.window = PLAIN[config.activation], window

    def __call__(self, z):
        """Return z (*batch, H, W, width) after the layer."""
        z = z + self.attend(self.attention_norm(z))
        return z + self.mlp_out(self.activation(self.mlp_in(self.mlp_norm(z))))

    def attend(self, x):
        """Return x (*batch, H, W, width) after attention in its windows."""
        if self.window == 0:
            return self.attention(x)
        return windows.join(self.attention(windows.split(x, self.window)), x.shape[-3], x.shape[-2])


class ImageEncoder(Module):
    """The embedding of a picture; parameters are float32."""

    def __init__(self, config: ImageEncoderConfig, rng: np.random.Generator) -> None:
        self.config = config
        self.patch = PatchEmbedding(config.channels, config.patch, config.width, rng)
        shape = (config.grid, config.grid, config.width)
        self.positions: Any = (0.02 * rng.standard_normal(shape)).astype(np.float32) if config.absolute else None
        of_layers = (0 if layer in config.global_layers else config.window for layer in range(config.layers))
        self.layers = [ImageLayer(config, window, rng) for window in of_layers]
        self.neck = [
            Conv2d(config.width, config.output, 1, rng, bias=False),
            LayerNorm(config.output, eps=NECK_EPS),
            Conv2d(config.output, config.output, 3, rng, padding=1, bias=False),
            LayerNorm(config.output, eps=NECK_EPS),
        ]

    def __call__(self, pixels):
        """Return the embedding (*batch, H, W, D) of pixels (*batch, C, side, side).

        Raises ValueError for pictures of another size than the configuration's: they are to be resized and padded.
        """
        side = self.config.image
        if pixels.ndim < 3 or pixels.shape[-3:] != (self.config.channels, side, side):
            expected = f"(*batch, {self.config.channels}, {side}, {side})"
            raise ValueError(f"ImageEncoder: pixels has shape {tuple(pixels.shape)}, expected {expected}")
        z = self.patch(pixels)
        if self.positions is not None:
            z = z + self.positions
        for layer in self.layers:
            z = layer(z)
        for layer in self.neck:
            z = layer(z)
        return z

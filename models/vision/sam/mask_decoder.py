"""The mask decoder: tokens and the picture's embedding attend to each other, and a token's vector reads a mask.

    t = [IoU token ‖ mask tokens ‖ tokens of the prompt]            Kirillov et al. 2023, appendix A, "Mask decoder"
    each of two layers
        t ← LN(t + A(t, t)),  t ← LN(t + A(t, x)),  t ← LN(t + MLP(t)),  x ← LN(x + A(x, t))
    t ← LN(t + A(t, x))
    masks[m, h, w] = MLPₘ(t[m]) · up(x)[h, w],  scores = MLP(t[0])
    up(x) = gelu(convᵀ(gelu(LN(convᵀ(x)))))                         twice as many rows and columns by each convᵀ

    x    the embedding of the picture and the map of the prompt's mask, added: (*batch, N, H, W, D)
    A(a, b)  a attends to b. Positions are added to the queries and keys of every attention and never to values: γ of
         its places to x, and the tokens as they were at the start to t. Cross-attention is D/2 wide.

The first self-attention takes t without positions, which it is already, and replaces t instead of being added to it:
so the published code, not the paper. Of M + 1 mask tokens the first is for prompts that are not ambiguous, the others
give M masks of one that is. The scores are predictions of each mask's IoU: any number, for no sigmoid follows.
"""

from typing import Any

import numpy as np

import minigrad as mg
from minigrad import namespace
from minigrad.nn import LayerNorm, Linear, Module
from models.attention import softmax
from models.attention.multihead import merge_heads, split_heads
from models.blocks.mlp import PLAIN
from models.vision.sam.config import MaskDecoderConfig
from models.vision.sam.layers import MLP, ConvTranspose2d

FINAL_EPS, UPSCALE_EPS = 1e-5, 1e-6


class Attention(Module):
    """Multi-head attention of queries to keys and values, `inner` wide inside."""

    def __init__(self, width: int, inner: int, heads: int, rng: np.random.Generator) -> None:
        self.query, self.key, self.value = (Linear(width, inner, rng=rng) for _ in range(3))
        self.output, self.heads = Linear(inner, width, rng=rng), heads

    def __call__(self, q, k, v):
        """Return (*batch, T, width) for q (*batch, T, width), k and v (*batch, S, width); batch axes broadcast."""
        projected = (self.query(q), self.key(k), self.value(v))
        q, k, v = (split_heads(x, self.heads) for x in projected)
        xp = namespace(q, k, v)
        batch = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
        q, k, v = (xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (q, k, v))
        return self.output(merge_heads(softmax.cross(q, k, v)[0]))


class TwoWayLayer(Module):
    """One layer of the decoder: four sub-layers, each followed by a norm."""

    def __init__(self, config: MaskDecoderConfig, width: int, rng: np.random.Generator, *, first: bool) -> None:
        inner = width // config.downsample
        self.own = Attention(width, width, config.heads, rng)
        self.to_image, self.to_tokens = (Attention(width, inner, config.heads, rng) for _ in range(2))
        self.mlp_in, self.mlp_out = Linear(width, config.hidden, rng=rng), Linear(config.hidden, width, rng=rng)
        self.norms = [LayerNorm(width, eps=config.eps) for _ in range(4)]
        self.activation, self.first = PLAIN[config.activation], first

    def __call__(self, t, x, t_positions, x_positions):
        """Return (t, x), t (*batch, T, width) and x (*batch, HW, width)."""
        if self.first:
            t = self.own(t, t, t)
        else:
            t = t + self.own(t + t_positions, t + t_positions, t)
        t = self.norms[0](t)
        t = self.norms[1](t + self.to_image(t + t_positions, x + x_positions, x))
        t = self.norms[2](t + self.mlp_out(self.activation(self.mlp_in(t))))
        x = x + self.to_tokens(x + x_positions, t + t_positions, t)
        return t, self.norms[3](x)


class MaskDecoder(Module):
    """Masks and their scores, from the embedding of a picture and of prompts; parameters are float32."""

    def __init__(self, config: MaskDecoderConfig, width: int, rng: np.random.Generator) -> None:
        self.masks = config.masks + 1
        self.own_tokens = rng.standard_normal((1 + self.masks, width)).astype(np.float32)
        self.layers = [TwoWayLayer(config, width, rng, first=layer == 0) for layer in range(config.layers)]
        self.final = Attention(width, width // config.downsample, config.heads, rng)
        self.final_norm = LayerNorm(width, eps=FINAL_EPS)
        self.upscale = [ConvTranspose2d(width, width // 4, 2, rng), ConvTranspose2d(width // 4, width // 8, 2, rng)]
        self.upscale_norm, self.upscale_activation = LayerNorm(width // 4, eps=UPSCALE_EPS), mg.gelu
        self.readers = [MLP(width, width, width // 8, 3, rng) for _ in range(self.masks)]
        self.scores = MLP(width, config.iou_hidden, self.masks, config.iou_layers, rng)

    def __call__(self, x: Any, x_positions: Any, prompt: Any) -> tuple[Any, Any]:
        """Return logits (*batch, N, M + 1, 4H, 4W) and scores (*batch, N, M + 1), of the single mask first.

        x is (*batch, N or 1, H, W, D) with its positions (H, W, D), and the prompt's tokens are (*batch, N, P, D).
        """
        xp, (H, W, D) = namespace(x), x.shape[-3:]
        own = xp.broadcast_to(self.own_tokens, (*prompt.shape[:-2], *self.own_tokens.shape))
        t_positions = xp.concat([own, prompt], axis=-2)
        x = xp.reshape(x, (*x.shape[:-3], H * W, D))
        x_positions = xp.reshape(x_positions, (H * W, D))
        t = t_positions
        for layer in self.layers:
            t, x = layer(t, x, t_positions, x_positions)
        t = self.final_norm(t + self.final(t + t_positions, x + x_positions, x))
        return self.read(t[..., 1 : 1 + self.masks, :], self.upscaled(xp.reshape(x, (*x.shape[:-2], H, W, D)))), (
            self.scores(t[..., 0, :])
        )

    def upscaled(self, x):
        """Return up(x), (*batch, 4H, 4W, D/8)."""
        x = self.upscale_activation(self.upscale_norm(self.upscale[0](x)))
        return self.upscale_activation(self.upscale[1](x))

    def read(self, tokens, x):
        """Return logits (*batch, M + 1, H, W), read by the mask tokens (*batch, M + 1, D) from x (*batch, H, W, C)."""
        xp, (H, W, C) = namespace(x), x.shape[-3:]
        rows = xp.stack([reader(tokens[..., m, :]) for m, reader in enumerate(self.readers)], axis=-2)
        logits = rows @ xp.reshape(x, (*x.shape[:-3], H * W, C)).mT
        return xp.reshape(logits, (*logits.shape[:-1], H, W))

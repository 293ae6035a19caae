"""The prompt encoder: points and boxes become tokens, and a mask a map that is added to the picture's embedding.

    γ(p) = [sin 2πGᵀ(2p − 1) ‖ cos 2πGᵀ(2p − 1)]                    Tancik et al. 2020, eq. 5; p in [0, 1]²
    token of a point      γ(p) + e_label                            Kirillov et al. 2023, appendix A, "Prompt encoder"
    tokens of a box       γ(p₀) + e_corner0, γ(p₁) + e_corner1      its corner at the top left, and the other
    map of a mask         conv₁ₓ₁(gelu(LN(conv₂ₓ₂(gelu(LN(conv₂ₓ₂(m)))))))
    map without a mask    the same learned vector e_none everywhere

    p    ((x, y) + ½)/side: the centre of a pixel, as a share of the picture's side
    G    (2, D/2), drawn once from a normal distribution
    m    logits of a mask, (*batch, 4H, 4W), of a picture whose embedding is H × W

A prompt is a row of tokens, each a place and a label (`NO_POINT` and the others below). Where a prompt has points and
no box, the published models append a token `NO_POINT`, which is its vector alone, without γ. Every token of a row is
attended to, so prompts with different numbers of points cannot be padded to one array without changing the result:
there is no label for padding here.
"""

from typing import Any

import numpy as np

from minigrad import namespace
from minigrad.conversion import to_library_of
from minigrad.nn import LayerNorm, Module
from models.blocks.mlp import PLAIN
from models.vision.sam.config import PromptEncoderConfig
from models.vision.sam.layers import Conv2d

NO_POINT, BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = LABELS = range(-1, 4)


class PromptEncoder(Module):
    """Embeddings of prompts for pictures of `side` × `side` pixels; parameters are float32."""

    def __init__(self, config: PromptEncoderConfig, side: int, width: int, rng: np.random.Generator) -> None:
        self.side = side
        self.frequencies = rng.standard_normal((2, width // 2)).astype(np.float32)  # G
        self.labels = rng.standard_normal((len(LABELS), width)).astype(np.float32)  # of NO_POINT first
        self.no_mask = rng.standard_normal(width).astype(np.float32)
        channels, self.activation = config.channels, PLAIN[config.activation]
        self.convolutions = [
            Conv2d(1, channels // 4, 2, rng, stride=2),
            Conv2d(channels // 4, channels, 2, rng, stride=2),
            Conv2d(channels, width, 1, rng),
        ]
        self.norms = [LayerNorm(size, eps=config.eps) for size in (channels // 4, channels)]

    def encoded(self, places: np.ndarray) -> Any:
        """Return γ(p), (…, D), of places p (…, 2) in [0, 1]²."""
        G = self.frequencies
        xp = namespace(G)
        angles = 2 * np.pi * (xp.astype(to_library_of(G, 2 * places - 1), G.dtype) @ G)
        return xp.concat([xp.sin(angles), xp.cos(angles)], axis=-1)

    def tokens(self, points: np.ndarray, labels: np.ndarray) -> Any:
        """Return a token for each point, (…, P, D), from (x, y) in pixels (…, P, 2) and labels (…, P)."""
        xp, points, labels = namespace(self.labels), np.asarray(points), np.asarray(labels)
        encoded = self.encoded((points + 0.5) / self.side)
        encoded = xp.where(to_library_of(self.labels, (labels != NO_POINT)[..., None]), encoded, 0)
        of_labels = xp.take(self.labels, to_library_of(self.labels, (labels - NO_POINT).reshape(-1)), axis=0)
        return encoded + xp.reshape(of_labels, encoded.shape)

    def map_of(self, masks: Any) -> Any:
        """Return the map (…, H, W, D) of logits of masks (…, 4H, 4W); that of no mask, (D,), for None."""
        if masks is None:
            return self.no_mask
        x = masks[..., None]
        for convolution, norm in zip(self.convolutions[:2], self.norms, strict=True):
            x = self.activation(norm(convolution(x)))
        return self.convolutions[2](x)

    def positions(self, height: int, width: int) -> Any:
        """Return γ at the centres of a map's places, (height, width, D)."""
        rows, columns = ((np.arange(size) + 0.5) / size for size in (height, width))
        return self.encoded(np.stack(np.broadcast_arrays(columns[None, :], rows[:, None]), axis=-1))

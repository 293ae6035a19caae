"""The Vision Transformer, ViT: a Transformer encoder over the patches of a picture, read at a class token.

    z₀ = [x_class; x¹_p E; x²_p E; …; xᴺ_p E] + E_pos                            Dosovitskiy et al. 2021, eq. 1
    z′_l = MSA(LN(z_{l−1})) + z_{l−1}                     l = 1 … L              eq. 2
    z_l  = MLP(LN(z′_l)) + z′_l                           l = 1 … L              eq. 3
    y = LN(z_L⁰)                                                                 eq. 4
    logits = y W + b                                                             section 3.1, in fine-tuning

`patches` has eq. 1 and its letters, `encoder` eq. 2 and 3. The head is linear, as the paper's is in fine-tuning. In
pre-training it has a hidden layer, tanh(y P + p), which published models keep as the `pooler`; no logits here read it.

Attention rollout (Abnar and Zuidema 2020, section 3) follows attention through the layers to the patches:

    Ã_l = ½ A_l + ½ I,  A_l the mean over heads;  rollout = Ã_L … Ã_1                          eq. 1
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from minigrad.nn import LayerNorm, Linear, Module
from models.errors import UserError
from models.forms import Array
from models.vision.encoder import Encoder, EncoderConfig
from models.vision.patches import PatchEmbedding, PatchTokens


@dataclass(frozen=True)
class ViTConfig:
    """The sizes of a model: pictures of `channels` and `height` × `width` pixels, and `patch` × `patch` of a patch.

    `classes` and `pooled` are outputs of head and pooler, which there are none of at 0. Raises UserError for sizes that
    do not fit each other.
    """

    height: int = 32
    width: int = 32
    patch: int = 4
    channels: int = 1
    classes: int = 10
    pooled: int = 0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    def __post_init__(self) -> None:
        for name, least in (("height", 1), ("width", 1), ("patch", 1), ("channels", 1), ("classes", 0), ("pooled", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("height", "width"):
            if getattr(self, name) % self.patch:
                raise UserError(f"{name}: expected a multiple of the patch's {self.patch}, got {getattr(self, name)}")

    @property
    def grid(self) -> tuple[int, int]:
        """Return how many rows and columns of patches a picture has."""
        return self.height // self.patch, self.width // self.patch


class ViT(Module):
    """Logits of a picture's classes; parameters are float32.

    Pixels are (*batch, C, H, W). A picture of another size than the configuration's has its positions interpolated;
    what else does not fit raises ValueError, as `patches` says.
    """

    def __init__(self, config: ViTConfig, rng: np.random.Generator) -> None:
        width = config.encoder.width
        patch = PatchEmbedding(config.channels, config.patch, width, rng)
        self.tokens = PatchTokens(patch, config.grid, rng)
        self.encoder = Encoder(config.encoder, rng)
        self.norm = LayerNorm(width, eps=config.encoder.eps)
        self.head = Linear(width, config.classes, rng=rng) if config.classes else None
        self.pooler = Linear(width, config.pooled, rng=rng) if config.pooled else None

    def __call__(self, pixels):
        """Return the logits (*batch, classes). Raises ValueError where the model has no head."""
        if self.head is None:
            raise ValueError("ViT: expected a model with a classification head, got one without: see `features`")
        return self.head(self.features(pixels)[..., 0, :])

    def features(self, pixels):
        """Return LN(z_L), (*batch, 1 + N, width): y of the class token, then one row for each patch."""
        return self.norm(self.encoder(self.tokens(pixels)))

    def pooled(self, pixels):
        """Return tanh(y P + p), (*batch, pooled). Raises ValueError where the model has no pooler."""
        if self.pooler is None:
            raise ValueError("ViT: expected a model with a pooler, got one without")
        return mg.tanh(self.pooler(self.features(pixels)[..., 0, :]))

    def attention(self, pixels):
        """Return A of every layer, (*batch, L, heads, 1 + N, 1 + N)."""
        return self.encoder.attention(self.tokens(pixels))

    def attention_map(self, pixels):
        """Return how much of the class token comes from each patch, by rollout: (*batch, H/P, W/P), of sum 1."""
        size = self.tokens.patch.weight.shape[-1]
        grid = tuple(side // size for side in pixels.shape[-2:])
        row = rollout(self.attention(pixels))[..., 0, 1:]
        row = row / namespace(row).sum(row, axis=-1, keepdims=True)
        return namespace(row).reshape(row, (*row.shape[:-1], *grid))


def rollout(weights: Float[Array, "*batch L heads T T"]) -> Float[Array, "*batch T T"]:
    """Return the attention rollout Ã_L … Ã_1 of the weights of all layers; its rows sum to 1."""
    xp, (*_, layers, heads, size, _) = namespace(weights), weights.shape
    mixed = (xp.sum(weights, axis=-3) / heads + xp.eye(size, dtype=weights.dtype)) / 2  # (*batch, L, T, T)
    through = mixed[..., 0, :, :]
    for layer in range(1, layers):
        through = mixed[..., layer, :, :] @ through
    return through

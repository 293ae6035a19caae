"""CLIP: an image encoder and a text encoder whose features are compared, trained by which texts belong to which images.

    I_f = W_i LN(z_L[0]),  z₀ = LN([x_class; patches] + E_pos)        the class token of a ViT   Radford et al. 2021,
    T_f = W_t LN(z_L[end]),  z₀ = E[tokens] + E_pos, causal           the end token              sections 2.4–2.5
    logits = exp(t) I_e T_eᵀ                                          `models.vision.contrastive`, figure 3

    z_L        after the layers of `models.vision.encoder`, with the activation x σ(1.702 x)
    W_i, W_t   projections to one space, without biases
    end        the place of the first end token; tokens after it are padding, which it does not see

The image encoder has a norm before its layers that a ViT has not ("an additional layer normalization to the combined
patch and position embeddings"). Deviation: weights start as those of `minigrad.nn`, not with the paper's deviations.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.conversion import to_library_of
from minigrad.nn import Embedding, LayerNorm, Linear, Module
from models.errors import UserError, known_name, require_counts
from models.vision import contrastive
from models.vision.encoder import Encoder, EncoderConfig
from models.vision.patches import PatchEmbedding, PatchTokens

POOLING = ("end", "largest")


@dataclass(frozen=True)
class ClipConfig:
    """The sizes of both encoders; `features` is the width of the space in which they meet.

    `pooling` says which token of a text is read: the first `end`, or that of the largest number, as the released files
    have it, whose end token is the last of the vocabulary. Raises UserError for sizes that do not fit each other.
    """

    image: EncoderConfig
    text: EncoderConfig
    image_size: int = 32
    patch_size: int = 8
    channels: int = 3
    vocab: int = 64
    context: int = 16
    end: int = 2
    features: int = 64
    pooling: str = "end"

    def __post_init__(self) -> None:
        known_name(self.pooling, "pooling", POOLING)
        require_counts(self, "image_size", "patch_size", "channels", "vocab", "context", "features")
        if self.image_size % self.patch_size:
            raise UserError(f"patch_size: expected a divisor of image_size {self.image_size}, got {self.patch_size}")
        if not 0 <= self.end < self.vocab:
            raise UserError(f"end: expected a token below vocab {self.vocab}, got {self.end}")
        if not self.text.causal or self.image.causal:
            raise UserError("causal: expected a causal text encoder and an image encoder that is not, got another")


class ImageEncoder(Module):
    """The features of pictures: those of the class token of a ViT, projected."""

    def __init__(self, config: ClipConfig, rng: np.random.Generator) -> None:
        of, side = config.image, config.image_size // config.patch_size
        patch = PatchEmbedding(config.channels, config.patch_size, of.width, rng, bias=False)
        self.tokens = PatchTokens(patch, (side, side), rng)
        self.pre_norm, self.post_norm = (LayerNorm(of.width, eps=of.eps) for _ in range(2))
        self.encoder = Encoder(of, rng)
        self.projection = Linear(of.width, config.features, bias=False, rng=rng)
        self.size = config.image_size

    def __call__(self, pixels, *, interpolate: bool = False):
        """Return features (*batch, D) of pixels (*batch, C, H, W).

        Raises: ValueError for pictures of another size than those of training, unless positions are interpolated, and
        for what `PatchTokens` refuses.
        """
        height, width = pixels.shape[-2:] if pixels.ndim >= 2 else (0, 0)
        if not interpolate and (height, width) != (self.size, self.size):
            expected = f"{self.size} × {self.size}, as in training, or interpolate=True"
            raise ValueError(f"pixels: expected pictures of {expected}, got {height} × {width}")
        z = self.encoder(self.pre_norm(self.tokens(pixels)))
        return self.projection(self.post_norm(z[..., 0, :]))


class TextEncoder(Module):
    """The features of texts: those of the end token of a causal Transformer, projected."""

    def __init__(self, config: ClipConfig, rng: np.random.Generator) -> None:
        of = config.text
        self.embedding = Embedding(config.vocab, of.width, rng=rng)
        self.positions = (0.01 * rng.standard_normal((config.context, of.width))).astype(np.float32)
        self.encoder = Encoder(of, rng)
        self.norm = LayerNorm(of.width, eps=of.eps)
        self.projection = Linear(of.width, config.features, bias=False, rng=rng)
        self.end, self.pooling = config.end, config.pooling

    def __call__(self, tokens: np.ndarray):
        """Return features (*batch, D) of tokens (*batch, T), each with an end token, padded by any tokens after it.

        Raises: ValueError for more tokens than the context, for none, and for a text without an end token; IndexError
        for tokens outside the vocabulary.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim == 0 or 0 in tokens.shape:
            raise ValueError(f"tokens: expected at least one text of at least one token, got shape {tokens.shape}")
        length, context = tokens.shape[-1], self.positions.shape[0]
        if length > context:
            raise ValueError(f"tokens: expected at most {context} tokens, the context, got {length}")
        at = self.ends(tokens)
        length = int(at.max()) + 1  # what is after all ends is padding
        x = self.embedding(to_library_of(self.positions, tokens[..., :length])) + self.positions[:length]
        z = self.encoder(x)
        index = np.broadcast_to(at[..., None, None], (*at.shape, 1, z.shape[-1]))
        pooled = mg.take_along_axis(z, to_library_of(z, index), axis=-2)[..., 0, :]  # (*batch, width)
        return self.projection(self.norm(pooled))

    def ends(self, tokens: np.ndarray) -> np.ndarray:
        """Return the place of the token of each text that is read, (*batch)."""
        if self.pooling == "largest":
            return np.argmax(tokens, axis=-1)
        is_end = tokens == self.end
        if not is_end.any(axis=-1).all():
            raise ValueError(f"tokens: expected the end token {self.end} in each text, got one without")
        return np.argmax(is_end, axis=-1)


class Clip(Module):
    """The similarity of pictures and texts; parameters are float32."""

    def __init__(self, config: ClipConfig, rng: np.random.Generator) -> None:
        self.image, self.text = ImageEncoder(config, rng), TextEncoder(config, rng)
        self.log_scale = np.array(contrastive.LOG_SCALE, np.float32)

    def __call__(self, pixels, tokens: np.ndarray):
        """Return logits (n, m) of pixels (n, C, H, W) and tokens (m, T), the scaled cosines of their features."""
        return contrastive.similarities(self.encode_image(pixels), self.encode_text(tokens), self.log_scale)

    def encode_image(self, pixels, *, interpolate: bool = False):
        """Return features (*batch, D), not normalised, of pixels (*batch, C, H, W)."""
        return self.image(pixels, interpolate=interpolate)

    def encode_text(self, tokens: np.ndarray):
        """Return features (*batch, D), not normalised, of tokens (*batch, T)."""
        return self.text(tokens)

    def loss(self, pixels, tokens: np.ndarray):
        """Return the contrastive loss of n pictures and their n texts, in nats."""
        return contrastive.contrastive_loss(self(pixels, tokens))

    def clamp(self) -> None:
        """Limit the scale to 100, in place, as training does after each step (section 2.5)."""
        np.minimum(self.log_scale, contrastive.MAX_LOG_SCALE, out=self.log_scale)

    def classifier(self, prompts: np.ndarray):
        """Return the weights (classes, D) of a zero-shot classifier of prompts (classes, prompts, T), as tokens.

        Raises: ValueError where there is no class, or no prompt.
        """
        prompts = np.asarray(prompts)
        if prompts.ndim != 3 or 0 in prompts.shape:
            shape = prompts.shape
            raise ValueError(f"prompts: expected tokens (classes, prompts, T), at least one each, got shape {shape}")
        return contrastive.ensemble(self.encode_text(prompts))

    def classify(self, pixels, weights):
        """Return the probabilities (n, classes) of pixels (n, C, H, W), by the weights of a classifier."""
        return mg.softmax(contrastive.similarities(self.encode_image(pixels), weights, self.log_scale), axis=-1)


def recall(logits: Any, k: int = 1) -> tuple[float, float]:
    """Return (images → texts, texts → images): the share whose pair is among the k most similar, of logits (n, n).

    Ties count as misses. Raises: ValueError for logits that are not square, and for a k outside 1 … n.
    """
    logits = np.asarray(logits)
    n = logits.shape[0]
    if logits.shape != (n, n) or n == 0:
        raise ValueError(f"logits: expected shape (n, n), n ≥ 1, got {logits.shape}")
    if not 1 <= k <= n:
        raise ValueError(f"k: expected 1 … {n}, got {k}")
    pairs = np.diagonal(logits)
    before = [np.sum(side >= pairs[:, None], axis=1) for side in (logits, logits.T)]  # the pair itself is one
    to_texts, to_images = (float(np.mean(ranks <= k)) for ranks in before)
    return to_texts, to_images

"""The pre-norm Transformer encoder of ViT, and of both towers of CLIP.

    z′ = MSA(LN(z)) + z                                              Dosovitskiy et al. 2021, eq. 2
    z  = MLP(LN(z′)) + z′                                            eq. 3
    MSA(z) = [head₁ ‖ … ‖ head_H] U + u,  headₕ = A V,  A = softmax(Q Kᵀ/√K)         appendix A, eq. 5–8
    MLP(z) = act(z W₁ + b₁) W₂ + b₂,  act the exact GELU by default

The norm before each sub-layer, where Vaswani et al. 2017 have it after, follows Wang et al. 2019. Both are layer norms:
they normalise each token by itself. A final norm is the model's (eq. 4).
"""

from dataclasses import dataclass

import numpy as np

from minigrad import namespace
from minigrad.nn import LayerNorm, Linear, Module
from models.attention import softmax
from models.attention.multihead import attend, split_heads
from models.blocks.mlp import PLAIN
from models.errors import UserError, known_name, require_counts

FORMS = {"quadratic": softmax.quadratic, "lazy": softmax.lazy, "fused": softmax.fused}


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes of an encoder. `hidden` is the MLP's width, 4 × width if 0; `form` is that of softmax attention.

    `qkv_bias` is whether queries, keys and values have biases, `causal` whether a token attends only up to itself, as
    in CLIP's text tower. Raises UserError for sizes that do not fit each other, and for unknown names.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    hidden: int = 0
    activation: str = "gelu"
    eps: float = 1e-6
    qkv_bias: bool = True
    causal: bool = False
    form: str = "quadratic"

    def __post_init__(self) -> None:
        known_name(self.activation, "activation", PLAIN)
        known_name(self.form, "form", FORMS)
        require_counts(self, "width", "layers", "heads")
        if self.width % self.heads:
            raise UserError(f"heads: expected width {self.width} to be a multiple of heads, got {self.heads} heads")
        object.__setattr__(self, "hidden", self.hidden or 4 * self.width)


class SelfAttention(Module):
    """MSA: tokens attend to the tokens of the same sequence."""

    def __init__(self, config: EncoderConfig, rng: np.random.Generator) -> None:
        width = config.width
        self.query, self.key, self.value = (Linear(width, width, bias=config.qkv_bias, rng=rng) for _ in range(3))
        self.output = Linear(width, width, rng=rng)
        self.heads, self.causal, self.form = config.heads, config.causal, config.form

    def __call__(self, z, mask=None):
        """Return (*batch, T, width), as z is; the mask broadcasts to (*batch, H, T, T)."""
        q, k, v = self.query(z), self.key(z), self.value(z)
        y, _ = attend(FORMS[self.form], q, k, v, heads=self.heads, causal=self.causal, mask=mask)
        return self.output(y)

    def weights(self, z, mask=None):
        """Return A, (*batch, H, T, T): what is attended to where each value is a unit vector."""
        xp, size = namespace(z), z.shape[-2]
        q, k = (split_heads(project(z), self.heads) for project in (self.query, self.key))
        units = xp.broadcast_to(xp.eye(size, dtype=z.dtype), (*k.shape[:-1], size))
        return softmax.quadratic(q, k, units, causal=self.causal, mask=mask)[0]


class EncoderLayer(Module):
    """Self-attention and an MLP, each added to what it reads: eq. 2 and 3."""

    def __init__(self, config: EncoderConfig, rng: np.random.Generator) -> None:
        self.attention_norm, self.mlp_norm = (LayerNorm(config.width, eps=config.eps) for _ in range(2))
        self.attention = SelfAttention(config, rng)
        self.mlp_in = Linear(config.width, config.hidden, rng=rng)
        self.mlp_out = Linear(config.hidden, config.width, rng=rng)
        self.activation = PLAIN[config.activation]

    def __call__(self, z, mask=None):
        """Return z (*batch, T, width) after the layer."""
        z = z + self.attention(self.attention_norm(z), mask)
        return z + self.mlp_out(self.activation(self.mlp_in(self.mlp_norm(z))))


class Encoder(Module):
    """A stack of layers; parameters are float32."""

    def __init__(self, config: EncoderConfig, rng: np.random.Generator) -> None:
        self.layers = [EncoderLayer(config, rng) for _ in range(config.layers)]

    def __call__(self, z, visible=None):
        """Return z (*batch, T, width) after all layers, the same for visible tokens as without those that are not.

        `visible` (*batch, T) is false for tokens that none attends to, such as padding; all are visible if it is None.
        """
        for layer in self.layers:
            z = layer(z, attention_mask(visible))
        return z

    def attention(self, z, visible=None):
        """Return A of every layer for tokens z, (*batch, layers, H, T, T); row t holds what token t attends to."""
        weights, mask = [], attention_mask(visible)
        for layer in self.layers:
            weights.append(layer.attention.weights(layer.attention_norm(z), mask))
            z = layer(z, mask)
        return namespace(z).stack(weights, axis=-4)


def attention_mask(visible):
    """Return the mask (*batch, 1, 1, T) that hides tokens, given which are visible, (*batch, T); None for all."""
    return None if visible is None else visible[..., None, None, :]

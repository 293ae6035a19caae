"""The published Kimi Linear language models (Kimi Team 2025, section 4): KDA and latent attention in one stack.

    x ← E[token];   x ← x + attention(RMSNorm(x)), x ← x + mlp(RMSNorm(x)), layer by layer;   logits = RMSNorm(x) Wᵀ

A layer's attention is Kimi Delta Attention or, in one layer of four, multi-head latent attention without positions;
its MLP is a SwiGLU in the first layers and a mixture of experts in the others. The state of the one attention is of
constant size, that of the other grows by a latent vector a token. Parameter names are those of transformers, but
for the gate and the up-projection of an MLP, which are one matrix.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.conversion import to_library_of
from minigrad.nn import Embedding, Linear, Module, RMSNorm
from models.blocks.experts import ExpertsConfig, MixtureOfExperts, SwiGLU
from models.blocks.kda import KimiDeltaAttentionBlock, KimiDeltaAttentionConfig
from models.blocks.latent_attention import LatentAttentionBlock, LatentAttentionConfig
from models.language.lm import check_tokens

Attention = KimiDeltaAttentionConfig | LatentAttentionConfig
Mlp = int | ExpertsConfig
"""Hidden channels of a SwiGLU, or a mixture of experts."""


class Layer(Module):
    """One layer: attention along time, then an MLP along channels, each with a residual connection."""

    def __init__(
        self, attention: Attention, mlp: Mlp, rng: np.random.Generator, *, eps: float, dtype: Any = np.float32
    ) -> None:
        self.input_layernorm = RMSNorm(attention.width, eps=eps, dtype=dtype)
        self.self_attn = (
            KimiDeltaAttentionBlock(attention, rng, dtype)
            if isinstance(attention, KimiDeltaAttentionConfig)
            else LatentAttentionBlock(attention, rng, dtype)
        )
        self.post_attention_layernorm = RMSNorm(attention.width, eps=eps, dtype=dtype)
        self.mlp = (
            MixtureOfExperts(mlp, rng, dtype)
            if isinstance(mlp, ExpertsConfig)
            else SwiGLU(attention.width, mlp, rng, dtype)
        )

    def __call__(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """Return (x, state) for x `(*batch, T, width)`."""
        attended, state = self.self_attn(self.input_layernorm(x), state)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), state


class KimiLinearModel(Module):
    """Logits of the next token at every position, from layers of either attention and either MLP."""

    def __init__(
        self,
        layers: Sequence[tuple[Attention, Mlp]],
        rng: np.random.Generator,
        *,
        vocab: int,
        width: int,
        eps: float = 1e-5,
        tied: bool = False,
        dtype: Any = np.float32,
    ) -> None:
        self.embed_tokens = Embedding(vocab, width, rng=rng, dtype=dtype)
        self.layers = [Layer(attention, mlp, rng, eps=eps, dtype=dtype) for attention, mlp in layers]
        self.norm = RMSNorm(width, eps=eps, dtype=dtype)
        self.lm_head = None if tied else Linear(width, vocab, bias=False, rng=rng, dtype=dtype)

    def __call__(self, tokens: np.ndarray, state: list[Any] | None = None) -> tuple[Any, list[Any]]:
        """Return (logits, state), logits `(*batch, T, vocab)`, for integer tokens `(*batch, T)`.

        Raises: ValueError when tokens are not integers, T is 0, or one is outside the vocabulary.
        """
        tokens = check_tokens(tokens, self.embed_tokens.weight.shape[0])
        x, states = self.embed_tokens(to_library_of(self.embed_tokens.weight, tokens)), []
        for i, layer in enumerate(self.layers):
            x, after = layer(x, None if state is None else state[i])
            states.append(after)
        x = self.norm(x)
        return (x @ self.embed_tokens.weight.T if self.lm_head is None else self.lm_head(x)), states

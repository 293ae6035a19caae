"""Marian's Transformer (Junczys-Dowmunt et al. 2018): that of `transformer.py` with other embeddings.

    x = s E[source] + PE,  y = s E′[target] + PE          s = √d, or 1 where embeddings are not scaled
    logits = y Wᵀ + c                                     c a bias for each token

    E′    E where the two are shared, or a matrix of its own
    W     E′ where the head is tied to it, or a matrix of its own
    PE    the sinusoids in halves: first all sines, then all cosines

Encoder and decoder may differ in their layers, heads and hidden sizes.
"""

from dataclasses import dataclass

import numpy as np

from minigrad.conversion import to_library_of
from minigrad.nn import Embedding, Linear
from models.attention import positions
from models.language.lm import check_tokens
from models.language.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class MarianConfig:
    """The sizes of encoder and decoder, `vocab` being that of source and target, and what their embeddings share."""

    encoder: TransformerConfig
    decoder: TransformerConfig
    max_positions: int
    shared: bool = True
    tied: bool = True
    scaled: bool = False


class Marian(Transformer):
    """Logits of the next token of the target at every position; parameters are float32."""

    def __init__(self, config: MarianConfig, rng: np.random.Generator) -> None:
        super().__init__(config.encoder, rng, config.decoder)
        width, vocab = config.decoder.width, config.decoder.vocab
        self.target_embedding = None if config.shared else Embedding(vocab, width, rng=rng)
        self.head = None if config.tied else Linear(width, vocab, bias=False, rng=rng)
        self.bias = np.zeros(vocab, np.float32)
        self.scale = width**0.5 if config.scaled else 1.0
        self.max_positions = config.max_positions

    def embed(self, tokens: np.ndarray, start: int, name: str, rng: np.random.Generator | None = None):
        """Return embeddings (*batch, T, width) of a "source" or "target", with positions from `start` on.

        Raises: ValueError for tokens outside the vocabulary, and for more of them than `max_positions`.
        """
        embedding = self.embedding if name == "source" else self._of_target()
        tokens = check_tokens(tokens, embedding.weight.shape[0])
        at = start + np.arange(tokens.shape[-1])
        if at[-1] >= self.max_positions:
            raise ValueError(f"{name}: expected at most {self.max_positions} tokens, the positions, got {at[-1] + 1}")
        x = embedding(to_library_of(embedding.weight, tokens)) * self.scale
        return self.dropout(x + positions.sinusoidal(x, at, layout="halves"), rng)

    def logits(self, y):
        """Return the logits (*batch, T, vocab) of the decoder's output (*batch, T, width)."""
        return (y @ self._of_target().weight.T if self.head is None else self.head(y)) + self.bias

    def _of_target(self) -> Embedding:
        return self.embedding if self.target_embedding is None else self.target_embedding

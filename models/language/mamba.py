"""The published Mamba language models: a stack of blocks of one kind with residual connections.

    x ← E[token];   x ← x + block(norm(x)), layer by layer;   logits = norm(x) Wᵀ,  W = E where they are tied

There is no MLP: the block's own expansion takes its place (Gu and Dao 2023, section 3.4). The norm is RMSNorm, or
LayerNorm in models of mamba_ssm that say so. The state is of constant size. Parameter names are those of the published
checkpoints.
"""

from functools import partial
from typing import Any

import numpy as np

from minigrad.conversion import to_library_of
from minigrad.nn import Embedding, LayerNorm, Linear, Module, RMSNorm
from models.blocks.mamba import MambaBlock, MambaConfig
from models.blocks.mamba2 import Mamba2Block, Mamba2Config
from models.language.lm import check_tokens


class Layer(Module):
    """One residual layer: x + mixer(norm(x))."""

    def __init__(
        self,
        block: MambaConfig | Mamba2Config,
        norm: RMSNorm | LayerNorm,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ) -> None:
        self.norm = norm
        self.mixer = MambaBlock(block, rng, dtype) if isinstance(block, MambaConfig) else Mamba2Block(block, rng, dtype)

    def __call__(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """Return (x, state) for x `(*batch, T, width)`."""
        mixed, state = self.mixer(self.norm(x), state)
        return x + mixed, state


class MambaModel(Module):
    """Logits of the next token at every position, from layers of Mamba or Mamba-2 blocks."""

    def __init__(
        self,
        block: MambaConfig | Mamba2Config,
        rng: np.random.Generator,
        *,
        vocab: int,
        layers: int,
        eps: float = 1e-5,
        tied: bool = True,
        layer_norm: bool = False,
        dtype: Any = np.float32,
    ) -> None:
        norm = partial(LayerNorm if layer_norm else RMSNorm, block.width, eps=eps, dtype=dtype)
        self.embeddings = Embedding(vocab, block.width, rng=rng, dtype=dtype)
        self.layers = [Layer(block, norm(), rng, dtype) for _ in range(layers)]
        self.norm_f = norm()
        self.lm_head = None if tied else Linear(block.width, vocab, bias=False, rng=rng, dtype=dtype)

    def __call__(self, tokens: np.ndarray, state: list[Any] | None = None) -> tuple[Any, list[Any]]:
        """Return (logits, state), logits `(*batch, T, vocab)`, for integer tokens `(*batch, T)`.

        Raises: ValueError when tokens are not integers, T is 0, or one is outside the vocabulary.
        """
        tokens = check_tokens(tokens, self.embeddings.weight.shape[0])
        x, states = self.embeddings(to_library_of(self.embeddings.weight, tokens)), []
        for i, layer in enumerate(self.layers):
            x, after = layer(x, None if state is None else state[i])
            states.append(after)
        x = self.norm_f(x)
        return (x @ self.embeddings.weight.T if self.lm_head is None else self.lm_head(x)), states

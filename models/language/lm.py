"""A causal language model over any mixer, and generation from it one token at a time.

    x ← E[token] + P[t];   x ← x + block(norm(x)), x ← x + mlp(norm(x)), layer by layer;   logits = norm(x) Wᵀ

    P      the positions of softmax attention where they enter here: PE[t] or a row of a table; else 0
    mlp    act(x W₁ + b₁) W₂ + b₂, or act(a) ⊙ b of the halves a, b of x W₁ + b₁ before W₂: a gated unit
    W      E where the head is tied to the embedding (Press & Wolf 2017), or a matrix of its own

Pre-norm residual layers. By default norms are RMSNorm, the MLP is the SwiGLU of Shazeer 2020 (eq. 6) without biases,
hidden width 8/3 of the width, and the head is tied. GPT-2 (Radford et al. 2019) is the model with learned positions,
LayerNorm, the tanh GELU, biases and no convolution; Llama (Touvron et al. 2023) the one with grouped queries and no
convolution. A block that mixes channels too, as Mamba does, has no MLP.

With sinusoidal positions E[token] is multiplied by √width, so that both are of one size (Vaswani et al. 2017,
section 3.4).

A pass over a sequence returns the state after it, so a prefill followed by one token at a time gives what one pass
gives. With a memory as mixer the state's size, and so the cost of a token, does not depend on how many came before;
with softmax both grow, since every key and value is kept.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from minigrad.conversion import to_library_of
from minigrad.namespace import to_numpy
from minigrad.nn import Embedding, LayerNorm, Linear, Module, RMSNorm
from models.attention import positions
from models.blocks import MIXERS, BlockState
from models.blocks.mlp import GATED, MLPS
from models.blocks.softmax import tokens_before
from models.errors import UserError
from models.language.config import NORMS, Config


class Layer(Module):
    """One residual layer: the mixer's block along time, then an MLP along channels unless the block mixes them."""

    def __init__(self, config: Config, rng: np.random.Generator) -> None:
        block = MIXERS[config.mixer]
        self.block_norm = _norm(config)
        self.block = block(config, rng)
        self.has_mlp = not block.mixes_channels
        if not self.has_mlp:
            return
        self.activation = MLPS[config.mlp]
        inputs = 2 * config.hidden if config.mlp in GATED else config.hidden
        self.mlp_norm = _norm(config)
        self.mlp_in = Linear(config.width, inputs, bias=config.mlp_bias, rng=rng)
        self.mlp_out = Linear(config.hidden, config.width, bias=config.mlp_bias, rng=rng)

    def __call__(self, x, state: BlockState | None = None):
        """Return (x, state) for x `(*batch, T, width)`."""
        mixed, state = self.block(self.block_norm(x), state)
        x = x + mixed
        if not self.has_mlp:
            return x, state
        return x + self.mlp_out(self.activation(self.mlp_in(self.mlp_norm(x)))), state


class LanguageModel(Module):
    """Logits of the next token at every position; parameters are float32."""

    def __init__(self, config: Config, rng: np.random.Generator) -> None:
        self.embedding = Embedding(config.vocab, config.width, rng=rng)
        # as the head it multiplies a vector of length √width: with this deviation the initial logits have variance 1
        self.embedding.weight = _rows(config.vocab, config.width, rng)
        self.layers = [Layer(config, rng) for _ in range(config.layers)]
        self.norm = _norm(config)
        self.scheme, self.max_positions = config.positions, config.max_positions
        self.position_embedding = _rows(config.max_positions, config.width, rng) if config.max_positions else None
        self.head = None if config.tied else Linear(config.width, config.vocab, bias=False, rng=rng)

    def __call__(self, tokens: np.ndarray, state: list[BlockState] | None = None):
        """Return (logits, state), logits `(*batch, T, vocab)`, for integer tokens `(*batch, T)`.

        Raises: ValueError when tokens are not integers, T is 0, or one is outside the vocabulary; UserError when there
        are more than learned positions.
        """
        tokens = check_tokens(tokens, self.embedding.weight.shape[0])
        x, states = self.embed(tokens, state), []
        for i, layer in enumerate(self.layers):
            x, after = layer(x, None if state is None else state[i])
            states.append(after)
        x = self.norm(x)
        return (x @ self.embedding.weight.T if self.head is None else self.head(x)), states

    def embed(self, tokens: np.ndarray, state: list[BlockState] | None):
        """Return E[token] + P[t], `(*batch, T, width)`."""
        x = self.embedding(to_library_of(self.embedding.weight, tokens))
        if positions.SCHEMES.get(self.scheme) != "embeddings":
            return x
        now = tokens_before(None if state is None else state[0]) + np.arange(tokens.shape[-1])
        if self.scheme == "sinusoidal":
            return x.shape[-1] ** 0.5 * x + positions.sinusoidal(x, now)
        if now[-1] >= self.max_positions:
            raise UserError(f"tokens: expected at most {self.max_positions}, the learned positions, got {now[-1] + 1}")
        return x + positions.learned(self.position_embedding, now)


def _norm(config: Config) -> RMSNorm | LayerNorm:
    assert config.eps is not None  # the configuration fills it in
    return NORMS[config.norm][0](config.width, eps=config.eps)


def _rows(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` vectors of expected squared length 1."""
    return (rng.standard_normal((count, width)) / width**0.5).astype(np.float32)


def check_tokens(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """Return tokens as an array of integers from 0 to `vocabulary` − 1; raises ValueError where they are not."""
    tokens = np.asarray(tokens)
    if tokens.dtype.kind not in "iu" or tokens.ndim < 1 or tokens.shape[-1] == 0:
        expected = "integers of shape (*batch, T) with T ≥ 1"
        raise ValueError(f"tokens: expected {expected}, got {tokens.dtype} {tokens.shape}")
    if tokens.size:
        low, high = tokens.min(), tokens.max()
        if low < 0 or high >= vocabulary:
            raise ValueError(f"tokens: expected 0 to {vocabulary - 1}, got {low if low < 0 else high}")
    return tokens


def generate(
    model: Callable[..., tuple[Any, Any]],
    prompt: np.ndarray,
    *,
    tokens: int,
    temperature: float,
    rng: np.random.Generator,
    stop: Collection[int] = (),
) -> Iterator[int]:
    """Yield tokens after `prompt` `(T,)`: one pass over the prompt, then one step a token from the state alone.

    Each is drawn from softmax(logits / temperature); temperature 0 takes the most likely. One of `stop` ends the text
    and is not yielded.
    """
    feed, state = prompt, None
    for _ in range(tokens):
        logits, state = model(feed, state)
        token = _draw(to_numpy(logits[-1]), temperature, rng)
        if token in stop:
            return
        yield token
        feed = np.array([token])


def _draw(logits: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    # Gumbel's trick: the largest of logits / temperature + noise is distributed as their softmax. Both are multiplied
    # by a temperature below 1, so that no quotient overflows and 0 leaves the logits alone.
    logits, noise = np.asarray(logits, dtype=np.float64), rng.gumbel(size=logits.shape)
    return int(np.argmax(logits / max(temperature, 1) + min(temperature, 1) * noise))


def state_numbers(state: Any) -> int:
    """Return how many numbers a state holds: the convolutions' last inputs and the memories, over all layers."""
    if isinstance(state, list | tuple):
        return sum(state_numbers(part) for part in state)
    return int(np.size(state)) if state is not None else 0

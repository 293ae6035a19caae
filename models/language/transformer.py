"""The Transformer of Vaswani et al. 2017: an encoder reads the source, a decoder predicts the target token by token.

    x = √d E[source] + PE,  y = √d E[target] + PE                               sections 3.4 and 3.5
    encoder layer    x ← LN(x + A(x, x)),  x ← LN(x + F(x))                     section 3.1
    decoder layer    y ← LN(y + A(y, y)),  y ← LN(y + A(y, x)),  y ← LN(y + F(y))
    A(y, x)          [head₁ ‖ … ‖ head_H] W_O,  headₕ = softmax(y W_Q (x W_K)ᵀ / √K) x W_V    section 3.2
    F(x)             max(0, x W₁ + b₁) W₂ + b₂                                  eq. 2
    logits           y Eᵀ                                                       section 3.4

    loss             −Σ q(i) log p(i),  q = (1 − ε) [i = target] + ε/C          section 5.4
    learning rate    d^−½ min(s^−½, s · warmup^−3/2) at step s                  eq. 3, `minigrad.optim.inverse_sqrt`

    E        one embedding for source, target and head; PE are the sinusoids, or learned positions
    A(y, y)  is causal: a token of the target attends to itself and those before
    PAD      a source may end in padding, which no query attends to; padding of a target is after all that is predicted
    dropout  on the output of every sub-layer before it is added, and on x and y at the start (section 5.4)
    state    what one more token needs of those before: for each layer the encoder's keys and values, computed once, and
             the decoder's own so far

The projections of attention have no biases, as in the paper; `bias` adds those of PyTorch and Marian, and `activation`
takes the place of max(0, ·). Marian's model of one more layout of positions and of more embeddings is in `marian.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import minigrad as mg
from minigrad import namespace
from minigrad.conversion import to_library_of
from minigrad.nn import Dropout, Embedding, LayerNorm, Linear, Module
from models.attention import positions, softmax
from models.attention.multihead import merge_heads, split_heads
from models.blocks.mlp import PLAIN
from models.errors import UserError, known_name, require_counts
from models.language.lm import check_tokens

ADDED = ("sinusoidal", "learned")  # the positions that are added to embeddings


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of a model. `hidden` is the width of F, 4 × width if 0; `length` is that of learned positions.

    Raises: UserError for sizes that do not fit each other.
    """

    vocab: int = 64
    width: int = 128
    layers: int = 2
    heads: int = 4
    hidden: int = 0
    dropout: float = 0.1
    positions: str = "sinusoidal"
    length: int = 0
    bias: bool = False
    activation: str = "relu"

    def __post_init__(self) -> None:
        known_name(self.positions, "positions", ADDED)
        known_name(self.activation, "activation", PLAIN)
        require_counts(self, "vocab", "width", "layers", "heads")
        if self.width % self.heads:
            raise UserError(f"heads: expected width {self.width} to be a multiple of heads, got {self.heads} heads")
        if self.positions == "sinusoidal" and self.width % 2:
            raise UserError(f"width: expected an even number, for sinusoids are pairs, got {self.width}")
        if (self.positions == "learned") != (self.length > 0):
            expected = "at least 1" if self.positions == "learned" else "0, for sinusoids have no last position"
            raise UserError(f"length: expected {expected}, got {self.length}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout: expected at least 0 and below 1, got {self.dropout}")
        object.__setattr__(self, "hidden", self.hidden or 4 * self.width)


class LayerState(NamedTuple):
    """Cached keys and values of a decoder layer: those of the encoder's output, and those of the target so far."""

    source: tuple[Any, Any]
    target: tuple[Any, Any] | None


class State(NamedTuple):
    """State of a decoder: what each layer keeps, and which tokens of the source may be attended to (None: all)."""

    layers: list[LayerState]
    mask: Any


class Attention(Module):
    """Multi-head attention: the projections around a softmax attention."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator) -> None:
        width = config.width
        self.query, self.key, self.value, self.output = (
            Linear(width, width, bias=config.bias, rng=rng) for _ in range(4)
        )
        self.heads = config.heads

    def keys_and_values(self, x):
        """Return the keys and values of x (*batch, S, width), each (*batch, H, S, K)."""
        return split_heads(self.key(x), self.heads), split_heads(self.value(x), self.heads)

    def __call__(self, y, pairs, mask=None):
        """Return y (*batch, T, width) after its queries attended to keys and values; the mask is (*batch, 1, 1, S)."""
        attended, _ = softmax.cross(split_heads(self.query(y), self.heads), *pairs, mask=mask)
        return self.output(merge_heads(attended))

    def weights(self, y, pairs, mask=None):
        """Return the weights of the keys, (*batch, H, T, S): what is attended to where each value is a unit vector."""
        keys, _ = pairs
        units = namespace(keys).eye(keys.shape[-2], dtype=keys.dtype)
        units = namespace(keys).broadcast_to(units, (*keys.shape[:-1], keys.shape[-2]))
        return softmax.cross(split_heads(self.query(y), self.heads), keys, units, mask=mask)[0]

    def causal(self, y, state=None):
        """Return (y, state): tokens attend to themselves and those before, of which the state has keys and values."""
        attended, state = softmax.quadratic(
            split_heads(self.query(y), self.heads), *self.keys_and_values(y), state=state
        )
        return self.output(merge_heads(attended)), state


class FeedForward(Module):
    """F(x) = max(0, x W₁ + b₁) W₂ + b₂, or with another activation, at each position by itself (eq. 2)."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator) -> None:
        self.into = Linear(config.width, config.hidden, rng=rng)
        self.out = Linear(config.hidden, config.width, rng=rng)
        self.activation = PLAIN[config.activation]

    def __call__(self, x):
        """Return (*batch, T, width), as x is."""
        return self.out(self.activation(self.into(x)))


class EncoderLayer(Module):
    """Self-attention over the whole source, and F: each LN(x + sub-layer(x))."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator) -> None:
        self.attention, self.feed_forward = Attention(config, rng), FeedForward(config, rng)
        self.norms = [LayerNorm(config.width) for _ in range(2)]
        self.dropout = Dropout(config.dropout)

    def __call__(self, x, mask=None, rng: np.random.Generator | None = None):
        """Return x (*batch, S, width); with an rng elements of each sub-layer's output are dropped."""
        x = self.norms[0](x + self.dropout(self.attention(x, self.attention.keys_and_values(x), mask), rng))
        return self.norms[1](x + self.dropout(self.feed_forward(x), rng))


class DecoderLayer(Module):
    """Causal self-attention, attention to the encoder's output, and F: each LN(y + sub-layer(y))."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator) -> None:
        self.attention, self.cross = Attention(config, rng), Attention(config, rng)
        self.feed_forward = FeedForward(config, rng)
        self.norms = [LayerNorm(config.width) for _ in range(3)]
        self.dropout = Dropout(config.dropout)

    def __call__(self, y, state: LayerState, mask=None, rng: np.random.Generator | None = None):
        """Return (y, state) for y (*batch, T, width), T tokens after those of the state."""
        y, target = self.attend_to_target(y, state, rng)
        y = self.norms[1](y + self.dropout(self.cross(y, state.source, mask), rng))
        return self.norms[2](y + self.dropout(self.feed_forward(y), rng)), LayerState(state.source, target)

    def attend_to_target(self, y, state: LayerState, rng: np.random.Generator | None = None):
        """Return y after the first sub-layer, and the keys and values of the target up to now."""
        attended, target = self.attention.causal(y, state.target)
        return self.norms[0](y + self.dropout(attended, rng)), target


class Transformer(Module):
    """Logits of the next token of the target at every position; parameters are float32.

    `decoder` has the sizes of the decoder's layers where they are not the encoder's.
    """

    def __init__(
        self, config: TransformerConfig, rng: np.random.Generator, decoder: TransformerConfig | None = None
    ) -> None:
        self.embedding = Embedding(config.vocab, config.width, rng=rng)
        # √d times a row has deviation 1, as the sinusoids nearly have, and so have the logits of a layer norm's output
        weight = rng.standard_normal((config.vocab, config.width)) / config.width**0.5
        self.embedding.weight = weight.astype(np.float32)
        learned = config.positions == "learned"
        self.positions = Embedding(config.length, config.width, rng=rng) if learned else None
        self.encoder = [EncoderLayer(config, rng) for _ in range(config.layers)]
        decoder = decoder or config
        self.decoder = [DecoderLayer(decoder, rng) for _ in range(decoder.layers)]
        self.dropout = Dropout(config.dropout)

    def __call__(self, source: np.ndarray, target: np.ndarray, *, pad: int, rng: np.random.Generator | None = None):
        """Return logits (*batch, T, vocab) for a source (*batch, S) and a target (*batch, T): at t, of token t + 1.

        Raises: ValueError for tokens outside the vocabulary, a source of padding alone, and a text that is longer than
        the learned positions.
        """
        return self.decode(target, self.encode(source, pad=pad, rng=rng), rng=rng)[0]

    def encode(self, source: np.ndarray, *, pad: int, rng: np.random.Generator | None = None) -> State:
        """Return the state before the first token of the target, for a source (*batch, S) padded with `pad`."""
        x = self.embed(source, 0, "source", rng)
        visible = np.asarray(source) != pad
        if not visible.any(axis=-1).all():
            raise ValueError("source: expected at least one token besides padding, got none")
        mask = None if visible.all() else to_library_of(x, visible[..., None, None, :])  # (*batch, 1, 1, S)
        return self.read(x, mask, rng)

    def read(self, x, mask=None, rng: np.random.Generator | None = None) -> State:
        """Return the state before the first token of the target, for embeddings x (*batch, S, width) of the source."""
        for encoding in self.encoder:
            x = encoding(x, mask, rng)
        return State([LayerState(layer.cross.keys_and_values(x), None) for layer in self.decoder], mask)

    def decode(self, target: np.ndarray, state: State, *, rng: np.random.Generator | None = None):
        """Return (logits, state), logits (*batch, T, vocab), for T tokens (*batch, T) after those of the state."""
        y, state = self.write(self.embed(target, _length(state), "target", rng), state, rng)
        return self.logits(y), state

    def write(self, y, state: State, rng: np.random.Generator | None = None):
        """Return (y, state) of the decoder's layers, for embeddings y (*batch, T, width) of the target."""
        layers = []
        for layer, before in zip(self.decoder, state.layers, strict=True):
            y, after = layer(y, before, state.mask, rng)
            layers.append(after)
        return y, State(layers, state.mask)

    def cross_attention(self, source: np.ndarray, target: np.ndarray, *, pad: int) -> list[Any]:
        """Return for each layer of the decoder the weights of its attention to the source, (*batch, H, T, S)."""
        state, weights = self.encode(source, pad=pad), []
        y = self.embed(target, 0, "target")
        for layer, before in zip(self.decoder, state.layers, strict=True):
            queries, _ = layer.attend_to_target(y, before)
            weights.append(layer.cross.weights(queries, before.source, state.mask))
            y, _ = layer(y, before, state.mask)
        return weights

    def embed(self, tokens: np.ndarray, start: int, name: str, rng: np.random.Generator | None = None):
        """Return embeddings (*batch, T, width) with positions from `start` on.

        Raises: ValueError for tokens outside the vocabulary, and, with the name of the tokens, for more of them than
        there are learned positions.
        """
        weight = self.embedding.weight
        tokens = check_tokens(tokens, weight.shape[0])
        x = self.embedding(to_library_of(weight, tokens)) * weight.shape[-1] ** 0.5
        at = start + np.arange(tokens.shape[-1])
        if self.positions is None:
            return self.dropout(x + positions.sinusoidal(x, at), rng)
        table = self.positions.weight
        if len(at) and at[-1] >= table.shape[0]:
            raise ValueError(
                f"{name}: expected at most {table.shape[0]} tokens, the learned positions, got {at[-1] + 1}"
            )
        return self.dropout(x + positions.learned(table, at), rng)

    def logits(self, y):
        """Return the logits (*batch, T, vocab) of the decoder's output (*batch, T, width)."""
        return y @ self.embedding.weight.T


def smoothed_cross_entropy(logits, targets, smoothing: float):
    """Return the mean over rows of −Σ q(i) log p(i), q = (1 − ε) [i = target] + ε/C (section 5.4), in nats.

    Logits are (rows, C), targets (rows,). It is (1 − ε) times the cross entropy plus ε times the mean of −log p(i).
    """
    uniform = -namespace(logits).mean(mg.log_softmax(logits))
    return (1 - smoothing) * mg.cross_entropy(logits, targets) + smoothing * uniform


def check_sizes(config: TransformerConfig, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise a UserError where arrays cannot be those of a model of this configuration, before one is made."""
    shape, expected = getattr(arrays.get("embedding.weight"), "shape", ()), (config.vocab, config.width)
    if shape != expected:
        raise UserError(f"embedding.weight: expected shape {expected}, got {shape or 'no such array'}")
    layers = len({name.split(".")[1] for name in arrays if name.startswith("encoder.")})
    if config.layers != layers:
        raise UserError(f"layers: expected {layers}, as many as there are arrays of, got {config.layers}")
    numbers = sum(array.size for array in arrays.values())
    for name, size in (("hidden", config.hidden), ("length", config.length)):
        if size > numbers:
            raise UserError(f"{name}: expected at most the {numbers} numbers that there are, got {size}")


def _length(state: State) -> int:
    """Return the number of tokens of the target that a state has read."""
    target = state.layers[0].target
    return 0 if target is None else target[0].shape[-2]

"""A causal language model over any mixer, and generation from it one token at a time.

    x ← E[token];   x ← x + block(RMSNorm(x)), x ← x + mlp(RMSNorm(x)), layer by layer;   logits = RMSNorm(x) Eᵀ

Pre-norm residual layers with the SwiGLU of Shazeer 2020 (eq. 6), hidden width 8/3 of the width; the head is tied to the
embedding E (Press & Wolf 2017). A block that mixes channels too, as Mamba does, has no MLP. A pass over a
sequence returns the state after it, so a prefill followed by one token at a time gives what one pass gives. With a
memory as mixer the state's size, and so the cost of a token, does not depend on how many came before; with softmax both
grow, since every key and value is kept.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.conversion import to_library_of
from minigrad.namespace import to_numpy
from minigrad.nn import Embedding, Linear, Module, RMSNorm
from models.blocks import MIXERS, BlockConfig, BlockState
from models.errors import UserError, known_name


@dataclass(frozen=True)
class Config(BlockConfig):
    """The shape of a model; `form` and `chunk_size` are the mixer's usual ones if left open.

    Raises: UserError for an unknown mixer or form, or sizes that do not fit each other.
    """

    mixer: str = "delta_rule"
    vocab: int = 256
    layers: int = 4

    def __post_init__(self) -> None:
        block = MIXERS[known_name(self.mixer, "mixer", MIXERS)]
        for name in ("vocab", "width", "layers", "heads", "conv", "states", "chunk_size"):
            least = 0 if name in ("states", "chunk_size") else 1
            if not isinstance(getattr(self, name), int | np.integer):
                raise UserError(f"{name}: expected a whole number, got {getattr(self, name)!r}")
            if getattr(self, name) < least:
                raise UserError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise UserError(f"heads: expected width {self.width} to be a multiple of 2 × heads, got {self.heads} heads")
        for name, default in (("states", block.default_states), ("start", block.starts[0])):
            if (value := getattr(self, name)) and not default:
                raise UserError(f"{name}: expected none, since {self.mixer} has no such choice, got {value}")
        # defaults are resolved here, so that a checkpoint records them
        object.__setattr__(self, "form", self.form or block.default_form)
        object.__setattr__(self, "chunk_size", self.chunk_size or block.default_chunk_size)
        object.__setattr__(self, "states", self.states or block.default_states)
        object.__setattr__(self, "start", self.start or block.starts[0])
        known_name(self.form, f"form of {self.mixer}", block.forms())
        known_name(self.start, f"start of {self.mixer}", block.starts)


def check_sizes(config: Config, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise a UserError where arrays cannot be those of a model of this configuration, before one is made."""
    shape, width = arrays["embedding.weight"].shape if "embedding.weight" in arrays else (), config.width
    if shape != (config.vocab, width):
        raise UserError(f"embedding.weight: expected shape {(config.vocab, width)}, got {shape or 'no such array'}")
    layers = len({name.split(".")[1] for name in arrays if name.startswith("layers.")})
    if config.layers != layers:
        raise UserError(f"layers: expected {layers}, as many as there are arrays of, got {config.layers}")
    numbers = sum(array.size for array in arrays.values())
    for name, size in (("conv", config.conv), ("states", config.states)):
        if size > numbers:
            raise UserError(f"{name}: expected at most the {numbers} numbers that there are, got {size}")


class Layer(Module):
    """One residual layer: the mixer's block along time, then a SwiGLU along channels unless the block mixes them."""

    def __init__(self, config: Config, rng: np.random.Generator) -> None:
        block = MIXERS[config.mixer]
        self.block_norm = RMSNorm(config.width)
        self.block = block(config, rng)
        self.has_mlp = not block.mixes_channels
        if not self.has_mlp:
            return
        hidden = -(-8 * config.width // 3 // 8) * 8
        self.mlp_norm = RMSNorm(config.width)
        self.mlp_in = Linear(config.width, 2 * hidden, bias=False, rng=rng)
        self.mlp_out = Linear(hidden, config.width, bias=False, rng=rng)

    def __call__(self, x, state: BlockState | None = None):
        """Return (x, state) for x `(*batch, T, width)`."""
        mixed, state = self.block(self.block_norm(x), state)
        x = x + mixed
        if not self.has_mlp:
            return x, state
        return x + self.mlp_out(mg.swiglu(self.mlp_in(self.mlp_norm(x)))), state


class LanguageModel(Module):
    """Logits of the next token at every position; parameters are float32."""

    def __init__(self, config: Config, rng: np.random.Generator) -> None:
        self.embedding = Embedding(config.vocab, config.width, rng=rng)
        # as the head it multiplies a vector of length √width: with this deviation the initial logits have variance 1
        weight = rng.standard_normal((config.vocab, config.width)) / config.width**0.5
        self.embedding.weight = weight.astype(np.float32)
        self.layers = [Layer(config, rng) for _ in range(config.layers)]
        self.norm = RMSNorm(config.width)

    def __call__(self, tokens: np.ndarray, state: list[BlockState] | None = None):
        """Return (logits, state), logits `(*batch, T, vocab)`, for integer tokens `(*batch, T)`.

        Raises: ValueError when tokens are not integers, T is 0, or one is outside the vocabulary.
        """
        tokens = check_tokens(tokens, self.embedding.weight.shape[0])
        x = self.embedding(to_library_of(self.embedding.weight, tokens))
        states = []
        for i, layer in enumerate(self.layers):
            x, after = layer(x, None if state is None else state[i])
            states.append(after)
        return self.norm(x) @ self.embedding.weight.T, states


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

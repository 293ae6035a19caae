"""The published RWKV language models: layers of time mixing and channel mixing with residual connections.

    x ← LN(E[token])                                        a norm of its own, `ln0`
    x ← x + time mixing(LN(x));   x ← x + channel mixing(LN(x)),   layer by layer
    logits = LN(x) Wᵀ,  W = E where they are tied           Peng et al. 2023, figure 2; Peng et al. 2025, figure 1

The mixings are those of `models.blocks.rwkv4` and `models.blocks.rwkv7`. In RWKV-7 the values of the first layer,
v_first, reach all others, which move theirs towards it. The state is of constant size.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from minigrad.conversion import to_library_of
from minigrad.nn import Embedding, LayerNorm, Linear, Module
from models.blocks import rwkv4, rwkv7
from models.blocks.rwkv4 import RWKV4Config
from models.blocks.rwkv7 import RWKV7Config
from models.blocks.token_shift import RWKVState
from models.language.lm import check_tokens


class Layer(Module):
    """Time mixing, then channel mixing, each of the normalised sum of all before it."""

    def __init__(
        self, config: RWKV4Config | RWKV7Config, rng: np.random.Generator, *, eps: float, dtype: Any = np.float32
    ) -> None:
        self.ln1, self.ln2 = (LayerNorm(config.width, eps=eps, dtype=dtype) for _ in range(2))
        self.time_mixing: rwkv4.TimeMix | rwkv7.TimeMix
        self.channel_mixing: rwkv4.ChannelMix | rwkv7.ChannelMix
        if isinstance(config, RWKV4Config):
            self.time_mixing = rwkv4.TimeMix(config, rng, dtype)
            self.channel_mixing = rwkv4.ChannelMix(config, rng, dtype)
        else:
            self.time_mixing = rwkv7.TimeMix(config, rng, dtype)
            self.channel_mixing = rwkv7.ChannelMix(config, rng, dtype)

    def __call__(self, x: Any, state: RWKVState | None = None, v_first: Any = None) -> tuple[Any, RWKVState, Any]:
        """Return (x, state, v_first) for x `(*batch, T, width)`; v_first is None before RWKV-7's first layer."""
        time, last = (None, None) if state is None else state
        if isinstance(self.time_mixing, rwkv7.TimeMix):
            mixed, time, v = self.time_mixing.mix(self.ln1(x), time, v_first)
            v_first = v if v_first is None else v_first
        else:
            mixed, time = self.time_mixing(self.ln1(x), time)
        x = x + mixed
        mixed, last = self.channel_mixing(self.ln2(x), last)
        return x + mixed, RWKVState(time, last), v_first


class RWKVModel(Module):
    """Logits of the next token at every position, from layers of RWKV-4 or RWKV-7; `ln_out` has its own epsilon."""

    def __init__(
        self,
        config: RWKV4Config | RWKV7Config,
        rng: np.random.Generator,
        *,
        vocab: int,
        layers: int,
        eps: float = 1e-5,
        eps_out: float = 1e-5,
        tied: bool = False,
        dtype: Any = np.float32,
    ) -> None:
        width, layer = config.width, partial(Layer, rng=rng, eps=eps, dtype=dtype)
        first = replace(config, value_rank=0) if isinstance(config, RWKV7Config) else config
        self.embedding = Embedding(vocab, width, rng=rng, dtype=dtype)
        self.ln0 = LayerNorm(width, eps=eps, dtype=dtype)
        self.layers = [layer(config if i else first) for i in range(layers)]
        self.ln_out = LayerNorm(width, eps=eps_out, dtype=dtype)
        self.head = None if tied else Linear(width, vocab, bias=False, rng=rng, dtype=dtype)

    def __call__(self, tokens: np.ndarray, state: list[RWKVState] | None = None) -> tuple[Any, list[RWKVState]]:
        """Return (logits, state), logits `(*batch, T, vocab)`, for integer tokens `(*batch, T)`.

        Raises: ValueError when tokens are not integers, T is 0, or one is outside the vocabulary.
        """
        tokens = check_tokens(tokens, self.embedding.weight.shape[0])
        x = self.ln0(self.embedding(to_library_of(self.embedding.weight, tokens)))
        states, v_first = [], None
        for i, layer in enumerate(self.layers):
            x, after, v_first = layer(x, None if state is None else state[i], v_first)
            states.append(after)
        x = self.ln_out(x)
        return (x @ self.embedding.weight.T if self.head is None else self.head(x)), states

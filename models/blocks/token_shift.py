"""RWKV's token shift: every token sees the input of the token before it too (Peng et al. 2023, section 3.1.1)."""

from typing import Any, NamedTuple

import numpy as np

import minigrad as mg


class MixState(NamedTuple):
    """State of RWKV's time mixing: its last input (*batch, 1, width), and the memory."""

    last: Any
    memory: Any


class RWKVState(NamedTuple):
    """State of an RWKV block: that of time mixing, and the last input of channel mixing (*batch, 1, width)."""

    time: MixState
    last: Any


def token_shift(x: Any, last: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return x (*batch, T, width), the same a token later, and the last token (*batch, 1, width).

    Before the first token stands `last`, or 0 where it is None. They have the wider precision of x and the weight.
    """
    xp = mg.namespace(x, weight)
    x = xp.astype(x, xp.result_type(x, weight), copy=False)
    last = xp.zeros_like(x[..., :1, :]) if last is None else last
    return x, xp.concat([last, x[..., :-1, :]], axis=-2), x[..., -1:, :]


def ramp(width: int) -> np.ndarray:
    """Return i / width for each channel i, which the initial weights of RWKV's mixing are powers of."""
    return np.arange(width) / width

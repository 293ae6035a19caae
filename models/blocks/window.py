"""Sliding-window attention with persistent tokens: Titans' short-term memory, of constant size.

    x̃  = [p₁ … p_N ‖ x]                                    Behrouz et al. 2025, eq. 19
    yₜ = softmax(qₜ [p W_k ‖ k_{t−C+1} … k_t]ᵀ / √K) [p W_v ‖ v_{t−C+1} … v_t]            eq. 27, "SW-Attn*"

    C   the window, `chunk_size`: a token sees itself and the C − 1 before it.
    p   persistent tokens, learned, and the same whatever is read: every token sees them all (figure 3b).

What the paper leaves open, and what we take: persistent tokens are seen as keys and values alone, since nothing reads
what they would answer. They have no neighbours and no place, so they pass no convolution and no rotation, and are met
by queries that were not turned. The other keys are turned as in our softmax attention, which a window may do by places
within itself: only distances count.
"""

from typing import Any, NamedTuple

import numpy as np

import minigrad as mg
from models.attention import softmax
from models.blocks.block import BlockConfig, HeadsBlock
from models.blocks.learner import normal
from models.blocks.softmax import rotate
from models.sequences import chunks

PERSISTENT = 4  # how many; the paper gives no number


class Recent(NamedTuple):
    """The keys and values of the tokens in sight, the latest last, and how many tokens they are.

    There is room for C − 1 tokens from the beginning: a state is as large before the window is full as after.
    """

    keys: Any
    values: Any
    tokens: int


class WindowBlock(HeadsBlock):
    """Multi-head softmax attention of each token to the persistent ones and to the last C."""

    mechanism = softmax

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.persistent = normal(rng, PERSISTENT, config.width)

    def mix(self, q: Any, k: Any, v: Any, x: Any, memory: Recent | None) -> tuple[Any, Recent]:
        """Return (y, memory), C queries at a time: O(T·C) for any length."""
        y, recent = [], memory
        for q_, k_, v_ in chunks(self.chunk_size, q, k, v):
            out, recent = self.attend(q_, k_, v_, recent)
            y.append(out)
        assert recent is not None  # there is at least one token
        return mg.namespace(*y).concat(y, axis=-2), recent

    def attend(self, q: Any, k: Any, v: Any, recent: Recent | None) -> tuple[Any, Recent]:
        """Return (y, recent) for up to C queries `(*batch, H, T, K)`; k and v have T rows, or 2 T, two a token."""
        xp, size, room, rows = mg.namespace(q, k, v), q.shape[-2], self.chunk_size - 1, k.shape[-2] // q.shape[-2]
        if recent is None:
            recent = Recent(_zero_rows(k, rows * room), _zero_rows(v, rows * room), 0)
        keys, values = xp.concat([recent.keys, k], axis=-2), xp.concat([recent.values, v], axis=-2)
        position, now = xp.arange(keys.shape[-2]) // rows, room + xp.arange(size)[:, None]
        visible = (position <= now) & (position >= now - room) & (position >= room - recent.tokens)

        always_k, always_v = self.keys_and_values(self.persistent)
        scores = xp.concat([q @ always_k.mT, rotate(q, room) @ rotate(keys, 0, rows).mT], axis=-1)
        attended = xp.concat([xp.ones((size, PERSISTENT), dtype=bool), visible], axis=-1)
        weights = mg.softmax(scores * q.shape[-1] ** -0.5, axis=-1, where=attended)
        y = weights[..., :PERSISTENT] @ always_v + weights[..., PERSISTENT:] @ values
        keys, values = keys[..., rows * size :, :], values[..., rows * size :, :]
        return y, Recent(keys, values, min(recent.tokens + size, room))

    def keys_and_values(self, x: Any) -> tuple[Any, Any]:
        """Return the keys and values of x `(*batch, T, width)` as the projections make them, without a convolution."""
        _, keys, values = self.split(self.qkv(x))
        return keys, values


def _zero_rows(x: Any, rows: int) -> Any:
    """Return zeros (*batch, rows, K) for x (*batch, T, K)."""
    xp = mg.namespace(x)
    return xp.broadcast_to(xp.zeros_like(x[..., :1, :]), (*x.shape[:-2], rows, x.shape[-1]))

"""Induction heads (Olsson et al. 2022; Gu and Dao 2023, "Mamba", §4.1.2): recall the token that followed this one.

    a c b ★ e a d … c b ★        answer at the last ★: e

Of 16 tokens the last is the special one. It stands at one random place and at the end; all else is random. The answer
has to be remembered over everything in between, at any length: a model trained at 256 may be evaluated at 2²⁰, where
memory must not grow. So a long sequence is drawn and read by pieces, and only the state goes from one to the next.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import UserError
from models.tasks.recall import IGNORE, Batch

SPECIAL, TOKENS = 15, 16
PIECE = 256  # tokens of a long sequence that are in memory at a time


@dataclass(frozen=True)
class Induction:
    """The task at one training length.

    Raises: UserError when the length has no room for a special token, its follower and the question.
    """

    length: int = 256
    vocabulary: int = TOKENS
    digest: str = ""  # nothing to read: every sequence is drawn

    def __post_init__(self) -> None:
        if self.length < 3:
            raise UserError(f"length: expected at least 3, got {self.length}")

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (tokens, targets), each `(batch, length)`; targets are `IGNORE` except at the end."""
        return sequences(rng, batch, self.length)

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return 128 fresh sequences at a quarter of the training length, at it, and at twice it."""
        lengths = (max(3, self.length // 4), self.length, 2 * self.length)
        return {str(length): sequences(rng, 128, length) for length in lengths}


def sequences(rng: np.random.Generator, batch: int, length: int) -> Batch:
    """Return (tokens, targets), each `(batch, length)`."""
    pieces, answers = pieces_of(rng, batch, length, piece=length)
    (tokens,) = pieces
    targets = np.full_like(tokens, IGNORE)
    targets[:, -1] = answers
    return tokens, targets


def pieces_of(
    rng: np.random.Generator, batch: int, length: int, *, piece: int = PIECE
) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """Return the sequences in consecutive pieces `(batch, ≤ piece)`, drawn lazily, and the answers."""
    positions = rng.integers(0, length - 2, size=batch)  # the follower is at the latest the last but one
    answers = rng.integers(0, SPECIAL, size=batch)

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, length, piece):
            indices = np.arange(start, min(start + piece, length))
            tokens = rng.integers(0, SPECIAL, size=(batch, len(indices)))
            tokens = np.where(indices == positions[:, None] + 1, answers[:, None], tokens)
            yield np.where((indices == positions[:, None]) | (indices == length - 1), SPECIAL, tokens)

    return pieces(), answers


def recalled(
    model: Callable[..., tuple[Any, Any]], rng: np.random.Generator, *, batch: int, length: int, piece: int = PIECE
) -> float:
    """Return the share of answers that are right: one pass over sequences of any length in constant memory."""
    pieces, answers = pieces_of(rng, batch, length, piece=piece)
    return answered(model, pieces, answers[:, None])


def answered(model: Callable[..., tuple[Any, Any]], pieces: Iterable[np.ndarray], answers: np.ndarray) -> float:
    """Return the share of answers `(batch, n)` that a model gives at the last n places of what it reads by pieces."""
    logits, state = None, None
    for tokens in pieces:
        logits, state = model(tokens, state)
    assert logits is not None  # a sequence has at least one piece
    return float(np.mean(np.argmax(logits[:, -answers.shape[1] :], axis=-1) == answers))

"""Needles in a haystack (Hsieh et al. 2024, "RULER"; Behrouz et al. 2025, "Titans", §5.3): recall of distant facts.

    n n k₃ v₃ n n n n n k₁ v₁ n … n n   k₁ k₂ … k₈          answer at the last kᵢ: vᵢ
    └── hay, and 8 needles at any depth ──┘ └ questions ┘

A needle is a key and its value; hay and values are the same 16 tokens, so that only the key before it tells a value
from hay. RULER hides one number in repeated sentences (S-NIAH-PK) or in essays (S-NIAH-N) and asks a language model for
it. Deviations, for what two cores can train: random tokens for words, and eight needles that are all queried, since a
model that begins with nothing learns the procedure from the answers alone. It learns at lengths up to one, and is then
evaluated at others, in pieces between which only the state is passed on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import UserError
from models.tasks.induction import PIECE, answered
from models.tasks.recall import IGNORE, Batch, shuffled

KEYS, TOKENS = 16, 32
NEEDLES = 8
SHORTEST = 4  # a training batch is a fourth, a half or all of the training length


@dataclass(frozen=True)
class Needle:
    """The task up to one training length: tokens 0 … 15 are keys, 16 … 31 are hay and values.

    Raises: UserError when the shortest batch has no room for the needles and the questions.
    """

    length: int = 128
    vocabulary: int = TOKENS
    digest: str = ""  # nothing to read: every sequence is drawn

    def __post_init__(self) -> None:
        least = SHORTEST * 3 * NEEDLES
        if self.length < least:
            raise UserError(f"length: expected at least {least}, a fourth of which has room, got {self.length}")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Return the lengths it is trained at."""
        return self.length // SHORTEST, self.length // 2, self.length

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (tokens, targets) of a length drawn from `lengths`."""
        return sequences(rng, batch, self.lengths[rng.integers(len(self.lengths))])

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return 128 fresh sequences at each of `lengths`."""
        return {str(length): sequences(rng, 128, length) for length in self.lengths}


def sequences(rng: np.random.Generator, batch: int, length: int) -> Batch:
    """Return (tokens, targets), each `(batch, length)`; targets are `IGNORE` except at the questions."""
    pieces, answers = pieces_of(rng, batch, length, piece=length)
    tokens = np.concatenate(list(pieces), axis=1)
    targets = np.full_like(tokens, IGNORE)
    targets[:, -NEEDLES:] = answers
    return tokens, targets


def pieces_of(
    rng: np.random.Generator, batch: int, length: int, *, piece: int = PIECE
) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """Return the sequences in consecutive pieces `(batch, ≤ piece)`, the last of them the questions, and the answers.

    Hay is drawn lazily, piece by piece.
    """
    hay = length - NEEDLES
    # places that are at least two apart: a needle's two tokens count as one here
    positions = np.sort(shuffled(rng, batch, hay - NEEDLES)[:, :NEEDLES], axis=1) + np.arange(NEEDLES)
    keys = shuffled(rng, batch, KEYS)[:, :NEEDLES]
    values = rng.integers(KEYS, TOKENS, size=(batch, NEEDLES))
    order = shuffled(rng, batch, NEEDLES)

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, hay, piece):
            tokens = rng.integers(KEYS, TOKENS, size=(batch, min(piece, hay - start)))
            for at, needle in ((positions - start, keys), (positions + 1 - start, values)):
                in_piece = (at >= 0) & (at < tokens.shape[1])
                tokens[np.nonzero(in_piece)[0], at[in_piece]] = needle[in_piece]
            yield tokens
        yield np.take_along_axis(keys, order, axis=1)

    return pieces(), np.take_along_axis(values, order, axis=1)


def recalled(
    model: Callable[..., tuple[Any, Any]], rng: np.random.Generator, *, batch: int, length: int, piece: int = PIECE
) -> float:
    """Return the share of answers that are right: one pass over sequences of any length in constant memory."""
    return answered(model, *pieces_of(rng, batch, length, piece=piece))

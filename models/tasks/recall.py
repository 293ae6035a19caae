"""Multi-query associative recall (Arora et al. 2023, "Zoology", §3): read key-value pairs, then answer for each key.

    plain          k₁ v₁ k₂ v₂ … k_P v_P   q₁ q₂ … q_P          answer at qᵢ: the value paired with that key
    overwritten    each key is written twice, with two different values, in random order; the last one counts

The first is what a sum of outer products can hold while keys are nearly orthogonal. The second asks for a write
that takes the old value out first, which is the delta rule's. Keys, values and the order of queries are drawn
afresh for every sequence, so nothing can be learned but the procedure. Deviation from the paper: queries follow each
other directly, without its power-law gaps of filler, so that T is 3P (plain) or 5P (overwritten).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import UserError

Batch = tuple[np.ndarray, np.ndarray]

IGNORE = -1  # the target of positions without a loss


@dataclass(frozen=True)
class Recall:
    """The task: tokens 0 … keys−1 are keys, keys … keys+values−1 are values; every batch has one number of pairs.

    Raises: UserError when a number of pairs is not between 1 and the number of keys.
    """

    pairs: tuple[int, ...] = (4, 8, 12)
    overwritten: bool = False
    keys: int = 64
    values: int = 64
    digest: str = ""  # nothing to read: every sequence is drawn

    def __post_init__(self) -> None:
        for pairs in self.pairs:
            if not 1 <= pairs <= self.keys:
                raise UserError(f"pairs: expected 1 to {self.keys}, the number of keys, got {pairs}")

    @property
    def vocabulary(self) -> int:
        """Return the number of tokens."""
        return self.keys + self.values

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (tokens, targets) for a number of pairs drawn from `pairs`."""
        return self.sequences(rng, batch, self.pairs[rng.integers(len(self.pairs))])

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return 128 fresh sequences for each number of pairs."""
        return {str(pairs): self.sequences(rng, 128, pairs) for pairs in self.pairs}

    def sequences(self, rng: np.random.Generator, batch: int, pairs: int) -> Batch:
        """Return (tokens, targets), each `(batch, T)`: the writes, then every key once in random order.

        T is 3 or 5 times `pairs`; targets are `IGNORE` except at queries.
        """
        rows = np.arange(batch)[:, None]
        keys = shuffled(rng, batch, self.keys)[:, :pairs]
        values = rng.integers(0, self.values, size=(batch, pairs))
        if self.overwritten:
            # the second value is never the first, so a model that remembers the wrong write is always wrong
            last = (values + rng.integers(1, self.values, size=(batch, pairs))) % self.values
            # each key gets two of the 2P places for writes, the earlier for its first value
            positions = np.sort(shuffled(rng, batch, 2 * pairs).reshape(batch, pairs, 2), axis=2)
            writes: np.ndarray = np.empty((batch, 2 * pairs, 2), dtype=np.int64)
            for i, value in enumerate((values, last)):
                writes[rows, positions[:, :, i]] = np.stack([keys, self.keys + value], axis=2)
            values = last
        else:
            writes = np.stack([keys, self.keys + values], axis=2)
        order = shuffled(rng, batch, pairs)
        writes = writes.reshape(batch, -1)
        tokens = np.concatenate([writes, keys[rows, order]], axis=1)
        answers = self.keys + values[rows, order]
        return tokens, np.concatenate([np.full_like(writes, IGNORE), answers], axis=1)


def recalled(model: Callable[..., tuple[Any, Any]], rng: np.random.Generator, *, batch: int, length: int) -> float:
    """Return the share of right answers with `length` pairs, each key written once."""
    tokens, targets = Recall((length,)).sequences(rng, batch, length)
    return accuracy(model(tokens, None)[0], targets)


def shuffled(rng: np.random.Generator, batch: int, n: int) -> np.ndarray:
    """Return `(batch, n)`: in each row 0 … n−1 in random order."""
    return rng.permuted(np.broadcast_to(np.arange(n), (batch, n)), axis=1)


def accuracy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the share of right answers: targets (…, T), IGNORE at positions without a loss, logits (…, T, vocab)."""
    is_query = targets != IGNORE
    return float(np.mean(np.argmax(logits, axis=-1)[is_query] == targets[is_query]))

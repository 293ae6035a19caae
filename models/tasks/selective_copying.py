"""Selective copying (Gu and Dao 2023, "Mamba", §4.1.1 and E.1): copy the data tokens and ignore the blanks.

    ○ ○ d₁ ○ ○ ○ d₂ ○ d₃ … d₁₆ ○ ○     ? ? ? … ?          answer at the i-th ?: dᵢ
    └── length: data at random places ──┘ └── 16 ──┘

Arjovsky et al. 2016 ("Unitary Evolution Recurrent Neural Networks") put the data first, so that a filter that delays
by the right time copies them. Jing et al. 2019 ("Gated Orthogonal Recurrent Units", the denoise task) put them
anywhere: how long to keep a token now depends on where the others are, which a time-invariant system cannot follow.

The encoding is that of the S4 code (src/dataloaders/datasets/copying.py): of 16 tokens 0 is the blank, 1 … 14 are data
and 15 is the question, which stands in every answer slot. Chance is 1 in 14. Deviation: Mamba's length is 4096; ours is
what two cores can train.
"""

from dataclasses import dataclass

import numpy as np

from models.errors import UserError
from models.tasks.recall import IGNORE, Batch

BLANK, QUESTION, TOKENS = 0, 15, 16


@dataclass(frozen=True)
class SelectiveCopying:
    """The task: `data` tokens among `length` places, then as many questions; T is `length + data`.

    Raises: UserError when there are fewer places than data, or no data.
    """

    length: int = 256
    data: int = 16
    vocabulary: int = TOKENS
    digest: str = ""  # nothing to read: every sequence is drawn

    def __post_init__(self) -> None:
        if self.data < 1:
            raise UserError(f"data: expected at least 1, got {self.data}")
        if self.length < self.data:
            raise UserError(f"length: expected at least {self.data}, one place for each datum, got {self.length}")

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (tokens, targets), each `(batch, T)`; targets are `IGNORE` except at questions."""
        data = rng.integers(BLANK + 1, QUESTION, size=(batch, self.data))
        positions = rng.permuted(np.broadcast_to(np.arange(self.length), (batch, self.length)), axis=1)[:, : self.data]
        tokens = np.full((batch, self.length + self.data), QUESTION)
        tokens[:, : self.length] = BLANK
        np.put_along_axis(tokens, np.sort(positions, axis=1), data, axis=1)
        targets = np.full_like(tokens, IGNORE)
        targets[:, self.length :] = data
        return tokens, targets

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return 256 fresh sequences: 4096 answers at the usual size."""
        return {"copying": self.batch(rng, 256)}

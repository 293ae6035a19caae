"""Shared parts of the translation tasks: character tokens, padding, and a split by item into training and test set.

    source   x₁ … x_S, then PAD                       as long as the longest of the batch
    target   START y₁ … y_T END, then PAD             the decoder reads it without its last token, and predicts the rest

An item is what a text says, such as a date or a number; texts that say the same are spellings of it. A tenth of the
items, by a hash of the item, is held out: no spelling of them is in any training batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from models.errors import UserError
from models.tasks.recall import Batch

PAD, START, END = 0, 1, 2
PARTS = 10  # one of them is held out


@dataclass(frozen=True)
class Characters:
    """A vocabulary: PAD, START and END, further `marks` with names of their own, then a token for each character."""

    characters: str
    marks: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Return the number of tokens."""
        return self.mark_start + len(self.marks) + len(self.characters)

    @property
    def mark_start(self) -> int:
        """Return the token of the first mark."""
        return END + 1

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text. Raises UserError for a character outside the vocabulary."""
        for place, character in enumerate(text):
            if character not in self.characters:
                expected = f"expected characters of {self.characters!r}"
                raise UserError(f"text {text!r}: {expected}, got {character!r} at {place}")
        first = self.mark_start + len(self.marks)
        return [first + self.characters.index(character) for character in text]

    def name(self, token: int) -> str:
        """Return a token as a reader should see it: its character, or the name of a mark in angle brackets."""
        names = ("<pad>", "<start>", "<end>", *(f"<{mark}>" for mark in self.marks), *self.characters)
        return names[token]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens up to END, without PAD, START and marks."""
        text, first = [], self.mark_start + len(self.marks)
        for token in tokens:
            if token == END:
                break
            if token >= first:
                text.append(self.characters[token - first])
        return "".join(text)


def held_out(item: object) -> bool:
    """Return whether an item is held out: by its hash, so in every process and for every seed the same."""
    return int(sha256(str(item).encode()).hexdigest(), 16) % PARTS == 0


def padded(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Batch:
    """Return (source, target) of texts as tokens: START and END around the targets, PAD at the end of what is short."""
    return _rows(sources), _rows([[START, *target, END] for target in targets])


def _rows(texts: Sequence[Sequence[int]]) -> np.ndarray:
    rows = np.full((len(texts), max(map(len, texts))), PAD)
    for row, tokens in zip(rows, texts, strict=True):
        row[: len(tokens)] = tokens
    return rows

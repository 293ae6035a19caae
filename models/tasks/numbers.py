"""Numbers from 0 to 999,999, from digits to English words and back: "12,045" ↔ "twelve thousand forty-five".

    source   the direction, TO_WORDS or TO_DIGITS, then the number in the other script
    target   the number, in words without "and", or in digits without a comma

In sources words may have an "and" after the hundreds and blanks for hyphens, and digits a comma. The items are the
numbers, drawn with as many digits as a uniform draw from 1 to 6 says: half of all numbers have six.
"""

from dataclasses import dataclass

import numpy as np

from models.tasks.recall import Batch
from models.tasks.translation import Characters, held_out, padded

DIGITS = 6  # of the largest number
HELD_OUT = 256  # numbers in the evaluation of a direction
UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
VOCABULARY = Characters("0123456789, -abcdefghijklmnopqrstuvwxyz", marks=("to words", "to digits"))
TO_WORDS, TO_DIGITS = VOCABULARY.mark_start, VOCABULARY.mark_start + 1


def words(n: int, *, conjunction: str = "") -> str:
    """Return a number below a million in English words; the conjunction, such as "and", follows the hundreds."""
    joint = f" {conjunction} " if conjunction else " "
    if n < 20:
        return UNITS[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f"-{UNITS[n % 10]}" if n % 10 else "")
    if n < 1000:
        rest = joint + words(n % 100) if n % 100 else ""
        return f"{UNITS[n // 100]} hundred{rest}"
    rest, below = "", n % 1000
    if below:
        rest = (joint if below < 100 else " ") + words(below, conjunction=conjunction)
    return f"{words(n // 1000, conjunction=conjunction)} thousand{rest}"


@dataclass(frozen=True)
class Numbers:
    """The task: (source, target) of a number in digits and in words, in both directions."""

    characters: Characters = VOCABULARY
    digest: str = ""  # nothing to read: every text is drawn

    @property
    def vocabulary(self) -> int:
        """Return the number of tokens."""
        return self.characters.size

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (source, target) of numbers to train on, all in one direction: fewer tokens are padding so."""
        direction = (TO_WORDS, TO_DIGITS)[int(rng.integers(2))]
        return self.pairs(rng, [draw(rng, evaluated=False) for _ in range(batch)], direction)

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return 256 numbers that are held out, in each direction."""
        return {
            name: self.pairs(rng, [draw(rng, evaluated=True) for _ in range(HELD_OUT)], direction)
            for name, direction in (("to words", TO_WORDS), ("to digits", TO_DIGITS))
        }

    def pairs(self, rng: np.random.Generator, numbers: list[int], direction: int) -> Batch:
        """Return (source, target) of these numbers in a direction."""
        encode, sources, targets, to_words = self.characters.encode, [], [], direction == TO_WORDS
        for n in numbers:
            sources.append([direction, *encode(_digits(rng, n) if to_words else _spelling(rng, n))])
            targets.append(encode(words(n) if to_words else str(n)))
        return padded(sources, targets)

    def question(self, text: str) -> list[int]:
        """Return the source of a text, whose direction its first character tells.

        Raises UserError for a character outside the vocabulary.
        """
        return [TO_WORDS if text[:1].isdigit() else TO_DIGITS, *self.characters.encode(text)]


def draw(rng: np.random.Generator, *, evaluated: bool) -> int:
    """Return a number that is held out, or one to train on; the number of its digits is uniform."""
    while True:
        digits = int(rng.integers(1, DIGITS + 1))
        n = int(rng.integers(10 ** (digits - 1) if digits > 1 else 0, 10**digits))
        if held_out(n) == evaluated:
            return n


def _digits(rng: np.random.Generator, n: int) -> str:
    return f"{n:,}" if rng.random() < 0.5 else str(n)


def _spelling(rng: np.random.Generator, n: int) -> str:
    text = words(n, conjunction=("", "and")[rng.integers(2)])
    return text.replace("-", " ") if rng.random() < 0.25 else text

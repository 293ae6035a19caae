"""ListOps: the value of a nested expression over digits (Nangia and Bowman 2018).

    [MAX 2 9 [MIN 4 7 ] 0 ]  ∅ ∅        answer at the last bracket: 9

Operators are MAX, MIN, MED (the median, rounded down) and SM (the sum modulo 10); each opens a bracket, and one token
closes it. Expressions are drawn as in the generator of the Long Range Arena (Tay et al. 2021, section 2.2.1;
lra_benchmarks/data/listops.py in their code): down to a depth of 10 an argument is an expression with a chance of 1/4,
otherwise a digit; an operator has 2 to 10 arguments; too short and too long expressions are drawn again.

Deviations: theirs have 500 to 2000 tokens, ours from a fourth of `length` to `length`, and are drawn afresh for every
batch. After an expression come blanks, which a causal model has not seen when it answers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np

from models.errors import UserError
from models.tasks.recall import IGNORE, Batch

OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "MIN": min,
    "MAX": max,
    "MED": lambda values: int(median(values)),
    "SM": lambda values: sum(values) % 10,
}
DIGITS = 10  # tokens 0 … 9, which are the answers too
CLOSE = DIGITS + len(OPERATORS)
BLANK = CLOSE + 1
DEPTH, ARGUMENTS, NESTED = 10, 10, 0.25
LEAST, MOST = 4, 2000  # tokens: an operator, two digits and a bracket; and as many as in the paper
SHORTEST = 4  # an expression is at least a fourth of the longest


class TooLong(Exception):
    """Raised where an expression would have more tokens than allowed."""


@dataclass(frozen=True)
class ListOps:
    """The task: expressions of up to `length` tokens.

    Raises: UserError for a length without an expression, or beyond the paper's.
    """

    length: int = 128
    vocabulary: int = BLANK + 1
    digest: str = ""  # nothing to read: every expression is drawn

    def __post_init__(self) -> None:
        if not LEAST <= self.length <= MOST:
            raise UserError(
                f"length: expected {LEAST}, the tokens of the least expression, to {MOST}, got {self.length}"
            )

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (tokens, targets), each `(batch, length)`; targets are `IGNORE` except at the last bracket."""
        tokens = np.full((batch, self.length), BLANK)
        targets = np.full_like(tokens, IGNORE)
        draws = _uniform(rng)
        for row in range(batch):
            expression, value = self._drawn(draws)
            tokens[row, : len(expression)] = expression
            targets[row, len(expression) - 1] = value
        return tokens, targets

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return 512 fresh expressions."""
        return {"listops": self.batch(rng, 512)}

    def _drawn(self, draws: Iterator[float]) -> tuple[list[int], int]:
        """Return the tokens of an expression of a length in range, and its value."""
        while True:
            tokens: list[int] = []
            try:
                value = _draw(draws, tokens, 1, self.length)
            except TooLong:
                continue
            if len(tokens) >= max(LEAST, self.length // SHORTEST):
                return tokens, value


def _draw(draws: Iterator[float], tokens: list[int], depth: int, room: int) -> int:
    """Append an expression to the tokens, of which there may be `room`, and return its value. Raises TooLong.

    The outermost is never a digit, which would be drawn again.
    """
    if len(tokens) >= room:
        raise TooLong
    if depth > 1 and (depth == DEPTH or next(draws) >= NESTED):
        digit = int(DIGITS * next(draws))
        tokens.append(digit)
        return digit
    operator = int(len(OPERATORS) * next(draws))
    tokens.append(DIGITS + operator)
    arguments = 2 + int((ARGUMENTS - 1) * next(draws))
    values = [_draw(draws, tokens, depth + 1, room - 1) for _ in range(arguments)]
    tokens.append(CLOSE)
    return list(OPERATORS.values())[operator](values)


def _uniform(rng: np.random.Generator) -> Iterator[float]:
    """Yield numbers in [0, 1), drawn many at a time."""
    while True:
        yield from rng.uniform(size=1024).tolist()

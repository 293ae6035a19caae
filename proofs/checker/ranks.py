"""The rank of a matrix over an exact field, by elimination. In floating point it would depend on a tolerance."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np


def rank(matrices: Any) -> np.ndarray:
    """Return the rank of each matrix, (*batch, rows, columns) → integers (*batch,)."""
    *batch, rows, columns = matrices.shape
    ranks = [_rank([list(row) for row in matrix]) for matrix in np.reshape(matrices, (-1, rows, columns))]
    return np.reshape(ranks, batch)


def _rank(rows: list[list[Any]]) -> int:
    rank = 0
    for column in range(len(rows[0])):
        pivot = next((i for i in range(rank, len(rows)) if rows[i][column] != 0), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        top = rows[rank]
        for i in range(rank + 1, len(rows)):
            factor = Fraction(rows[i][column]) / top[column]
            rows[i] = [x - factor * y for x, y in zip(rows[i], top, strict=True)]
        rank += 1
    return rank

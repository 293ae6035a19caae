"""One more number system: scalars that count the operations done with them. Cost is then a value like any other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


class Counted:
    """A float that adds one to its tally for every operation it takes part in."""

    __slots__ = ("tally", "value")

    def __init__(self, value: float, tally: list[int]):
        self.value, self.tally = value, tally

    def _done(self, value: float) -> Counted:
        self.tally[0] += 1
        return Counted(value, self.tally)

    def exp(self) -> Counted:
        return self._done(math.exp(self.value))

    def sqrt(self) -> Counted:
        return self._done(math.sqrt(self.value))

    def __neg__(self) -> Counted:
        return self._done(-self.value)

    def __float__(self) -> float:
        return self.value

    __hash__ = None  # type: ignore[assignment]


def _operator(name: str) -> Callable[[Counted, Any], Any]:
    def apply(self: Counted, other: Any) -> Any:
        result = getattr(self.value, name)(float(other))
        if isinstance(result, bool):  # a comparison is an operation too
            self.tally[0] += 1
            return result
        return self._done(result)

    return apply


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Counted, f"__{_name}__", _operator(f"__{_name}__"))


def counted(array: np.ndarray, tally: list[int]) -> np.ndarray:
    """The array's numbers, counting into `tally`."""
    return np.fromiter((Counted(float(x), tally) for x in array.flat), dtype=object).reshape(array.shape)

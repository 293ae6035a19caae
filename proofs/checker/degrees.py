"""A number system of degrees: how high a polynomial's degree can be, for the lemma of Schwartz and Zippel.

Two sides that are rational functions of values drawn uniformly from 𝔽ₚ differ by N/D, with polynomials N, D. Where N
is not the zero polynomial over 𝔽ₚ, it vanishes at such a point with a chance of at most deg N / p; a point where D
vanishes raises ZeroDivisionError and counts as a failure. So a false equality passes an example with at most that
chance (Schwartz 1980; Zippel 1979).

`Degree` follows a computation: a value is N / Π dᵢ^eᵢ with an upper bound on deg N, where dᵢ are the numerators of
earlier divisors. Sums take the least common multiple of the known denominators. Nothing is ever cancelled, so the bound
is an upper one. Elimination compares pivots with 0: such a comparison is answered as at a generic point, "unequal", and
its degree is added to the bound, since with that chance the answer is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from minigrad.exact import Log

NUMBERS = (int, float, complex, Fraction, np.number, np.bool_)


class Divisor:
    """The numerator of a value that something was divided by, and its degree."""

    __slots__ = ("degree",)

    def __init__(self, degree: int):
        self.degree = degree


class Degree:
    """An upper bound on the degree of the numerator, and the exponents of the divisors in the denominator."""

    __slots__ = ("_reciprocal", "degree", "denominator")

    def __init__(self, degree: int, denominator: Mapping[Divisor, int] | None = None):
        self.degree, self.denominator = degree, denominator or {}
        self._reciprocal: Degree | None = None

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Degree):
            if not isinstance(other, NUMBERS):
                return NotImplemented
            other = CONSTANT
        if self.denominator == other.denominator:
            return Degree(max(self.degree, other.degree), self.denominator)
        common = dict(self.denominator)
        for divisor, exponent in other.denominator.items():
            common[divisor] = max(exponent, common.get(divisor, 0))
        total = _degree(common)
        return Degree(total + max(x.degree - _degree(x.denominator) for x in (self, other)), common)

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, Degree):
            return self if isinstance(other, NUMBERS) else NotImplemented
        if not other.denominator:
            return Degree(self.degree + other.degree, self.denominator)
        product = dict(self.denominator)
        for divisor, exponent in other.denominator.items():
            product[divisor] = product.get(divisor, 0) + exponent
        return Degree(self.degree + other.degree, product)

    def __truediv__(self, other: Any) -> Any:
        return self * (other.reciprocal() if isinstance(other, Degree) else other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.reciprocal() * other

    def reciprocal(self) -> Degree:
        """Return 1 / x; the same divisor each time, so that denominators can be shared."""
        if self._reciprocal is None:
            self._reciprocal = Degree(_degree(self.denominator), {Divisor(self.degree): 1})
        return self._reciprocal

    def __pow__(self, power: int) -> Degree:
        if power < 0:
            return self.reciprocal() ** -power
        return Degree(self.degree * power, {divisor: power * n for divisor, n in self.denominator.items()})

    def __neg__(self) -> Degree:
        return self

    def conjugate(self) -> Degree:
        return self

    @property
    def real(self) -> Degree:
        return self

    def __eq__(self, other: object) -> bool:
        difference = self - other
        if difference is NotImplemented:
            return False
        _compared[-1] += difference.degree
        return False

    __hash__ = None  # type: ignore[assignment]

    __radd__ = __sub__ = __rsub__ = __add__
    __rmul__ = __mul__


CONSTANT = Degree(0)
_compared = [0]  # the sum of the degrees that were compared


def _degree(denominator: Mapping[Divisor, int]) -> int:
    return sum(divisor.degree * exponent for divisor, exponent in denominator.items())


def of_differences(evaluate: Callable[[], tuple[list[Any], list[Any]]]) -> int:
    """Return the largest degree of a numerator in left − right, of both sides, plus the degrees compared on the way."""
    _compared[-1] = 0
    left, right = evaluate()
    compared, largest = _compared[-1], 0
    for x, y in zip(left, right, strict=True):
        for a, b in zip(np.ravel(np.asarray(x, dtype=object)), np.ravel(np.asarray(y, dtype=object)), strict=True):
            difference = _number(a) - _number(b)
            largest = max(largest, difference.degree if isinstance(difference, Degree) else 0)
    return largest + compared


def _number(x: Any) -> Any:
    return x.number if isinstance(x, Log) else x

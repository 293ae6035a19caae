"""Numbers of any precision in arrays of objects: each operation is rounded once, to nearest, on every machine alike.

    EXACT     256 bits: what the forms compute with them, rounded to float64 at the end, is the stored vector
    SINGLE    24 bits, as float32 has (without its limits on the exponent): what rounding does to a form

mpmath computes them with Python's integers. No BLAS, mathematical library or processor takes part, and NumPy sums
objects one after another.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np

EXACT, SINGLE = 256, 24


class Number:
    """A real or complex number of `bits` bits, `value` in a context of mpmath."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def _with(self, other: Any, operation: Callable[[Any, Any], Any]) -> Any:
        context = self.value.context
        other = other.value if type(other) is Number else _in(context, other)
        return other if other is NotImplemented else Number(operation(self.value, other))

    def __add__(self, other: Any) -> Any:
        return self._with(other, operator.add)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, operator.mul)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Any) -> Any:
        return self._with(other, operator.sub)

    def __rsub__(self, other: Any) -> Any:
        return self._with(other, lambda x, y: y - x)

    def __truediv__(self, other: Any) -> Any:
        return self._with(other, operator.truediv)

    def __rtruediv__(self, other: Any) -> Any:
        return self._with(other, lambda x, y: y / x)

    def __pow__(self, power: Any) -> Any:
        return self._with(power, operator.pow)

    def __neg__(self) -> Number:
        return Number(-self.value)

    def __pos__(self) -> Number:
        return self

    def __abs__(self) -> Number:
        return Number(abs(self.value))

    # Functions: `minigrad.exact` calls these by name on arrays of objects

    def exp(self) -> Number:
        return Number(self.value.context.exp(self.value))

    def log(self) -> Number:
        return Number(self.value.context.log(self.value))

    def log1p(self) -> Number:
        return Number(self.value.context.log1p(self.value))

    def sqrt(self) -> Number:
        return Number(self.value.context.sqrt(self.value))

    def tanh(self) -> Number:
        return Number(self.value.context.tanh(self.value))

    def erf(self) -> Number:
        return Number(self.value.context.erf(self.value))

    @property
    def is_complex(self) -> bool:
        return hasattr(self.value, "_mpc_")

    def conjugate(self) -> Number:
        return Number(self.value.conjugate())

    @property
    def real(self) -> Number:
        return Number(self.value.real)

    @property
    def imag(self) -> Number:
        return Number(self.value.imag)

    def __float__(self) -> float:
        """Return the float64 nearest to a real number."""
        return float(self.value)

    def __bool__(self) -> bool:
        return bool(self.value != 0)

    def __repr__(self) -> str:
        return f"Number({self.value})"

    __hash__ = None  # type: ignore[assignment]


def _comparison(operation: Callable[[Any, Any], bool]) -> Callable[[Number, Any], Any]:
    def compare(self: Number, other: Any) -> Any:
        other = other.value if type(other) is Number else _in(self.value.context, other)
        return other if other is NotImplemented else operation(self.value, other)

    return compare


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Number, f"__{_name}__", _comparison(getattr(operator, _name)))


def _in(context: Any, x: Any) -> Any:
    """Return a plain number in a context, rounded to its precision; NotImplemented for what is no number."""
    if isinstance(x, (float, np.floating, int, np.integer, np.bool_)):
        return context.mpf(float(x)) if isinstance(x, (float, np.floating)) else context.mpf(int(x))
    if isinstance(x, (complex, np.complexfloating)):
        return context.mpc(complex(x))
    if isinstance(x, Fraction):
        return context.mpf(x.numerator) / x.denominator
    return NotImplemented


def numbers(x: np.ndarray, bits: int) -> np.ndarray:
    """Return an array of objects with the numbers of x, in arithmetic of so many bits."""
    context = mpmath.MPContext()
    context.prec = bits
    return np.fromiter((Number(_in(context, e)) for e in x.flat), dtype=object, count=x.size).reshape(x.shape)


def rounded(x: np.ndarray, *, is_complex: bool) -> np.ndarray:
    """Return float64 or complex128, each part the nearest to that of x, with −0 as 0."""
    if not is_complex:
        return _nearest([part.real if isinstance(part, Number) else part for part in x.flat], x.shape)
    parts = [(part.real, part.imag) for part in x.flat]
    real, imag = (_nearest([pair[i] for pair in parts], x.shape) for i in (0, 1))
    return real + 1j * imag


def _nearest(parts: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    found = np.array([float(part) for part in parts], dtype=np.float64).reshape(shape)
    if not np.isfinite(found).all():
        raise ArithmeticError(f"a result is {found[~np.isfinite(found)][0]}, expected finite numbers")
    return found + 0.0

"""Running error analysis: scalars that carry a bound on the rounding error of the computation that led to them.

Run a mechanism on `Rounded` scalars and each result says how far the same source can be from the truth when it runs in
floating point, whatever the order in which a library sums. No tolerance is chosen anywhere: bounds follow from sizes
and magnitudes. The method is the standard one: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., ch. 3.

The model (eq. 2.4, with gradual or flushed underflow, eq. 2.8): fl(x ∘ y) = (x ∘ y)(1 + δ) + ε with |δ| ≤ u, |ε| ≤ η,
where u is the unit roundoff (2⁻⁵³, 2⁻²⁴) and η the smallest normal number. With γₙ = nu / (1 − nu), lemmas 3.1 and 3.3:

    Π (1 + δᵢ)^±1 (n factors) = 1 + θ, |θ| ≤ γₙ          (1 + γₐ)(1 + γ_b) ≤ 1 + γ_(a+b)

The invariant, for the computed x̂ of an exact x:      |x̂ − x| ≤ γₙ m + f η      and      |x| ≤ m

m (`magnitude`) is the value with every subtraction made an addition, n counts rounding factors,
f (`underflow`) absolute errors of η.

    x + y    m = mx + my. A sum of c terms commits at most c − 1 roundings on any term in any order: a scalar keeps
             the number of `terms` and their `depth` (largest n): n = depth + c − 1. An exact 0 commits none.
    x · y    m = mx my, n = nx + ny + 1 (3 where complex: lemma 3.5, √2 γ₂ ≤ γ₃). An exact 0 or ±1 commits none.
    1 / y    with κ = my / |y|, t = γₙκ: t / (1 − t) ≤ γ_(n(κ+1)); m = 1 / |y|, n = n(κ + 1) + 1.
    √y       |√(1 + t) − 1| ≤ |t| for |t| < 1, so the n of 1 / y will do: m = √|y|.
    eˣ       e^t − 1 ≤ t / (1 − t) with t = γₙm: m = eˣ, n = n(m + 1) + the library's own error.
    log y    |log(1 + t)| ≤ t / (1 − t): absolute, so m = max(1, |log y|), n = n(κ + 1) + the library's own error.
    erf x, e^(x²) erfc x     from the largest slope of the function, and of its logarithm: 2/√π.
    max      commits none; comparisons go by value. A rounded number is a constant.

A value that some division or root cannot be sure of in float64 (t > 10⁻⁴) gets n = ∞, and where nu ≥ 1 there is no
bound in that precision: the checker counts such an example as vacuous rather than passed. Hence the floats m and n,
computed in float64, are good to far better than the factor `SLACK`.
"""

from __future__ import annotations

import cmath
import math
import operator
from collections.abc import Callable
from ctypes import c_float
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.special

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}
TINY = {"float64": 2.0**-1022, "float32": 2.0**-126}

# NumPy states at most 4 ulp for its vectorised exp and log (float32: 2.52, 3.83), XLA and SLEEF less; an ulp is ≤ 2u.
LIBRARY = 8
SLACK = 1.001


class Rounded:
    """A number together with a bound on the error that floating point makes in computing it."""

    __slots__ = ("depth", "magnitude", "terms", "underflow", "value")

    def __init__(self, value: Any, magnitude: float, depth: float = 0, terms: int = 1, underflow: float = 0.0):
        self.value, self.magnitude, self.depth, self.terms, self.underflow = value, magnitude, depth, terms, underflow

    @classmethod
    def of(cls, number: Any) -> Rounded:
        """Return a constant or an input: exact where float32 represents it, otherwise rounded once, perhaps to 0."""
        if isinstance(number, (complex, np.complexfloating)):
            value: Any = complex(number)
            exact = complex(_in_float32(value.real), _in_float32(value.imag)) == number
        else:
            value = float(number)
            exact = _in_float32(value) == value
            if type(number) is Fraction:  # its own comparison with a float takes as long as all the rest
                exact = exact and value.as_integer_ratio() == (number.numerator, number.denominator)
            else:
                exact = exact and value == number
        return cls(value, abs(value)) if exact else cls(value, abs(value), 1, 1, 1.0)

    @property
    def roundings(self) -> float:
        """n, the largest number of rounding factors in any term."""
        return self.depth + self.terms - 1

    @property
    def is_complex(self) -> bool:
        return isinstance(self.value, complex)

    @property
    def exactly_zero(self) -> bool:
        return self.magnitude == 0 and self.underflow == 0

    def error(self, unit: float, tiny: float) -> float:
        """γₙ m + f η, the bound on the distance from the computed to the exact number."""
        if self.magnitude == math.inf:
            return 0.0 if abs(self.value) == math.inf else math.inf
        share = self.roundings * unit
        return math.inf if share >= 1 else SLACK * (share / (1 - share) * self.magnitude + self.underflow * tiny)

    # Arithmetic

    def __add__(self, other: Any) -> Rounded:
        if type(other) is not Rounded and (other := _rounded(other)) is NotImplemented:
            return other
        if other.magnitude == 0 and other.underflow == 0:  # `exactly_zero`, without the cost of a call
            return self
        if self.magnitude == 0 and self.underflow == 0:
            return other
        return Rounded(
            self.value + other.value,
            self.magnitude + other.magnitude,
            other.depth if other.depth > self.depth else self.depth,
            self.terms + other.terms,
            self.underflow + other.underflow,
        )

    def __neg__(self) -> Rounded:
        return Rounded(-self.value, self.magnitude, self.depth, self.terms, self.underflow)

    def __mul__(self, other: Any) -> Rounded:
        if type(other) is not Rounded and (other := _rounded(other)) is NotImplemented:
            return other
        x, y = self.value, other.value
        if self.depth == 0 and self.terms == 1 and (x == 1 or x == -1):
            return other if x == 1 else -other
        if self.magnitude == 0 and self.underflow == 0 and abs(y) < math.inf:
            return self
        if other.depth == 0 and other.terms == 1 and (y == 1 or y == -1):
            return self if y == 1 else -self
        if other.magnitude == 0 and other.underflow == 0 and abs(x) < math.inf:
            return other
        both_complex = isinstance(x, complex) and isinstance(y, complex)
        return Rounded(
            x * y,
            self.magnitude * other.magnitude,
            self.depth + self.terms - 1 + other.depth + other.terms - 1 + (3 if both_complex else 1),
            1,
            1.01 * (self.underflow * other.magnitude + other.underflow * self.magnitude) + 2,
        )

    def __truediv__(self, other: Any) -> Rounded:
        other = _rounded(other)
        return other if other is NotImplemented else self * other.reciprocal()

    def reciprocal(self) -> Rounded:
        """Return 1 / x."""
        size, depth = self._relative()  # x / y as x · (1 / y) counts one rounding more than a division makes
        return Rounded(1 / self.value, 1 / size, depth + 1, 1, 1.01 * self.underflow / size**2 + 1)

    def __pow__(self, exponent: Any) -> Rounded:
        if exponent == 0.5:
            return self.sqrt()
        if int(exponent) != exponent:
            return NotImplemented
        result = ONE
        for _ in range(abs(int(exponent))):
            result = result * self
        return result.reciprocal() if exponent < 0 else result

    __radd__, __rmul__ = __add__, __mul__

    def __pos__(self) -> Rounded:
        return self

    def __sub__(self, other: Any) -> Rounded:
        if type(other) is not Rounded and (other := _rounded(other)) is NotImplemented:
            return other
        return self + -other

    def __rsub__(self, other: Any) -> Rounded:
        return -self + other

    def __rtruediv__(self, other: Any) -> Rounded:
        return _rounded(other) * self.reciprocal()

    # Functions: NumPy calls these by name on object arrays

    def exp(self) -> Rounded:
        """Return eˣ; e^−∞ is an exact 0."""
        if self.value == -math.inf:
            return ZERO
        value = cmath.exp(self.value) if isinstance(self.value, complex) else math.exp(self.value)
        depth = self.roundings * (self.magnitude + 1) + LIBRARY if self.magnitude else 0
        return Rounded(value, abs(value), depth, 1, 1.01 * self.underflow * abs(value) + (self.magnitude > 0))

    def log(self) -> Rounded:
        """Return the natural logarithm of a positive number."""
        size, depth = self._relative()
        value = math.log(self.value)
        return Rounded(value, max(1.0, abs(value)), depth + LIBRARY, 1, 1.01 * self.underflow / size)

    def log1p(self) -> Rounded:
        """Return log(1 + x), bounded by the error of rounding the sum first."""
        return (self + 1).log()

    def sqrt(self) -> Rounded:
        """Return √x for x ≥ 0; the square root of 0 exists only where x is exactly 0."""
        if self.exactly_zero:
            return ZERO
        size, depth = self._relative()
        return Rounded(math.sqrt(self.value), math.sqrt(size), depth + 1, 1, 1.01 * self.underflow / math.sqrt(size))

    def tanh(self) -> Rounded:
        """Return tanh x, whose derivative is at most 1."""
        value, size = math.tanh(self.value), max(self.magnitude, 1.0)  # γₙ m ≤ γ_(nm) where m ≥ 1
        return Rounded(value, 1.0, self.roundings * size + LIBRARY, 1, self.underflow + 1)

    def erf(self) -> Rounded:
        """Return the error function, whose derivative is at most 2/√π < 1.13."""
        size = max(1.13 * self.magnitude, 1.0)
        return Rounded(math.erf(self.value), 1.0, self.roundings * size + LIBRARY, 1, 1.13 * self.underflow + 1)

    def erfcx(self) -> Rounded:
        """Return e^(x²) erfc x for x ≥ 0, where its logarithm has a slope between −2/√π and 0: bounded as eˣ is."""
        if self.value < 0:
            raise ValueError(f"erfcx: {self!r}, expected a number of at least 0")
        value = float(scipy.special.erfcx(self.value))
        depth = self.roundings * (1.13 * self.magnitude + 1) + LIBRARY
        return Rounded(value, value, depth, 1, 1.13 * self.underflow * value + 1)

    def rint(self) -> Rounded:
        """Return the nearest integer as an exact number: for algorithms whose exact result does not depend on it."""
        return Rounded(float(round(self.value)), abs(round(self.value)))

    def conjugate(self) -> Rounded:
        return self if not isinstance(self.value, complex) else self._part(self.value.conjugate())

    @property
    def real(self) -> Rounded:
        return self if not isinstance(self.value, complex) else self._part(self.value.real)

    @property
    def imag(self) -> Rounded:
        return ZERO if not isinstance(self.value, complex) else self._part(self.value.imag)

    def __abs__(self) -> Rounded:
        return self._part(abs(self.value))

    def _part(self, value: Any) -> Rounded:
        return Rounded(value, self.magnitude, self.depth, self.terms, self.underflow)

    def _relative(self) -> tuple[float, float]:
        """Return |x| and n(κ + 1), with κ = m / |x|; n = ∞ where the relative error in float64 may exceed 10⁻⁴."""
        size = abs(self.value)
        if size == 0:
            raise ZeroDivisionError(f"{self!r} cannot be told from 0")
        unsure = self.error(UNIT["float64"], TINY["float64"]) > size / 1e4
        return size, math.inf if unsure else self.roundings * (self.magnitude / size + 1)

    def __repr__(self) -> str:
        return f"Rounded({self.value!r} ± γ_{self.roundings:g}·{self.magnitude:.3g})"

    def __float__(self) -> float:
        return float(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    __hash__ = None  # type: ignore[assignment]


def _by_value(name: str) -> Callable[[Rounded, Any], Any]:
    operation = getattr(operator, name)

    def compare(self: Rounded, other: Any) -> Any:
        other = _rounded(other)
        return other if other is NotImplemented else operation(self.value, other.value)

    return compare


for _name in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"):
    setattr(Rounded, _name, _by_value(_name))


def _rounded(number: Any) -> Any:
    if isinstance(number, Rounded):
        return number
    if isinstance(number, (int, float, complex, Fraction, np.number, np.bool_)):
        return Rounded.of(number)
    return NotImplemented


def _in_float32(value: float) -> float:
    return c_float(value).value


ZERO, ONE = Rounded(0.0, 0.0), Rounded(1.0, 1.0)


def errors(array: Any, precision: str) -> np.ndarray:
    """Return the error bound of each entry of an array of `Rounded`, in "float64" or "float32"."""
    unit, tiny = UNIT[precision], TINY[precision]
    bounds = [_rounded(x).error(unit, tiny) for x in np.ravel(np.asarray(array, dtype=object))]
    return np.array(bounds, dtype=np.float64).reshape(np.shape(array))

"""Exact numbers, and the array namespace of NumPy arrays of them (dtype object).

Over fractions, and over integers modulo a prime, equality is `==` and needs no tolerance. This module is the namespace
of such arrays: NumPy's functions, and replacements for those that do not work on objects. `Log` is the logarithm of an
exact number, so that decays given as logarithms stay exact. Numbers of other types need the operators and, by name, the
functions that are used; complex ones say so by an attribute `is_complex`, since no dtype does.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy import (  # noqa: F401 - the rest of the namespace is NumPy's own
    abs,
    all,
    any,
    arange,
    argmax,
    argmin,
    argsort,
    astype,
    broadcast_to,
    concat,
    conj,
    count_nonzero,
    cumulative_prod,
    cumulative_sum,
    equal,
    expand_dims,
    flip,
    floor_divide,
    greater,
    greater_equal,
    less,
    less_equal,
    linspace,
    logical_and,
    logical_not,
    logical_or,
    matmul,
    matrix_transpose,
    max,
    maximum,
    mean,
    min,
    minimum,
    moveaxis,
    multiply,
    nonzero,
    not_equal,
    object_,
    permute_dims,
    prod,
    reshape,
    roll,
    squeeze,
    stack,
    sum,
    take,
    tensordot,
    tril,
    triu,
    unstack,
    where,
    zeros_like,
)

asarray = np.asarray


class Modular:
    """An integer modulo a prime, an element of a finite field."""

    __slots__ = ("prime", "value")

    def __init__(self, value: int, prime: int = 2**61 - 1):
        self.value, self.prime = value % prime, prime

    def _with(self, other: Any, operation: Callable[[int, int], int]) -> Any:
        if isinstance(other, Modular):
            if other.prime != self.prime:
                raise ValueError(f"Modular: numbers modulo {self.prime} and {other.prime}, expected one prime")
            return Modular(operation(self.value, other.value), self.prime)
        if isinstance(other, (int, np.integer, np.bool_)):
            return Modular(operation(self.value, int(other)), self.prime)
        if isinstance(other, Fraction):
            return self._with(Modular(other.numerator, self.prime) / other.denominator, operation)
        return NotImplemented

    def __add__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: b - a)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a * b)

    def __truediv__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a * pow(b, -1, self.prime))

    def __rtruediv__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: b * pow(a, -1, self.prime))

    __radd__, __rmul__ = __add__, __mul__

    def __pow__(self, power: int) -> Modular:
        return Modular(pow(self.value, power, self.prime), self.prime)

    def __neg__(self) -> Modular:
        return Modular(-self.value, self.prime)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Modular):
            return (self.value, self.prime) == (other.value, other.prime)
        if isinstance(other, Fraction):
            return (self.value * other.denominator - other.numerator) % self.prime == 0
        return isinstance(other, (int, np.integer)) and self.value == int(other) % self.prime

    def __hash__(self) -> int:
        return hash(self.value)

    def __bool__(self) -> bool:
        return self.value != 0

    def conjugate(self) -> Modular:
        return self

    @property
    def real(self) -> Modular:
        return self

    def __repr__(self) -> str:
        return f"Modular({self.value}, {self.prime})"


class Log:
    """The logarithm of an exact number, represented by the number: addition multiplies, and exp returns it.

    Log(Fraction(0)) stands for −∞. A plain 0 counts as the logarithm of one, so that sums may start from it.
    """

    __slots__ = ("number",)

    def __init__(self, number: Any):
        self.number = number

    def __add__(self, other: Any) -> Log:
        if isinstance(other, Log):
            return Log(self.number * other.number)
        return self if isinstance(other, (int, np.integer, Fraction)) and other == 0 else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Any) -> Log:
        if isinstance(other, Log):
            return Log(self.number / other.number)
        return self if isinstance(other, (int, np.integer, Fraction)) and other == 0 else NotImplemented

    def __neg__(self) -> Log:
        return Log(1 / self.number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Log) and self.number == other.number

    def __hash__(self) -> int:
        return hash(("log", self.number))

    def exp(self) -> Any:
        return self.number

    def __repr__(self) -> str:
        return f"Log({self.number!r})"


def _elementwise(name: str) -> Callable[[Any], Any]:
    """Return an elementwise function that calls the element's method `name`; at 0, 1 and −∞ its values are known."""
    known: dict[str, dict[float, int]] = {
        "exp": {0: 1, -math.inf: 0},
        "sqrt": {0: 0, 1: 1},
        "tanh": {0: 0},
        "log": {1: 0},
        "log1p": {0: 0},
        "erf": {0: 0},
        "erfcx": {0: 1},  # e^(x²) erfc x
        "rint": {0: 0, 1: 1},
    }
    exact_values = known[name]

    def apply(x: Any) -> Any:
        def of_element(e: Any) -> Any:
            if hasattr(e, name):
                return getattr(e, name)()
            if (isinstance(e, (int, np.integer, Fraction)) or e == -math.inf) and e in exact_values:
                return Fraction(exact_values[e])
            raise TypeError(f"{name}: {e!r} has no exact {name}, expected a number with a method of that name")

        return np.fromiter(map(of_element, np.asarray(x).flat), dtype=object).reshape(np.shape(x))

    return apply


exp, sqrt, tanh, log, log1p = map(_elementwise, ("exp", "sqrt", "tanh", "log", "log1p"))
erf, erfcx, round = map(_elementwise, ("erf", "erfcx", "rint"))


def sign(x: Any) -> Any:
    """Return x/|x|, and 0 at 0."""
    size = abs(x)
    return x / where(size == 0, 1, size)


def isfinite(x: Any) -> Any:
    """Return whether each number is finite: x − x = 0 unless x is infinite or NaN."""
    return np.array([bool(e - e == 0) for e in np.asarray(x).flat], dtype=bool).reshape(np.shape(x))


def _full(shape: Any, value: Any, dtype: Any = None) -> Any:
    return np.full(shape, value, dtype=object if dtype is None else dtype)


def full(shape: Any, value: Any, *, dtype: Any = None) -> Any:
    return _full(shape, value, dtype)


def zeros(shape: Any, *, dtype: Any = None) -> Any:
    """Return zeros; as fractions, as `ones`."""
    return _full(shape, Fraction(0) if dtype in (None, object) else 0, dtype)


def ones(shape: Any, *, dtype: Any = None) -> Any:
    """Return ones; as fractions, since dividing the integer 1 would give a float."""
    return _full(shape, Fraction(1) if dtype in (None, object) else 1, dtype)


def eye(n: int, m: int | None = None, *, k: int = 0, dtype: Any = None) -> Any:
    """Return the identity; as fractions, as `ones`."""
    return np.where(np.eye(n, m, k=k, dtype=bool), ones((), dtype=dtype), zeros((), dtype=dtype))


def ones_like(x: Any, *, dtype: Any = None) -> Any:
    return ones(x.shape, dtype=dtype)


def _attribute(name: str) -> Callable[[Any], Any]:
    """Return an elementwise function that reads the element's attribute `name`."""

    def apply(x: Any) -> Any:
        return np.fromiter((getattr(e, name) for e in np.asarray(x).flat), dtype=object).reshape(np.shape(x))

    return apply


real, imag = _attribute("real"), _attribute("imag")


def einsum(subscripts: str, *operands: Any) -> Any:
    """Return numpy.einsum, computed from broadcast products and a sum: NumPy's does not support every object."""
    terms, result = subscripts.replace(" ", "").split("->")
    letters = result + "".join(sorted(set(terms) - set(result) - {","}))
    product: Any = 1
    for term, x in zip(terms.split(","), operands, strict=True):
        order = sorted(range(x.ndim), key=[letters.index(c) for c in term].__getitem__)
        shape = [x.shape[term.index(c)] if c in term else 1 for c in letters]
        product = product * np.transpose(x, order).reshape(shape)
    return np.sum(product, axis=tuple(range(len(result), len(letters))))


class linalg:
    """Linear algebra by field operations alone."""

    @staticmethod
    def det(a: Any) -> Any:
        """Return the determinant by Gaussian elimination."""
        n, determinants = a.shape[-1], []
        for block in a.astype(object).reshape(math.prod(a.shape[:-2]), n, n):
            result: Any = Fraction(1)
            for i in range(n):
                pivot = next((j for j in range(i, n) if block[j, i] != 0), None)
                if pivot is None:
                    result = block[i, i] * result
                    break
                if pivot != i:
                    block[[i, pivot]], result = block[[pivot, i]], -result
                result = block[i, i] * result
                for j in range(i + 1, n):
                    block[j] = block[j] - block[j, i] * (Fraction(1) / block[i, i]) * block[i]
            determinants.append(result)
        return np.fromiter(determinants, dtype=object).reshape(a.shape[:-2])

    diagonal = staticmethod(np.linalg.diagonal)

    @staticmethod
    def solve(a: Any, b: Any) -> Any:
        """Return x with a x = b by Gauss–Jordan elimination. Raise ZeroDivisionError when a is singular."""
        n = a.shape[-1]
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        rows = np.concatenate([np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b)], axis=-1).astype(object)
        for block in rows.reshape(-1, n, rows.shape[-1]):
            for i in range(n):
                pivot = next((j for j in range(i, n) if block[j, i] != 0), None)
                if pivot is None:
                    raise ZeroDivisionError("solve: the matrix is singular, expected one with an inverse")
                block[[i, pivot]] = block[[pivot, i]]
                block[i] = block[i] * (1 / (block[i, i] if not isinstance(block[i, i], int) else Fraction(block[i, i])))
                for j in range(n):
                    if j != i:
                        block[j] = block[j] - block[j, i] * block[i]
        return rows[..., n:]


def has_roots_of_unity(x: Any) -> bool:
    """Return whether an array's numbers can be multiplied by e^(2πi/n): not integers, fractions or residues."""
    return x.dtype != object or not set(map(type, x.flat)) <= {int, np.int64, Fraction, Modular}


class fft:
    """Fourier transforms of numbers that combine with complex roots of unity, such as those that bound rounding errors.

    Even lengths are halved recursively (Cooley and Tukey 1965), odd ones summed directly.
    """

    @staticmethod
    def fft(x: Any, axis: int = -1) -> Any:
        return _dft_along(x, axis, -1)

    @staticmethod
    def ifft(x: Any, axis: int = -1) -> Any:
        return _dft_along(x, axis, 1) / x.shape[axis]

    @staticmethod
    def rfft(x: Any, axis: int = -1) -> Any:
        return np.take(_dft_along(x, axis, -1), range(x.shape[axis] // 2 + 1), axis=axis)

    @staticmethod
    def irfft(x: Any, n: int, axis: int = -1) -> Any:
        mirrored = np.take(x, range((n - 1) // 2, 0, -1), axis=axis)  # frequencies that are not stored: conjugates
        return real(_dft_along(np.concatenate([x, np.conj(mirrored)], axis=axis), axis, 1) / n)


def _dft_along(x: Any, axis: int, sign: int) -> Any:
    """Return Σₜ xₜ e^(± 2πi kt/n) along an axis."""
    return np.moveaxis(_dft(np.moveaxis(x, axis, -1), sign), -1, axis)


def _dft(x: Any, sign: int) -> Any:
    n = x.shape[-1]
    if n == 1:
        return x
    if n % 2:
        return x @ _roots(np.outer(np.arange(n), np.arange(n)), n, sign)
    even, odd = _dft(x[..., ::2], sign), _dft(x[..., 1::2], sign)
    odd = odd * _roots(np.arange(n // 2), n, sign)
    return np.concatenate([even + odd, even - odd], axis=-1)


def _roots(k: Any, n: int, sign: int) -> Any:
    """Return e^(± 2πi k/n), exact for ±1 and ±i."""

    def root(k: int) -> complex:
        return (sign * 1j) ** (4 * k // n) if 4 * k % n == 0 else cmath.exp(sign * 2j * cmath.pi * k / n)

    return np.fromiter(map(root, (k % n).flat), dtype=object).reshape(k.shape)

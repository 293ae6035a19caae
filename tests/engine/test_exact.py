"""Exact numbers: fields in which gradients are equal or not, with no tolerance between."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from minigrad.exact import Log, Modular

integers = st.integers(-(10**6), 10**6)


@given(integers, integers, st.integers(1, 10**6))
def test_modular_numbers_are_a_field(a, b, c):
    x, y, z = Modular(a), Modular(b), Modular(c)
    assert (x + y) * z == x * z + y * z and x - y == -(y - x) and x + 0 == x and 1 * x == x
    assert (x / z) * z == x and Fraction(a, c) * Modular(1) == x / z
    assert x**3 == x * x * x


def test_modular_numbers_equal_integers_and_fractions():
    assert Modular(3, 7) == 10 and Modular(3, 7) != 4
    assert Modular(3, 7) == Fraction(6, 2) and Modular(5, 7) == Fraction(1, 3) and Modular(5, 7) != Fraction(1, 2)


@pytest.mark.parametrize("of", ["zeros", "ones", "eye"])
def test_quotients_of_created_arrays_are_exact(of):
    xp = namespace(fractions(1))
    half = getattr(xp, of)(2, dtype=object) / 2
    assert all(isinstance(x, Fraction) for x in half.flat)
    assert (half == getattr(np, of)(2, dtype=int) * Fraction(1, 2)).all()


class Gaussian:
    """x + iy with fractions x and y, which says that it is complex."""

    is_complex = True

    def __init__(self, x, y=0):
        self.x, self.y = Fraction(x), Fraction(y)

    def __add__(self, other):
        other = other if isinstance(other, Gaussian) else Gaussian(int(other.real), int(other.imag))
        return Gaussian(self.x + other.x, self.y + other.y)

    def __mul__(self, other):
        other = other if isinstance(other, Gaussian) else Gaussian(int(other.real), int(other.imag))
        return Gaussian(self.x * other.x - self.y * other.y, self.x * other.y + self.y * other.x)

    __radd__, __rmul__ = __add__, __mul__

    def conjugate(self):
        return Gaussian(self.x, -self.y)

    @property
    def real(self):
        return Gaussian(self.x)

    @property
    def imag(self):
        return Gaussian(self.y)

    def __complex__(self):
        return complex(self.x, self.y)


@pytest.mark.parametrize(
    "function",
    [
        lambda w, z: mg.real(mg.conj(w) * z * z),
        lambda w, z: mg.imag(w * z) * mg.real(z),
        lambda w, z: mg.real(mg.imag(w * z) * mg.imag(z) * z),
    ],
)
def test_complex_objects_have_the_gradients_of_complex_floats(function):
    """Conjugates, and real parts of cotangents, without a dtype that asks for them; all numbers are small integers."""
    w, z = np.array([2 - 1j, 3j]), np.array([1 + 2j, -1 + 1j])
    exact = [np.array([Gaussian(int(e.real), int(e.imag)) for e in x], dtype=object) for x in (w, z)]
    ones = np.array([Gaussian(1), Gaussian(1)], dtype=object)
    values, pull = mg.vjp(function, w, z)
    exact_values, exact_pull = mg.vjp(function, *exact)
    assert [complex(e) for e in exact_values] == list(values)
    for found, expected in zip(exact_pull(ones), pull(np.ones(2)), strict=True):
        assert [complex(e) for e in found] == list(expected)


@pytest.mark.parametrize("zero", [0, np.int64(0), Fraction(0)])
def test_sums_of_logarithms_start_from_zero(zero):
    assert zero + Log(Fraction(2)) == Log(Fraction(2)) + zero == Log(Fraction(2)) - zero == Log(Fraction(2))


def test_known_values_are_exact():
    xp = namespace(fractions(1))
    for function, at, value in ((xp.exp, 0, 1), (xp.sqrt, 1, 1), (xp.log, 1, 0), (xp.tanh, 0, 0)):
        for number in (at, Fraction(at)):
            (result,) = function(np.array([number], dtype=object))
            assert result == value and isinstance(result / 2, Fraction)
    with pytest.raises(TypeError, match="no exact exp"):
        xp.exp(fractions(1) + 1)


def fractions(*shape, seed=0):
    rng = np.random.default_rng(seed)
    numbers = [Fraction(int(a), int(b)) for a, b in zip(rng.integers(-9, 9, 99), rng.integers(1, 9, 99), strict=True)]
    return np.array(numbers[: int(np.prod(shape))], dtype=object).reshape(shape)


def test_gradients_of_fractions_are_exact():
    x, y = fractions(3, 2), fractions(2, 3, seed=1)

    def f(x, y):
        return mg.sum((x @ y) ** 2 / (1 + mg.sum(x * x))) + mg.sum(mg.cumulative_sum(x, axis=0)[1:, 0])

    gx, gy = mg.grad(f, (0, 1))(x, y)
    assert all(isinstance(g, Fraction) for g in (*gx.flat, *gy.flat))
    step = Fraction(1, 10**9)
    for i in np.ndindex(3, 2):
        moved = x.copy()
        moved[i] += step
        back = x.copy()
        back[i] -= step
        assert abs((f(moved, y) - f(back, y)) / (2 * step) - gx[i]) < Fraction(1, 10**12)
    second = mg.grad(lambda x: mg.sum(mg.grad(f)(x, y) ** 2))(x)
    assert all(isinstance(g, Fraction) for g in second.flat)


def test_the_logarithm_of_an_exact_number():
    gates = np.array([Log(Fraction(1, 2)), Log(Fraction(0)), Log(Fraction(3))], dtype=object)
    xp = mg.namespace(gates)
    assert xp.exp(xp.cumulative_sum(gates, axis=0)).tolist() == [Fraction(1, 2), 0, 0]
    assert xp.exp(xp.where(np.array([True, False, True]), gates, xp.zeros_like(gates))).tolist() == [
        Fraction(1, 2),
        1,
        3,
    ]
    assert mg.grad(lambda a: mg.sum(mg.exp(a + a)))(gates).tolist() == [Fraction(1, 2), 0, 18]


def test_solves_over_fractions():
    a, b = fractions(2, 3, 3) + np.eye(3, dtype=int) * 20, fractions(2, 3, 2, seed=3)
    assert (a @ mg.linalg.solve(a, b) == b).all()
    assert (mg.tril(a) @ mg.solve_triangular(a, b, lower=True) == b).all()
    with pytest.raises(ZeroDivisionError, match="singular"):
        mg.linalg.solve(a * 0, b)


def test_einsum_over_fractions():
    x, y = fractions(2, 3, 4), fractions(4, 3, seed=2)
    expected = np.einsum("bij,ji->bi", x.astype(float), y.astype(float))
    np.testing.assert_allclose(mg.einsum("bij,ji->bi", x, y).astype(float), expected)


def test_what_has_no_exact_value_says_so():
    with pytest.raises(TypeError, match="^exp: Fraction.1, 2. has no exact exp"):
        mg.exp(np.array([Fraction(1, 2)], dtype=object))
    with pytest.raises(ValueError, match="numbers modulo 5 and 7"):
        Modular(1, 5) + Modular(1, 7)

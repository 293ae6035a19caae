"""The bounds of `proofs.checker.rounding` are never exceeded, and are not so wide that they would say nothing."""

import operator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import minigrad as mg
from proofs.checker.rounding import Rounded, errors

numbers = st.fractions(min_value=-4, max_value=4, max_denominator=64)
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
PRECISIONS = {"float64": np.float64, "float32": np.float32}


@st.composite
def expressions(draw):
    """Draw a straight-line program: at each step an operation on two earlier results."""
    inputs = draw(st.lists(numbers, min_size=2, max_size=4))
    steps = draw(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(0, 99), st.integers(0, 99)), max_size=10))
    return inputs, steps


def evaluated(inputs, steps):
    """Return every intermediate result; a division by a number near zero is left out."""
    values = list(inputs)
    for operation, i, j in steps:
        x, y = values[i % len(values)], values[j % len(values)]
        if operation == "/" and abs(float(y)) < 0.1:
            operation = "*"
        values.append(OPERATIONS[operation](x, y))
    return values


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(program=expressions())
def test_no_expression_exceeds_its_bound(precision, program):
    inputs, steps = program
    kind = PRECISIONS[precision]
    truth = evaluated(inputs, steps)
    with np.errstate(all="ignore"):
        computed = evaluated([kind(float(x)) for x in inputs], steps)
    bounds = errors(evaluated([Rounded.of(x) for x in inputs], steps), precision)
    for exact, result, bound in zip(truth, computed, bounds, strict=True):
        if np.isfinite(result) and abs(exact) > 1e-30:
            assert abs(Fraction(float(result)) - exact) <= bound


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("terms", [3, 100, 3000])
def test_a_sum_in_any_order_stays_below_its_bound(precision, terms):
    rng, kind = np.random.default_rng(terms), PRECISIONS[precision]
    x, y = (rng.standard_normal(terms).astype(np.float32) for _ in range(2))
    exact = sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, y, strict=True)), Fraction(0))
    rounded = sum((Rounded.of(a) * Rounded.of(b) for a, b in zip(x, y, strict=True)), Rounded.of(0))
    (bound,) = errors([rounded], precision)
    orders = [np.arange(terms), rng.permutation(terms), np.argsort(np.abs(x * y))]
    for order in orders:
        a, b = x[order].astype(kind), y[order].astype(kind)
        for result in (a @ b, np.sum(a * b), np.cumsum(a * b)[-1]):
            assert abs(Fraction(float(result)) - exact) <= bound


def test_an_input_that_underflows_is_allowed_for():
    tiny = Fraction(1, 10**60)  # 0 in float32
    (bound,) = errors([Rounded.of(tiny) * Rounded.of(3)], "float32")
    assert 3 * tiny <= bound <= 1e-36


def test_the_bound_is_within_reach():
    """Adding 1/3 to itself is off by a good part of what the bound allows: it is no blank cheque."""
    third, total, exact = np.float32(1 / 3), np.float32(0), Fraction(float(np.float32(1 / 3))) * 1000
    for _ in range(1000):
        total = total + third
    (bound,) = errors([sum([Rounded.of(float(third))] * 1000, Rounded.of(0))], "float32")
    assert bound / 100 < abs(Fraction(float(total)) - exact) <= bound


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh"])
def test_functions_stay_below_their_bounds(name):
    for x in np.random.default_rng(0).uniform(0.1, 6, 200):
        rounded = (Rounded.of(float(x)) * Rounded.of(1 / 3)).__getattribute__(name)()
        (bound,) = errors([rounded], "float32")
        result = getattr(np, name)(np.float32(x) * np.float32(1 / 3))
        true = getattr(np, name)(np.longdouble(x) * np.longdouble(1 / 3))
        assert abs(float(result) - float(true)) <= bound < 1e-3


@pytest.mark.parametrize("name", ["erf", "erfcx"])
def test_error_functions_stay_below_their_bounds(name):
    for x in np.random.default_rng(0).uniform(0.1, 6, 200):
        argument = Rounded.of(float(x)) * Rounded.of(1 / 3)
        (bound,) = errors([getattr(argument, name)()], "float32")
        result = getattr(special, name)(np.float32(x) * np.float32(1 / 3))
        assert abs(float(result) - getattr(special, name)(x / 3)) <= bound < 1e-3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gelu_stays_below_its_bound(precision):
    """Its rounded numbers, which are constants to the bounds, are of no consequence to the result."""
    x = np.concatenate([np.linspace(-9, 9, 200), np.arange(-9, 9) / 16 + 1 / 32])  # the latter halfway between two
    bounds = errors(mg.gelu(np.array([Rounded.of(float(e)) for e in x], dtype=object)), precision)
    exact = x * special.ndtr(x)
    assert (abs(mg.gelu(x.astype(precision)) - exact) <= bounds + 1e-15 * abs(exact)).all()
    assert (bounds <= 1e-4 * abs(exact) + 1e-30).all()


def test_the_scaled_error_function_is_bounded_for_positive_numbers_only():
    with pytest.raises(ValueError, match="^erfcx: .*, expected a number of at least 0$"):
        Rounded.of(-1.0).erfcx()


def test_complex_gradients_have_the_right_values_and_stay_below_their_bounds():
    """Conjugates count: a bound of 1 / (1 + z̄x) depends on its value; and the gradient of a real number is real."""
    rng = np.random.default_rng(0)
    z, w = (rng.uniform(0.5, 2, (5, 2)).astype(np.float32).astype(float).view(complex)[:, 0] for _ in range(2))
    x = rng.uniform(0.5, 2, 5).astype(np.float32).astype(float)

    def loss(z, x, w):
        return mg.sum(mg.real(w * mg.conj(z) / (1 + mg.conj(z) * x)) + mg.abs(z) * mg.imag(z * x * w))

    def gradients(convert):
        arguments = [convert(a) for a in (z, x, w)]
        first = mg.grad(loss, argnums=(0, 1))(*arguments)
        second = mg.grad(lambda *arguments: mg.sum(mg.grad(loss, argnums=1)(*arguments)), argnums=(0, 1))(*arguments)
        return [*first, *second]

    exact = gradients(lambda a: a)
    single = gradients(lambda a: a.astype(np.complex64 if np.iscomplexobj(a) else np.float32))
    rounded = gradients(lambda a: np.fromiter(map(Rounded.of, a.tolist()), dtype=object))
    for truth, computed, bounded in zip(exact, single, rounded, strict=True):
        values = np.array([number.value for number in bounded])
        assert np.iscomplexobj(values) == np.iscomplexobj(truth)
        np.testing.assert_allclose(values, truth, rtol=1e-12)
        assert (abs(computed - truth) <= errors(bounded, "float32")).all() and (errors(bounded, "float32") < 1e-3).all()


def test_a_conjugate_that_decides_a_bound():
    """At z = i |z|² is 1 and z² = −1: with the one for the other 1 + |z|² would be 0, its inverse without a bound."""
    i = np.array([Rounded.of(1j)], dtype=object)
    (gradient,) = mg.grad(lambda z: mg.sum(mg.real(1 / (1 + mg.conj(z) * z))))(i)
    assert gradient.value == pytest.approx(-0.5j) and gradient.error(2.0**-24, 0) < 1e-5

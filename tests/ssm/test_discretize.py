"""Discretisation by hand, at its extremes, differentiated, and given what does not fit."""

import math
from fractions import Fraction

import numpy as np
import pytest

import minigrad as mg
from models.forms import mechanisms
from models.ssm import discretize, hippo

METHODS = [*discretize.METHODS, "generalized_bilinear"]
CASES = ("matrix", "complex matrix", "diagonal", "complex diagonal")


def method(name):
    if name != "generalized_bilinear":
        return discretize.METHODS[name]
    return lambda A, B, delta: discretize.generalized_bilinear(A, B, delta, alpha=0.25)


def system(case, *, N=3, channels=2):
    """Return A, B and Δ, with eigenvalues well inside the left half-plane."""
    rng = np.random.default_rng(5)
    if "matrix" in case:
        A, B, delta = rng.normal(size=(N, N)) / 4 - np.eye(N), rng.normal(size=N), np.array(0.7)
    else:
        A, B = -rng.uniform(0.2, 3, size=(channels, N)), rng.normal(size=(channels, N))
        delta = rng.uniform(0.1, 2, size=(channels, 1))
    if "complex" in case:
        A, B = A + 0.3j * rng.normal(size=A.shape), B + 1j * rng.normal(size=B.shape)
    return A, B, delta


# By hand


def test_one_number_by_hand():
    half = math.log(2)
    A, B = np.array([-half]), np.array([3.0])
    by_hand = {
        "zoh": (0.25, 0.75 / half * 3),  # 2^−Δ, (1 − 2^−Δ)/log 2 · B
        "mamba": (0.25, 6),
        "euler": (1 - 2 * half, 6),
        "bilinear": ((1 - half) / (1 + half), 6 / (1 + half)),
        "generalized_bilinear": ((1 - 1.5 * half) / (1 + 0.5 * half), 6 / (1 + 0.5 * half)),
    }
    for name, expected in by_hand.items():
        for A_bar, B_bar in (method(name)(A, B, 2.0), method(name)(A[:, None], B, 2.0)):
            np.testing.assert_allclose([A_bar.item(), B_bar.item()], expected, rtol=1e-14)


def test_a_double_integrator():
    """Position and speed under a constant push: A is singular, and the answer is x + vΔ + Δ²/2."""
    A_bar, B_bar = discretize.zoh(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([0.0, 1.0]), 3.0)
    np.testing.assert_allclose(A_bar, [[1, 3], [0, 1]], rtol=1e-15)
    np.testing.assert_allclose(B_bar, [4.5, 3], rtol=1e-15)


def test_a_state_that_does_not_fade():
    A_bar, B_bar = discretize.zoh(np.array([0.0, -0.0]), np.array([2.0, 3.0]), 0.5)
    np.testing.assert_array_equal(A_bar, [1, 1])
    np.testing.assert_array_equal(B_bar, [1, 1.5])


@pytest.mark.parametrize("name", METHODS)
def test_several_inputs_are_several_columns(name):
    A, B, delta = system("matrix")
    columns = np.stack([B, 2 * B, B * B], axis=-1)
    A_bar, B_bar = method(name)(A, columns, delta)
    assert A_bar.shape == (3, 3) and B_bar.shape == (3, 3)
    for i in range(3):
        np.testing.assert_allclose(B_bar[:, i], method(name)(A, columns[:, i], delta)[1], rtol=1e-13)


def test_fractions_stay_fractions():
    A = np.array([[Fraction(-1), Fraction(2)], [Fraction(0), Fraction(-3)]])
    A_bar, B_bar = discretize.bilinear(A, np.array([Fraction(1), Fraction(2)]), Fraction(1, 3))
    assert A_bar.tolist() == [[Fraction(5, 7), Fraction(8, 21)], [0, Fraction(1, 3)]]
    assert B_bar.tolist() == [Fraction(26, 63), Fraction(4, 9)]
    with pytest.raises(TypeError, match="has no exact exp"):
        discretize.zoh(np.array([Fraction(-1)]), np.array([Fraction(1)]), Fraction(1))


# φ, where (eˣ − 1)/x would cancel


def series(x, order):
    """Return the derivative of φ of this order, Σ xᵏ/(k! (k + order + 1)), by as many terms as there are digits."""
    terms = [x**k / math.factorial(k) / (k + order + 1) for k in range(60)]
    return sum(reversed(terms))


@pytest.mark.parametrize(
    "x", [0.0, 1e-300, -1e-12, -1e-5, -0.3, -0.999, -1.001, -4.0, 1e-9j, 0.6j, -0.5 + 0.9j, -1 + 3j]
)
def test_phi_and_its_derivatives(x):
    x = np.array([x])
    one = np.ones_like(x)

    def slope(y):
        return mg.vjp(discretize._phi, y)[1](one)[0]

    np.testing.assert_allclose(discretize._phi(x), series(x, 0), rtol=2e-15)
    np.testing.assert_allclose(np.conj(slope(x)), series(x, 1), rtol=2e-14)  # gradients are adjoints
    np.testing.assert_allclose(np.conj(mg.vjp(slope, x)[1](one)[0]), np.conj(series(np.conj(x), 2)), rtol=2e-13)


# Gradients


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", METHODS)
def test_gradients(name, case):
    mg.check_grads(method(name), system(case), tolerance=1e-5)


@pytest.mark.parametrize("case", ["matrix", "diagonal"])
def test_gradients_through_many_doublings(case):
    A, B, delta = system(case)
    mg.check_grads(discretize.zoh, (40 * A, B, delta), order=1, tolerance=1e-4)


def test_gradients_to_an_exact_step():
    """A number has no axes, and NumPy hands exact ones out bare."""

    def loss(delta):
        return mg.sum(discretize.bilinear(np.array([Fraction(-1)]), np.array([Fraction(1)]), delta)[0])

    slope = mg.grad(loss)(np.array(Fraction(2), dtype=object))  # (2 − Δ)/(2 + Δ)
    assert slope == Fraction(-4, 16)


# Extremes


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("name", METHODS)
def test_every_step_and_rate(name, dtype):
    """Δ from 1e-6 to 1e2 against rates from −1e-7 to −1e5: what comes is finite, of the same precision, and stable."""
    steps = np.logspace(-6, 2, 9).astype(np.finfo(dtype).dtype)
    rates = np.concatenate([[0], -np.logspace(-7, 5, 13)])
    A = (np.broadcast_to(rates, (9, 14)) * (1 + 2j if np.issubdtype(dtype, np.complexfloating) else 1)).astype(dtype)
    A_bar, B_bar = method(name)(A, np.ones_like(A), steps[:, None])
    assert A_bar.dtype == dtype and B_bar.dtype == dtype
    assert np.isfinite(A_bar).all() and np.isfinite(B_bar).all()
    if name not in ("euler", "generalized_bilinear"):  # explicit methods, or for the most part
        assert (abs(A_bar) <= 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_legs_at_every_step(dtype):
    A, B = (x.astype(dtype) for x in hippo.legs(64))
    for step in np.logspace(-6, 2, 9):
        for name in ("zoh", "bilinear", "mamba"):
            A_bar, B_bar = method(name)(A, B, dtype(step))
            assert A_bar.dtype == dtype and np.isfinite(A_bar).all() and np.isfinite(B_bar).all()
            assert abs(np.linalg.eigvals(A_bar.astype(np.float64))).max() <= 1 + 1e-3


def test_half_precision_agrees_with_double():
    A, B, delta = system("complex diagonal", N=64)
    for name in METHODS:
        single = method(name)(A.astype(np.complex64), B.astype(np.complex64), delta.astype(np.float32))
        for left, right in zip(single, method(name)(A, B, delta), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("N", [1, 16, 64, 256])
@pytest.mark.parametrize("measure", hippo.MEASURES)
def test_all_of_hippo_counts_as_stable(measure, N):
    A, B = hippo.MEASURES[measure](N)
    for dtype in (np.float32, np.float64):
        discretize.bilinear(A.astype(dtype), B.astype(dtype), dtype(0.01))


# What does not fit

A2, B2 = -np.eye(2), np.ones(2)
WRONG = [
    (
        (np.array([[0.5, 1], [0, -1]]), B2, 1.0),
        "A has an eigenvalue of real part 0.5, expected real parts of at most 0",
    ),
    ((np.array([-1.0, 0.25]), B2, 1.0), "A holds real part 0.25, expected real parts of at most 0"),
    ((np.array([-1.0, 0.25 + 1j]), B2, 1.0), "A holds real part 0.25, expected real parts of at most 0"),
    ((np.array([-1.0, np.nan]), B2, 1.0), "A holds real part nan, expected real parts of at most 0"),
    ((A2 * np.nan, B2, 1.0), "A holds NaN or infinity, expected finite numbers"),
    ((A2, B2, 0.0), "delta holds 0.0, expected finite steps above 0"),
    ((A2, B2, -1.0), "delta holds -1.0, expected finite steps above 0"),
    ((A2, B2, math.nan), "delta holds nan, expected finite steps above 0"),
    ((-B2, B2, np.array([1.0, -3.0])), "delta holds -3.0, expected finite steps above 0"),
    ((-B2, B2, np.array([1.0, np.inf])), "delta holds inf, expected finite steps above 0"),
    ((-np.ones((2, 3)), np.ones(3), 1.0), "A has shape (2, 3), expected (N, N) where delta is a number"),
    ((A2, np.ones(3), 1.0), "B has shape (3,), expected (2,) or (2, M) as A is (2, 2)"),
    ((A2, np.ones((2, 1, 1)), 1.0), "B has shape (2, 1, 1), expected (2,) or (2, M) as A is (2, 2)"),
    (
        (-np.ones((2, 3)), np.ones((2, 2)), np.ones((2, 1))),
        "A, B and delta have shapes (2, 3), (2, 2) and (2, 1), "
        "expected (*channels, N) twice, and (*channels, 1) or no axis",
    ),
]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("given", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_errors(name, given, message):
    with pytest.raises(ValueError) as error:
        method(name)(*given)
    assert str(error.value) == f"discretize.{name}: {message}"


@pytest.mark.parametrize("alpha", [-0.1, 1.5, math.nan])
def test_a_share_of_the_step(alpha):
    with pytest.raises(ValueError, match="alpha is .*, expected a number from 0 to 1$"):
        discretize.generalized_bilinear(A2, B2, 1.0, alpha=alpha)


def test_these_are_no_mechanisms():
    assert not {"ssm.discretize", "ssm.hippo"} & set(mechanisms())

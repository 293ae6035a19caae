"""HiPPO's matrices by hand, its memory of signals, and what does not fit."""

import numpy as np
import pytest
from numpy.polynomial import laguerre, legendre

from models.ssm import hippo

MEASURES = pytest.mark.parametrize("measure", hippo.MEASURES)


# By hand


def test_matrices_by_hand():
    r3, r2 = np.sqrt(3), np.sqrt(2)
    by_hand = {
        "legs": ([[-1, 0], [-r3, -2]], [1, r3]),
        "legt": ([[-1, r3], [-r3, -3]], [1, r3]),
        "lagt": ([[-1, 0], [-1, -1]], [1, 1]),
        "fourier": ([[-2, -2 * r2, 0], [-2 * r2, -4, -2 * np.pi], [0, 2 * np.pi, 0]], [2, 2 * r2, 0]),
    }
    for measure, (A, B) in by_hand.items():
        result = hippo.MEASURES[measure](len(B))
        np.testing.assert_allclose(result[0], A, rtol=1e-15, atol=1e-15)
        np.testing.assert_allclose(result[1], B, rtol=1e-15)


@MEASURES
def test_all_are_stable(measure):
    for N in (1, 2, 7, 32):
        A, _ = hippo.MEASURES[measure](N)
        assert np.linalg.eigvals(A).real.max() <= 1e-12
        assert np.linalg.eigvalsh(A + A.T).max() <= 1e-12  # no direction grows, not even for a while


@MEASURES
def test_the_basis_is_orthonormal(measure):
    if measure == "lagt":
        ages, weights = laguerre.laggauss(40)
    else:
        ages, weights = legendre.leggauss(80)
        ages, weights = (1 + ages) / 2, weights / 2
    g = hippo.basis(9, ages, measure=measure)
    np.testing.assert_allclose(g.T @ (weights[:, None] * g), np.eye(9), atol=1e-12)


def test_fourier_obeys_its_equation_for_periods_of_the_window():
    """Check periods at which the far end of the window equals the present, as S4-FouT supposes."""
    ages, weights = legendre.leggauss(60)
    ages, weights = (1 + ages) / 2, weights / 2
    A, B = hippo.fourier(5)

    def f(t):
        return 1 + np.sin(2 * np.pi * t) - 0.5 * np.cos(4 * np.pi * t)

    def coefficients(t):
        return (weights * f(t - ages)) @ hippo.basis(5, ages, measure="fourier")

    for t in (0.3, 0.77):
        slope = (coefficients(t + 1e-5) - coefficients(t - 1e-5)) / 2e-5
        np.testing.assert_allclose(slope, A @ coefficients(t) + B * f(t), atol=1e-7)


# Remembering


def test_a_constant_is_remembered_at_once():
    c = hippo.project(np.full(5, 3.0), 4)
    np.testing.assert_allclose(c, np.tile([3.0, 0, 0, 0], (5, 1)), atol=1e-14)


@pytest.mark.parametrize(
    ("measure", "delta", "reach", "error"),
    [
        ("legs", 1.0, 1.0, 0.02),
        ("legt", 1 / 200, 1.0, 0.03),
        ("fourier", 1 / 200, 1.0, 0.4),
        ("lagt", 1 / 50, 2.0, 0.03),
    ],
)
def test_a_signal_is_remembered(measure, delta, reach, error):
    t = np.arange(1, 1001) / 1000
    f = np.sin(12 * t) + t
    c = hippo.project(f, 33, measure=measure, delta=delta)
    assert c.shape == (1000, 33)
    ages = np.linspace(0, reach, 50)
    then = 1 - ages if measure == "legs" else 1 - ages / delta / 1000
    recalled = hippo.reconstruct(c[-1], ages, measure=measure)
    assert np.abs(recalled - np.interp(then, t, f)).max() < error


def test_more_coefficients_remember_more():
    t = np.arange(1, 2001) / 2000
    f, errors = np.sin(25 * t) * t, []
    for N in (4, 8, 16, 32):
        recalled = hippo.reconstruct(hippo.project(f, N)[-1], 1 - t)
        errors.append(np.sqrt(np.mean((recalled - f) ** 2)))
    assert errors[0] > errors[1] > errors[2] > errors[3] and errors[3] < errors[0] / 50


def test_reconstruction_of_a_batch():
    c = np.random.default_rng(0).normal(size=(2, 3, 5))
    recalled = hippo.reconstruct(c, np.linspace(0, 1, 7), measure="legt")
    assert recalled.shape == (2, 3, 7)
    np.testing.assert_allclose(recalled[1, 2], hippo.reconstruct(c[1, 2], np.linspace(0, 1, 7), measure="legt"))


def test_every_method_remembers():
    t = np.arange(1, 401) / 400
    for method in ("zoh", "bilinear", "mamba"):
        c = hippo.project(np.cos(3 * t), 5, method=method)
        assert np.abs(hippo.reconstruct(c[-1], 1 - t) - np.cos(3 * t)).max() < 0.05, method


# Taking the matrix apart


@pytest.mark.parametrize("measure", ["legs", "lagt"])
@pytest.mark.parametrize("N", [2, 8, 64])
def test_one_of_each_conjugate_pair(measure, N):
    Lambda, P, B, V = hippo.dplr(N, measure)
    assert Lambda.shape == P.shape == B.shape == (N // 2,) and V.shape == (N, N // 2)
    assert (Lambda.imag > 0).all() and (Lambda.real == -0.5).all()
    A, B_real = hippo.MEASURES[measure](N)
    PP = np.outer(2 * (V @ P).real, 2 * (V @ P).real)  # twice the real part of a half is the whole
    np.testing.assert_allclose(2 * ((V * Lambda) @ V.conj().T).real - PP, A, atol=1e-13 * N * N)
    np.testing.assert_allclose(2 * (V @ B).real, B_real, atol=1e-13 * N)


@MEASURES
def test_normal_plus_low_rank(measure):
    S, P = hippo.nplr(6, measure)
    assert P.shape == (6, 2 if measure == "legt" else 1)
    np.testing.assert_allclose(S @ S.T, S.T @ S, atol=1e-12)
    np.testing.assert_allclose(S - P @ P.T, hippo.MEASURES[measure](6)[0], atol=1e-13)


# What does not fit


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hippo.dplr(5), "hippo.dplr: N is 5, expected an even number: eigenvalues come in conjugate pairs"),
        (lambda: hippo.dplr(0), "hippo.dplr: N is 0, expected an integer of at least 1"),
        (lambda: hippo.dplr(4, "legt"), "hippo.dplr: measure is 'legt', expected legs or lagt: normal plus rank one"),
        (lambda: hippo.nplr(4, "leg"), "hippo.nplr: measure is 'leg', expected one of legs, legt, lagt, fourier"),
        (lambda: hippo.legs(0), "hippo.legs: N is 0, expected an integer of at least 1"),
        (lambda: hippo.legt(-1), "hippo.legt: N is -1, expected an integer of at least 1"),
        (lambda: hippo.lagt(2.5), "hippo.lagt: N is 2.5, expected an integer of at least 1"),
        (lambda: hippo.fourier(0), "hippo.fourier: N is 0, expected an integer of at least 1"),
        (lambda: hippo.basis(0, [0.5]), "hippo.basis: N is 0, expected an integer of at least 1"),
        (lambda: hippo.project([], 4), "hippo.project: f has shape (0,), expected (T,) with at least one sample"),
        (
            lambda: hippo.project([[1.0]], 4),
            "hippo.project: f has shape (1, 1), expected (T,) with at least one sample",
        ),
        (lambda: hippo.project([1.0, np.nan], 4), "hippo.project: f holds NaN or infinity, expected finite samples"),
        (
            lambda: hippo.project([1.0], 4, method="tustin"),
            "hippo.project: method is 'tustin', expected one of zoh, bilinear, euler, mamba",
        ),
        (
            lambda: hippo.project([1.0], 4, measure="legt", delta=0.0),
            "discretize.bilinear: delta holds 0.0, expected finite steps above 0",
        ),
        (
            lambda: hippo.reconstruct([1.0], [0.5], measure="cheb"),
            "hippo.basis: measure is 'cheb', expected one of legs, legt, lagt, fourier",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message

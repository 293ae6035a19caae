"""Invariant systems: by hand, over a hundred thousand tokens, and what does not fit."""

import numpy as np
import pytest

import minigrad as mg
from models.ssm import lssl, lti

FORMS = (lti.recurrent, lti.direct, lti.convolution)
LAYERS = (lssl.recurrent, lssl.convolution)
LENGTHS = {"direct": 300}  # it keeps T² numbers, the others go to a hundred thousand


def named(forms):
    return pytest.mark.parametrize("form", forms, ids=lambda form: form.__name__)


def layer_arguments(T, *, D=3, N=4, batch=(), dtype=np.float64):
    rng = np.random.default_rng(3)
    A = -np.tril(rng.uniform(0.1, 1, size=(N, N)))
    arguments = rng.normal(size=(*batch, T, D)), A, rng.normal(size=N), rng.normal(size=(D, N)), rng.normal(size=D)
    return [x.astype(dtype) for x in (*arguments, rng.uniform(0.1, 1, size=D))]


@named(FORMS)
@pytest.mark.parametrize("dense", [False, True], ids=["diagonal", "dense"])
def test_by_hand(form, dense):
    u, A = np.array([[1.0], [2.0], [0.0]]), np.array([0.5, 2.0])
    arguments = np.diag(A) if dense else A, np.array([1.0, 3.0]), np.array([1.0, 10.0])
    y, h = form(u, *arguments, state=np.array([[4.0, 0.0]]))
    # h: (2 + 1, 3), (1.5 + 2, 6 + 6), (1.75, 24)
    np.testing.assert_allclose(y, [[33.0], [123.5], [241.75]], rtol=1e-14)
    np.testing.assert_allclose(h, [[1.75, 24.0]], rtol=1e-14)


@named(LAYERS)
def test_layer_by_hand(form):
    one = np.array([[1.0], [0.0]])
    y, h = form(one, np.array([[-2.0]]), np.array([3.0]), np.array([[1.0]]), np.array([10.0]), np.array([1.0]))
    # Ā = (1 − 1)/(1 + 1) = 0, B̄ = 3/2
    np.testing.assert_allclose(y, [[11.5], [0.0]], atol=1e-15)
    np.testing.assert_allclose(h, [[0.0]], atol=1e-15)
    y, _ = form(one, np.array([[-2.0]]), np.array([3.0]), np.array([[1.0]]), np.array([10.0]), np.array([1.0]), alpha=1)
    np.testing.assert_allclose(y, [[11.0], [1 / 3]], rtol=1e-14)  # Ā = 1/3, B̄ = 1


def test_the_two_forms_of_the_layer_have_the_same_gradients():
    arguments = layer_arguments(9, batch=(2,))
    state = np.random.default_rng(1).normal(size=(2, 3, 4))

    def gradients(form):
        def loss(S, *arguments):
            y, S = form(*arguments, state=S)
            return mg.sum(y * y) + mg.sum(S * S * S)

        return mg.grad(loss, argnums=tuple(range(7)))(state, *arguments)

    for left, right in zip(gradients(lssl.recurrent), gradients(lssl.convolution), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@named(FORMS)
def test_long_sequences_stay_finite(form, dtype):
    """Every decay side by side, an eigenvalue each, forward and backward."""
    decays, rng = np.array([1 - 1e-7, 0.0, 1e-30, -0.999]), np.random.default_rng(0)
    arguments = rng.normal(size=(LENGTHS.get(form.__name__, 100_000), 1)), decays, *rng.normal(size=(2, decays.size))
    assert_finite(form, [x.astype(dtype) for x in arguments], dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@named(LAYERS)
def test_layer_stays_finite(form, dtype):
    """Every step side by side, a channel each, forward and backward."""
    steps = np.array([1e-6, 1.0, 1e2], dtype)
    arguments = layer_arguments(100_000, D=steps.size, N=2, dtype=dtype)
    assert_finite(form, [*arguments[:-1], steps], dtype)


def assert_finite(form, arguments, dtype):
    def loss(*arguments):
        y, state = form(*arguments)
        return mg.mean(y * y) + mg.sum(state)

    value, gradients = mg.value_and_grad(loss, argnums=tuple(range(len(arguments))))(*arguments)
    assert np.isfinite(value)
    for gradient, x in zip(gradients, arguments, strict=True):
        assert gradient.dtype == dtype and gradient.shape == x.shape
        assert np.isfinite(gradient).all()


def test_a_hundred_thousand_tokens_by_both_forms():
    rng = np.random.default_rng(0)
    arguments = rng.normal(size=(100_000, 1)), np.array([1 - 1e-7]), np.ones(1), np.ones(1)
    (y, h), (z, g) = lti.recurrent(*arguments), lti.convolution(*arguments)
    np.testing.assert_allclose(y, z, atol=1e-9 * np.abs(y).max())
    np.testing.assert_allclose(h, g, rtol=1e-8)


@named(FORMS)
def test_errors(form):
    u, A, B, C = np.ones((4, 2)), np.eye(3), np.ones(3), np.ones(3)
    name = f"lti.{form.__name__}"
    with pytest.raises(ValueError, match=rf"^{name}: A has 2 on axis N, expected 3 as in A \(shape \(3, 2\)"):
        form(u, A[:, :2], B, C)
    with pytest.raises(ValueError, match=rf"^{name}: B has 2 on axis N, expected 3 as in A"):
        form(u, A, B[:2], C)
    with pytest.raises(ValueError, match=rf"^{name}: A has rank 3, expected 2 \(shape \(1, 3, 3\), expected N N"):
        form(u, A[None], B, C)
    with pytest.raises(TypeError, match=rf"^{name}: A has dtype complex128, expected real floating point$"):
        form(u, A + 0j, B, C)


@named(LAYERS)
def test_layer_errors(form):
    u, A, B, C, D, delta = layer_arguments(4)
    name = f"lssl.{form.__name__}"
    with pytest.raises(ValueError, match=r"A has an eigenvalue of real part 0.5, expected real parts of at most 0$"):
        form(u, np.eye(4) / 2, B, C, D, delta)
    with pytest.raises(ValueError, match=r"delta (holds|is) -1.0, expected .*steps? above 0$"):
        form(u, A, B, C, D, np.array([1.0, -1.0, 1.0]))
    with pytest.raises(ValueError, match=rf"^{name}: alpha is 0.25, expected a number from 1/2 to 1$"):
        form(u, A, B, C, D, delta, alpha=0.25)

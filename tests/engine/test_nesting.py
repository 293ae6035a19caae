"""Transforms within transforms: whatever depends on an outer variable is differentiated with respect to it."""

import numpy as np
import pytest

import minigrad as mg

X = np.array([0.5, -1.0, 2.0])


def inner_value(w):
    """Return Σ x w from `value_and_grad`, with w from outside."""
    return mg.value_and_grad(lambda u: mg.sum(u * w))(X)[0]


def inner_aux(w):
    return mg.sum(mg.value_and_grad(lambda u: (mg.sum(u), {"y": u * w * w}), has_aux=True)(X)[0][1]["y"])


def inner_vjp(w):
    return mg.sum(mg.vjp(lambda u: u * w, X)[0])


def inner_jvp(w):
    return mg.sum(mg.jvp(lambda u: u**3, (w,), (X,))[1])


def inner_jvp_value(w):
    return mg.sum(mg.jvp(lambda u: u * w, (X,), (X,))[0])


def inner_tangent(w):
    return mg.sum(mg.jvp(lambda u: u**2, (X,), (w,))[1])


def inner_hvp(w):
    return mg.sum(mg.hvp(lambda u: mg.sum(u**4), (w,), (X,))[0])


def inner_vector(w):
    return mg.sum(mg.hvp(lambda u: mg.sum(u**4), (X,), (w,))[0])


def inner_cotangent(w):
    return mg.sum(mg.vjp(mg.sin, X)[1](w)[0])


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (inner_value, X),
        (inner_aux, 2 * X * X),
        (inner_vjp, X),
        (inner_jvp, 6 * X * X),
        (inner_jvp_value, X),
        (inner_tangent, 2 * X),
        (inner_hvp, 24 * X * X),
        (inner_vector, 12 * X * X),
        (inner_cotangent, np.cos(X)),
    ],
)
def test_outer_gradients(f, expected):
    np.testing.assert_allclose(mg.grad(f)(X), expected, rtol=1e-14)
    mg.check_grads(f, (X,), order=2)


def test_results_are_raw_where_nothing_is_differentiated():
    value, g = mg.value_and_grad(lambda u: mg.sum(u * u))(X)
    out, pull = mg.vjp(mg.sin, X)
    outs = [value, g, out, pull(X)[0], *mg.jvp(mg.sin, (X,), (X,)), *mg.hvp(mg.sum, (X,), (X,))]
    assert all(isinstance(y, (np.ndarray, np.generic)) for y in outs)

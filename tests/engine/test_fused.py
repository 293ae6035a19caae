"""Hand-written kernels and checkpoints give the gradients of what they stand for, to any order."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn

rng = np.random.default_rng(2)


def reference(x, y):
    return mg.exp(x) * y, mg.sum(x * y, axis=-1)


def forward(x, y):
    e = np.exp(x)
    return (e * y, (x * y).sum(-1)), (x, y, e)


def backward(saved, cotangents):
    (x, y, e), (g, h) = saved, cotangents
    return g * e * y + h[..., None] * y, g * e + h[..., None] * x


kernel = mg.fused(forward, backward, reference)
X, Y = rng.standard_normal((2, 3)), rng.standard_normal((2, 3))


def test_first_and_second_gradients():
    mg.check_grads(kernel, (X, Y), order=3)
    mg.check_grads(lambda x, y: kernel(x, y)[1], (X, Y), order=2)
    mg.check_grads(lambda x: kernel(x, Y)[0], (X,), order=2)


def test_second_gradients_of_a_kernel_with_one_result():
    square = mg.fused(lambda x: (x * x, x), lambda x, g: (2 * g * x,), lambda x: x * x)
    mg.check_grads(square, (X,), order=3)
    np.testing.assert_allclose(mg.hvp(lambda x: mg.sum(square(x)), (X,), (Y,))[0], 2 * Y, rtol=1e-14)


def test_both_kinds_of_pass_agree_when_the_inputs_depend_on_each_other():
    """Differentiating the reference at the original nodes would count what flows from y into x twice."""

    def loss(x):
        first, second = kernel(mg.sin(x), x)
        return mg.sum(first * first) + mg.sum(second)

    ordinary = mg.grad(loss)(X)
    recorded = mg.grad(loss)(mg.Tensor(X))
    assert isinstance(recorded, mg.Tensor)
    np.testing.assert_allclose(recorded.value, ordinary, rtol=1e-13)
    mg.check_grads(loss, (X,), order=2)
    mg.check_grads(lambda x: mg.sum(kernel(x, x)[0]), (X,), order=2)


def test_an_ordinary_pass_runs_the_kernel_and_a_recorded_one_the_reference():
    ran = []

    def f(saved, g):
        ran.append("backward")
        return backward(saved, g)

    def r(x, y):
        ran.append("reference")
        return reference(x, y)

    k = mg.fused(forward, f, r)
    mg.grad(lambda x: mg.sum(k(x, Y)[0]))(X)
    assert ran == ["backward"]
    mg.grad(lambda x: mg.sum(k(x, Y)[0]))(mg.Tensor(X))
    assert ran == ["backward", "reference"]


def test_raw_arrays_stay_raw():
    assert all(type(y) is np.ndarray for y in kernel(X, Y))


def test_a_wrong_kernel_is_caught():
    wrong = mg.fused(forward, lambda s, g: (backward(s, g)[0], -backward(s, g)[1]), reference)
    with pytest.raises(AssertionError, match="from differences"):
        mg.check_grads(wrong, (X, Y), order=1)


def test_checkpoint_recomputes_and_changes_nothing():
    calls = []

    def f(w, x):
        calls.append(1)
        return {"y": mg.tanh(x @ w), "n": mg.sum(w * w)}

    def loss(g):
        def run(w, x):
            out = g(w, x)
            return mg.sum(out["y"] ** 2) * out["n"]

        return run

    w, x = rng.standard_normal((3, 3)), rng.standard_normal((2, 3))
    plain = mg.grad(loss(f), (0, 1))(w, x)
    calls.clear()
    checkpointed = mg.grad(loss(mg.checkpoint(f)), (0, 1))(w, x)
    assert len(calls) == 2
    for a, b in zip(plain, checkpointed, strict=True):
        np.testing.assert_array_equal(a, b)
    mg.check_grads(loss(mg.checkpoint(f)), (w, x), order=2)


def test_checkpoint_takes_modules_and_refuses_tensors_from_outside():
    layer, x = nn.Linear(3, 2, rng=rng, dtype=np.float64), rng.standard_normal((4, 3))
    plain = mg.grad(lambda m: mg.sum(mg.tanh(m(x)) ** 2))(layer)
    checkpointed = mg.grad(lambda m: mg.sum(mg.checkpoint(lambda m, x: mg.tanh(m(x)))(m, x) ** 2))(layer)
    np.testing.assert_array_equal(plain.weight, checkpointed.weight)
    with pytest.raises(ValueError, match="^checkpoint: the function uses a Tensor from outside"):
        mg.grad(lambda w: mg.sum(mg.checkpoint(lambda x: x @ w)(x)))(np.ones((3, 2)))

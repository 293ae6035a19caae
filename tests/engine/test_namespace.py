"""minigrad as an array namespace, and which library an array belongs to."""

from fractions import Fraction

import numpy as np
import pytest

import minigrad as mg

STANDARD = """
abs acos add all any arange argmax argmin argsort asarray asin astype atan atan2 broadcast_arrays broadcast_to
ceil clip concat conj cos cosh count_nonzero cumulative_prod cumulative_sum divide equal exp expand_dims expm1
eye flip floor floor_divide full greater greater_equal imag isfinite isinf isnan less less_equal linspace log
log1p logaddexp logical_and logical_not logical_or logical_xor matmul matrix_transpose max maximum mean min
minimum moveaxis multiply negative nonzero not_equal ones ones_like permute_dims pow prod real reciprocal
remainder repeat reshape roll round searchsorted sign signbit sin sinh sort sqrt square squeeze stack std
subtract sum take take_along_axis tan tanh tensordot tile trace tril triu trunc unique_values unstack var
vecdot where zeros zeros_like
""".split()


def test_a_tensor_answers_with_minigrad():
    x = mg.Tensor(np.ones(3))
    assert x.__array_namespace__() is mg
    assert mg.namespace(x) is mg and mg.namespace(np.ones(3), x, 2.0, None) is mg
    assert mg.namespace(np.ones(3), 1.0) is np and mg.namespace() is np
    assert mg.namespace(np.array([Fraction(1)], dtype=object), np.array([True])) is mg.exact


@pytest.mark.parametrize("name", STANDARD)
def test_the_standards_names_are_there(name):
    assert callable(getattr(mg, name))
    assert name == "trace" or callable(getattr(np, name))


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match="^namespace: got str, expected an array of a known library$"):
        mg.namespace("q")
    with pytest.raises(TypeError, match="^Tensor: got str, expected an array or a number$"):
        mg.Tensor("q")


def test_methods_and_operators_are_the_functions():
    a = np.array([[1.0, -2.0], [3.0, 4.0]])
    x = mg.Tensor(a)
    pairs = [
        (1 - x, 1 - a),
        (2 / x, 2 / a),
        (a @ x, a @ a),
        (x**2, a**2),
        (2.0**x, 2.0**a),
        (-x, -a),
        (+x, a),
        (abs(x), abs(a)),
        (x.T, a.T),
        (x.mT, a.mT),
        (x.sum(axis=0), a.sum(axis=0)),
        (x.mean(), a.mean()),
        (x.max(axis=1, keepdims=True), a.max(axis=1, keepdims=True)),
        (x.reshape(4), a.reshape(4)),
        (x.reshape((4, 1)), a.reshape((4, 1))),
        (x.astype(np.float32), a.astype(np.float32)),
        (x > 0, a > 0),
        (x == a, a == a),
        (~(x > 0), ~(a > 0)),
        (x % 2, a % 2),
        (x // 2, a // 2),
        (mg.stack(list(x)), a),
    ]
    for ours, numpys in pairs:
        assert isinstance(ours, mg.Tensor)
        np.testing.assert_array_equal(ours.value, numpys)
    assert len(x) == 2 and x.size == 4 and x.ndim == 2 and x[0, 0].item() == 1.0 and bool(x[0, 0] > 0)
    assert int(mg.Tensor(3)) == 3 and complex(mg.stop_gradient(mg.Tensor(1j))) == 1j and mg.Tensor(2.5).item() == 2.5
    assert repr(x).startswith("Tensor([[ 1., -2.]")
    assert isinstance(np.ones(2) * mg.Tensor(np.ones(2)), mg.Tensor)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: mg.expand_dims(x, axis=4),
            ValueError,
            "expand_dims: got axis 4, expected one of an array of 3 axes",
        ),
        (lambda x: mg.squeeze(x, axis=0), ValueError, "squeeze: got shape (2, 3), expected size 1 on axes [0]"),
        (
            lambda x: mg.pad(x, ((1, 2),)),
            ValueError,
            "pad: got widths ((1, 2),), expected 2 pairs (before, after) of counts ≥ 0",
        ),
        (lambda x: mg.take(x, np.array([3]), axis=1), IndexError, "take: indices span 3 to 3, expected −3 to 2"),
        (lambda x: mg.einsum("ij,jk", x), ValueError, "einsum: 'ij,jk' names 2 operands, got 1"),
        (lambda x: mg.einsum("ijk->i", x), ValueError, "einsum: operand 0 has 2 axes (shape (2, 3)), expected 'ijk'"),
        (lambda x: mg.fft.fft(x, n=0), ValueError, "fft: got n = 0, expected at least 1"),
        (
            lambda x: mg.causal_conv1d(x, np.ones((2, 4))),
            ValueError,
            "causal_conv1d: w has 2 channels, expected 3 as in x",
        ),
        (lambda x: mg.matmul(x, np.ones(())), ValueError, "matmul: got a scalar, expected arrays of at least one axis"),
    ],
)
def test_errors_say_what_came_and_what_was_expected(call, error, message):
    for x in (np.ones((2, 3)), mg.Tensor(np.ones((2, 3)))):
        with pytest.raises(error) as excinfo:
            call(x)
        assert str(excinfo.value) == message


X = np.ones(3)
SCALAR = "expected a real scalar or a cotangent"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mg.grad(lambda x: x)(X), ValueError, f"grad: the output is float64 of shape (3,), {SCALAR}"),
        (
            lambda: mg.grad(lambda x: mg.sum(x * 1j))(X),
            ValueError,
            f"grad: the output is complex128 of shape (), {SCALAR}",
        ),
        (
            lambda: mg.grad(mg.sum)(np.arange(3)),
            TypeError,
            "grad: argument 0: got an array of dtype int64, expected floating, complex or exact numbers",
        ),
        (lambda: mg.grad(mg.sum, 1)(X), ValueError, "grad: argnums names argument 1, expected one of the 1 given"),
        (lambda: mg.vjp(mg.exp, X)[1](np.ones(2)), ValueError, "vjp: the cotangent has shape (2,), expected (3,)"),
        (lambda: mg.vjp(mg.exp, X)[1]((X, X)), ValueError, "vjp: got 2 cotangents, expected 1, one for each output"),
        (
            lambda: mg.gradients(mg.exp(mg.Tensor(X)), mg.Tensor(X)),
            ValueError,
            f"gradients: the output is float64 of shape (3,), {SCALAR}",
        ),
        (
            lambda: mg.gradients(mg.sum(mg.Tensor(X)), X),
            TypeError,
            "gradients: inputs hold ndarray, expected Tensors that are differentiated",
        ),
        (lambda: mg.grad(lambda x: "loss")(X), TypeError, "grad: got str, expected an array or a number"),
        (lambda: mg.grad(mg.sum)("x"), TypeError, "grad: argument 0: got str, expected an array or a number"),
    ],
)
def test_errors_of_gradients(call, error, message):
    with pytest.raises(error) as excinfo:
        call()
    assert str(excinfo.value) == message


def test_gradients_come_back_in_the_containers_they_went_in():
    p = {"a": [np.ones(2), (np.full(3, 2.0), np.arange(2))], "b": 3.0}
    g = mg.grad(lambda p: mg.sum(p["a"][0] * 2) + mg.sum(p["a"][1][0] ** 2))(p)
    np.testing.assert_array_equal(g["a"][0], [2, 2])
    np.testing.assert_array_equal(g["a"][1][0], [4, 4, 4])
    assert g["a"][1][1] is None and g["b"] == 0
    assert mg.grad(lambda x: x * x)(3.0) == 6.0
    value, (gx, gy) = mg.value_and_grad(lambda x, y: mg.sum(x) * y, (0, 1))(np.ones(2), 4.0)
    assert value == 8 and gx.tolist() == [4, 4] and gy == 2
    (value, aux), g = mg.value_and_grad(lambda x: (mg.sum(x), {"twice": 2 * x}), has_aux=True)(np.ones(2))
    assert value == 2 and type(aux["twice"]) is np.ndarray and g.tolist() == [1, 1]

"""Containers of arguments, results and cotangents: what is a leaf in them, and what comes back."""

import collections

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim

Point = collections.namedtuple("Point", ["x", "y"])


class Scaled(nn.Module):
    def __init__(self):
        self.weight, self.eps, self.powers = np.array([2.0, 3.0]), 0.5, [2.0, 3.0]

    def __call__(self, x):
        return mg.sum((self.weight * x) ** self.powers[0] + self.eps)


def test_numbers_are_leaves():
    p = {"a": 3.0, "b": [np.float32(2), (1 + 2j, 7)], "n": 4, "flag": True, "name": "tanh", "none": None}
    g = mg.grad(lambda p: p["a"] ** 2 * p["b"][0] * p["n"] + mg.real(mg.abs(p["b"][1][0]) ** 2))(p)
    assert g["a"] == 2 * 3 * 2 * 4 and g["b"][0] == 9 * 4 and g["b"][1][0] == 2 * (1 + 2j)
    assert g["b"][0].dtype == np.float32
    assert g["b"][1][1] is g["n"] is g["flag"] is g["name"] is g["none"] is None
    unused = mg.grad(lambda p: p["a"] * 1.0)(p)
    assert unused["b"][0] == 0 and unused["b"][1][0] == 0


def test_numbers_are_leaves_in_every_transform():
    p, v = {"a": 3.0, "k": 5}, {"a": 2.0, "k": None}

    def cube(p):
        return p["a"] ** 3 * p["k"]

    value, (g,) = mg.vjp(cube, p)[0], mg.vjp(cube, p)[1](1.0)
    assert value == 135 and g["a"] == 135 and g["k"] is None
    assert mg.jvp(cube, (p,), (v,)) == (135, 270)
    (h,) = mg.hvp(cube, (p,), (v,))
    assert h["a"] == 6 * 3 * 5 * 2 and h["k"] is None
    (value, aux), g = mg.value_and_grad(lambda p: (cube(p), {"p": p, "n": 1.0}), has_aux=True)(p)
    assert value == 135 and g["a"] == 135 and aux["p"]["a"] == 3 and aux["n"] == 1
    assert mg.grad(lambda p: mg.checkpoint(cube)(p))(p)["a"] == 135
    mg.check_grads(cube, (p,), order=2)
    mg.check_grads(lambda p: [p["a"] * 2, 1.0], (p,), order=1)


def test_numbers_in_a_modules_attributes_are_configuration():
    model = {"layer": Scaled(), "scale": 2.0}
    g = mg.grad(lambda m: m["layer"](np.ones(2)) * m["scale"])(model)
    assert g["scale"] == 14 and g["layer"].weight.tolist() == [8, 12]
    assert g["layer"].eps == 0.5 and g["layer"].powers == [2.0, 3.0]
    layer = Scaled()
    optim.SGD(0.5).step(layer, mg.grad(lambda m: m(np.ones(2)))(layer))
    assert layer.weight.tolist() == [0, 0] and layer.eps == 0.5
    (h,) = mg.hvp(lambda m: m(np.ones(2)), (layer,), (layer,))
    assert h.weight.tolist() == [0, 0] and h.eps == 0.5


class Named(list):
    pass


@pytest.mark.parametrize(
    "p",
    [
        collections.OrderedDict(b=1.0, a=2.0),
        collections.defaultdict(list, b=1.0, a=2.0),
        Named([1.0, 2.0]),
        Point(1.0, 2.0),
        (1.0, 2.0),
        [1.0, 2.0],
    ],
    ids=lambda p: type(p).__name__,
)
def test_the_kind_of_container_is_kept(p):
    def items(p):
        return list(p.values()) if isinstance(p, dict) else list(p)

    g = mg.grad(lambda p: items(p)[0] ** 2 * items(p)[1])(p)
    assert type(g) is type(p) and items(g) == [4, 1]
    if isinstance(p, dict):
        assert list(g) == ["b", "a"] and getattr(g, "default_factory", None) is getattr(p, "default_factory", None)
        assert items(p) == [1.0, 2.0]


def test_cotangents_and_tangents_go_by_name_not_by_order():
    out, pull = mg.vjp(lambda x: {"a": x * 2, "b": [x * 3, 1.0]}, np.ones(2))
    assert out["b"][1] == 1.0
    np.testing.assert_array_equal(pull({"b": ([1.0, 10.0], 0.0), "a": np.array([100.0, 1000.0])})[0], [203, 2030])
    x = {"a": 1.0, "b": np.ones(2)}
    _, tangent = mg.jvp(lambda p: p["a"] * p["b"], (x,), ({"b": np.zeros(2), "a": 5.0},))
    np.testing.assert_array_equal(tangent, [5, 5])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: mg.vjp(lambda x: (x, x), 1.0)[1]((1.0,)),
            ValueError,
            "vjp: cotangents: got a tuple of 1, expected a tuple of 2",
        ),
        (
            lambda: mg.vjp(lambda x: {"a": x, "b": x}, 1.0)[1]({"a": 1.0}),
            ValueError,
            "vjp: cotangents: got a dict with the keys ['a'], expected a dict with the keys ['a', 'b']",
        ),
        (
            lambda: mg.jvp(mg.exp, (np.ones(2),), (np.ones(3),)),
            ValueError,
            "jvp: got a vector of shape (3,), expected (2,)",
        ),
        (lambda: mg.hvp(mg.sum, (np.ones(2),), ()), ValueError, "hvp: got a list of 0, expected a list of 1"),
        (
            lambda: mg.grad(lambda x: (x, {}))(1.0),
            TypeError,
            "grad: the function returned a tuple, expected a real scalar (see has_aux)",
        ),
        (
            lambda: mg.value_and_grad(lambda x: x, has_aux=True)(1.0),
            TypeError,
            "grad: with has_aux the function returned a Tensor, expected a pair",
        ),
        (lambda: mg.grad(mg.sum, "x")(1.0), TypeError, "grad: got argnums 'x', expected an integer or several"),
        (
            lambda: mg.grad(mg.sum)(3),
            TypeError,
            "grad: argument 0: got an array of dtype int64, expected floating, complex or exact numbers",
        ),
        (
            lambda: mg.gradients(mg.sum(mg.Tensor([1.0])), {"a": 1.0}),
            TypeError,
            "gradients: inputs hold float, expected Tensors that are differentiated",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error) as excinfo:
        call()
    assert str(excinfo.value) == message


def test_argnums_may_be_numpys():
    def f(x, y):
        return x * y * y

    assert mg.grad(f, np.int64(1))(2.0, 3.0) == 12
    assert mg.grad(f, np.array([1, 0]))(2.0, 3.0) == (12, 9)
    assert mg.value_and_grad(f, (np.int32(0),))(2.0, 3.0) == (18, (9,))


def test_integers_beside_differentiable_results():
    out, tangent = mg.jvp(lambda x: (x * 2, np.arange(2)), (1.0,), (3.0,))
    assert out[0] == 2 and tangent[0] == 6 and tangent[1].tolist() == [0, 0]

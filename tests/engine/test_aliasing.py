"""Aliasing: results share no memory with arguments, and the graph copies the mutable arguments that it saves."""

import itertools

import numpy as np
import pytest

import minigrad as mg
from models.attention import softmax

X = np.arange(1.0, 7.0).reshape(2, 3)

FUNCTIONS = {
    "sum of two": (lambda a, b: a + b, 2),
    "itself": (lambda a: a, 1),
    "the same twice": (lambda a, b: a * 1.0 + b, 2),
    "sum": (lambda a: mg.sum(a), 1),
    "reshaped": (lambda a: mg.reshape(a, (6,)), 1),
    "transposed": (lambda a: a.T, 1),
    "broadcast": (lambda a: mg.broadcast_to(a, (2, 2, 3)), 1),
    "a part": (lambda a: a[0], 1),
    "joined": (lambda a, b: mg.concat([a, b]), 2),
    "stacked": (lambda a, b: mg.stack([a, b]), 2),
    "taken": (lambda a: mg.take(a, [0, 0], axis=1), 1),
    "product": (lambda a, b: a @ b.T, 2),
    "unused": (lambda a, b: a, 2),
    "two results": (lambda a, b: (a, b, a), 2),
    "exp": (lambda a: mg.exp(a), 1),
}


def independent(arrays):
    for a in arrays:
        a[...] = 7  # writable
    return not any(np.may_share_memory(a, b) for a, b in itertools.combinations(arrays, 2))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_independent_and_writable(name):
    f, count = FUNCTIONS[name]
    args = [X.copy() for _ in range(count)]
    out, pull = mg.vjp(f, *args)
    outs = out if isinstance(out, tuple) else (out,)
    g = tuple(np.ones(y.shape) for y in outs)
    cotangents = g if isinstance(out, tuple) else g[0]
    first = pull(cotangents)
    before = [a.copy() for a in first]
    assert independent([y for y in outs if y.ndim] + [*first, *args, *(c for c in g if c.ndim)])
    for a in g:
        a[...] = 1
    for again, expected in zip(pull(cotangents), before, strict=True):  # whatever was written to, the graph has its own
        np.testing.assert_array_equal(again, expected)


def test_gradients_of_two_arguments_are_two_arrays():
    ga, gb = mg.grad(lambda a, b: mg.sum(a + b), (0, 1))(X, X)
    assert ga is not gb and independent([ga, gb, X.copy()])
    g = mg.grad(lambda p: mg.sum(p["a"] + p["b"][0]))({"a": X, "b": [X]})
    assert independent([g["a"], g["b"][0]])
    x = mg.Tensor(X)
    g = mg.gradients(x + x * 1.0, [x, x], np.ones((2, 3)))
    assert independent(g)
    (h,) = mg.hvp(lambda x: mg.sum(x * x), (X,), (X,))
    assert independent([h, X.copy()]) and X[0, 0] == 1


def test_a_rule_may_return_what_the_graph_keeps():
    saved_array = np.ones(3)
    own = mg.fused(lambda x: (mg.sum(x), saved_array), lambda saved, g: (saved,), lambda x: mg.sum(x))
    first = mg.grad(own)(np.ones(3))
    first[:] = 5
    assert saved_array.tolist() == mg.grad(own)(np.ones(3)).tolist() == [1, 1, 1]


def test_a_gradient_that_nothing_else_refers_to_is_not_copied():
    positions = []

    def noted(d):
        positions.append(d.ctypes.data)
        return d

    @mg.primitive(x=lambda g, x: noted(g * x))
    def half_square(_, x):
        return x * x / 2

    for shape in ((1000,), (10, 100)):
        g = mg.grad(lambda x: mg.sum(half_square(x)))(np.ones(shape))
        assert g.ctypes.data == positions[-1]


@pytest.mark.parametrize("kind", [np.array, lambda x: np.array(x).view(np.memmap), np.asfortranarray, list])
def test_constants_changed_later_change_no_gradient(kind):
    constant = kind([1.0, 2.0, 3.0])
    x = mg.Tensor(np.ones(3))
    product = mg.sum(x * constant)
    chosen = mg.sum(mg.where(kind([True, False, True]), x, 0.0))
    condition = kind([True, True, True])
    masked = mg.sum(mg.softmax(x, where=condition) * np.array([1.0, 0.0, 0.0]))
    expected = mg.gradients(masked, x)
    constant[:] = kind([9.0, 9.0, 9.0])
    condition[1:] = kind([False, False])
    np.testing.assert_array_equal(mg.gradients(product, x), [1, 2, 3])
    np.testing.assert_array_equal(mg.gradients(chosen, x), [1, 0, 1])
    np.testing.assert_array_equal(mg.gradients(masked, x), expected)


def test_what_a_kernel_saves_is_the_graphs_own():
    product = mg.fused(lambda x, y: (x * y, (x, y)), lambda saved, g: (g * saved[1], g * saved[0]), lambda x, y: x * y)
    x, c = mg.Tensor(np.ones(2)), np.array([2.0, 3.0])
    y = mg.sum(product(x, c))
    c[:] = 100
    np.testing.assert_array_equal(mg.gradients(y, x), [2, 3])


def test_a_mask_that_a_kernel_was_given_is_copied():
    q = mg.Tensor(np.random.default_rng(0).standard_normal((2, 80, 8)))
    mask = np.ones((80, 80), dtype=bool)

    def loss():
        return mg.sum(softmax.fused(q, q.value, q.value, mask=mask, causal=False)[0] ** 2)

    expected, y = mg.gradients(loss(), q), loss()
    mask[:, :40] = False
    np.testing.assert_array_equal(mg.gradients(y, q), expected)


def test_leaves_are_copied_whatever_their_class():
    for a in (np.ones(2), np.ones(2).view(np.memmap), np.ones(2).astype(">f8")):
        x = mg.Tensor(a)
        y = mg.sum(x * x)
        a[:] = 100
        assert type(x.value) is np.ndarray and mg.gradients(y, x).tolist() == [2, 2]


@pytest.mark.parity
def test_tensors_of_torch_are_copied():
    torch = pytest.importorskip("torch")
    a, c = torch.ones(2), torch.full((2,), 3.0)
    x = mg.Tensor(a)
    y = mg.sum(x * x * c)
    a[:] = 100
    c[:] = 100
    assert mg.gradients(y, x).tolist() == [6, 6]
    ga, gb = mg.grad(lambda a, b: mg.sum(a + b), (0, 1))(c, c)
    ga[0] = 5
    assert gb.tolist() == [1, 1]

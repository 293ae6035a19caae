"""The graph: gradients of gradients, what is freed when, and what may not be changed."""

import gc
import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn

rng = np.random.default_rng(1)


def test_third_derivative():
    third = mg.grad(mg.grad(mg.grad(lambda x: x**5)))
    assert third(2.0) == pytest.approx(60 * 2.0**2)


def test_nested_gradients_do_not_confuse_their_variables():
    """d/dx (x · d/dy (x + y)) = 1: the inner derivative must not see the outer x (Siskind and Pearlmutter 2005)."""
    f = mg.grad(lambda x: x * mg.grad(lambda y: x + y)(1.0))
    assert f(3.0) == pytest.approx(1.0)
    g = mg.grad(lambda x: x * mg.grad(lambda y: x * y * y)(x))  # x · 2x² = 2x³
    assert g(3.0) == pytest.approx(54.0)


def test_the_inner_gradient_is_differentiated_through_a_closure():
    w, x = rng.standard_normal(4), rng.standard_normal(4)

    def inner_step(w):
        step = mg.grad(lambda u: mg.sum((u * w) ** 2))(x)
        return mg.sum((x - 0.1 * step) ** 3)

    mg.check_grads(inner_step, (w,), order=2)


def test_hvp_is_the_hessian_times_a_vector():
    x, v = rng.standard_normal(3), rng.standard_normal(3)

    def f(x):
        return mg.sum(x**3) * mg.sum(x)

    hessian = np.stack([mg.hvp(f, (x,), (e,))[0] for e in np.eye(3)])
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-13)
    np.testing.assert_allclose(mg.hvp(f, (x,), (v,))[0], hessian @ v, rtol=1e-12)
    expected = np.diag(6 * x * x.sum()) + 3 * x[:, None] ** 2 + 3 * x[None, :] ** 2
    np.testing.assert_allclose(hessian, expected, rtol=1e-12)


def test_complex_gradient_is_the_adjoint():
    z = np.array([1 + 2j, -0.5j])
    np.testing.assert_allclose(mg.grad(lambda z: mg.sum(mg.real(z * mg.conj(z))))(z), 2 * z)
    down = z - 0.1 * mg.grad(lambda z: mg.sum(mg.abs(z) ** 2))(z)
    assert np.abs(down).sum() < np.abs(z).sum()


def test_a_wrong_rule_is_caught():
    """The check that passes every rule must fail for one without its conjugate, and for one with a wrong sign."""

    @mg.primitive(x=lambda g, y: g * y, y=lambda g, x: g * x)
    def multiply_unconjugated(xp, x, y):
        return x * y

    @mg.primitive(x=lambda g, x: g * mg.sin(x))
    def cosine_with_wrong_sign(xp, x):
        return xp.cos(x)

    z = rng.standard_normal(3) + 1j * rng.standard_normal(3)
    mg.check_grads(multiply_unconjugated, (z.real, z.real))
    with pytest.raises(AssertionError, match="expected .* from differences"):
        mg.check_grads(multiply_unconjugated, (z, z))
    with pytest.raises(AssertionError, match="expected .* from differences"):
        mg.check_grads(cosine_with_wrong_sign, (z.real,))


def test_the_graph_is_freed_by_reference_counting_alone():
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        x = mg.Tensor(rng.standard_normal((4, 4)))
        y = mg.softmax(mg.exp(x) @ x[:, 1:], axis=0)
        nodes = [weakref.ref(t) for t in (x, y)]
        g = mg.gradients(mg.sum(y * y), x, record=True)
        nodes.append(weakref.ref(g))
        del x, y, g
        assert [n() for n in nodes] == [None] * 3
        model = nn.Linear(3, 2, rng=rng)
        mg.value_and_grad(lambda m: mg.checkpoint(lambda m: mg.sum(m(np.ones((5, 3))) ** 2))(m))(model)
        mg.hvp(lambda x: mg.sum(mg.sin(x) ** 2), (np.ones(3),), (np.ones(3),))
        gc.collect()
        in_cycles = [x for x in gc.garbage if type(x).__module__.startswith("minigrad")]  # others' is not ours to count
        assert not in_cycles
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_python_searches_for_no_cycles_meanwhile_and_then_as_before():
    def recorder(x):
        inside.append(gc.isenabled())
        mg.grad(mg.sum)(x)
        inside.append(gc.isenabled())
        return mg.sum(x) if len(inside) < 6 else 1 / 0

    inside: list = []
    try:
        for before in (False, True, True):  # the last one fails
            gc.enable() if before else gc.disable()
            if len(inside) < 4:
                mg.grad(recorder)(np.ones(3))
            else:
                with pytest.raises(ZeroDivisionError):
                    mg.grad(recorder)(np.ones(3))
            assert gc.isenabled() is before
        assert inside == [False] * 6
    finally:
        gc.enable()


def test_values_are_freed_while_the_backward_pass_walks():
    """A chain of n large values needs far less than n of them once the walk is under way."""
    alive: list = []
    most = []

    @mg.primitive(x=lambda g, x: watch(g, x))
    def step(xp, x):
        y = np.array(x) + 1
        alive.append(weakref.ref(y))
        return y

    def watch(g, x):
        most.append(sum(a() is not None for a in alive))
        return g

    def chain(x):
        for _ in range(8):
            x = step(x)
        return mg.sum(x)

    mg.grad(chain)(np.ones(3))
    assert most[0] >= 7 and most[-1] <= 1 and most == sorted(most, reverse=True)


def test_deep_graphs_need_no_recursion():
    def f(x):
        for _ in range(20_000):
            x = x * 1.0001
        return x

    assert mg.grad(f)(1.0) == pytest.approx(1.0001**20_000)


def test_only_what_leads_to_a_target_is_visited():
    visited = []

    @mg.primitive(x=lambda g: visited.append(1) or g)
    def spy(xp, x):
        return x + 0

    def f(x, y):
        return mg.sum(x * spy(y))

    mg.grad(f, 0)(np.ones(2), np.ones(2))
    assert visited == []
    mg.grad(f, 1)(np.ones(2), np.ones(2))
    assert visited == [1]


def test_slices_of_one_array_cost_one_array():
    """The backward pass through T slices allocates the whole array once, not T times."""
    shapes = []
    zeros = np.zeros

    def counted(shape, *args, **options):
        shapes.append(shape)
        return zeros(shape, *args, **options)

    x = rng.standard_normal((50, 3))
    try:
        np.zeros = counted
        mg.grad(lambda x: sum((x[t] * x[t]).sum() for t in range(50)))(x)
    finally:
        np.zeros = zeros
    assert shapes.count((50, 3)) == 1


def test_no_change_in_place_reaches_a_graph():
    a, c = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    x = mg.Tensor(a)
    y = mg.sum(x * x * c)
    a[:] = 100
    c[:] = 100
    np.testing.assert_array_equal(mg.gradients(y, x), [6.0, 16.0])
    with pytest.raises(TypeError, match="^Tensor: items were assigned, expected no change in place"):
        x[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        x.value[0] = 1.0
    before = x
    x *= 2  # a new Tensor under the old name
    np.testing.assert_array_equal(before.value, [1.0, 2.0])


def test_index_arrays_are_copied():
    index = np.array([0, 1])
    x = mg.Tensor(np.array([1.0, 2.0, 3.0]))
    y = mg.sum(x[index])
    index[:] = 2
    np.testing.assert_array_equal(mg.gradients(y, x), [1.0, 1.0, 0.0])


def test_functions_without_derivative_cut_the_graph():
    x = np.array([0.3, 1.7, -2.2])
    for f in (
        mg.floor,
        mg.sign,
        mg.round,
        lambda x: mg.astype(x > 0, np.float64),
        lambda x: mg.astype(mg.argmax(x), float),
    ):
        value, g = mg.value_and_grad(lambda x, f=f: mg.sum(f(x)) + mg.sum(x))(x)
        np.testing.assert_array_equal(g, np.ones(3))
    np.testing.assert_array_equal(mg.grad(lambda x: mg.sum(mg.stop_gradient(x) * x))(x), x)
    assert mg.grad(lambda x: mg.sum(mg.floor(x)))(x).tolist() == [0, 0, 0]


def test_ties_share_the_gradient():
    np.testing.assert_array_equal(mg.grad(lambda x: mg.max(x))(np.array([2.0, 1.0, 2.0])), [0.5, 0, 0.5])
    gx, gy = mg.grad(lambda x, y: mg.maximum(x, y), (0, 1))(2.0, 2.0)
    assert gx == gy == 0.5


def test_softmax_of_nothing_is_zero_and_its_gradient_finite():
    x, where = np.zeros((2, 2)), np.array([[False, False], [True, False]])
    np.testing.assert_array_equal(mg.softmax(x, where=where), [[0, 0], [1, 0]])
    gradient = mg.grad(lambda x: mg.sum(mg.softmax(x, where=where) ** 2))(x)
    np.testing.assert_array_equal(gradient, np.zeros((2, 2)))


def test_softmax_counts_only_where_it_is_told_to():
    """Also when it runs matrix by matrix, and for a slice with nothing left."""
    x = np.random.default_rng(7).standard_normal((2, 64, 70))
    where = np.tril(np.ones((64, 70), dtype=bool), k=-1)  # the first row sees nothing
    expected = np.exp(x) * where
    expected /= np.maximum(expected.sum(-1, keepdims=True), 1e-300)
    np.testing.assert_allclose(mg.softmax(x, where=where), expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(mg.softmax(x.transpose(0, 2, 1), axis=1, where=where.T), expected.transpose(0, 2, 1))
    small, hidden = x[:, :3, :4], where[:3, :4]
    mg.check_grads(lambda x: mg.softmax(x, where=hidden) ** 2, (small,), order=3)
    big = mg.grad(lambda x: mg.sum(mg.softmax(x, where=where)[:, :3, :4] ** 2))(x)
    assert big[:, 0].tolist() == np.zeros((2, 70)).tolist() and np.isfinite(big).all() and big[:, 2].any()

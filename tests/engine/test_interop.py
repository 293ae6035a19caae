"""NumPy's functions on Tensors: the value is NumPy's own, the gradient central differences'; or one line says no."""

import math

import numpy as np
import pytest

import minigrad as mg

X = np.array([[1.0, 2.0], [3.0, 5.0]])
Y = np.array([[4.0, 1.0], [0.5, 5.0]])
ROWS, FULL = np.ones((2, 3)), np.full((2, 2), 7.0)

FUNCTIONS = {
    name: getattr(np, name)
    for name in (
        "abs absolute amax amin arctan conj copy cos cosh cumprod cumsum diag diagonal exp expm1 flip log log1p max "
        "mean min negative positive prod ravel real reciprocal sin sinh sort sqrt square squeeze std sum tan tanh "
        "trace transpose tril triu unstack var"
    ).split()
} | {
    "add.accumulate": lambda x: np.add.accumulate(x, axis=1),
    "add.reduce": lambda x: np.add.reduce(x),
    "angle": lambda x: np.angle(x + 1j),
    "arctan2": lambda x: np.arctan2(x, FULL),
    "astype": lambda x: np.astype(x, np.float64),
    "broadcast_arrays": lambda x: np.broadcast_arrays(x, np.ones((3, 2, 2)))[0],
    "broadcast_to": lambda x: np.broadcast_to(x, (3, 2, 2)),
    "clip": lambda x: np.clip(x, 1.5, 4.5),
    "column_stack": lambda x: np.column_stack([x[0], x]),
    "concatenate": lambda x: np.concatenate([x, x * x], axis=1),
    "concatenate by position": lambda x: np.concatenate((x, X), 1),
    "cumulative_sum": lambda x: np.cumulative_sum(x, axis=1),
    "dot": lambda x: np.dot(x, X),
    "dot of vectors": lambda x: np.dot(x[0], x[1]),
    "einsum": lambda x: np.einsum("ij,jk->ik", x, x),
    "expand_dims": lambda x: np.expand_dims(x, -1),
    "fft": lambda x: np.real(np.fft.fft(x, axis=0)),
    "hstack": lambda x: np.hstack([x[0], x[1] ** 2]),
    "inner": lambda x: np.inner(X, x),
    "irfft": lambda x: np.fft.irfft(x, n=3),
    "linalg.det": lambda x: np.linalg.det(x),
    "linalg.inv": lambda x: np.linalg.inv(x),
    "linalg.norm": lambda x: np.linalg.norm(x, axis=1),
    "linalg.norm of a matrix": lambda x: np.linalg.norm(x, 1) + np.linalg.norm(x, "nuc"),
    "linalg.solve": lambda x: np.linalg.solve(x, np.ones(2)),
    "logaddexp": lambda x: np.logaddexp(X, x),
    "matmul": lambda x: np.matmul(x, ROWS),
    "matrix_transpose": lambda x: np.matrix_transpose(x),
    "maximum": lambda x: np.maximum(2.5, x),
    "maximum.reduce": lambda x: np.maximum.reduce(x, axis=None),
    "moveaxis": lambda x: np.moveaxis(x, 0, 1),
    "multiply.outer": lambda x: np.multiply.outer(x, Y),
    "outer": lambda x: np.outer(x, x),
    "pad": lambda x: np.pad(x, ((1, 0), (0, 2))),
    "power": lambda x: np.power(2.0, x),
    "repeat": lambda x: np.repeat(x, 2, axis=1),
    "reshape": lambda x: np.reshape(x, -1),
    "roll": lambda x: np.roll(x, 1, axis=0),
    "split": lambda x: np.split(x, 2)[1],
    "stack": lambda x: np.stack([x, x * x], 1),
    "std with ddof": lambda x: np.std(x, 0, ddof=1),
    "sum by position": lambda x: np.sum(x, 0, keepdims=True),
    "swapaxes": lambda x: np.swapaxes(x, 0, 1),
    "take": lambda x: np.take(x, [0, 0], axis=1),
    "take flattened": lambda x: np.take(x, [0, 3, 3]),
    "take_along_axis": lambda x: np.take_along_axis(x, np.array([[0, 0]]), 1),
    "tensordot": lambda x: np.tensordot(x, x, axes=((0,), (1,))),
    "tile": lambda x: np.tile(x, 2),
    "vdot": lambda x: np.vdot(x, Y),
    "vecdot": lambda x: np.vecdot(x, x),
    "vstack": lambda x: np.vstack([x[0], x]),
    "where": lambda x: np.where(X > 2.5, x * x, 0.0),
    "ndarray + Tensor": lambda x: FULL + x,
    "ndarray - Tensor": lambda x: FULL - x,
    "ndarray * Tensor": lambda x: FULL * x,
    "ndarray / Tensor": lambda x: FULL / x,
    "ndarray @ Tensor": lambda x: ROWS.T @ x,
    "ndarray ** Tensor": lambda x: FULL**x,
    "NumPy's number * Tensor": lambda x: np.float64(3) * x + np.array(2.0) * x,
}


def parts(y):
    return list(y) if isinstance(y, (tuple, list)) else [y]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_reach_our_rules(name):
    f = FUNCTIONS[name]
    for ours, numpys in zip(parts(f(mg.Tensor(Y))), parts(f(Y)), strict=True):
        assert isinstance(ours, mg.Tensor) and ours.dtype == numpys.dtype
        np.testing.assert_allclose(ours.value, numpys, rtol=1e-14)
    weights = [np.cos(np.arange(y.size)).reshape(y.shape) for y in parts(f(Y))]

    def total(x):
        return sum(mg.sum(w * y) for w, y in zip(weights, parts(f(x)), strict=True))

    g, step = mg.grad(total)(Y), 1e-6
    for i in np.ndindex(Y.shape):
        e = np.zeros_like(Y)
        e[i] = step
        assert g[i] == pytest.approx((total(Y + e) - total(Y - e)) / (2 * step), rel=1e-6, abs=1e-8)


NOT = "not available for a Tensor; use functions of minigrad, or `.value` for no gradient"
NUMBER = "Tensor: a {} was asked for, to which no gradient would flow: use `.item()`"
ARRAY = "Tensor: NumPy asks for a plain array, to which no gradient would flow: use `.value`"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: np.median(t), f"numpy.median: {NOT}"),
        (lambda t: np.linalg.eig(t), f"numpy.linalg.eig: {NOT}"),
        (lambda t: np.fmax(t, 1.0), f"numpy.fmax: {NOT}"),
        (lambda t: np.add.at(t, 0, 1.0), f"numpy.add.at: {NOT}"),
        (lambda t: np.add.reduceat(t, [0, 1]), f"numpy.add.reduceat: {NOT}"),
        (
            lambda t: np.exp(t, out=np.ones((2, 2))),
            "numpy.exp: out= would write a Tensor into an array; use minigrad.exp",
        ),
        (lambda t: np.exp(t, where=X > 1), "numpy.exp: got where, no option for a Tensor; use minigrad.exp"),
        (lambda t: np.sum(t, where=X > 1), "numpy.sum: for a Tensor, there is no option where=; use minigrad.sum"),
        (
            lambda t: np.linalg.norm(t, 1, axis=(0, 1)),
            "numpy.linalg.norm: for a Tensor, there are no options ord= and axis= of two axes together"
            "; use minigrad.linalg.vector_norm",
        ),
        (lambda t: np.asarray(t), ARRAY),
        (lambda t: np.array([t, t]), ARRAY),
        (lambda t: np.array([t[0, 0], t[0, 1]]), ARRAY),
        (lambda t: X.copy().__setitem__(slice(None), t), ARRAY),
        (lambda t: X.copy().__setitem__(0, t[0]), ARRAY),
        (lambda t: math.sqrt(t[0, 0]), NUMBER.format("float")),
        (lambda t: int(t[0, 0]), NUMBER.format("int")),
        (lambda t: X.copy().__iadd__(t), "numpy.add: out= would write a Tensor into an array; use minigrad.add"),
    ],
)
def test_what_would_cut_the_graph_is_refused(call, message):
    with pytest.raises(TypeError) as excinfo:
        call(mg.Tensor(X))
    assert str(excinfo.value) == message


def test_an_element_is_not_assigned():
    """NumPy puts words of its own before ours, which are the cause, where the array is real."""
    with pytest.raises(ValueError, match="setting an array element") as excinfo:
        X.copy()[0, 0] = mg.Tensor(X)[0, 0]
    assert str(excinfo.value.__cause__) == NUMBER.format("float")
    with pytest.raises(TypeError) as excinfo:
        X.astype(complex)[0, 0] = mg.Tensor(X)[0, 0]
    assert str(excinfo.value) == NUMBER.format("complex")


def test_questions_about_values_are_answered():
    t = mg.Tensor(X)
    assert np.shape(t) == (2, 2) and np.ndim(t) == 2 and np.size(t) == 4
    assert np.allclose(t, X) and np.array_equal(t, X) and not np.isnan(t).value.any()
    assert (np.argmax(t).value, math.sqrt(t[0, 0].item()), float(mg.stop_gradient(t[1, 1]))) == (3, 1.0, 5.0)
    for compared in (t > X - 1, X < t + 1, np.float64(9) > t, X == t, np.less_equal(X, t)):
        assert isinstance(compared, mg.Tensor) and compared.value.all()


def test_constants_go_through_numpy():
    c = mg.stop_gradient(mg.Tensor(X))
    assert np.median(c).value == 2.5 and np.asarray(c).tolist() == X.tolist()
    a = X.copy()
    before = a
    a += c
    assert a is before and a.tolist() == (2 * X).tolist()


def test_operators_of_other_arrays_give_way_to_a_tensors():
    """CuPy and what is made of NumPy's mixin look at the instance, NumPy at the type."""
    assert mg.Tensor(X).__array_ufunc__ is None and callable(mg.Tensor.__array_ufunc__)


OPERATORS = ["__mod__", "__floordiv__", "__divmod__"]


@pytest.mark.parametrize("left", [7, 7.5, np.float64(7.5), FULL])
def test_reflected_operators(left):
    t = mg.Tensor(X)
    np.testing.assert_array_equal((left % t).value, left % X)
    np.testing.assert_array_equal((left // t).value, left // X)
    for ours, numpys in zip(divmod(left, t) + divmod(t, left), divmod(left, X) + divmod(X, left), strict=True):
        np.testing.assert_array_equal(ours.value, numpys)


@pytest.mark.parametrize("left", [6, np.int64(6), np.array([6, 6, 6])])
def test_reflected_operators_of_integers(left):
    n = np.array([1, 2, 3])
    t = mg.Tensor(n)
    for ours, numpys in [
        (left & t, left & n),
        (t & left, n & left),
        (left | t, left | n),
        (left ^ t, left ^ n),
        (left << t, left << n),
        (left >> t, left >> n),
        (t << left, n << left),
        (t >> left, n >> left),
        (~t, ~n),
    ]:
        assert isinstance(ours, mg.Tensor)
        np.testing.assert_array_equal(ours.value, numpys)


def test_numbers_of_a_scalar():
    t = mg.Tensor(np.float32(2.346))
    assert f"{t:.2f}" == "2.35" and f"{mg.exp(t * 0):5.1f}" == "  1.0" and f"{mg.Tensor(X)}".startswith("Tensor([[1.,")
    assert round(t).item() == 2 and round(t, 1).item() == pytest.approx(2.3, rel=1e-6)
    assert list(range(mg.Tensor(3))) == [0, 1, 2] and "abc"[mg.sum(mg.Tensor(np.array([1, 1])))] == "c"
    with pytest.raises(TypeError, match="format"):
        f"{mg.Tensor(X):.2f}"
    with pytest.raises(TypeError):
        range(mg.sum(t))

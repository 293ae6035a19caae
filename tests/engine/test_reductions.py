"""Reductions where faults live: infinities, NaN, ties, zeros, empty axes, 16-bit floats, NumPy's integers."""

import inspect
import math

import numpy as np
import pytest
from numpy.exceptions import AxisError

import minigrad as mg

INF, NAN = math.inf, math.nan


def grad_of(f, x, g=None):
    """Return the gradient of f's sum, weighted by g."""
    return mg.grad(lambda x: mg.sum(f(x) * (1 if g is None else g)))(x)


@pytest.mark.parametrize(
    ("f", "x", "expected"),
    [
        (mg.max, [-INF, 1.0], [0, 1]),
        (mg.max, [-INF, -INF], [0.5, 0.5]),
        (mg.max, [INF, 1.0, INF], [0.5, 0, 0.5]),
        (mg.max, [2.0, 2.0, 2.0, 1.0], [1 / 3, 1 / 3, 1 / 3, 0]),
        (mg.max, [0.0, -0.0], [0.5, 0.5]),
        (mg.max, [1.0, NAN, NAN], [0, 0.5, 0.5]),
        (mg.min, [INF, 1.0], [0, 1]),
        (mg.min, [NAN, 1.0], [1, 0]),
        (mg.prod, [0.0, 2.0, 3.0], [6, 0, 0]),
        (mg.prod, [0.0, 0.0, 3.0], [0, 0, 0]),
        (mg.prod, [INF, 2.0], [2, INF]),
        (mg.prod, [-0.0, INF], [INF, -0.0]),
        (mg.prod, [NAN, 2.0], [2, NAN]),
        (mg.sum, [INF, -INF, NAN], [1, 1, 1]),
        (mg.mean, [INF, NAN], [0.5, 0.5]),
        (mg.std, [3.0, 3.0, 3.0], [0, 0, 0]),
        (mg.var, [3.0, 3.0], [0, 0]),
        (mg.linalg.vector_norm, [0.0, 0.0], [0, 0]),
        (mg.linalg.vector_norm, [INF, 1.0], [NAN, 0]),
        (lambda x: mg.cumulative_sum(x)[0], [INF, NAN], [1, 0]),
        (lambda x: mg.cumulative_prod(x)[-1], [INF, 2.0], [2, INF]),
        (lambda x: mg.cumulative_prod(x)[-1], [0.0, 2.0, 0.0], [0, 0, 0]),
        (lambda x: mg.cumulative_max(x, axis=0)[-1], [-INF, 1.0], [0, 1]),
        (lambda x: mg.cumulative_max(x, axis=0)[-1], [2.0, 2.0, 1.0], [0, 1, 0]),
        (lambda x: mg.cumulative_max(x, axis=0)[-1], [1.0, NAN, 3.0], [0, 1, 0]),
        (lambda x: mg.scan(x, mg.ones_like(x), axis=0)[1], [INF, 2.0], [0, 1]),
        (lambda x: mg.scan(mg.ones_like(x), x, axis=0)[0], [INF, NAN], [1, 0]),
    ],
)
def test_gradients_at_the_edges(f, x, expected):
    """The right values; conventions where there is none are PyTorch's."""
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(grad_of(f, np.array(x)), expected)


@pytest.mark.parametrize("where", ["inside", "at the ends"])
def test_values_with_infinities_and_nan(where):
    x = np.array([[1.0, INF, 2.0], [-INF, 0.0, INF], [NAN, 1.0, -0.0]])
    x = x if where == "inside" else x[:, ::-1]
    for name in ("sum", "mean", "max", "min", "prod", "cumulative_sum", "cumulative_prod"):
        with np.errstate(invalid="ignore"):
            for axis in (0, 1):
                expected = getattr(np, name)(x, axis=axis)
                np.testing.assert_array_equal(getattr(mg, name)(x, axis=axis), expected, err_msg=name)
    np.testing.assert_array_equal(mg.cumulative_max(x, axis=1), np.maximum.accumulate(x, axis=1))


def test_a_scan_begins_with_its_input():
    """h₋₁ = 0 is not multiplied, so an infinite first coefficient has no effect: the compiled form does the same."""
    for steps in (3, 5000):
        a, x = np.full(steps, 0.5), np.ones(steps)
        a[0] = INF
        assert np.isfinite(mg.scan(a, x, axis=0)).all()


SUMS = {
    "sum": (mg.sum, lambda n: n),
    "mean": (mg.mean, lambda n: 1),
    "var": (mg.var, lambda n: 0),
    "std": (mg.std, lambda n: 0),
    "norm": (mg.linalg.norm, math.sqrt),
    "prod": (mg.prod, lambda n: 1),
    "cumulative_sum": (lambda x: mg.cumulative_sum(x)[-1], lambda n: n),
    "vecdot": (lambda x: mg.vecdot(x, x), lambda n: n),
    "einsum": (lambda x: mg.einsum("i,i->", x, x), lambda n: n),
    "matmul": (lambda x: mg.matmul(x, x), lambda n: n),
}


@pytest.mark.parametrize("name", SUMS)
def test_half_precision_is_accumulated_in_single(name):
    f, expected = SUMS[name]
    x = np.ones(30_000, np.float16)
    for y in (f(x), f(mg.Tensor(x)).value):
        assert y.dtype == np.float16 and y == np.float16(expected(30_000))
    assert grad_of(f, x).dtype == np.float16


def test_the_mean_of_many_halves():
    x = np.ones(70_000, np.float16)
    assert mg.mean(x) == 1 and mg.mean(x).dtype == np.float16
    np.testing.assert_array_equal(grad_of(mg.mean, x), np.float16(1 / 70_000))
    assert mg.var(np.full(10, 300, np.float16)) == 0 and mg.linalg.norm(np.full(4, 300, np.float16)) == 600
    assert mg.sum(x, dtype=np.float32) == 70_000 and mg.sum(x, dtype=np.float32).dtype == np.float32
    assert grad_of(lambda x: mg.sum(x, dtype=np.float32), x).dtype == np.float16


@pytest.mark.parametrize(
    "f",
    [
        lambda z: mg.mean(z, axis=0),
        lambda z: mg.var(z, axis=1, correction=1),
        lambda z: mg.std(z, keepdims=True),
        lambda z: mg.prod(z, axis=(0, 1)),
        lambda z: mg.cumulative_sum(z, axis=0),
        lambda z: mg.cumulative_prod(z, axis=1),
        lambda z: mg.scan(z, z[::-1], axis=1, reverse=True),
        lambda z: mg.linalg.norm(z, axis=1),
        lambda z: mg.prod(z * np.array([0, 1, 1]), axis=1),
    ],
)
def test_rules_for_complex_numbers(f):
    rng = np.random.default_rng(0)
    mg.check_grads(f, [rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3))], order=2)


EMPTY = {
    "sum": (lambda x, axis: mg.sum(x, axis=axis), lambda x, axis: np.sum(x, axis=axis)),
    "prod": (lambda x, axis: mg.prod(x, axis=axis), lambda x, axis: np.prod(x, axis=axis)),
    "sum of products": (lambda x, axis: mg.vecdot(x, x, axis=axis), lambda x, axis: np.sum(x * x, axis=axis)),
    "norm": (lambda x, axis: mg.linalg.norm(x, axis=axis), lambda x, axis: np.linalg.norm(x, axis=axis)),
    "cumulative_sum": (lambda x, axis: mg.cumulative_sum(x, axis=axis), lambda x, axis: np.cumsum(x, axis)),
    "cumulative_prod": (lambda x, axis: mg.cumulative_prod(x, axis=axis), lambda x, axis: np.cumprod(x, axis)),
    "cumulative_max": (lambda x, axis: mg.cumulative_max(x, axis=axis), np.maximum.accumulate),
    "scan": (lambda x, axis: mg.scan(x, x, axis=axis), lambda x, axis: x),
    "flip": (lambda x, axis: mg.flip(x, axis=axis), np.flip),
    "roll": (lambda x, axis: mg.roll(x, 2, axis=axis), lambda x, axis: x),
    "repeat": (lambda x, axis: mg.repeat(x, 2, axis=axis), lambda x, axis: np.repeat(x, 2, axis)),
    "diff": (lambda x, axis: mg.diff(x, axis=axis), lambda x, axis: np.diff(x, axis=axis)),
    "stack": (lambda x, axis: mg.stack([x, x], axis=axis), lambda x, axis: np.stack([x, x], axis)),
    "concat": (lambda x, axis: mg.concat([x, x], axis=axis), lambda x, axis: np.concatenate([x, x], axis)),
    "tile": (lambda x, axis: mg.tile(x, (2, 2)), lambda x, axis: np.tile(x, (2, 2))),
    "trace": (lambda x, axis: mg.trace(x), lambda x, axis: np.trace(x, axis1=-2, axis2=-1)),
    "matmul": (lambda x, axis: mg.matmul(x.mT, x), lambda x, axis: x.mT @ x),
    "matmul batch": (lambda x, axis: x[..., None] @ x[..., None, :], lambda x, axis: x[..., None] @ x[..., None, :]),
    "tensordot": (lambda x, axis: mg.tensordot(x, x, axes=2), lambda x, axis: np.tensordot(x, x, axes=2)),
    "einsum": (lambda x, axis: mg.einsum("ij,kj->ik", x, x), lambda x, axis: x @ x.T),
    "sort": (lambda x, axis: mg.sort(x, axis=axis), np.sort),
}


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("name", EMPTY)
def test_empty_axes(name, shape):
    ours, theirs = EMPTY[name]
    for axis in (0, 1, -1):
        x = np.zeros(shape)
        np.testing.assert_array_equal(ours(x, axis), theirs(x, axis))
        assert grad_of(lambda x, axis=axis: ours(x, axis), x).shape == shape
        second = mg.grad(lambda x, axis=axis: mg.sum(grad_of(lambda x: ours(x, axis), x)))
        assert second(x).shape == shape


@pytest.mark.parametrize("f", [mg.max, mg.min])
def test_an_extreme_of_nothing_is_numpys_error(f):
    for x in (np.zeros((0, 2)), mg.Tensor(np.zeros((0, 2)))):
        with pytest.raises(ValueError, match="^zero-size array to reduction operation .* which has no identity$"):
            f(x, axis=0)
        assert f(x, axis=1).shape == (0,)


def test_moments_of_nothing_are_nan():
    for f in (mg.mean, mg.var, mg.std, lambda x: mg.var(x, correction=3)):
        with np.errstate(invalid="ignore"):
            assert np.isnan(f(np.zeros(0)))
    with np.errstate(divide="ignore"):
        assert mg.var(np.array([1.0, 3.0]), correction=2) == INF


INTEGERS = {
    "sum": lambda x, i: mg.sum(x, axis=i),
    "mean": lambda x, i: mg.mean(x, axis=(i, i - 1)),
    "var": lambda x, i: mg.var(x, axis=i, correction=i),
    "std": lambda x, i: mg.std(x, axis=i),
    "max": lambda x, i: mg.max(x, axis=i),
    "prod": lambda x, i: mg.prod(x, axis=i),
    "norm": lambda x, i: mg.linalg.norm(x, axis=i),
    "cumulative_sum": lambda x, i: mg.cumulative_sum(x, axis=i),
    "cumulative_prod": lambda x, i: mg.cumulative_prod(x, axis=i),
    "cumulative_max": lambda x, i: mg.cumulative_max(x, axis=i),
    "scan": lambda x, i: mg.scan(x, x, axis=i),
    "reshape": lambda x, i: mg.reshape(x, (i, i + 1, i + 1, i + 1, i + 1)),
    "broadcast_to": lambda x, i: mg.broadcast_to(x, (i + 1, *x.shape)),
    "permute_dims": lambda x, i: mg.permute_dims(x, (i, i - 1, i + 1)),
    "moveaxis": lambda x, i: mg.moveaxis(x, i, i - 1),
    "swapaxes": lambda x, i: mg.swapaxes(x, i, i - 1),
    "expand_dims": lambda x, i: mg.expand_dims(x, axis=i),
    "squeeze": lambda x, i: mg.squeeze(x[:, :1], axis=i),
    "flip": lambda x, i: mg.flip(x, axis=i),
    "roll": lambda x, i: mg.roll(x, i, axis=i),
    "pad": lambda x, i: mg.pad(x, [(i, i)] * 3),
    "tril": lambda x, i: mg.tril(x, k=i),
    "triu": lambda x, i: mg.triu(x, k=i),
    "repeat": lambda x, i: mg.repeat(x, i + 1, axis=i),
    "tile": lambda x, i: mg.tile(x, (i, i + 1)),
    "diff": lambda x, i: mg.diff(x, axis=i, n=i),
    "concat": lambda x, i: mg.concat([x, x], axis=i),
    "stack": lambda x, i: mg.stack([x, x], axis=i),
    "unstack": lambda x, i: mg.unstack(x, axis=i)[0],
    "diagonal": lambda x, i: mg.diagonal(x, offset=i),
    "trace": lambda x, i: mg.trace(x, offset=i),
    "tensordot": lambda x, i: mg.tensordot(x, x, axes=((i,), (i,))),
    "tensordot count": lambda x, i: mg.tensordot(x, mg.permute_dims(x, (2, 1, 0)), axes=i),
    "vecdot": lambda x, i: mg.vecdot(x, x, axis=-i),
    "matrix_power": lambda x, i: mg.linalg.matrix_power(x[..., :2], i + i),
    "fft": lambda x, i: mg.fft.irfft(mg.fft.rfft(x, i + i, i), i + i, i),
    "linspace": lambda x, i: mg.linspace(x, 2 * x, i + 2),
}


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16, lambda i: np.array(i)])
@pytest.mark.parametrize("name", INTEGERS)
def test_numpys_integers_are_integers(name, kind):
    """Compare values and gradients with those for Python's integers."""
    f, x = INTEGERS[name], np.arange(16.0).reshape(2, 2, 4)
    if name == "vecdot" and kind is np.uint8:
        return  # −1 is no number of this kind
    np.testing.assert_array_equal(f(x, kind(1)), f(x, 1))
    np.testing.assert_array_equal(grad_of(lambda x: f(x, kind(1)), x), grad_of(lambda x: f(x, 1), x))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: mg.mean(x[0, 0], axis=0), AxisError, "mean: got axis 0, expected one of an array of 0 axes"),
        (lambda x: mg.sum(x, axis=(0, -2)), ValueError, "sum: got axes (0, 0), expected each axis once"),
        (lambda x: mg.sum(x, axis=1.0), TypeError, "sum: axis is float, expected an integer"),
        (
            lambda x: mg.cumulative_sum(x),
            ValueError,
            "cumulative_sum: axis is None, expected an axis for an array of 2 axes",
        ),
        (lambda x: mg.max(x * 1j), TypeError, "max: got complex128, expected real numbers"),
        (lambda x: mg.min(x * 1j), TypeError, "min: got complex128, expected real numbers"),
        (
            lambda x: mg.cumulative_max(x * 1j, axis=0),
            TypeError,
            "cumulative_max: got complex128, expected real numbers",
        ),
        (
            lambda x: mg.expand_dims(x, axis=3),
            IndexError,
            "expand_dims: got axis 3, expected one of an array of 3 axes",
        ),
        (lambda x: mg.moveaxis(x, (0, 1), 0), ValueError, "moveaxis: got 2 axes and 1 places, expected as many"),
        (
            lambda x: mg.permute_dims(x, (0,)),
            ValueError,
            "permute_dims: got axes (0,), expected the 2 axes of the array",
        ),
        (lambda x: mg.repeat(x, -1, axis=0), ValueError, "repeat: got repeats -1, expected one or 2 counts ≥ 0"),
        (lambda x: mg.concat([]), ValueError, "concat: got no arrays, expected at least one"),
        (lambda x: mg.stack([]), ValueError, "stack: got no arrays, expected at least one"),
        (lambda x: mg.diff(x, n=-1), ValueError, "diff: got n = -1, expected at least 0"),
        (lambda x: mg.meshgrid(x[0], indexing="ji"), ValueError, "meshgrid: got indexing 'ji', expected 'xy' or 'ij'"),
        (
            lambda x: mg.roll(x, (1, 2, 3), axis=(0, 1)),
            ValueError,
            "roll: got shift (1, 2, 3) and axis (0, 1), expected as many",
        ),
        (
            lambda x: mg.matrix_transpose(x[0]),
            ValueError,
            "matrix_transpose: got shape (2,), expected at least two axes",
        ),
    ],
)
def test_errors(call, error, message):
    for x in (np.ones((2, 2)), mg.Tensor(np.ones((2, 2)))):
        with pytest.raises(error) as excinfo:
            call(x)
        assert str(excinfo.value) == message


@pytest.mark.parametrize("name", EMPTY)
def test_big_endian_arrays(name):
    ours, _ = EMPTY[name]
    x = np.arange(9.0).reshape(3, 3) / 7
    for size in (x, np.ones((64, 64))):
        big = size.astype(">f8")
        np.testing.assert_array_equal(ours(big, 0), ours(size, 0))
        np.testing.assert_array_equal(grad_of(lambda x: ours(x, 0), big), grad_of(lambda x: ours(x, 0), size))


def test_lists_and_numbers_are_converted():
    assert mg.sum([1, 2]) == 3 and mg.max([[1.0, 2.0]]) == 2 and mg.mean(2.0) == 2
    np.testing.assert_array_equal(mg.concat([[1], [2.5]]), [1, 2.5])
    with pytest.raises(TypeError, match="^sum: .*got str, expected an array or a number$"):
        mg.sum("abc")


def functions_of_an_axis():
    """Return the names of the public functions that take an axis."""
    functions = {name: f for name, f in vars(mg).items() if callable(f) and not name.startswith("_")}
    return [n for n, f in functions.items() if not isinstance(f, type) and "axis" in inspect.signature(f).parameters]


@pytest.mark.parametrize("name", functions_of_an_axis())
@pytest.mark.parametrize("ndim", [1, 2])
def test_an_axis_beyond_the_last_is_named_by_every_function(name, ndim):
    f, x = getattr(mg, name), np.ones((3,) * ndim)
    needed = [p for p in inspect.signature(f).parameters.values() if p.default is p.empty]
    values = {"indices": np.zeros((1,) * ndim, int), "repeats": 2, "shift": 1, **dict.fromkeys(("x", "y", "values"), x)}
    arguments = [
        [x, x] if name in ("concat", "stack") else x,
        *(values[p.name] for p in needed[1:] if p.name != "axis"),
    ]
    with pytest.raises(
        IndexError, match=f"got axis 5, expected one of an array of {ndim + (name in ('stack', 'expand_dims'))} axes"
    ):
        f(*arguments, axis=5)


def test_a_number_has_no_axis_to_be_normalised_along():
    with pytest.raises(IndexError, match="^rms_norm: got axis -1, expected one of an array of 0 axes$"):
        mg.rms_norm(2.0)

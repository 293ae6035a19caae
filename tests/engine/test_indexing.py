"""Indexing: its gradient is the sum over every place that names an element, which `np.add.at` computes."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.exact import Modular
from tests.fake_cupy import asarray

rng = np.random.default_rng(3)
X = rng.standard_normal((3, 4, 5))

INDICES = [
    [0, 0],
    ((0, 0),),
    ([0, 0],),
    ((0, 0), slice(None)),
    (slice(None), [1, 1, -3]),
    ([0, -3], [1, 1]),
    (0, (1, 1), slice(1, 3)),
    (Ellipsis, (0, 0), None),
    (None, [0, 0, -3]),
    ([0, 0], slice(None), [1, 1]),
    ([0, 0], None, [1, 1]),
    (slice(None, None, -1), [0, -4]),
    (slice(np.int64(0), np.int32(2)), [0, 0]),
    [[0, 0], [1, -2]],
    np.array([[0, 0], [1, 1]], dtype=np.uint8),
    np.array([0, 0], dtype=">i8"),
    (np.array([True, False, True]),),
    ([True, False, True], [1, 1]),
    (slice(None), [True, False, True, False], [2, 2]),
    np.ones((3, 4), dtype=bool),
    np.zeros((3, 4, 5), dtype=bool),
    np.int64(1),
    np.array(1),
    (np.int32(-1), [2, 2]),
    (np.array(0), np.array([1, 1])),
    True,
    np.True_,
    False,
    (True, [0, 0]),
    [],
    ([], []),
    (Ellipsis, None),
    (slice(0, 9, 2), slice(None), None),
    (slice(0, 3), slice(-9, None, 1)),
    slice(None, None, -1),
    ([2, 0, 1], slice(None)),
    np.ones((3, 4, 5), dtype=bool),
]


def added(index, values):
    full = np.zeros_like(X)
    np.add.at(full, index, values)
    return full


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_every_index_is_numpys(index):
    part = X[index]
    weights = np.cos(np.arange(part.size)).reshape(part.shape)
    np.testing.assert_array_equal(mg.Tensor(X)[index].value, part)
    np.testing.assert_array_equal(mg.grad(lambda x: mg.sum(x[index] * weights))(X), added(index, weights))

    def square(x):
        return mg.sum(x[index] ** 2 * weights)

    v = rng.standard_normal(X.shape)
    np.testing.assert_allclose(mg.grad(square)(mg.Tensor(X)).value, added(index, 2 * part * weights), rtol=1e-14)
    np.testing.assert_allclose(mg.hvp(square, (X,), (v,))[0], added(index, 2 * weights) * v, rtol=1e-14)


@pytest.mark.parametrize("index", [i for i in INDICES if i is not False], ids=repr)
@pytest.mark.parametrize("dtype", [float, complex])
def test_indices_of_a_gpus_arrays(index, dtype):
    expected = added(index, 2 * X[index]).astype(dtype)
    actual = mg.grad(lambda x: mg.sum(mg.real(x[index] * mg.conj(x[index]))))(asarray(X.astype(dtype)))
    np.testing.assert_allclose(actual.get(), expected, rtol=1e-14)


def test_indices_of_exact_numbers():
    x = np.array([Modular(n) for n in (2, 3, 5)], dtype=object)
    assert mg.grad(lambda x: mg.sum(x[(0, 0, -1),] * x[[1, 1, 1]]))(x).tolist() == [6, 2 + 2 + 5, 3]


@pytest.mark.parity
@pytest.mark.parametrize("index", INDICES, ids=repr)
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_indices_of_other_libraries(index, library):
    parts = index if isinstance(index, tuple) else (index,)
    if library == "torch" and any(isinstance(part, slice) and part.step == -1 for part in parts):
        return  # which has no negative steps
    xp = pytest.importorskip("torch" if library == "torch" else "jax.numpy")
    x = xp.asarray(X.astype(np.float32))
    result = mg.grad(lambda x: mg.sum(x[index] ** 2))(x)
    assert type(result) is type(x)
    np.testing.assert_allclose(np.asarray(result), added(index, 2 * X[index]), rtol=1e-5)


@pytest.mark.parametrize("make", [list, tuple, np.array, lambda i: np.array(i).view(np.memmap)])
def test_an_index_changed_later_changes_no_gradient(make):
    index = make([0, 1])
    x = mg.Tensor(np.arange(3.0))
    y = 2 * mg.sum(x[index,])
    if not isinstance(index, tuple):
        index[0] = index[1] = 2
    np.testing.assert_array_equal(mg.gradients(y, x), [2, 2, 0])


@pytest.mark.parametrize(
    ("index", "came"),
    [("a", "str (<U1)"), (1.5, "float (float64)"), ([1.5], "list (float64)"), ((0, {}), "dict (object)")],
)
def test_what_is_no_index(index, came):
    with pytest.raises(IndexError) as excinfo:
        mg.Tensor(X)[index]
    assert str(excinfo.value) == f"index: got {came}, expected integers, booleans or slices"


@pytest.mark.parametrize(("shape", "where"), [((3, 4), (1, 2)), ((1, 4), (3, 2)), ((3, 4), (3, 1)), ((3, 1), (1, 2))])
@pytest.mark.parametrize("axis", [-1, np.int64(1)])
def test_take_along_axis_broadcasts_as_numpy(shape, where, axis):
    x = rng.standard_normal(shape)
    indices = rng.integers(-shape[1], shape[1], where)
    np.testing.assert_array_equal(mg.take_along_axis(x, indices, axis=axis), np.take_along_axis(x, indices, 1))
    mg.check_grads(lambda x: mg.take_along_axis(x, indices, axis=axis) ** 2, (x,))


def test_take_along_axis_of_unequal_numbers_of_axes():
    with pytest.raises(ValueError, match="^take_along_axis: indices have 1 axes, expected 2 as x has$"):
        mg.take_along_axis(np.ones((2, 3)), np.array([0]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f4", ">f8", np.complex64, object])
def test_the_gradient_of_take_counts(dtype):
    g = mg.grad(lambda x: mg.real(mg.sum(mg.take(x, [0, 0, -1], axis=np.int64(0)))))(np.ones((3, 2)).astype(dtype))
    assert g.tolist() == [[2, 2], [0, 0], [1, 1]] and g.dtype == np.dtype(dtype).newbyteorder("=")


def test_the_gradient_of_take_is_summed_in_single_precision():
    """4096 times 1 + 2⁻¹⁰ in half precision stops growing long before."""
    g = mg.grad(lambda x: mg.sum(mg.take(x, np.zeros(4096, int), axis=0) * np.float16(1 + 2**-10)))(np.float16([1.0]))
    assert g == np.float16(4096 * (1 + 2**-10))


def test_take_of_nothing():
    for x, indices, axis in [(np.zeros((0, 3)), [], 0), (np.zeros((2, 3)), [], 1), (np.zeros((0, 3)), [0, 0], 1)]:
        assert mg.take(x, indices, axis=axis).shape == np.take(x, np.array(indices, int), axis=axis).shape
        g = mg.grad(lambda x, i=indices, a=axis: mg.sum(mg.take(x, i, axis=a)))(x)
        assert g.shape == x.shape and not g.any()
    assert mg.take(np.arange(6.0), np.array([4, 0], ">i4"), axis=0).tolist() == [4, 0]
    with pytest.raises(IndexError, match="^take: indices are float64, expected integers$"):
        mg.take(np.ones(3), [0.5], axis=0)
    assert mg.take(np.arange(6.0).reshape(2, 3), [4]).tolist() == [4]


def test_sorting():
    x = np.array([1.0, np.nan, 0.0, 1.0])
    np.testing.assert_array_equal(mg.sort(x), [0, 1, 1, np.nan])
    np.testing.assert_array_equal(mg.argsort(x), [2, 0, 3, 1])
    np.testing.assert_array_equal(mg.sort(x, descending=True), [np.nan, 1, 1, 0])
    np.testing.assert_array_equal(mg.argsort(x, descending=True, stable=True), [1, 0, 3, 2])
    np.testing.assert_array_equal(mg.argsort(np.uint8([3, 1, 3]), descending=True, stable=False), [0, 2, 1])
    np.testing.assert_array_equal(mg.grad(lambda x: mg.sort(x, axis=np.int64(0))[2])(x), [0, 0, 0, 1])
    assert mg.sort(np.zeros((2, 0)), axis=1, descending=True).shape == (2, 0)


def test_indices_along_an_axis_must_fit_the_others():
    x, indices = np.ones((10, 5)), np.zeros((5, 5), int)
    for call in (lambda: mg.take_along_axis(x, indices, axis=1), lambda: mg.scatter_add(x, indices, x[:5], axis=1)):
        with pytest.raises(IndexError, match=r": indices have size 5 on axis 0, expected 1 or 10 as x has$"):
            call()


def test_the_order_of_a_tensor_is_a_constant_tensor():
    order = mg.argsort(mg.Tensor([2.0, 1.0, 3.0]), descending=True)
    assert isinstance(order, mg.Tensor) and order.value.tolist() == [2, 0, 1]

"""Conversion of arguments: lists, numbers, byte orders, subclasses, small floats; and signatures of primitives."""

import inspect
import pydoc

import numpy as np
import pytest

import minigrad as mg
from minigrad.exact import Modular

ROWS = [[1.0, 2.0], [3.0, 4.0]]
A = np.array(ROWS)


@pytest.mark.parametrize(
    ("ours", "numpys"),
    [
        (lambda: mg.exp(ROWS), np.exp(A)),
        (lambda: mg.sum(ROWS, axis=[0]), A.sum(0)),
        (lambda: mg.mean(ROWS, axis=0), A.mean(0)),
        (lambda: mg.mean(2.0), 2.0),
        (lambda: mg.matmul(ROWS, ROWS), A @ A),
        (lambda: mg.solve(ROWS, [1.0, 2.0]), np.linalg.solve(A, [1.0, 2.0])),
        (lambda: mg.linalg.det(ROWS), np.linalg.det(A)),
        (lambda: mg.fft.fft([1.0, 2.0]), np.fft.fft([1.0, 2.0])),
        (lambda: mg.concat([[1, 2], [3.5]]), [1, 2, 3.5]),
        (lambda: mg.stack([[1, 2], A[0]]), [[1, 2], [1, 2]]),
        (lambda: mg.broadcast_arrays([1, 2], ROWS)[0], [[1, 2], [1, 2]]),
        (lambda: mg.einsum("i,i->", [1.0, 2.0], (3.0, 4.0)), 11),
        (lambda: mg.reshape(ROWS, [4]), A.reshape(4)),
        (lambda: mg.permute_dims(ROWS, [1, 0]), A.T),
        (lambda: mg.where([True, False], [1.0, 2.0], 3.0), [1, 3]),
        (lambda: mg.sort([3, 1]), [1, 3]),
        (lambda: mg.take(ROWS, [1], axis=0), A[[1]]),
        (lambda: mg.maximum([1, 2], 1.5), [1.5, 2]),
        (lambda: mg.Tensor(A) + [1, 2], A + [1, 2]),
        (lambda: [1, 2] * mg.Tensor(A), [1, 2] * A),
    ],
)
def test_lists_stand_for_arrays(ours, numpys):
    np.testing.assert_allclose(getattr(ours(), "value", ours()), numpys, rtol=1e-14)


def test_a_list_of_tensors_keeps_its_gradient():
    assert mg.grad(lambda x: mg.sum([x, [x * x, 2.0][0]]))(3.0) == 1 + 6
    np.testing.assert_array_equal(mg.grad(lambda x: mg.mean([[x[0], 1.0], [2.0, x[1]]]))(np.ones(2)), [0.25, 0.25])


PAIR = "got the tuple (ndarray, ndarray), expected one array, such as the first of a pair (y, state)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mg.exp((A, A)), f"exp: argument x: {PAIR}"),
        (lambda: mg.mean((A, A)), f"mean: argument x: {PAIR}"),
        (lambda: mg.add(1.0, (A, A)), f"add: argument y: {PAIR}"),
        (lambda: mg.exp("a"), "exp: argument x: got str, expected an array or a number"),
        (lambda: mg.exp([None]), "exp: argument x: got list, expected an array or a number"),
        (lambda: mg.mean({"a": 1}), "mean: argument x: got dict, expected an array or a number"),
        (
            lambda: mg.exp(np.ma.masked_array([1.0, 2.0], [True, False])),
            "exp: argument x: got a masked array, expected one without missing elements",
        ),
        (
            lambda: mg.exp([[1], [2, 3]]),
            "exp: argument x: got a list that is no array (setting an array element with a sequence)",
        ),
        (
            lambda: mg.tril(A, k=mg.Tensor(1.0)),
            "tril: k is Tensor, expected an integer",
        ),
    ],
)
def test_what_is_no_array(call, message):
    with pytest.raises(TypeError) as excinfo:
        call()
    assert str(excinfo.value) == message


def test_numbers_alone_are_numpys():
    for result, expected in [
        (mg.add(2.0, 3.0), np.float64(5)),
        (mg.add(2, 3), np.int64(5)),
        (mg.exp(0), np.float64(1)),
    ]:
        assert result == expected and result.dtype == expected.dtype
    with np.errstate(divide="ignore", invalid="ignore"):
        assert mg.divide(1.0, 0.0) == np.inf and np.isnan(mg.pow(-2.0, 0.5))
    assert mg.multiply(1j, 1j).dtype == np.complex128
    assert mg.add(Modular(2), Modular(3)).dtype == object
    assert (mg.Tensor(np.float32(2)) + 3.0).dtype == np.float32


@pytest.mark.parametrize("size", [3, 5000])
@pytest.mark.parametrize("dtype", [">f4", ">f8", ">c16"])
def test_foreign_byte_orders(dtype, size):
    """Also where a compiled kernel runs, which would read the bytes as they lie."""
    x = np.linspace(-1, 1, size).astype(dtype)
    native = x.astype(x.dtype.newbyteorder("="))

    def f(x):
        y = (
            mg.softmax(mg.real(x))
            if x.dtype.kind == "c"
            else mg.silu(x) + mg.sigmoid(x) * mg.take(x, [0] * size, axis=0)
        )
        return mg.sum(mg.scan(mg.real(x[:, None]), mg.real(x[:, None]))) + mg.sum(y * y)

    assert mg.sigmoid(x.real).tolist() == mg.sigmoid(native.real).tolist()
    for actual, expected in [(mg.grad(f)(x), mg.grad(f)(native)), (mg.grad(f)(mg.Tensor(x)).value, mg.grad(f)(native))]:
        assert actual.dtype == native.dtype
        np.testing.assert_array_equal(actual, expected)


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.array([0.5, 1.0, -2.0]).astype(ml_dtypes.bfloat16)
    g = mg.grad(lambda x: mg.sum(mg.exp(x) * x + x[[0, 0, 0]]))(x)
    assert g.dtype == x.dtype
    expected = np.exp([0.5, 1.0, -2.0]) * [1.5, 2.0, -1.0] + [3, 0, 0]
    np.testing.assert_allclose(g.astype(float), expected, rtol=2**-6)


def test_signatures_and_help():
    assert str(inspect.signature(mg.exp)) == "(x)"
    assert list(inspect.signature(mg.sum).parameters) == ["x", "axis", "dtype", "keepdims"]
    assert mg.exp.__name__ == "exp" and mg.exp.__doc__ and inspect.isroutine(mg.exp)
    assert pydoc.render_doc(mg.exp, renderer=pydoc.plaintext).splitlines()[2] == "exp(x)"
    assert list(inspect.signature(mg.Tensor(A).sum).parameters) == ["axis", "dtype", "keepdims"]

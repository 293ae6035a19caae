"""The compiled convolution by Fourier transforms against the product of NumPy's spectra."""

import numpy as np
import pytest

import minigrad as mg
from models import linear_systems
from models.kernels import causal_convolution as kernel
from tests.kernels.kit import num_threads

SHAPES = [
    ((), 1, 1, 1),
    ((1,), 2, 7, 2),
    ((2, 2), 3, 16, 3),
    ((3,), 33, 33, 10),  # a kernel that ends before the sequence
    ((2,), 20, 5, 31),  # and one that goes on
    ((), 512, 32, 512),  # two to an odd power
    ((1,), 1025, 17, 1025),
]


def draw(batch, T, D, L, dtype=np.float64):
    rng = np.random.default_rng(T + D)
    return rng.standard_normal((*batch, T, D)).astype(dtype), rng.standard_normal((D, L)).astype(dtype)


def results(function, u, K):
    def loss(u, K):
        y = function(u, K)
        return mg.sum(mg.sin(y)), y

    (_, y), gradients = mg.value_and_grad(loss, argnums=(0, 1), has_aux=True)(u, K)
    return [np.asarray(y), *gradients]


def check_equal(actual, expected, digits):
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == digits.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * digits.eps * np.abs(b).max(initial=1))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_product_of_spectra(shape, dtype):
    u, K = draw(*shape, dtype)
    expected = results(linear_systems.fft_convolution, *(x.astype(np.float64) for x in (u, K)))
    check_equal(results(linear_systems._compiled_convolution, u, K), expected, np.finfo(dtype))


def test_is_the_sum_that_defines_it():
    u, K = draw((2,), 37, 20, 37)
    check_equal(
        results(linear_systems._compiled_convolution, u, K),
        results(linear_systems.direct_convolution, u, K),
        np.finfo(u.dtype),
    )


def test_threads_do_not_change_a_digit():
    u, K = draw((2,), 70, 40, 70)
    actual = []
    for threads in (1, 2, 3):
        with num_threads(threads):
            actual.append(results(linear_systems._compiled_convolution, u, K))
    for other in actual[1:]:
        for a, b in zip(other, actual[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_sequence_is_not_changed_by_those_beside_it():
    u, K = draw((3,), 70, 20, 70)
    u[1] = np.nan
    y = kernel.forward(u, K)[0]
    for b in (0, 2):
        np.testing.assert_array_equal(y[b], kernel.forward(u[b], K)[0])


@pytest.mark.parametrize(
    "moved",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
        lambda x: x.mT.copy().mT,
        lambda x: np.flip(np.flip(x, axis=-1).copy(), axis=-1),
    ],
    ids=["columns", "strided", "time last", "backwards"],
)
def test_other_memory_layouts(moved):
    u, K = draw((2,), 70, 37, 70)
    for a, b in zip(
        results(linear_systems._compiled_convolution, moved(u), moved(K)),
        results(linear_systems._compiled_convolution, u, K),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_time_stays_last_where_it_was():
    u, K = draw((2,), 70, 37, 70)
    y, saved = kernel.forward(u.mT.copy().mT, K)
    assert y.mT.flags.c_contiguous and kernel.backward(saved, y)[0].mT.flags.c_contiguous
    assert kernel.forward(u, K)[0].flags.c_contiguous


def test_large_arrays_are_compiled_and_have_second_derivatives():
    u, K = draw((2,), 65, 40, 65)
    np.testing.assert_array_equal(linear_systems.causal_convolution(u, K), kernel.forward(u, K)[0], strict=True)
    mg.check_grads(linear_systems.causal_convolution, (u, K), order=2)


def test_one_kernel_serves_all_channels():
    u, K = draw((2,), 65, 40, 65)
    check_equal(
        results(linear_systems.causal_convolution, u, K[:1]),
        results(linear_systems.fft_convolution, u, K[:1]),
        np.finfo(u.dtype),
    )

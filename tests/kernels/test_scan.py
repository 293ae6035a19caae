"""The compiled linear recurrence against the loop that defines it."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import compiled


def loop(a, x, axis, reverse):
    """Compute hₜ = aₜ hₜ₋₁ + xₜ, a token at a time."""
    a, x = np.moveaxis(a, axis, 0), np.moveaxis(x, axis, 0)
    h, results = 0 * x[0], np.empty_like(x)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        results[t] = h = a[t] * h + x[t]
    return np.moveaxis(results, 0, axis)


def draw(shape, dtype):
    rng = np.random.default_rng(len(shape))
    a, x = rng.uniform(-1, 1, shape), rng.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        a, x = a * np.exp(1j * x), x + 1j * a
    return a.astype(dtype), x.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((4096,), 0), ((3, 1500), 1), ((5, 7, 130), 1), ((2, 9, 300, 2), -3), ((4, 1030), 0), ((1, 5000), 0)],
)
def test_is_the_loop(shape, axis, reverse, dtype):
    a, x = draw(shape, dtype)
    assert compiled.scan_kernel(a, x) is not None
    actual, expected = mg.scan(a, x, axis=axis, reverse=reverse), loop(a, x, axis, reverse)
    assert actual.dtype == dtype
    if np.issubdtype(dtype, np.floating):
        np.testing.assert_array_equal(actual, expected)  # the same operations in the same order
    else:
        np.testing.assert_allclose(actual, expected, rtol=0, atol=100 * np.finfo(dtype).eps * np.abs(expected).max())


def test_arrays_that_are_not_contiguous():
    a, x = draw((60, 80), np.float64)
    wide = np.repeat(x, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(mg.scan(a.T, wide.T, axis=1), mg.scan(a.T.copy(), x.T.copy(), axis=1))


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_gradients_of_a_long_one_are_those_of_short_ones(dtype):
    """Compare a hundred scans too small for the kernel with all of them at once."""
    a, x = draw((100, 8, 6), dtype)

    def loss(a, x):
        h = mg.scan(a, x, axis=-2)
        return mg.sum(mg.real(h * mg.conj(h)) ** 2)

    both = mg.grad(loss, argnums=(0, 1))(a, x)
    assert compiled.scan_kernel(a, x) and not compiled.scan_kernel(a[0], x[0])
    for i in range(100):
        for whole, part in zip(both, mg.grad(loss, argnums=(0, 1))(a[i], x[i]), strict=True):
            np.testing.assert_allclose(whole[i], part, rtol=1e-10, atol=1e-12)

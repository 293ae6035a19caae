"""The compiled element-wise chains against NumPy's single operations, by which small arrays are computed."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import compiled
from tests.kernels.kit import num_threads

BOTH = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def rotary(x):
    """Rotate every channel pair of every token by an angle of its own."""
    tokens, half = x.shape[-2], x.shape[-1] // 2
    angles = np.linspace(0, 7, tokens * half).reshape(tokens, half)
    return mg.rotary(x, np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype))


FUNCTIONS = {"sigmoid": mg.sigmoid, "silu": mg.silu, "rms_norm": mg.rms_norm, "swiglu": mg.swiglu, "rotary": rotary}
EVEN = [(64, 64), (3, 7, 256), (2, 40, 86)]  # halves of 43 are not made of whole vectors
ANY = [(64, 64), (3, 7, 256), (4097,), (17, 5, 49)]
SHAPES = {name: EVEN if name in ("swiglu", "rotary") else ANY for name in FUNCTIONS}


def plain(monkeypatch):
    monkeypatch.setattr(compiled, "LARGE", 10**12)


def results(function, x):
    def loss(x):
        y = function(x)
        return mg.sum(mg.sin(y)), y

    (_, y), gradient = mg.value_and_grad(loss, has_aux=True)(x)
    return np.asarray(y), gradient


@BOTH
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name in FUNCTIONS for shape in SHAPES[name]])
def test_is_what_numpy_computes(name, shape, threads, dtype, monkeypatch):
    x = (3 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    with num_threads(threads):
        actual = results(FUNCTIONS[name], x)
    plain(monkeypatch)
    for a, b in zip(actual, results(FUNCTIONS[name], x), strict=True):
        assert a.dtype == dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=16 * np.finfo(dtype).eps, atol=16 * np.finfo(dtype).eps)


@BOTH
def test_the_ends_of_the_range(dtype):
    x = np.full(4096, np.nan, dtype)
    x[:6] = -np.inf, np.inf, -1000, 1000, 0, -0.0
    np.testing.assert_array_equal(mg.sigmoid(x)[:7], [0, 1, 0, 1, 0.5, 0.5, np.nan])
    np.testing.assert_array_equal(mg.silu(x)[1:7], [np.inf, 0, 1000, 0, 0, np.nan])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_that_are_not_contiguous(name):
    x = np.random.default_rng(0).standard_normal((64, 128))
    for a, b in zip(results(FUNCTIONS[name], np.asfortranarray(x)), results(FUNCTIONS[name], x), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives(name):
    mg.check_grads(FUNCTIONS[name], (np.random.default_rng(0).standard_normal((64, 64)),), order=2)

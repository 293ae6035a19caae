"""The compiled convolution against the shifted copies that define it."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import convolution, nn
from tests.kernels.kit import num_threads

SHAPES = [((), 1, 1, 1), ((2, 3), 33, 5, 4), ((3,), 2, 64, 4), ((), 40, 129, 3), ((1,), 9, 16, 1), ((2,), 3, 8, 7)]


def draw(batch, T, D, W, dtype=np.float64):
    rng = np.random.default_rng(T + D)
    arrays = rng.standard_normal((*batch, T, D)), rng.standard_normal((D, W)), rng.standard_normal((*batch, W - 1, D))
    return [x.astype(dtype) for x in arrays]


def results(function, arguments):
    def loss(*arguments):
        y = function(*arguments)
        return mg.sum(mg.sin(y)), y

    (_, y), gradients = mg.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(*arguments)
    return [np.asarray(y), *gradients]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_sum_of_shifted_copies(shape, threads, dtype):
    arguments = draw(*shape, dtype)
    with num_threads(threads):
        actual = results(convolution._compiled, arguments)
    expected = results(convolution._shifted, [x.astype(np.float64) for x in arguments])
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=16 * np.finfo(dtype).eps * np.abs(b).max(initial=1))


def test_arrays_that_are_not_contiguous():
    x, w, before = draw((2,), 40, 24, 4)
    strided = [np.repeat(x, 2, axis=-1)[..., ::2], np.asfortranarray(w), np.asfortranarray(before)]
    for a, b in zip(
        results(convolution._compiled, strided), results(convolution._compiled, [x, w, before]), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_large_arrays_are_compiled_and_have_second_derivatives():
    x, w, before = draw((2,), 33, 64, 4)
    np.testing.assert_array_equal(
        mg.causal_conv1d(x, w, before=before), convolution._compiled(x, w, before), strict=True
    )
    mg.check_grads(lambda x, w, before: mg.causal_conv1d(x, w, before=before), (x, w, before), order=2)


@pytest.mark.parametrize("T", [1, 2, 5, 80])
@pytest.mark.parametrize("width", [1, 4])
def test_a_layer_goes_on_from_its_last_inputs(T, width):
    rng = np.random.default_rng(0)
    layer, x = nn.Conv1d(64, width, rng=rng, dtype=np.float64), rng.standard_normal((2, T + 80, 64))
    first, state = layer(x[:, :T])
    second, _ = layer(x[:, T:], state)
    assert state.shape == (2, width - 1, 64)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), layer(x)[0], rtol=1e-13)

"""TTT's Numba kernel beyond the sizes of the proofs: wide models, threads, float32."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import arrays_of, map_arrays
from models.kernels import ttt as kernel
from models.memory import inner, ttt
from models.memory.ttt import Weights

# batch axes, T, K, V, whether a norm and whether a bias, mini-batch
from tests.kernels.kit import num_threads

CASES = {
    "a matrix": ((2,), 64, 24, 40, False, False, 16),
    "a layer": ((), 37, 5, 3, False, True, 7),
    "in a norm": ((3, 1), 33, 20, 20, True, False, 16),
    "a layer in a norm": ((2,), 96, 64, 64, True, True, 16),
    "a token at a time": ((2,), 5, 7, 7, True, True, 1),
}


def draw(batch, length, keys, values, norm, bias, dtype=np.float64):
    rng = np.random.default_rng(length)
    q, k, v = (rng.standard_normal((*batch, length, n)) / n**0.5 for n in (keys, keys, values))
    eta, tau = rng.uniform(0, 0.3, (2, *batch, length))
    layer = [rng.standard_normal((*batch, rows, values)) / 4 for rows in (keys, 1)[: 1 + bias]]
    norm_arrays = tuple(x + rng.standard_normal((1, values)) / 4 for x in (1, 0)) if norm else None
    return map_arrays(lambda x: x.astype(dtype), [q, k, v, eta, tau, Weights((tuple(layer),), norm_arrays)])


def results(form, arguments, size):
    """Return output, final weights, and the gradients of a weighted sum of both."""

    def loss(arguments):
        q, k, v, eta, tau, weights = arguments
        y, state = form(q, k, v, eta, weights, tau=tau, batch_size=size)
        outputs = [y, *arrays_of(state)]
        return sum(mg.sum(mg.sin(x)) for x in outputs), outputs

    (_, outputs), gradients = mg.value_and_grad(loss, has_aux=True)(arguments)
    return [np.asarray(x) for x in [*outputs, *arrays_of(gradients)]]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_is_the_dual_form(name, threads, dtype):
    *sizes, size = CASES[name]
    arguments = draw(*sizes, dtype)
    with num_threads(threads):
        actual = results(ttt.fused, arguments, size)
    exact = map_arrays(lambda x: x.astype(np.float64), arguments)
    for a, b in zip(actual, results(ttt.dual, exact, size), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=256 * np.finfo(dtype).eps * max(1, np.abs(b).max()))


@pytest.mark.parametrize("name", CASES)
def test_inner_losses(name):
    """Compare with the squared errors at the weights before the mini-batch."""
    batch, length, *_, size = CASES[name]
    q, k, v, eta, tau, weights = draw(*CASES[name][:-1])
    losses, whole = [], length // size * size
    tokens = [x[..., :whole, :] for x in (q, k, v)]
    norm_arrays = (np.broadcast_to(x, (*batch, *x.shape)) for x in weights.norm or ())
    matrix, rates = inner.pack_layer(weights.layers[0]), [x[..., :whole] for x in (eta, tau)]
    layout = inner.layout_of(weights.layers, weights.norm)
    kernel.forward(*tokens, *rates, matrix, *norm_arrays, layout=layout, batch_size=size, on_losses=losses.append)
    error = inner.apply_model(weights.layers, weights.norm, k[..., :size, :]) - v[..., :size, :]
    assert losses[0].shape == (*batch, whole)
    np.testing.assert_allclose(losses[0][..., :size], np.sum(error**2, axis=-1), rtol=1e-12)


def test_arrays_that_are_not_contiguous():
    *sizes, size = CASES["a layer in a norm"]
    arguments = draw(*sizes)
    strided = map_arrays(np.asfortranarray, arguments)
    strided[0] = np.repeat(arguments[0], 2, axis=-1)[..., ::2]
    for a, b in zip(*(results(ttt.fused, x, size) for x in (strided, arguments)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_inputs_stay_as_they_were():
    *sizes, size = CASES["in a norm"]
    arguments = draw(*sizes)
    before = map_arrays(np.copy, arguments)
    results(ttt.fused, arguments, size)
    for a, b in zip(arrays_of(arguments), arrays_of(before), strict=True):
        np.testing.assert_array_equal(a, b)

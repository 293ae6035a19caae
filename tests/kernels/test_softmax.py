"""The tiles of softmax attention: many tiles, masks, no visible key, threads, memory layouts."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.compiled import threads
from models.attention import softmax
from tests.kernels.kit import num_threads

SHAPES = [((), 1, 1, 1), ((2, 3), 33, 5, 7), ((), 257, 16, 8), ((2,), 600, 8, 3)]


def draw(batch, T, K, V, S=0, dtype=np.float64):
    rng = np.random.default_rng(T + K)
    shapes = (T, K), (T, K), (T, V), (S, K), (S, V)
    *qkv, keys, values = (2 * rng.standard_normal((*batch, *shape)).astype(dtype) for shape in shapes)
    return [*qkv, keys, values] if S else qkv


def results(form, arguments, **options):
    """Return output, state, and the gradients of a weighted sum of both."""

    def loss(q, k, v, *state):
        y, (keys, values) = form(q, k, v, state=state or None, **options)
        return mg.sum(mg.sin(y)) + mg.sum(keys * keys) + mg.sum(values * values), (y, keys, values)

    (_, outputs), gradients = mg.value_and_grad(loss, argnums=tuple(range(len(arguments))), has_aux=True)(*arguments)
    return [*map(np.asarray, outputs), *gradients]


def assert_alike(actual, expected, dtype=np.float64):
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * np.finfo(dtype).eps * np.abs(b).max())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("S", [0, 5, 530])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_quadratic_attention(shape, S, causal, count, dtype):
    arguments = draw(*shape, S, dtype)
    with num_threads(count):
        actual = results(softmax.fused, arguments, causal=causal)
    exact = [x.astype(np.float64) for x in arguments]
    assert_alike(actual, results(softmax.quadratic, exact, causal=causal), dtype)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shape", [(40, 540), (540,), (2, 1, 1, 540), (40, 1), (3, 40, 540)])
def test_masks(shape, causal):
    """Mask all keys of some queries, in one tile or in two."""
    mask = np.random.default_rng(0).uniform(size=shape) > 0.4
    if mask.ndim > 1:
        mask[..., :2, :] = False
    arguments = draw((2, 3), 40, 8, 5, 500)
    assert_alike(
        results(softmax.fused, arguments, causal=causal, mask=mask),
        results(softmax.quadratic, arguments, causal=causal, mask=mask),
    )


@pytest.mark.parametrize("scale", [0.0, 1.0, -0.5])
def test_scales(scale):
    arguments = draw((2,), 70, 8, 5)
    assert_alike(*(results(form, arguments, scale=scale) for form in (softmax.fused, softmax.quadratic)))


def test_arrays_that_are_not_contiguous():
    arguments = draw((2,), 40, 24, 8, 3)
    strided = [np.asfortranarray(x) for x in arguments]
    strided[0] = np.repeat(arguments[0], 2, axis=-1)[..., ::2]
    assert_alike(results(softmax.fused, strided), results(softmax.fused, arguments))


def test_a_mask_that_does_not_fit():
    expected = r"softmax.fused: mask has shape \(3,\), expected one that broadcasts to \(4, 4\)"
    with pytest.raises(ValueError, match=expected):
        softmax.fused(*draw((), 4, 2, 2), mask=np.ones(3, bool))


@pytest.mark.parametrize("shape", [(40, 540), (540,), (3, 40, 540)])
def test_a_bias(shape):
    """It has a gradient too, summed over the sequences that share it."""
    arguments = [*draw((2, 3), 40, 8, 5, 500), np.random.default_rng(0).standard_normal(shape)]

    def biased(form):
        def run(q, k, v, *, state, **options):
            return form(q, k, v, state=state[:2], bias=state[2], **options)

        return results(run, arguments, mask=np.random.default_rng(1).uniform(size=540) > 0.2)

    for a, b in zip(biased(softmax.fused), biased(softmax.quadratic), strict=True):
        np.testing.assert_array_equal(a, b)


def test_second_derivatives():
    def form(q, k, v):
        return softmax.fused(q, k, v)[0]

    mg.check_grads(form, draw((2,), 5, 3, 2), order=2)


def test_blas_threads_are_restored():
    def counts():
        return [library.get_num_threads() for library in threads._blas()]

    before = counts()
    with threads.one_blas_thread(), threads.one_blas_thread():
        assert set(counts()) == {1}
    assert counts() == before
    with pytest.raises(ZeroDivisionError), threads.one_blas_thread():
        raise ZeroDivisionError
    assert counts() == before

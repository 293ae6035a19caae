"""The lazy form of softmax attention against the quadratic one, for every option and for chunks that do not divide."""

import functools
import tracemalloc

import numpy as np
import pytest

import minigrad as mg
from models.attention import softmax

RNG = np.random.default_rng(0)
Q, K, V = RNG.standard_normal((3, 2, 50, 4))
MASK = RNG.random((2, 50, 50)) < 0.5
MASK[:, 7] = False  # a query that attends to no key
EARLIER = tuple(RNG.standard_normal((2, 2, 9, 4)))

OPTIONS = {
    "causal": {},
    "all keys": {"causal": False},
    "mask": {"causal": False, "mask": MASK},
    "causal and mask": {"mask": MASK},
    "one mask for all": {"mask": MASK[0, :, :1]},
    "scale": {"scale": 3.0},
    "cache": {"state": EARLIER},
    "cache and mask": {"state": EARLIER, "mask": RNG.random((50, 59)) < 0.5},
    "bias": {"bias": RNG.standard_normal((50, 50))},
    "bias, cache and mask": {"state": EARLIER, "bias": RNG.standard_normal((2, 1, 59)), "mask": RNG.random(59) < 0.5},
    "scores whose exponentials overflow": {"scale": 300.0},
}


def gradients(form, options):
    def loss(q, k, v):
        return mg.sum(mg.sin(form(q, k, v, **options)[0]))

    return mg.grad(loss, argnums=(0, 1, 2))


@pytest.mark.parametrize("chunk_size", [1, 7, 25, 50, None])
@pytest.mark.parametrize("name", OPTIONS)
def test_is_the_quadratic_form(name, chunk_size):
    options, form = OPTIONS[name], functools.partial(softmax.lazy, chunk_size=chunk_size)
    (y, cache), (expected, expected_cache) = form(Q, K, V, **options), softmax.quadratic(Q, K, V, **options)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)
    for a, b in zip(cache, expected_cache, strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(gradients(form, options)(Q, K, V), gradients(softmax.quadratic, options)(Q, K, V), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [(50, 50), (2, 50, 50), (50, 1), (50,)])
def test_the_gradient_of_a_bias(shape):
    def gradient(form):
        return mg.grad(lambda bias: mg.sum(mg.sin(form(Q, K, V, bias=bias, mask=MASK)[0])))(bias)

    bias = RNG.standard_normal(shape)
    lazy = functools.partial(softmax.lazy, chunk_size=7)
    np.testing.assert_allclose(gradient(lazy), gradient(softmax.quadratic), rtol=1e-11, atol=1e-12)


def test_gradients_of_gradients_are_those_of_the_quadratic_form():
    def second(form):
        first = gradients(form, {})
        return mg.grad(lambda q, k, v: sum(mg.sum(mg.cos(g)) for g in first(q, k, v)), argnums=(0, 1, 2))(Q, K, V)

    pairs = zip(second(functools.partial(softmax.lazy, chunk_size=7)), second(softmax.quadratic), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def peak(form, length):
    q, k, v = RNG.standard_normal((3, length, 8)).astype(np.float32)
    gradients(form, {})(q[:64], k[:64], v[:64])
    tracemalloc.start()
    try:
        gradients(form, {})(q, k, v)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_backward_pass_keeps_no_weights():
    quadratic, lazy = peak(softmax.quadratic, 2048), peak(functools.partial(softmax.lazy, chunk_size=64), 2048)
    assert lazy < quadratic / 20


def test_memory_of_the_gradient_grows_as_the_length():
    form = functools.partial(softmax.lazy, chunk_size=64)
    assert peak(form, 4096) < 2.5 * peak(form, 2048)


def test_a_mask_changed_after_the_call_changes_no_gradient():
    mask = MASK.copy()

    def loss(q):
        y, _ = softmax.lazy(q, K, V, mask=mask, chunk_size=16)
        mask[:] = True
        return mg.sum(mg.sin(y))

    np.testing.assert_array_equal(
        mg.grad(loss)(Q), gradients(functools.partial(softmax.lazy, chunk_size=16), {"mask": MASK})(Q, K, V)[0]
    )

"""Heads and grouped queries: forms, masks and biases of heads, what is copied, and errors."""

import numpy as np
import pytest

import minigrad as mg
from models.attention import multihead, softmax

rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((2, heads, 5, width)) for heads, width in ((6, 4), (2, 4), (2, 3)))


def repeat(x):
    return np.repeat(x, 3, axis=-3)


@pytest.mark.parametrize("form", [softmax.quadratic, softmax.lazy, softmax.fused])
@pytest.mark.parametrize("shape", [(5, 5), (1, 5), (6, 5, 5), (1, 5, 5), (2, 6, 5, 5), (2, 1, 1, 5)])
def test_masks_and_biases_of_heads(form, shape):
    options = {"mask": rng.uniform(size=shape) > 0.2, "bias": rng.standard_normal(shape)}
    y, _ = multihead.grouped(form, q, k, v, **options)
    np.testing.assert_allclose(y, form(q, repeat(k), repeat(v), **options)[0], rtol=1e-13)


@pytest.mark.parametrize("form", [softmax.quadratic, softmax.lazy, softmax.fused])
def test_the_gradient_of_a_shared_head_is_the_sum_over_its_queries(form):
    def run(q, k, v):
        return multihead.grouped(form, q, k, v)[0]

    mg.check_grads(run, [q, k, v], order=2)
    weights = rng.standard_normal((2, 6, 5, 3))
    shared = mg.grad(lambda k: mg.sum(weights * run(q, k, v)))(k)
    each = mg.grad(lambda k: mg.sum(weights * form(q, k, repeat(v))[0]))(repeat(k))
    np.testing.assert_allclose(shared, each.reshape(2, 2, 3, 5, 4).sum(axis=2), rtol=1e-12)


def test_keys_and_values_are_not_copied():
    def form(q, k_shared, v_shared, **options):
        assert np.shares_memory(k_shared, k) and np.shares_memory(v_shared, v)
        assert k_shared.shape == (2, 2, 3, 5, 4)
        return softmax.quadratic(q, k_shared, v_shared, **options)

    _, state = multihead.grouped(form, q, k, v)
    assert state[0] is k and state[1] is v


def test_split_and_merge():
    x = np.arange(12.0).reshape(2, 6)
    np.testing.assert_array_equal(multihead.split_heads(x, 3)[1], [[2, 3], [8, 9]])
    np.testing.assert_array_equal(multihead.merge_heads(multihead.split_heads(x, 3)), x)


ERRORS = [
    (
        lambda: multihead.split_heads(np.ones((5, 10)), 4),
        "multihead: x has 10 channels, expected a positive multiple of 4 heads",
    ),
    (
        lambda: multihead.attend(softmax.quadratic, *np.ones((3, 5, 12)), heads=4, key_value_heads=5),
        "multihead: k has 12 channels, expected a positive multiple of 5 heads",
    ),
    (
        lambda: multihead.attend(softmax.quadratic, *np.ones((3, 5, 12)), heads=0),
        "multihead: q has 12 channels, expected a positive multiple of 0 heads",
    ),
    (
        lambda: multihead.grouped(softmax.quadratic, q[:, :5], k, v),
        "multihead.grouped: q has 5 heads, expected a multiple of the 2 of k",
    ),
    (
        lambda: multihead.grouped(softmax.quadratic, q, k, v, bias=np.ones((2, 5, 5))),
        "multihead.grouped: bias has 2 heads, expected 1 or 6",
    ),
    (
        lambda: multihead.grouped(softmax.quadratic, q, k, v[:, :1]),
        "multihead.grouped: v has 1 heads, expected 2 as k",
    ),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_an_error_names_what_was_expected(call, message):
    with pytest.raises(ValueError) as excinfo:
        call()
    assert str(excinfo.value) == message

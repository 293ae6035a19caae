"""Softmax attention against PyTorch's scaled_dot_product_attention, MATH backend, float64."""

import numpy as np
import pytest

from models.attention import softmax


def inputs(T, S, *, K=8, V=6, batch=(2, 3)):
    """Return T queries over S keys and values."""
    rng = np.random.default_rng(100 * T + S)
    return {
        "q": rng.normal(size=(*batch, T, K)),
        "k": rng.normal(size=(*batch, S, K)),
        "v": rng.normal(size=(*batch, S, V)),
    }


@pytest.fixture
def attend(torch):
    def run(q, k, v, **options):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return (torch.nn.functional.scaled_dot_product_attention(q, k, v, **options),)

    return run


@pytest.mark.parametrize("T", [1, 2, 33])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_causal(T, scale, attend, compare):
    compare(
        lambda q, k, v: softmax.quadratic(q, k, v, scale=scale)[:1],
        lambda q, k, v: attend(q, k, v, is_causal=True, scale=scale),
        inputs(T, T),
        1e-12,
    )


@pytest.mark.parametrize("chunk_size", [5, 33, None])
def test_lazy(chunk_size, attend, compare):
    compare(
        lambda q, k, v: softmax.lazy(q, k, v, chunk_size=chunk_size)[:1],
        lambda q, k, v: attend(q, k, v, is_causal=True),
        inputs(33, 33),
        1e-12,
    )


@pytest.mark.parametrize("T", [1, 33])
def test_every_token_sees_every_other(T, attend, compare):
    compare(lambda q, k, v: softmax.quadratic(q, k, v, causal=False)[:1], attend, inputs(T, T), 1e-12)


def test_masked(torch, attend, compare):
    """Each query keeps its own key, so that no row is empty."""
    mask = (np.random.default_rng(0).uniform(size=(20, 20)) < 0.5) | np.eye(20, dtype=bool)
    compare(
        lambda q, k, v: softmax.quadratic(q, k, v, causal=False, mask=mask)[:1],
        lambda q, k, v: attend(q, k, v, attn_mask=torch.tensor(mask)),
        inputs(20, 20),
        1e-12,
    )


@pytest.mark.parametrize("shape", [(3, 20, 20), (20, 20), (2, 1, 1, 20)])
def test_biased(shape, attend, compare):
    """Bias and its gradient: PyTorch adds a mask of floats to the scores."""
    compare(
        lambda q, k, v, bias: softmax.quadratic(q, k, v, causal=False, bias=bias)[:1],
        lambda q, k, v, bias: attend(q, k, v, attn_mask=bias),
        {**inputs(20, 20), "bias": np.random.default_rng(0).normal(size=shape)},
        1e-12,
    )


def test_causal_after_earlier_keys(torch, attend, compare):
    """With a state of 7 keys, query t sees keys up to 7 + t."""
    visited = torch.ones(12, 19, dtype=torch.bool).tril(7)
    compare(
        lambda q, k, v: softmax.quadratic(q, k[..., 7:, :], v[..., 7:, :], state=(k[..., :7, :], v[..., :7, :]))[:1],
        lambda q, k, v: attend(q, k, v, attn_mask=visited),
        inputs(12, 19),
        1e-12,
    )

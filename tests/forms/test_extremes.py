"""Inputs on which public implementations fail: gates of 0, nearly parallel keys, long chunks in float32."""

import numpy as np
import pytest

import minigrad as mg
from models.attention import softmax
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention


def draw(rng, *shape, dtype=np.float64):
    return rng.standard_normal(shape).astype(dtype)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("channels", [(), (3,)], ids=["per token", "per channel"])
@pytest.mark.parametrize("closed", [[0], [4], [3, 4], [8], range(9)], ids=str)
def test_gates_of_zero_leave_values_and_gradients_finite(rng, channels, closed):
    q, k, v, S, beta = (
        draw(rng, 2, 9, 3),
        draw(rng, 2, 9, 3),
        draw(rng, 2, 9, 4),
        draw(rng, 2, 3, 4),
        rng.random((2, 9)),
    )
    log_decay = -rng.exponential(1, (2, 9, *channels))
    log_decay[:, list(closed)] = -np.inf
    if channels:
        mechanism, arguments = gated_linear_attention, (q, k, v, log_decay)
    else:
        mechanism, arguments = gated_delta_rule, (q, k, v, beta, log_decay)
    names = [name for name in ("recurrent", "parallel", "chunkwise") if hasattr(mechanism, name)]

    def gradients(name):
        def loss(S, *arguments):
            options = {"chunk_size": 4} if name == "chunkwise" else {}
            y, state = getattr(mechanism, name)(*arguments, state=S, **options)
            return mg.sum(y * y) + mg.sum(state * state * state)

        return mg.value_and_grad(loss, argnums=tuple(range(1 + len(arguments))))(S, *arguments)

    value, expected = gradients("recurrent")
    assert np.isfinite(value)
    for name in names:
        other, actual = gradients(name)
        np.testing.assert_allclose(other, value, rtol=1e-12)
        for a, b in zip(actual, expected, strict=True):
            assert np.isfinite(a).all()
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("spread", [0, 0.1, 0.5])
def test_keys_that_resemble_each_other_keep_the_chunk_exact(rng, spread):
    T, K = 128, 16
    q, v = draw(rng, T, K), draw(rng, T, 8)
    k, beta = unit(1 + spread * draw(rng, T, K)), rng.uniform(0.5, 1, T)
    expected, memory = delta_rule.recurrent(q, k, v, beta)
    single = [x.astype(np.float32) for x in (q, k, v, beta)]
    y, S = delta_rule.chunkwise(*single, chunk_size=128)
    np.testing.assert_allclose(y, expected, atol=3e-5 * np.abs(expected).max())
    np.testing.assert_allclose(S, memory, atol=3e-5 * np.abs(memory).max())


def test_a_long_decay_underflows_to_nothing_and_not_to_nan(rng):
    T = 64
    q, k, v = (draw(rng, T, n, dtype=np.float32) for n in (3, 3, 4))
    log_decay = np.full(T, -50, dtype=np.float32)  # the product over a chunk is e^−3200
    expected, _ = gated_linear_attention.recurrent(q, k, v, log_decay)
    for form in (gated_linear_attention.parallel, gated_linear_attention.chunkwise):
        np.testing.assert_allclose(form(q, k, v, log_decay)[0], expected, rtol=1e-5)


def test_a_query_that_may_look_nowhere_has_no_gradient(rng):
    q, k, v = draw(rng, 5, 3), draw(rng, 5, 3), draw(rng, 5, 4)
    mask = np.ones((5, 5), dtype=bool)
    mask[2] = False

    def loss(q, k, v):
        y, _ = softmax.quadratic(q, k, v, mask=mask)
        return mg.sum(y * y)

    gradients = mg.grad(loss, argnums=(0, 1, 2))(q, k, v)
    assert all(np.isfinite(g).all() for g in gradients)
    np.testing.assert_array_equal(gradients[0][2], np.zeros(3))


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 5, 9, 100])
def test_a_sequence_may_be_cut_anywhere(rng, chunk_size):
    q, k, v = unit(draw(rng, 9, 3)), unit(draw(rng, 9, 3)), draw(rng, 9, 4)
    beta, log_decay = rng.uniform(0, 2, 9), -rng.exponential(1, 9)
    arguments = q, k, v, beta, log_decay
    expected, memory = gated_delta_rule.recurrent(*arguments)
    for cut in range(1, 9):
        first, state = gated_delta_rule.chunkwise(*(x[:cut] for x in arguments), chunk_size=chunk_size)
        second, state = gated_delta_rule.recurrent(*(x[cut:] for x in arguments), state=state)
        np.testing.assert_allclose(np.concatenate([first, second]), expected, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(state, memory, rtol=1e-11, atol=1e-13)

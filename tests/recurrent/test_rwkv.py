"""RWKV beside calculations by hand, extreme exponents and gates, blocks that continue, and bad input."""

import math

import numpy as np
import pytest

import minigrad as mg
from models.blocks import MIXERS, BlockConfig
from models.blocks.rwkv7 import RWKV7Config, TimeMix
from models.recurrent import rwkv4, rwkv7

LOG2, HALF = math.log(2), math.log(0.5)
WKV4, WKV7 = (rwkv4.recurrent, rwkv4.parallel, rwkv4.chunkwise), (rwkv7.recurrent, rwkv7.chunkwise, rwkv7.fused)


def column(*numbers):
    return np.array(numbers, dtype=float)[:, None]


@pytest.mark.parametrize("form", WKV4)
def test_three_tokens_of_wkv_by_hand(form):
    # e^k = 1, 2, 1; e^−w = ½; e^u = 3
    y, (mean, lse) = form(column(0, LOG2, 0), column(8, 2, 4), np.array([LOG2]), np.array([math.log(3)]))
    np.testing.assert_allclose(y, column(8, (8 + 6 * 2) / 7, (4 + 4 + 3 * 4) / (0.5 + 2 + 3)), rtol=1e-14)
    # a = ½(½ 8 + 2·2) + 4 = 8, b = ½(½ + 2) + 1 = 2.25
    np.testing.assert_allclose((mean, lse), [[8 / 2.25], [math.log(2.25)]], rtol=1e-14)


@pytest.mark.parametrize("form", WKV7)
def test_two_tokens_of_rwkv7_by_hand(form):
    r, k, v = np.ones((2, 2)), np.array([[1.0, 2.0], [0.0, 1.0]]), column(4, 1)
    a, b = np.array([[1.0, 1.0], [-1.0, 0.0]]), np.array([[1.0, 1.0], [0.5, 2.0]])
    g = np.array([[0.0, 0.0], [HALF, -math.inf]])
    # S = (4, 8); z = −4, S = (½·4 + ½·−4, 0·8 + 2·−4 + 1)
    y, S = form(r, k, v, a, b, g)
    np.testing.assert_allclose(y, column(12, -7), rtol=1e-14)
    np.testing.assert_allclose(S, [[0], [-7]], atol=1e-14)


@pytest.mark.parametrize("form", WKV4)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e3, -1e3, 1e30])
def test_exponents_of_any_size(form, dtype, size):
    k = (size * np.array([[0.5, 1], [1, -1], [1, 1], [0.25, -0.5]])).astype(dtype)
    v = np.arange(8, dtype=dtype).reshape(4, 2)

    def loss(*arguments):
        y, (mean, lse) = form(*arguments)
        return mg.sum(y * y) + mg.sum(mean) + mg.sum(lse) / size, (y, mean, lse)

    arguments = k, v, np.array([0.0, 2.0], dtype), np.array([-1.0, 1.0], dtype)
    (_, results), gradients = mg.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*arguments)
    for x in (*results, *gradients):
        assert np.isfinite(x).all()
    heaviest = v[[1, 0] if size > 0 else [0, 1], [0, 1]]
    np.testing.assert_allclose(results[0][1], heaviest, rtol=1e-6, atol=1e-30)


def test_gates_of_zero_leave_values_and_gradients_finite():
    rng = np.random.default_rng(0)
    r, k, v, a, b = rng.standard_normal((5, 2, 9, 3))
    log_decay = -rng.exponential(1, (2, 9, 3))
    log_decay[:, 3:5], log_decay[:, 7, 1] = -np.inf, -np.inf

    def gradients(form):
        def loss(*arguments):
            y, S = form(*arguments)
            return mg.sum(y * y) + mg.sum(S * S * S)

        return mg.value_and_grad(loss, argnums=tuple(range(6)))(r, k, v, a, b, log_decay)

    value, expected = gradients(rwkv7.recurrent)
    for form in WKV7:
        other, actual = gradients(form)
        np.testing.assert_allclose(other, value, rtol=1e-12)
        for x, y in zip(actual, expected, strict=True):
            assert np.isfinite(x).all()
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)


def test_removal_keys_that_resemble_each_other_keep_the_chunk_exact():
    rng, T, K = np.random.default_rng(7), 128, 16
    r, v, kappa = rng.standard_normal((T, K)), rng.standard_normal((T, 8)), 1 + 0.1 * rng.standard_normal((T, K))
    kappa /= np.linalg.norm(kappa, axis=-1, keepdims=True)
    arguments = r, kappa, v, -kappa, kappa * rng.uniform(0.5, 1, (T, K)), np.log(rng.uniform(0.9, 1, (T, K)))
    expected = rwkv7.recurrent(*arguments)
    single = rwkv7.chunkwise(*(x.astype(np.float32) for x in arguments), chunk_size=128)
    for x, y in zip(single, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=3e-5 * np.abs(y).max())


@pytest.mark.parametrize(("mixer", "form"), [(m, f) for m in ("rwkv4", "rwkv7") for f in MIXERS[m].forms()])
def test_a_block_continues_from_its_state(mixer, form):
    rng = np.random.default_rng(0)
    block = MIXERS[mixer](BlockConfig(width=8, heads=2, form=form, chunk_size=3), rng)
    x = rng.standard_normal((2, 9, 8)).astype(np.float32)
    y, _ = block(x)
    first, state = block(x[:, :5])
    outputs = [first]
    for t in range(5, 9):
        out, state = block(x[:, t : t + 1], state)
        outputs.append(out)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), y, rtol=0, atol=1e-6)


def sigma(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("with_first_values", [True, False])
def test_time_mixing_of_rwkv7_token_by_token(with_first_values):
    """The published inference code's steps, for one sequence of two heads, S as V × K."""
    rng, heads, N = np.random.default_rng(0), 2, 4
    mixing = TimeMix(RWKV7Config(8, heads, 32, 3, 2, 5, 2, form="recurrent"), rng, np.float64)
    p = {name: rng.normal(size=x.shape) for name, x in mixing.named_parameters().items()}
    mixing.load_parameters(p)
    x, first = rng.normal(size=(2, 6, 8))
    before, S, expected = np.zeros(8), np.zeros((heads, N, N)), []
    for x_t, v_first in zip(x, first, strict=True):
        r, w, k, v, a, g = (x_t + (before - x_t) * p[f"x_{name}"] for name in "rwkvag")
        before = x_t
        w = np.exp(-np.exp(-0.5) * sigma(p["w0"] + np.tanh(w @ p["w1"]) @ p["w2"]))
        r, k = p["receptance.weight"] @ r, p["key.weight"] @ k
        own, v = v, p["value.weight"] @ v
        if with_first_values:
            v = v + (v_first - v) * sigma(p["v0"] + own @ p["v1"] @ p["v2"])
        a, g = sigma(p["a0"] + a @ p["a1"] @ p["a2"]), sigma(g @ p["g1"]) @ p["g2"]
        kappa, k = k * p["k_k"], k * (1 + (a - 1) * p["k_a"])
        r, w, k, v, kappa, a = (part.reshape(heads, N) for part in (r, w, k, v, kappa, a))
        kappa = kappa / np.linalg.norm(kappa, axis=-1, keepdims=True)
        y = np.empty((heads, N))
        for h in range(heads):
            S[h] = S[h] @ (np.diag(w[h]) - np.outer(kappa[h], kappa[h] * a[h])) + np.outer(v[h], k[h])
            y[h] = S[h] @ r[h]
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 64e-5)
        bonus = (r * k * p["r_k"]).sum(-1, keepdims=True) * v
        y = y.reshape(8) * p["ln_x.weight"] + p["ln_x.bias"] + bonus.reshape(8)
        expected.append(p["output.weight"] @ (y * g))
    out, (last, state), _ = mixing.mix(x, None, first if with_first_values else None)
    np.testing.assert_allclose(out, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(state, S.mT, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(last, x[-1:])


k, w = np.zeros((2, 5, 3)), np.zeros(3)
WRONG = [
    ((k, k[..., :2], w, w), "v has 2 on axis D, expected 3 as in k (shape (2, 5, 2), expected *batch T D)"),
    ((k, k, w[:2], w), "w has 2 on axis D, expected 3 as in k (shape (2,), expected D)"),
    ((k, k, w, k), "u has rank 3, expected 1 (shape (2, 5, 3), expected D)"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_sizes_that_differ(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared whole
        rwkv4.recurrent(*arguments)
    assert str(error.value) == f"rwkv4.recurrent: {message}"


def test_a_gate_for_each_token_where_each_channel_has_one():
    with pytest.raises(ValueError, match=r"^rwkv7.fused: log_decay has \(\) on axis \*batch, expected \(2,\) as in r"):
        rwkv7.fused(k, k, k, k, k, k[..., 0])


def test_a_state_of_three_parts():
    with pytest.raises(TypeError, match=r"^rwkv4.parallel: state has 3 items, expected a tuple of 2 arrays$"):
        rwkv4.parallel(k, k, w, w, state=(w, w, w))

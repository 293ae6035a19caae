"""Positions: values by hand, the rotation of some channels only, precisions and libraries, and errors."""

import numpy as np
import pytest

import minigrad as mg
from models.attention import positions, softmax

rng = np.random.default_rng(0)
x = rng.standard_normal((2, 3, 5, 6))
at = np.arange(5)


def test_sinusoids_of_four_channels():
    expected = [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)]
    np.testing.assert_allclose(positions.sinusoidal(np.zeros((1, 4)), [2]), [expected], rtol=1e-15)
    halves = positions.sinusoidal(np.zeros((1, 4)), [2], layout="halves")
    np.testing.assert_allclose(halves, [[expected[0], expected[2], expected[1], expected[3]]], rtol=1e-15)


def test_a_quarter_turn():
    q, frequencies = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([np.pi / 2, 0.0])
    halves = positions.rotary(q, [1], frequencies=frequencies)
    np.testing.assert_allclose(halves, [[-3, 2, 1, 4]], atol=1e-15)
    interleaved = positions.rotary(q, [1], frequencies=frequencies, layout="interleaved")
    np.testing.assert_allclose(interleaved, [[-2, 1, 3, 4]], atol=1e-15)


@pytest.mark.parametrize("layout", positions.LAYOUTS)
def test_only_the_first_channels_are_rotated(layout):
    frequencies = positions.rotary_frequencies(4)
    rotated = positions.rotary(x, at, frequencies=frequencies, layout=layout)
    np.testing.assert_array_equal(rotated[..., :4], positions.rotary(x[..., :4], at, layout=layout))
    np.testing.assert_array_equal(rotated[..., 4:], x[..., 4:])


@pytest.mark.parametrize("layout", positions.LAYOUTS)
def test_the_derivatives_of_a_rotation(layout):
    mg.check_grads(lambda q: positions.rotary(q, 7 + at, layout=layout), [x], order=2)


def test_the_derivatives_of_tables():
    table = rng.standard_normal((8, 3))
    mg.check_grads(lambda t: positions.learned(t, np.array([1, 1, 7])), [table], order=2)
    mg.check_grads(lambda t: positions.t5_bias(t, at, at, bidirectional=True), [table], order=2)


def test_a_bias_of_t5_is_learned():
    q, k, v, table = x, x[::-1], x[:, ::-1], rng.standard_normal((8, 3))

    def loss(table):
        bias = positions.t5_bias(table, at, at, bidirectional=False)
        return mg.sum(softmax.fused(q, k, v, bias=bias, scale=1.0)[0] ** 2)

    mg.check_grads(loss, [table], order=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_that_of_the_argument(dtype):
    y = x.astype(dtype)
    table = np.ones((8, 3), dtype)
    results = [
        positions.sinusoidal(y, at),
        positions.rotary(y, at),
        positions.alibi(y, at, at),
        positions.learned(table, at),
        positions.t5_bias(table, at, at, bidirectional=True),
    ]
    assert {z.dtype for z in results} == {np.dtype(dtype)}
    assert [z.shape for z in results] == [(5, 6), y.shape, (3, 5, 5), (5, 3), (3, 5, 5)]


def test_slopes_that_the_paper_prints():
    np.testing.assert_array_equal(positions.alibi_slopes(8), 0.5 ** np.arange(1, 9))
    np.testing.assert_allclose(positions.alibi_slopes(16), 0.5 ** np.arange(0.5, 8.5, 0.5), rtol=1e-15)


def test_a_query_after_its_cached_keys():
    """Generating one token at a time has the bias and the rotation of the whole."""
    q, k, v = x, x[::-1], x[:, ::-1]
    bias = positions.alibi(q, at, at)
    whole, _ = softmax.quadratic(positions.rotary(q, at), positions.rotary(k, at), v, bias=bias)
    state = None
    for t in at:
        q_t, k_t, v_t = (z[..., t : t + 1, :] for z in (q, k, v))
        bias_t = positions.alibi(q_t, [t], at[: t + 1])
        y, state = softmax.quadratic(
            positions.rotary(q_t, [t]), positions.rotary(k_t, [t]), v_t, bias=bias_t, state=state
        )
        np.testing.assert_allclose(y, whole[..., t : t + 1, :], rtol=1e-12)


ERRORS = [
    (
        lambda: positions.rotary(x, at, layout="pairs"),
        "positions.rotate: layout: expected one of halves, interleaved, got 'pairs' (nearest: halves)",
    ),
    (
        lambda: positions.sinusoidal(x, at, layout="half"),
        "positions.sinusoidal: layout: expected one of halves, interleaved, got 'half' (nearest: halves)",
    ),
    (
        lambda: positions.learned(np.zeros((4, 2)), at),
        "positions.learned: position 4, expected 0 to 3 for a table of 4",
    ),
    (
        lambda: positions.learned(np.zeros((4, 2)), at - 1),
        "positions.learned: position -1, expected 0 to 3 for a table of 4",
    ),
    (
        lambda: positions.rotary(x, at[:3]),
        "positions.rotary: positions has shape (3,), expected (5,), one for each token of x",
    ),
    (lambda: positions.rotary(x[..., :5], at), "positions: 5 channels, expected an even number, for they form pairs"),
    (
        lambda: positions.rotary(x, at, frequencies=np.ones(4)),
        "positions.rotary: 4 frequencies, expected at most 3 for x",
    ),
    (
        lambda: positions.t5_bias(np.zeros((2, 1)), at, at, bidirectional=True),
        "positions.t5_buckets: 2 buckets up to a distance of 128, expected at least 4, and a distance above 0",
    ),
    (
        lambda: positions.t5_buckets(at, 32, bidirectional=False, max_distance=16),
        "positions.t5_buckets: 32 buckets up to a distance of 16, expected at least 2, and a distance above 16",
    ),
    (lambda: positions.alibi_slopes(0), "positions.alibi_slopes: 0 heads, expected at least 1"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_an_error_names_what_was_expected(call, message):
    with pytest.raises(ValueError) as excinfo:
        call()
    assert str(excinfo.value) == message

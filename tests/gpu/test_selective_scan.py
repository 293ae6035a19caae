"""The selective scan's kernels against the recurrence and its gradients, on drawn shapes, under drawn schedules."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minigrad as mg
from gpu.kernels import selective_scan as kernel
from models.ssm import selective_scan
from tests.gpu.kit import SCHEDULES, bound, same_bits_under_every_schedule

SHAPES = st.one_of(  # tokens: less than a tile, and more than two; channels: of one block, and of several
    st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 9), st.integers(1, 4)),
    st.tuples(st.just(1), st.integers(60, 140), st.integers(1, 5), st.integers(1, 9)),
    st.tuples(st.just(1), st.integers(1, 12), st.integers(30, 41), st.integers(7, 18)),
)


def draw(batch, T, D, N, dtype, seed):
    """The inputs, the state, and the cotangents of y and of the last state."""
    rng = np.random.default_rng(seed)
    u, delta = (
        rng.standard_normal((batch, T, D)),
        rng.uniform(0, 0.5, (batch, T, D)) * rng.integers(0, 2, (batch, T, D)),
    )
    A, skip = -rng.uniform(0, 8, (D, N)), rng.standard_normal(D)
    B, C = rng.standard_normal((2, batch, T, N))
    h, dh = rng.standard_normal((2, batch, D, N))
    arrays = [x.astype(dtype) for x in (u, delta, A, B, C, skip, h, rng.standard_normal(u.shape), dh)]
    return arrays[:7], tuple(arrays[7:])


def both_ways(inputs, cotangents):
    results, saved = kernel.forward(*inputs)
    return *results, *kernel.backward(saved, cotangents)


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99), schedules=SCHEDULES)
@example(shape=(2, 70, 33, 34), seed=0, schedules=[0, 1])  # sequences, tiles and blocks, several of each
@example(shape=(1, 10, 5, 150), seed=0, schedules=[0, 1])  # more than 4 states to a thread
def test_is_the_recurrence_and_its_adjoint(dtype, shape, seed, schedules):
    inputs, cotangents = draw(*shape, dtype, seed)
    results = same_bits_under_every_schedule(schedules, lambda: both_ways(inputs, cotangents))
    wide = [x.astype("d") for x in inputs]
    outputs, vjp = mg.vjp(lambda *x: selective_scan.associative(*x[:6], state=x[6]), *wide)
    for actual, expected in zip(results, (*outputs, *vjp(tuple(g.astype("d") for g in cotangents))), strict=True):
        assert actual.dtype == np.dtype(dtype)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bound(dtype, expected))


def test_leading_axes_are_a_batch():
    inputs, cotangents = draw(6, 5, 3, 2, "d", 0)
    folded = [x.reshape(2, 3, *x.shape[1:]) if x.shape[0] == 6 else x for x in inputs]
    whole = both_ways(folded, tuple(g.reshape(2, 3, *g.shape[1:]) for g in cotangents))
    for a, b in zip(whole, both_ways(inputs, cotangents), strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)


several, wide = draw(1, 70, 3, 2, "f", 0), draw(1, 10, 41, 9, "f", 1)  # tiles and parts, and blocks


def test_every_barrier_is_needed(assert_every_barrier_is_needed):
    assert_every_barrier_is_needed("selective_scan", lambda: both_ways(*several) + both_ways(*wide))


@pytest.mark.parametrize(
    ("original", "mutated", "which"),
    [
        ("i < tokens ? from", "i <= tokens ? from", 0),
        ("t < STEPS && t < tokens", "t < STEPS && t <= tokens", 0),
        ("t < tokens && n < states", "t <= tokens && n < states", 0),
        ("t + after < length", "t + after <= length", 0),
        ("d < channels}", "d <= channels}", 0),
        ("by < LANES", "by < LANES / 2", 0),
        ("i < TILE * STATES / THREADS", "i < TILE * STATES / THREADS - 1", 0),
        ("t % TILE == 0", "t == 0", 0),
        ("tokens >= STEPS", "tokens > 0", 0),
    ],
)
def test_a_broken_kernel_is_caught(assert_detected, original, mutated, which):
    assert_detected("selective_scan", original, mutated, lambda: both_ways(*several) + both_ways(*wide), which=which)

"""The selective scan's kernels against the recurrence and its gradients, on drawn shapes, under drawn schedules."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu.kernels import selective_scan as kernel
from models.ssm import selective_scan
from tests.gpu.kit import SCHEDULES, assert_close, forward_backward, same_bits_under_every_schedule, with_state

SHAPES = st.one_of(  # tokens: less than a tile, and more than two; channels: of one block, and of several
    st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 9), st.integers(1, 4)),
    st.tuples(st.just(1), st.integers(60, 140), st.integers(1, 5), st.integers(1, 9)),
    st.tuples(st.just(1), st.integers(1, 12), st.integers(30, 41), st.integers(7, 18)),
)


def draw(batch, T, D, N, dtype, seed):
    """Return the inputs, the state, and the cotangents of y and of the last state."""
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


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99), schedules=SCHEDULES)
@example(shape=(2, 70, 33, 34), seed=0, schedules=[0, 1])  # sequences, tiles and blocks, several of each
@example(shape=(1, 10, 5, 150), seed=0, schedules=[0, 1])  # more than 4 states to a thread
def test_is_the_recurrence_and_its_adjoint(dtype, shape, seed, schedules):
    inputs, cotangents = draw(*shape, dtype, seed)
    results = same_bits_under_every_schedule(schedules, lambda: forward_backward(kernel, inputs, cotangents))
    assert_close(results, with_state(selective_scan.associative), inputs, cotangents)


def test_leading_axes_are_a_batch():
    inputs, cotangents = draw(6, 5, 3, 2, "d", 0)
    folded = [x.reshape(2, 3, *x.shape[1:]) if x.shape[0] == 6 else x for x in inputs]
    whole = forward_backward(kernel, folded, tuple(g.reshape(2, 3, *g.shape[1:]) for g in cotangents))
    for a, b in zip(whole, forward_backward(kernel, inputs, cotangents), strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)


several, wide = draw(1, 70, 3, 2, "f", 0), draw(1, 10, 41, 9, "f", 1)  # tiles and parts, and blocks


def call():
    return forward_backward(kernel, *several) + forward_backward(kernel, *wide)


def test_every_barrier_is_needed(assert_every_barrier_is_needed):
    assert_every_barrier_is_needed("selective_scan", call)


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
    assert_detected(
        "selective_scan",
        original,
        mutated,
        call,
        which=which,
    )

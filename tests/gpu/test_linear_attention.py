"""Linear attention's kernel against the recurrence and its gradients, on drawn shapes, under drawn schedules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from gpu import linear_attention as kernel
from models.memory import linear_attention
from tests.gpu.kit import SCHEDULES, bound, same_bits_under_every_schedule


def draw(batch, T, K, V, dtype, seed):
    """The inputs, the state, and the cotangents of y and of the last state."""
    rng = np.random.default_rng(seed)
    shapes = (T, K), (T, K), (T, V), (K, V), (T, V), (K, V)
    drawn = [rng.standard_normal((batch, *shape)).astype(dtype) for shape in shapes]
    return drawn[:4], tuple(drawn[4:])


def both_ways(inputs, cotangents):
    made, saved = kernel.forward(*inputs)
    return *made, *kernel.backward(saved, cotangents)


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 2), T=st.integers(1, 70), K=st.integers(1, 40), V=st.integers(1, 40),
    seed=st.integers(0, 99), schedules=SCHEDULES,
)  # fmt: skip
def test_is_the_recurrence_and_its_adjoint(dtype, batch, T, K, V, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, dtype, seed)
    made = same_bits_under_every_schedule(schedules, lambda: both_ways(inputs, cotangents))
    wide = [x.astype("d") for x in inputs]
    right, pull = mg.vjp(lambda *x: linear_attention.parallel(*x[:3], state=x[3]), *wide)
    for found, expected in zip(made, (*right, *pull(tuple(g.astype("d") for g in cotangents))), strict=True):
        assert found.dtype == np.dtype(dtype)
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound(dtype, expected))


drawn = draw(1, 70, 40, 33, "f", 0)


def test_no_barrier_is_idle(every_barrier_is_missed):
    every_barrier_is_missed("linear_attention", lambda: both_ways(*drawn))


@pytest.mark.parametrize(("right", "wrong"), [
    ("t < count && c < columns", "t <= count && c < columns"),
    ("t < count && c < columns", "t < count && c <= columns"),
    ("inside && t < length", "inside && t <= length"),
    ("lane <= mine + r", "lane < mine + r"),
    ("row < SIDE; row += WARPS", "row < SIDE - 1; row += WARPS"),
])  # fmt: skip
def test_a_broken_kernel_is_caught(shown, right, wrong):
    shown("linear_attention", right, wrong, lambda: both_ways(*drawn))

"""Gated linear attention's kernels against the recurrence and its gradients, on drawn shapes, under drawn schedules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from gpu import gated_linear_attention as kernel
from models.memory import gated_linear_attention
from tests.gpu.kit import SCHEDULES, bound, same_bits_under_every_schedule


def draw(batch, T, K, V, dtype, seed, *, per_channel=True):
    """The inputs, of which some gates are shut and some open, and the cotangents of y and of the last state."""
    rng = np.random.default_rng(seed)
    q, k, v, S, gy, gS = (
        rng.standard_normal((batch, *shape)) for shape in ((T, K), (T, K), (T, V), (K, V), (T, V), (K, V))
    )
    log_decay = -rng.exponential(1, (batch, T, K) if per_channel else (batch, T))
    log_decay = np.where(rng.random(log_decay.shape) < 0.1, rng.choice([0, -np.inf], log_decay.shape), log_decay)
    drawn = [x.astype(dtype) for x in (q, k, v, log_decay, S, gy, gS)]
    return drawn[:5], tuple(drawn[5:])


def both_ways(inputs, cotangents):
    made, saved = kernel.forward(*inputs)
    return *made, *kernel.backward(saved, cotangents)


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 2), T=st.integers(1, 70), K=st.integers(1, 40), V=st.integers(1, 40),
    per_channel=st.booleans(), seed=st.integers(0, 99), schedules=SCHEDULES,
)  # fmt: skip
def test_is_the_recurrence_and_its_adjoint(dtype, batch, T, K, V, per_channel, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, dtype, seed, per_channel=per_channel)
    made = same_bits_under_every_schedule(schedules, lambda: both_ways(inputs, cotangents))
    wide = [x.astype("d") for x in inputs]
    right, pull = mg.vjp(lambda *x: gated_linear_attention.recurrent(*x[:4], state=x[4]), *wide)
    for found, expected in zip(made, (*right, *pull(tuple(g.astype("d") for g in cotangents))), strict=True):
        assert found.dtype == np.dtype(dtype)
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound(dtype, expected))


def test_a_gate_that_shuts_has_no_gradient():
    inputs, cotangents = draw(1, 40, 3, 5, "f", 0)
    gates = both_ways(inputs, cotangents)[5]
    shut = inputs[3] == -np.inf
    assert shut.any()
    assert not gates[shut].any()


drawn = draw(1, 70, 40, 33, "f", 0)


@pytest.mark.parametrize("source", ["gated_linear_attention", "tiles"])
def test_no_barrier_is_idle(every_barrier_is_missed, source):
    every_barrier_is_missed(source, lambda: both_ways(*drawn))


@pytest.mark.parametrize(("right", "wrong"), [
    ("t < count && c < columns", "t <= count && c < columns"),
    ("0 <= t && t < length", "0 < t && t < length"),
    ("first - back", "first"),
    ("inside && t < length", "inside && t <= length"),
    ("if (t > s) passing", "if (t >= s) passing"),
    ("mine == SIDE - ROWS", "false"),
    ("state[row * SIDE + lane] = inside && row < values", "if (row) state[row * SIDE + lane] = inside && row < values"),
])  # fmt: skip
def test_a_broken_kernel_is_caught(shown, right, wrong):
    shown("gated_linear_attention", right, wrong, lambda: both_ways(*drawn))

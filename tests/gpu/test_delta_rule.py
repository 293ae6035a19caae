"""The delta rules' kernels against the recurrences and their gradients, on drawn shapes, under drawn schedules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from gpu import delta_rule as plain
from gpu import gated_delta_rule as kernel
from models.memory import delta_rule, gated_delta_rule
from tests.gpu.kit import SCHEDULES, bound, same_bits_under_every_schedule


def draw(batch, T, K, V, dtype, seed):
    """The inputs, of which some gates are shut and some open, and the cotangents of y and of the last state."""
    rng = np.random.default_rng(seed)
    q, k, v, S, gy, gS = (
        rng.standard_normal((batch, *shape)) for shape in ((T, K), (T, K), (T, V), (K, V), (T, V), (K, V))
    )
    k /= np.linalg.norm(k, axis=-1, keepdims=True)  # as the block around it has it: else the memory grows without end
    beta, log_decay = rng.uniform(0, 1, (batch, T)), -rng.exponential(0.2, (batch, T))
    beta, log_decay = (
        np.where(rng.random(x.shape) < 0.1, rng.choice(ends, x.shape), x)
        for x, ends in ((beta, (0, 1)), (log_decay, (0, -np.inf)))
    )
    drawn = [x.astype(dtype) for x in (q, k, v, beta, log_decay, S, gy, gS)]
    return drawn[:6], tuple(drawn[6:])


def both_ways(inputs, cotangents):
    made, saved = kernel.forward(*inputs)
    return *made, *kernel.backward(saved, cotangents)


def close(made, form, inputs, cotangents):
    """The numbers are those of the form and its gradients in float64."""
    *inputs, S = (x.astype("d") for x in inputs)
    right, pull = mg.vjp(lambda *x: form(*x[:-1], state=x[-1]), *inputs, S)
    for found, expected in zip(made, (*right, *pull(tuple(g.astype("d") for g in cotangents))), strict=True):
        assert found.dtype == cotangents[0].dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound(found.dtype, expected))


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 2), T=st.integers(1, 70), K=st.integers(1, 40), V=st.integers(1, 40),
    seed=st.integers(0, 99), schedules=SCHEDULES,
)  # fmt: skip
def test_is_the_recurrence_and_its_adjoint(dtype, batch, T, K, V, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, dtype, seed)
    made = same_bits_under_every_schedule(schedules, lambda: both_ways(inputs, cotangents))
    close(made, gated_delta_rule.recurrent, inputs, cotangents)


def test_without_gates():
    (*inputs, _, S), cotangents = draw(2, 40, 33, 5, "f", 0)
    made, saved = plain.forward(*inputs, S)
    close((*made, *plain.backward(saved, cotangents)), delta_rule.recurrent, [*inputs, S], cotangents)


def test_a_gate_that_shuts_has_no_gradient():
    inputs, cotangents = draw(1, 40, 3, 5, "f", 0)
    gates = both_ways(inputs, cotangents)[6]
    shut = inputs[4] == -np.inf
    assert shut.any()
    assert not gates[shut].any()


drawn = draw(1, 70, 40, 33, "f", 0)


@pytest.mark.parametrize("source", ["gated_delta_rule", "gated_delta_rule_keys"])
def test_no_barrier_is_idle(every_barrier_is_missed, source):
    every_barrier_is_missed(source, lambda: both_ways(*drawn))


@pytest.mark.parametrize(("source", "right", "wrong"), [
    ("gated_delta_rule", "t < count && c < columns", "t <= count && c < columns"),
    ("gated_delta_rule", "t < length ? beta", "t <= length ? beta"),
    ("gated_delta_rule", "0 <= before", "0 < before"),
    ("gated_delta_rule", "turn < WARPS", "turn < WARPS - 1"),
    ("gated_delta_rule", "warp > turn", "warp > turn + 1"),
    ("gated_delta_rule_keys", "lane < t ? since[r] * overlap[r] : 0", "since[r] * overlap[r]"),
    ("gated_delta_rule_keys", "if (lane == 0) ends", "if (lane == 0 && t) ends"),
])  # fmt: skip
def test_a_broken_kernel_is_caught(shown, source, right, wrong):
    shown(source, right, wrong, lambda: both_ways(*drawn))

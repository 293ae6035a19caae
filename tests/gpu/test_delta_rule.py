"""The delta rules' kernels against the recurrences and their gradients, on drawn shapes, under drawn schedules."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu.kernels import delta_rule as plain
from gpu.kernels import gated_delta_rule as kernel
from gpu.precision import matmul_precision
from models.memory import delta_rule, gated_delta_rule
from tests.gpu.kit import (
    PRECISIONS,
    SCHEDULES,
    assert_close,
    forward_backward,
    same_bits_under_every_schedule,
    with_state,
)


def draw(batch, T, K, V, dtype, seed, *, rate=0.2):
    """Return the inputs, with some gates at 0 and 1, and the cotangents of y and of the last state.

    At a low rate few gates are 0, and a chunk of tokens still has weight in the next.
    """
    rng = np.random.default_rng(seed)
    q, k, v, S, dy, dS = (
        rng.standard_normal((batch, *shape)) for shape in ((T, K), (T, K), (T, V), (K, V), (T, V), (K, V))
    )
    k /= np.linalg.norm(k, axis=-1, keepdims=True)  # as the block around it has it: else the memory grows without end
    beta, log_decay = rng.uniform(0, 1, (batch, T)), -rng.exponential(rate, (batch, T))
    beta, log_decay = (
        np.where(rng.random(x.shape) < rate / 2, rng.choice(ends, x.shape), x)
        for x, ends in ((beta, (0, 1)), (log_decay, (0, -np.inf)))
    )
    arrays = [x.astype(dtype) for x in (q, k, v, beta, log_decay, S, dy, dS)]
    return arrays[:6], tuple(arrays[6:])


def call(precision="float32"):
    with matmul_precision(precision):
        return forward_backward(kernel, *draw(1, 70, 40, 33, "f", 0))


SIZES = {
    "batch": st.integers(1, 2),
    "T": st.integers(1, 70),
    "K": st.integers(1, 40),
    "V": st.integers(1, 40),
    "rate": st.sampled_from([0.01, 0.2]),
    "seed": st.integers(0, 99),
    "schedules": SCHEDULES,
}
ALL = {"batch": 2, "T": 70, "K": 40, "V": 33, "rate": 0.01, "seed": 0, "schedules": [0, 1]}  # more than one of each
WHOLE = ALL | {"T": 64, "K": 32, "V": 64}


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(**SIZES)
@example(**ALL)
@example(**WHOLE)
def test_is_the_recurrence_and_its_adjoint(dtype, batch, T, K, V, rate, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, dtype, seed, rate=rate)
    results = same_bits_under_every_schedule(schedules, lambda: forward_backward(kernel, inputs, cotangents))
    assert_close(results, with_state(gated_delta_rule.recurrent), inputs, cotangents)


@PRECISIONS
@settings(max_examples=4, deadline=None)
@given(**SIZES)
@example(**ALL)
@example(**WHOLE)
def test_is_that_on_tensor_cores_too(precision, batch, T, K, V, rate, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, "f", seed, rate=rate)
    with matmul_precision(precision):
        results = same_bits_under_every_schedule(schedules, lambda: forward_backward(kernel, inputs, cotangents))
    assert_close(results, with_state(gated_delta_rule.recurrent), inputs, cotangents, precision)


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32"])
def test_without_gates(precision):
    (*inputs, _, S), cotangents = draw(2, 40, 33, 5, "f", 0)
    with matmul_precision(precision):
        results = forward_backward(plain, [*inputs, S], cotangents)
    assert_close(results, with_state(delta_rule.recurrent), [*inputs, S], cotangents, precision)


def test_a_gate_that_shuts_has_no_gradient():
    inputs, cotangents = draw(1, 40, 3, 5, "f", 0)
    gates = forward_backward(kernel, inputs, cotangents)[6]
    shut = inputs[4] == -np.inf
    assert shut.any()
    assert not gates[shut].any()


def test_the_way_back_multiplies_as_the_way_there_did():
    inputs, cotangents = draw(1, 70, 40, 33, "f", 0)
    with matmul_precision("tensorfloat32"):
        _, saved = kernel.forward(*inputs)
    for actual, rounded, exact in zip(
        kernel.backward(saved, cotangents), call("tensorfloat32")[2:], call()[2:], strict=True
    ):
        assert actual.tobytes() == rounded.tobytes() != exact.tobytes()


@pytest.mark.parametrize(
    ("source", "precision", "unseen"),
    [
        ("gated_delta_rule", "float32", ()),
        ("gated_delta_rule_keys", "float32", ()),
        ("gated_delta_rule", "tensorfloat32", ("__syncwarp",)),
        ("gated_delta_rule_keys", "tensorfloat32", ()),
        ("product", "tensorfloat32", ()),
    ],
)
def test_every_barrier_is_needed(assert_every_barrier_is_needed, source, precision, unseen):
    assert_every_barrier_is_needed(source, lambda: call(precision), exempt=unseen)


@pytest.mark.parametrize(
    ("source", "precision", "original", "mutated"),
    [
        ("gated_delta_rule", "float32", "inside = t < count && c < columns", "inside = t <= count && c < columns"),
        ("gated_delta_rule", "float32", "t < length ? beta", "t <= length ? beta"),
        ("gated_delta_rule", "float32", "0 <= before", "0 < before"),
        ("gated_delta_rule", "float32", "turn < WARPS", "turn < WARPS - 1"),
        ("gated_delta_rule", "float32", "warp > turn", "warp > turn + 1"),
        ("gated_delta_rule", "tensorfloat32", "t <= Accumulator::row(r); t++", "t < Accumulator::row(r); t++"),
        ("gated_delta_rule", "tensorfloat32", "load_tile(query_tile, q", "if (slice) load_tile(query_tile, q"),
        ("gated_delta_rule_keys", "float32", "s < t ? decay[r] : 0", "decay[r]"),
        (
            "gated_delta_rule_keys",
            "tensorfloat32",
            "{Accumulator::first_row(), SIDE}",
            "{Accumulator::end_row(), SIDE}",
        ),
        ("gated_delta_rule_keys", "float32", "if (lane == 0) end_terms", "if (lane == 0 && r) end_terms"),
    ],
)
def test_a_broken_kernel_is_caught(assert_detected, source, precision, original, mutated):
    assert_detected(source, original, mutated, lambda: call(precision))

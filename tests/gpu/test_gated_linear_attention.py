"""Gated linear attention's kernels against the recurrence and its gradients, on drawn shapes, under drawn schedules."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu.kernels import gated_linear_attention as kernel
from gpu.precision import matmul_precision
from models.memory import gated_linear_attention
from tests.gpu.kit import (
    PRECISIONS,
    SCHEDULES,
    assert_close,
    forward_backward,
    same_bits_under_every_schedule,
    with_state,
)


def draw(batch, T, K, V, dtype, seed, *, rate=1, per_channel=True):
    """Return the inputs, with some gates at 0 and 1, and the cotangents of y and of the last state.

    At the rate 1 half a chunk of tokens decays below float32's precision; at a low one few gates are 0.
    """
    rng = np.random.default_rng(seed)
    q, k, v, S, dy, dS = (
        rng.standard_normal((batch, *shape)) for shape in ((T, K), (T, K), (T, V), (K, V), (T, V), (K, V))
    )
    log_decay = -rng.exponential(rate, (batch, T, K) if per_channel else (batch, T))
    log_decay = np.where(rng.random(log_decay.shape) < rate / 10, rng.choice([0, -np.inf], log_decay.shape), log_decay)
    arrays = [x.astype(dtype) for x in (q, k, v, log_decay, S, dy, dS)]
    return arrays[:5], tuple(arrays[5:])


def call(precision="float32"):
    with matmul_precision(precision):
        return forward_backward(kernel, *draw(1, 70, 40, 33, "f", 0))


SIZES = {
    "batch": st.integers(1, 2),
    "T": st.integers(1, 70),
    "K": st.integers(1, 40),
    "V": st.integers(1, 40),
    "per_channel": st.booleans(),
    "rate": st.sampled_from([0.01, 1]),
    "seed": st.integers(0, 99),
    "schedules": SCHEDULES,
}
ALL = {"batch": 2, "T": 70, "K": 40, "V": 33, "per_channel": True, "rate": 0.01, "seed": 0, "schedules": [0, 1]}
WHOLE = ALL | {"T": 64, "K": 32, "V": 64}


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(**SIZES)
@example(**ALL)
@example(**WHOLE)
def test_is_the_recurrence_and_its_adjoint(dtype, batch, T, K, V, per_channel, rate, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, dtype, seed, rate=rate, per_channel=per_channel)
    results = same_bits_under_every_schedule(schedules, lambda: forward_backward(kernel, inputs, cotangents))
    assert_close(results, with_state(gated_linear_attention.recurrent), inputs, cotangents)


@PRECISIONS
@settings(max_examples=4, deadline=None)
@given(**SIZES)
@example(**ALL)
@example(**WHOLE)
def test_is_that_on_tensor_cores_too(precision, batch, T, K, V, per_channel, rate, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, "f", seed, rate=rate, per_channel=per_channel)
    with matmul_precision(precision):
        results = same_bits_under_every_schedule(schedules, lambda: forward_backward(kernel, inputs, cotangents))
    assert_close(results, with_state(gated_linear_attention.recurrent), inputs, cotangents, precision)


def test_the_way_back_multiplies_as_the_way_there_did():
    inputs, cotangents = draw(1, 70, 40, 33, "f", 0)
    with matmul_precision("tensorfloat32"):
        _, saved = kernel.forward(*inputs)
    for actual, rounded, exact in zip(
        kernel.backward(saved, cotangents), call("tensorfloat32")[2:], call()[2:], strict=True
    ):
        assert actual.tobytes() == rounded.tobytes() != exact.tobytes()


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32"])
def test_a_gate_that_shuts_has_no_gradient(precision):
    inputs, cotangents = draw(1, 40, 3, 5, "f", 0)
    with matmul_precision(precision):
        gates = forward_backward(kernel, inputs, cotangents)[5]
    shut = inputs[3] == -np.inf
    assert shut.any()
    assert not gates[shut].any()


@pytest.mark.parametrize(
    ("source", "precision", "unseen"),
    [
        ("gated_linear_attention", "float32", ()),
        ("tiles", "float32", ()),
        ("gated_linear_attention", "tensorfloat32", ("the slice",)),  # whose way there is in the next
        ("gated_linear_attention_forward_tensor_cores", "tensorfloat32", ()),
    ],
)
def test_every_barrier_is_needed(assert_every_barrier_is_needed, source, precision, unseen):
    assert_every_barrier_is_needed(source, lambda: call(precision), exempt=unseen)


@pytest.mark.parametrize(
    ("source", "original", "mutated"),
    [
        ("", "inside = t < count && c < columns", "inside = t <= count && c < columns"),
        ("", "0 <= t && t < length", "0 < t && t < length"),
        ("", "first - reverse", "first"),
        ("", "inside && t < length", "inside && t <= length"),
        ("", "if (t > s) passing", "if (t >= s) passing"),
        ("", "warp_row == SIDE - ROWS) propagate_to_chunk_end", "false) propagate_to_chunk_end"),
        ("", "state[row * WIDTH + lane] = inside", "if (row) state[row * WIDTH + lane] = inside"),
        ("_forward_tensor_cores", "if (from + i > lane)", "if (from + i >= lane)"),
        ("_forward_tensor_cores", "t >= warp_row + ROWS", "t > warp_row + ROWS"),
        ("_forward_tensor_cores", "if (slice == 0) load_tile(value_tile", "if (slice) load_tile(value_tile"),
    ],
)
def test_a_broken_kernel_is_caught(assert_detected, source, original, mutated):
    assert_detected(
        f"gated_linear_attention{source}", original, mutated, lambda: call("tensorfloat32" if source else "float32")
    )

"""Linear attention's kernels against the recurrence and its gradients, on drawn shapes, under drawn schedules."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu.kernels import linear_attention as kernel
from gpu.precision import matmul_precision
from models.memory import linear_attention
from tests.gpu.kit import (
    PRECISIONS,
    SCHEDULES,
    assert_close,
    forward_backward,
    same_bits_under_every_schedule,
    with_state,
)


def draw(batch, T, K, V, dtype, seed):
    """Return the inputs, the state, and the cotangents of y and of the last state."""
    rng = np.random.default_rng(seed)
    shapes = (T, K), (T, K), (T, V), (K, V), (T, V), (K, V)
    arrays = [rng.standard_normal((batch, *shape)).astype(dtype) for shape in shapes]
    return arrays[:4], tuple(arrays[4:])


def call(precision="float32"):
    with matmul_precision(precision):
        return forward_backward(kernel, *draw(1, 70, 40, 21, "f", 0))


SIZES = {
    "batch": st.integers(1, 2),
    "T": st.integers(1, 70),
    "K": st.integers(1, 40),
    "V": st.integers(1, 40),
    "seed": st.integers(0, 99),
    "schedules": SCHEDULES,
}
ALL = {"batch": 2, "T": 70, "K": 40, "V": 33, "seed": 0, "schedules": [0, 1]}  # more than one of each
WHOLE = ALL | {"T": 64, "K": 32, "V": 64}


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(**SIZES)
@example(**ALL)
@example(**WHOLE)
def test_is_the_recurrence_and_its_adjoint(dtype, batch, T, K, V, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, dtype, seed)
    results = same_bits_under_every_schedule(schedules, lambda: forward_backward(kernel, inputs, cotangents))
    assert_close(results, with_state(linear_attention.recurrent), inputs, cotangents)


@PRECISIONS
@settings(max_examples=4, deadline=None)
@given(**SIZES | {"T": st.integers(1, 140)})
@example(**ALL)
@example(**WHOLE)
@example(**ALL | {"T": 130, "K": 140, "V": 136})
def test_is_that_on_tensor_cores_too(precision, batch, T, K, V, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, "f", seed)
    with matmul_precision(precision):
        results = same_bits_under_every_schedule(schedules, lambda: forward_backward(kernel, inputs, cotangents))
    assert_close(results, with_state(linear_attention.recurrent), inputs, cotangents, precision)


def test_a_state_that_is_kept_is_rounded_as_it_is_where_it_enters_a_product():
    """Boundary states in bfloat16 lose nothing more than the rounding of operands; only the outputs are rounded too."""
    inputs, cotangents = draw(2, 140, 40, 72, ml_dtypes.bfloat16, 0)
    (*sequences, S), (dy, dS) = inputs, cotangents
    states = S.astype("f"), dS.astype("f")
    narrow = forward_backward(kernel, (*sequences, states[0]), (dy, states[1]))
    with matmul_precision("bfloat16"):
        wide = forward_backward(kernel, tuple(x.astype("f") for x in inputs), (dy.astype("f"), states[1]))
    for a, b in zip(narrow, wide, strict=True):
        np.testing.assert_array_equal(a, b.astype(a.dtype))


def test_the_way_back_multiplies_as_the_way_there_did():
    inputs, cotangents = draw(1, 70, 40, 21, "f", 0)
    with matmul_precision("tensorfloat32"):
        _, saved = kernel.forward(*inputs)
    for actual, rounded, exact in zip(
        kernel.backward(saved, cotangents), call("tensorfloat32")[2:], call()[2:], strict=True
    ):
        assert actual.tobytes() == rounded.tobytes() != exact.tobytes()


def in_two_bytes():
    (*sequences, S), (dy, dS) = draw(1, 130, 40, 24, "f", 0)
    *sequences, dy = (x.astype(ml_dtypes.bfloat16) for x in (*sequences, dy))
    return forward_backward(kernel, (*sequences, S), (dy, dS))


SOURCES = {"float32": "linear_attention", "tensorfloat32": "linear_attention_tensor_cores"}


@pytest.mark.parametrize("precision", SOURCES)
def test_every_barrier_is_needed(assert_every_barrier_is_needed, precision):
    assert_every_barrier_is_needed(SOURCES[precision], lambda: call(precision))


def test_every_barrier_of_bfloat16_arrays_is_needed(assert_every_barrier_is_needed):
    assert_every_barrier_is_needed("linear_attention_tensor_cores", in_two_bytes)


@pytest.mark.parametrize("which", range(3))
def test_a_copy_that_is_not_waited_for_is_caught(assert_detected, which):
    assert_detected("linear_attention_tensor_cores", "copy_wait();\n", "\n", in_two_bytes, which=which)


@pytest.mark.parametrize(
    ("precision", "original", "mutated"),
    [
        ("float32", "inside = t < count && c < columns", "inside = t <= count && c < columns"),
        ("float32", "inside = t < count && c < columns", "inside = t < count && c <= columns"),
        ("float32", "Accumulator::column(r) <= Accumulator::row(r)", "Accumulator::column(r) < Accumulator::row(r)"),
        ("float32", "row < SIDE; row += WARPS", "row < SIDE - 1; row += WARPS"),
        ("tensorfloat32", "if (row >= count || c >= columns)", "if (row > count || c >= columns)"),
        ("tensorfloat32", "if (c + 1 < columns) narrow", "narrow"),
        ("tensorfloat32", "DOWN < x.count && c + j < x.columns", "DOWN <= x.count && c + j < x.columns"),
        ("tensorfloat32", "DOWN < x.count && c + j < x.columns", "DOWN < x.count && c + j <= x.columns"),
        ("tensorfloat32", "DOWN < x.count && c < x.columns", "DOWN <= x.count && c < x.columns"),
        ("tensorfloat32", "column + staged.column() < padded(tile.columns)", "column < padded(tile.columns)"),
        ("tensorfloat32", "row < keys && c < values ?", "row < keys && c <= values ?"),
        ("tensorfloat32", "reverse ? age > 0 : age < 0", "reverse ? age > 0 : age <= 0"),
        ("tensorfloat32", "reverse ? age > 0 : age < 0", "age < 0"),
        ("tensorfloat32", " : key_block > warp_row", " : key_block >= warp_row"),
        ("tensorfloat32", "stage = CHUNK - stage", "stage = 0"),
        ("tensorfloat32", "row < count; row += 32", "row + 32 < count; row += 32"),
        (
            "tensorfloat32",
            "if (more) k_staged.store(k_next), v_staged.store(v_next)",
            "if (more) k_staged.store(k_next)",
        ),
    ],
)
def test_a_broken_kernel_is_caught(assert_detected, precision, original, mutated):
    assert_detected(SOURCES[precision], original, mutated, lambda: call(precision))

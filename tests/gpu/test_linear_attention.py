"""Linear attention's kernel against the recurrence and its gradients, on drawn shapes, under drawn schedules."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu import linear_attention as kernel
from gpu.precision import matmul_precision
from models.memory import linear_attention
from tests.gpu.kit import PRECISIONS, SCHEDULES, both_ways, close, same_bits_under_every_schedule


def draw(batch, T, K, V, dtype, seed):
    """The inputs, the state, and the cotangents of y and of the last state."""
    rng = np.random.default_rng(seed)
    shapes = (T, K), (T, K), (T, V), (K, V), (T, V), (K, V)
    drawn = [rng.standard_normal((batch, *shape)).astype(dtype) for shape in shapes]
    return drawn[:4], tuple(drawn[4:])


def call(precision="float32"):
    with matmul_precision(precision):
        return both_ways(kernel, *draw(1, 70, 40, 33, "f", 0))


SIZES = {
    "batch": st.integers(1, 2), "T": st.integers(1, 70), "K": st.integers(1, 40), "V": st.integers(1, 40),
    "seed": st.integers(0, 99), "schedules": SCHEDULES,
}  # fmt: skip
ALL = {"batch": 2, "T": 70, "K": 40, "V": 33, "seed": 0, "schedules": [0, 1]}  # more than one of each
WHOLE = ALL | {"T": 64, "K": 32, "V": 64}


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(**SIZES)
@example(**ALL)
@example(**WHOLE)
def test_is_the_recurrence_and_its_adjoint(dtype, batch, T, K, V, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, dtype, seed)
    made = same_bits_under_every_schedule(schedules, lambda: both_ways(kernel, inputs, cotangents))
    close(made, linear_attention.recurrent, inputs, cotangents)


@PRECISIONS
@settings(max_examples=4, deadline=None)
@given(**SIZES)
@example(**ALL)
@example(**WHOLE)
def test_is_that_on_tensor_cores_too(precision, batch, T, K, V, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, "f", seed)
    with matmul_precision(precision):
        made = same_bits_under_every_schedule(schedules, lambda: both_ways(kernel, inputs, cotangents))
    close(made, linear_attention.recurrent, inputs, cotangents, precision)


def test_the_way_back_multiplies_as_the_way_there_did():
    inputs, cotangents = draw(1, 70, 40, 33, "f", 0)
    with matmul_precision("tensorfloat32"):
        _, saved = kernel.forward(*inputs)
    for found, rounded, exact in zip(kernel.backward(saved, cotangents), call("tensorfloat32")[2:], call()[2:],
                                     strict=True):  # fmt: skip
        assert found.tobytes() == rounded.tobytes() != exact.tobytes()


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32"])
def test_no_barrier_is_idle(every_barrier_is_missed, precision):
    every_barrier_is_missed("linear_attention", lambda: call(precision))


@pytest.mark.parametrize(("precision", "right", "wrong"), [
    ("float32", "inside = t < count && c < columns", "inside = t <= count && c < columns"),
    ("float32", "inside = t < count && c < columns", "inside = t < count && c <= columns"),
    ("float32", "Own::column(r) <= Own::row(r)", "Own::column(r) < Own::row(r)"),
    ("float32", "row < SIDE; row += WARPS", "row < SIDE - 1; row += WARPS"),
    ("tensorfloat32", "if (t < count && c < columns) narrow", "if (t <= count && c < columns) narrow"),
    ("tensorfloat32", "if (slice == 0) fill", "if (slice == 1) fill"),
    ("tensorfloat32", "return {0, Own::to()}", "return {0, Own::from()}"),
])  # fmt: skip
def test_a_broken_kernel_is_caught(shown, precision, right, wrong):
    shown("linear_attention", right, wrong, lambda: call(precision))

"""Softmax attention's kernels against the quadratic form, on drawn shapes, under drawn schedules."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minigrad as mg
from gpu.kernels import softmax as kernel
from gpu.precision import matmul_precision
from models.attention import softmax
from tests.fake_cupy import asarray
from tests.gpu import fake_gpu
from tests.gpu.kit import SCHEDULES, bound, same_bits_under_every_schedule


def draw(batch, T, S, K, V, dtype, seed, size=1):
    """Return queries and keys so large that weights differ by many powers of ten, values, and the cotangent of y."""
    rng = np.random.default_rng(seed)
    q, k, v, g = (rng.standard_normal((batch, *shape)) for shape in ((T, K), (S, K), (S, V), (T, V)))
    return [x.astype(dtype) for x in (size * q, k, v, g)]


def forward_backward(q, k, v, g, causal):
    y, saved = kernel.forward(q, k, v, causal=causal, scale=0.5)
    return y, *kernel.backward(saved, g)


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 2),
    T=st.integers(1, 40),
    before=st.integers(0, 40),
    K=st.integers(1, 36),
    V=st.integers(1, 36),
    causal=st.booleans(),
    size=st.sampled_from([0, 1, 10]),
    seed=st.integers(0, 99),
    schedules=SCHEDULES,
)
def test_is_all_scores_at_once_and_its_adjoint(dtype, batch, T, before, K, V, causal, size, seed, schedules):
    arrays = draw(batch, T, T + before, K, V, dtype, seed, size)
    results = same_bits_under_every_schedule(schedules, lambda: forward_backward(*arrays, causal))
    *wide, g = (x.astype("d") for x in arrays)

    def at_once(q, k, v):
        past = (k[:, :before], v[:, :before]) if before else None
        return softmax.quadratic(q, k[:, before:], v[:, before:], causal=causal, scale=0.5, state=past)[0]

    outputs, vjp = mg.vjp(at_once, *wide)
    for actual, expected in zip(results, (outputs, *vjp(g)), strict=True):
        assert actual.dtype == np.dtype(dtype)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bound(dtype, expected, factor=64 * max(1, size) * K))


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32", "bfloat16"])
def test_scores_whose_negation_overflows_in_exp(precision):
    q, k, v, g = (np.full((1, 1, 1), x, "f") for x in (-30, 30, 2, 3))
    with matmul_precision(precision):
        results = forward_backward(q, k, v, g, False)
    for actual, expected in zip(results, (v, 0 * q, 0 * k, g), strict=True):
        np.testing.assert_array_equal(actual, expected)


UNITS = {"tensorfloat32": 2.0**-11, "bfloat16": 2.0**-8}  # of 1: what rounding to nearest may take away


def error_bounds(q, k, v, g, causal, unit, exact, stored=0):
    """Bound the errors of y and of the cotangents of q, k and v where operands of products are rounded by up to a unit.

    Each error of a factor goes into its products' absolute values; a weight's is exp(2 δ) where no score is off by more
    than δ. `exact` inputs are not rounded; y is, by up to `stored`. What float32 loses in sums is added.
    """
    q, k, v, g = (x.astype("d") for x in (q, k, v, g))
    single = (q.shape[-1] + k.shape[-2] + v.shape[-1] + 32) * np.finfo("f").eps
    product = (1 + unit * (not exact)) ** 2 * (1 + single) - 1  # of two inputs
    rounding = (1 + unit) * (1 + unit * (not exact)) * (1 + single) - 1  # of an input and of an intermediate result
    hidden = np.triu(np.ones((q.shape[-2], k.shape[-2]), bool), 1 + k.shape[-2] - q.shape[-2]) & causal
    scores = np.where(hidden, -np.inf, 0.5 * q @ k.mT)
    delta = product * np.where(hidden, 0, 0.5 * abs(q) @ abs(k).mT).max(axis=-1, keepdims=True)
    more = np.exp(2 * delta)
    P = np.exp(scores - scores.max(axis=-1, keepdims=True))
    P /= P.sum(axis=-1, keepdims=True)
    off_y = (P * (more * (1 + rounding) - 1)) @ abs(v)
    off_y += stored * (abs(P @ v) + off_y)
    centred = g @ v.mT - (g * (P @ v)).sum(axis=-1, keepdims=True)
    off = product * abs(g) @ abs(v).mT + (abs(g) * (off_y + single * P @ abs(v))).sum(axis=-1, keepdims=True)
    S = 0.5 * P * abs(centred)
    off_S = (0.5 * P * ((more - 1) * abs(centred) + more * off)) * (1 + rounding) + rounding * S
    return off_y, off_S @ abs(k), off_S.mT @ abs(q), (P * (more * (1 + rounding) - 1)).mT @ abs(g)


@pytest.mark.parametrize("precision", [*UNITS, "bfloat16 arrays"])
@settings(max_examples=6, deadline=None)
@given(
    batch=st.integers(1, 2),
    T=st.integers(1, 70),
    before=st.integers(0, 40),
    K=st.integers(1, 36) | st.sampled_from([8, 64, 130]),
    V=st.integers(1, 36) | st.sampled_from([8, 64, 130]),
    causal=st.booleans(),
    exact=st.booleans(),
    size=st.sampled_from([0, 1]),
    seed=st.integers(0, 99),
    schedules=SCHEDULES,
)
@example(  # where the last query of a whole block sees one key of a tile
    batch=1, T=64, before=33, K=3, V=3, causal=True, exact=True, size=1, seed=0, schedules=[0, 1]
)
@example(  # and with a second block of queries
    batch=1, T=130, before=31, K=8, V=3, causal=True, exact=True, size=1, seed=0, schedules=[0, 1]
)
def test_tensor_cores_lose_what_rounding_takes(precision, batch, T, before, K, V, causal, exact, size, seed, schedules):
    arrays, (name, *two_bytes) = draw(batch, T, T + before, K, V, "f", seed, size), precision.split()
    unit = UNITS[name]
    if exact or two_bytes:
        arrays = [x.astype(ml_dtypes.bfloat16).astype("f") for x in arrays]
    outputs, stored = forward_backward(*(x.astype("d") for x in arrays), causal), unit if two_bytes else 0
    allowed = error_bounds(*arrays, causal, unit, exact or two_bytes, stored)
    if two_bytes:
        arrays = [x.astype(ml_dtypes.bfloat16) for x in arrays]
    with matmul_precision("float32" if two_bytes else name):
        results = same_bits_under_every_schedule(schedules, lambda: forward_backward(*arrays, causal))
    for actual, expected, off in zip(results, outputs, allowed, strict=True):
        assert actual.dtype == arrays[0].dtype
        assert (abs(actual.astype("d") - expected) <= off + stored * (abs(expected) + off)).all()


def test_the_way_back_is_rounded_as_the_way_there():
    with matmul_precision("tensorfloat32"):
        y, saved = kernel.forward(*ARRAYS[:3], causal=True, scale=0.5)
        expected = forward_backward(*ARRAYS, True)
    for a, b in zip(expected, (y, *kernel.backward(saved, ARRAYS[3])), strict=True):
        assert a.tobytes() == b.tobytes()
    assert y.tobytes() != forward_backward(*ARRAYS, True)[0].tobytes()


@pytest.mark.parametrize(
    ("capability", "kilobytes", "rounds"), [("75", 99, False), ("80", 50, False), ("80", 99, True)]
)
def test_a_device_without_the_means_keeps_all_bits(monkeypatch, capability, kilobytes, rounds):
    device = fake_gpu.install(monkeypatch)
    device.compute_capability, device.attributes["MaxSharedMemoryPerBlockOptin"] = capability, kilobytes << 10
    with matmul_precision("tensorfloat32"):
        results = forward_backward(*map(asarray, ARRAYS), True)
    for a, b in zip(results, rounded() if rounds else forward_backward(*ARRAYS, True), strict=True):
        assert a.get().tobytes() == b.tobytes()


ARRAYS = draw(1, 40, 70, 33, 35, "f", 0)


def rounded():
    with matmul_precision("tensorfloat32"):
        return forward_backward(*ARRAYS, True)


def test_every_barrier_is_needed(assert_every_barrier_is_needed):
    assert_every_barrier_is_needed("softmax", lambda: forward_backward(*ARRAYS, True))


def in_two_bytes():
    return forward_backward(*(x.astype(ml_dtypes.bfloat16) for x in draw(1, 40, 50, 40, 40, "f", 0)), True)


def test_no_barrier_is_idle_on_tensor_cores(assert_every_barrier_is_needed):
    assert_every_barrier_is_needed("softmax_tensor_cores", rounded)
    assert_every_barrier_is_needed("softmax_tensor_cores", in_two_bytes)


@pytest.mark.parametrize(
    ("original", "mutated"),
    [
        ("t < count && c < columns", "t <= count && c < columns"),
        ("first + warp_row + r < count; c += 32", "first + warp_row + r <= count; c += 32"),
        ("key + lane <= last && key + lane < keys ? score", "key + lane < keys ? score"),
        ("row < SIDE; row += WARPS", "row < SIDE - 1; row += WARPS"),
        ("/ SIDE * SIDE : 0;", "/ SIDE * SIDE + SIDE : 0;"),
    ],
)
def test_a_broken_kernel_is_caught(assert_detected, original, mutated):
    assert_detected("softmax", original, mutated, lambda: forward_backward(*ARRAYS, True))


@pytest.mark.parametrize(
    ("original", "mutated"),
    [
        ("first + r < x.count", "first + r <= x.count"),
        ("r < COUNT; r +=", "r < COUNT - 1; r +="),
        ("/ PASSING * PASSING : 0;", "/ PASSING * PASSING + PASSING : 0;"),
        ("column + 8 * n < x.columns", "column + 8 * n + 8 < x.columns"),
        ("key >= warp_row + 16 * STRIPS + offset", "key >= warp_row + offset"),
        ("warp_row + offset + 1) : keys", "warp_row + 16 * STRIPS + offset) : keys"),
    ],
)
def test_a_kernel_that_is_broken_on_tensor_cores_is_caught(assert_detected, original, mutated):
    assert_detected("softmax_tensor_cores", original, mutated, rounded)
    assert_detected("softmax_tensor_cores", original, mutated, in_two_bytes)


@pytest.mark.parametrize("which", range(3))
def test_a_copy_that_is_not_waited_for_is_caught(assert_detected, which):
    assert_detected("softmax_tensor_cores", "        copy_wait();\n", "", in_two_bytes, which=which)

"""The scan's kernels against the engine's recurrence, on drawn shapes, under drawn schedules."""

import contextlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minigrad as mg
from gpu import emulator, launch
from gpu.kernels import scan
from minigrad.compiled import SCANS
from tests.gpu.kit import SCHEDULES, bound, same_bits_under_every_schedule

SHAPES = st.one_of(  # one strip, several with a ragged last one, and rows of several tiles
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 9)),
    st.tuples(st.integers(1, 2), st.integers(60, 150), st.integers(31, 40)),
    st.tuples(st.integers(1, 2), st.integers(1, 5000), st.just(1)),
)


def draw(shape, dtype, seed):
    """Return a in the unit disc, with some at 0 and 1, x and g."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, shape)
    a = np.where(rng.random(shape) < 0.2, rng.integers(0, 2, shape), a)
    x, g = rng.standard_normal((2, *shape))
    if np.dtype(dtype).kind == "c":
        phases = np.exp(1j * rng.uniform(0, 2 * np.pi, (3, *shape)))
        a, x, g = a * phases[0], x * phases[1], g * phases[2]
    return [z.astype(dtype) for z in (a, x, g)]


@pytest.mark.parametrize("dtype", "fdFD")
@settings(max_examples=8, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99), schedules=SCHEDULES)
@example(shape=(2, 113, 33), seed=0, schedules=[0, 8388609])  # one thread is later than all others
def test_is_the_recurrence_and_its_adjoint(dtype, shape, seed, schedules):
    a, x, g = draw(shape, dtype, seed)
    h = same_bits_under_every_schedule(schedules, lambda: (scan.forward(a, x),))[0]
    results = same_bits_under_every_schedule(schedules, lambda: scan.backward(a, h, g))
    wide = [z.astype("D" if dtype in "FD" else "d") for z in (a, x, g)]
    outputs, vjp = mg.vjp(mg.scan, *wide[:2])
    for actual, expected in zip((h, *results), (outputs, *vjp(wide[2])), strict=True):
        assert actual.dtype == np.dtype(dtype)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bound(dtype, expected))


def test_leading_axes_are_a_batch():
    a, x, g = draw((2, 3, 5, 4), "d", 0)
    h = scan.forward(a, x)
    np.testing.assert_array_equal(h[1, 2], scan.forward(a[1, 2], x[1, 2]))
    for whole, part in zip(scan.backward(a, h, g), scan.backward(a[1, 2], h[1, 2], g[1, 2]), strict=True):
        np.testing.assert_array_equal(whole[1, 2], part)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_engine_takes_it_along_any_axis(monkeypatch, axis, reverse):
    a, x, g = draw((3, 4, 5), "D", 0)
    a = a[:, :1]  # not contiguous once it is broadcast
    outputs, vjp = mg.vjp(lambda a, x: mg.scan(a, x, axis=axis, reverse=reverse), a, x)
    gradients = vjp(g)
    calls, kernel = [], scan.scan
    monkeypatch.setattr(scan, "scan", lambda *args: calls.append(args) or kernel(*args))
    monkeypatch.setitem(SCANS, "numpy", "gpu.kernels.scan")
    results, vjp = mg.vjp(lambda a, x: mg.scan(a, x, axis=axis, reverse=reverse), a, x)
    for one, other in zip((results, *vjp(g)), (outputs, *gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)
    assert len(calls) >= 2


def test_bad_arrays_are_named():
    a = np.ones((4, 3))
    with pytest.raises(TypeError, match="^scan: x is int64, expected float32 or float64 or complex64 or complex128$"):
        scan.forward(a, np.ones((4, 3), int))
    with pytest.raises(TypeError, match="^scan: x is numpy float32, expected numpy float64 as a is$"):
        scan.forward(a, np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match="^scan: x is not contiguous, expected one that ascontiguousarray has made$"):
        scan.forward(a, np.ones((3, 4)).T)
    with pytest.raises(ValueError, match=r"^scan: x has shape \(4, 2\), expected \(4, 3\) as a has$"):
        scan.forward(a, np.ones((4, 2)))
    with pytest.raises(TypeError, match="^scan: x is builtins.list, expected a CuPy or NumPy array$"):
        scan.forward(a, [1.0])
    np.testing.assert_array_equal(scan.forward(a, a)[-1], [4, 4, 4])  # the array is as good as before


long, wide = draw((9000, 1), "f", 0), draw((330, 33), "f", 1)


def test_every_barrier_is_needed(assert_every_barrier_is_needed):
    assert_every_barrier_is_needed("scan", lambda: (scan.forward(*wide[:2]),))


@pytest.mark.parametrize(
    ("original", "mutated", "which"),
    [
        ("i < inside", "i <= inside", 0),
        ("i < inside", "i <= inside", 1),
        ("channel < of.channels", "channel <= of.channels", 0),
        ("i < STEPS; i++", "i < STEPS - 1; i++", 1),
        ("from += 3 * WIDTH; from < own_partials", "from += 6 * WIDTH; from < own_partials", 0),
        ("t < length - 1 ? lambda", "true ? lambda", 0),
    ],
)
def test_a_broken_kernel_is_caught(assert_detected, original, mutated, which):
    def call():
        h = scan.forward(*long[:2])
        return h, *scan.backward(long[0], h, long[2]), scan.forward(*wide[:2])

    assert_detected("scan", original, mutated, call, which=which)


@pytest.mark.parametrize(
    ("original", "mutated", "which"),
    [
        ("atomicAdd(&of.status[(long long)of.lines * of.tiles], 1)", "blockIdx.x", 0),
        ("!(invalid & ((1u << distance) - 1))", "true", 0),
    ],
)
def test_blocks_that_do_not_wait_for_each_other_are_caught(assert_detected, original, mutated, which):
    assert_detected("scan", original, mutated, lambda: (scan.forward(*wide[:2]),), which=which)


@pytest.mark.parametrize("silent", [None, 36])
def test_a_block_looks_back_over_more_tiles_than_a_warp_has_lanes(silent):
    """Run the last block alone on statuses as other blocks publish them; the emulator runs too few at once."""
    invalid, aggregate, prefix = range(3)  # TileStatus
    tiles, tile = 70, scan.TILE_BYTES // 4
    x = np.random.default_rng(0).integers(-3, 4, (tiles * tile, 1)).astype("f")
    sums, h = x.reshape(tiles, tile).sum(axis=1), emulator.empty(x.shape, "f")
    partials = emulator.empty((tiles, 3), "f")
    partials[:-1, 0], partials[:-1, 1], partials[0, 2] = 1, sums[:-1], sums[0]
    status = np.array([prefix, *[aggregate] * (tiles - 2), invalid, tiles - 1], np.int32)  # and the counter of tiles
    if silent:
        status[silent] = invalid
    sizes = [np.int32(n) for n in (len(x), 1, 1, tiles, 0)]
    kernel = emulator.Module(launch.KERNELS / "scan.cu", ("REAL=float", "WIDTH=1")).get_function("scan_forward")
    with pytest.raises(emulator.KernelError, match="stuck") if silent else contextlib.nullcontext():
        kernel((1,), (scan.THREADS,), [np.ones_like(x), x, h, partials, status, *sizes])
        np.testing.assert_array_equal(h[-tile:], x.cumsum(axis=0)[-tile:])

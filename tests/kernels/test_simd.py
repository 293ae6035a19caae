"""The vector type, lane by lane, in both widths."""

import importlib.util

import numpy as np
import pytest
from numba import njit

from minigrad.compiled import simd
from minigrad.compiled.simd import (
    BITS,
    exp,
    exp2,
    exp2_of_long_product,
    exp2_of_product,
    fetch,
    fma,
    lanes,
    largest,
    load,
    room,
    splat,
    store,
    total,
    where_negative,
)

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@njit
def powers_of_two(x, y):
    for i in range(0, x.size, lanes(x)):
        store(y, i, exp2(load(x, i)))


@njit
def powers_of_products(x, y, out):
    for i in range(0, x.size, lanes(x)):
        store(out, i, exp2_of_product(load(x, i), load(y, i)))


@njit
def powers_of_long_products(x, y, low, out):
    for i in range(0, x.size, lanes(x)):
        store(out, i, exp2_of_long_product(load(x, i), load(y, i), load(low, i)))


@njit
def powers_of_e(x, y):
    for i in range(0, x.size, lanes(x)):
        store(y, i, exp(load(x, i)))


@njit
def chosen_by_sign(x, a, b, out):
    for i in range(0, x.size, lanes(x)):
        store(out, i, where_negative(load(x, i), load(a, i), load(b, i)))


@njit
def fetched(x, first):
    fetch(x, first, 64)


@njit
def arithmetic(a, b, c, out):
    for i in range(0, a.size, lanes(a)):
        x, y = load(a, i), load(b, i)
        store(out[0], i, x + y)
        store(out[1], i, x - y)
        store(out[2], i, x * y)
        store(out[3], i, x / y)
        store(out[4], i, fma(x, y, load(c, i)))
        store(out[5], i, largest(x, y))
        store(out[6], i, splat(a, total(x)))


def in_lanes(values, dtype):
    """Return the values in whole vectors, padded with zeros."""
    x = np.zeros(-(-len(values) // 16) * 16, dtype)
    x[: len(values)] = values
    return x


@BOTH
def test_arithmetic_in_every_lane(dtype):
    a, b, c = np.random.default_rng(0).standard_normal((3, 32)).astype(dtype)
    out = np.empty((7, 32), dtype)
    arithmetic(a, b, c, out)
    for row, expected in zip(out, (a + b, a - b, a * b, a / b), strict=False):
        np.testing.assert_array_equal(row, expected)
    np.testing.assert_array_equal(out[5], np.maximum(a, b))
    width = BITS // 8 // dtype().itemsize
    sums = a.reshape(-1, width).astype(np.longdouble).sum(axis=1)
    np.testing.assert_allclose(
        out[6], np.repeat(sums, width).astype(dtype), rtol=1e-5 if dtype == np.float32 else 1e-14
    )


@BOTH
def test_fma_rounds_once(dtype):
    tiny = np.finfo(dtype).eps
    a = np.full(16, 1 + tiny, dtype)
    out = np.empty((7, 16), dtype)
    arithmetic(a, a, np.full(16, -(1 + 2 * tiny), dtype), out)
    np.testing.assert_array_equal(out[4], np.full(16, tiny * tiny, dtype))  # a product rounded first leaves 0


@BOTH
def test_exp2_over_its_whole_range(dtype):
    limits = np.finfo(dtype)
    x = np.linspace(limits.minexp, limits.maxexp - 0.5 - 1e-4, 2**18).astype(dtype)
    y = np.empty_like(x)
    powers_of_two(x, y)
    # long doubles have 11 bits to spare
    truth = np.exp2(x.astype(np.longdouble))
    assert float(np.max(np.abs(y - truth) / truth)) <= 0.8 * limits.eps
    assert np.diff(y).min() >= 0


@BOTH
def test_exp2_at_the_ends(dtype):
    limits = np.finfo(dtype)
    x = in_lanes([0, 1, -1, 10, limits.minexp, limits.minexp - 1, -np.inf, limits.maxexp, np.inf, np.nan], dtype)
    y = np.empty_like(x)
    powers_of_two(x, y)
    np.testing.assert_array_equal(y[:10], [1, 2, 0.5, 1024, limits.tiny, 0, 0, np.inf, np.inf, np.nan])


@BOTH
def test_exp2_of_subnormal_numbers(dtype):
    limits = np.finfo(dtype)
    x = in_lanes([limits.smallest_subnormal, -limits.smallest_subnormal, limits.tiny, -0.0], dtype)
    y = np.empty_like(x)
    powers_of_two(x, y)
    np.testing.assert_array_equal(y, np.ones(16, dtype))


@BOTH
def test_exp2_ends_half_an_exponent_below_the_smallest_normal_number(dtype):
    least = np.finfo(dtype).minexp
    x = in_lanes([least - 0.25, least - 0.4375, least - 0.5625, 16.0 * least, -np.finfo(dtype).max], dtype)
    y = np.empty_like(x)
    powers_of_two(x, y)
    np.testing.assert_allclose(y[:2], np.exp2(x[:2]), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(y[2:5], 0)


@BOTH
def test_the_exponent_s_product_is_not_rounded(dtype):
    rng = np.random.default_rng(1)
    x, y = rng.uniform(1, 10, 4096).astype(dtype), -rng.uniform(1, 10, 4096).astype(dtype)
    out = np.empty_like(x)
    powers_of_products(x, y, out)
    truth = np.exp2(x.astype(np.longdouble) * y)
    assert float(np.max(np.abs(out - truth) / truth)) <= 0.8 * np.finfo(dtype).eps


@BOTH
def test_the_low_part_of_an_exponent_counts(dtype):
    rng = np.random.default_rng(1)
    x, y = rng.uniform(1, 10, 4096).astype(dtype), -rng.uniform(1, 10, 4096).astype(dtype)
    low = (y * np.finfo(dtype).eps / 3).astype(dtype)
    out = np.empty_like(x)
    powers_of_long_products(x, y, low, out)
    truth = np.exp2(x * (y.astype(np.longdouble) + low))
    assert float(np.max(np.abs(out - truth) / truth)) <= 0.8 * np.finfo(dtype).eps


@BOTH
def test_exp_over_its_whole_range(dtype):
    limits = np.finfo(dtype)
    x = np.linspace(np.log(limits.tiny), np.log(limits.max) - 0.5, 2**18).astype(dtype)
    y = np.empty_like(x)
    powers_of_e(x, y)
    truth = np.exp(x.astype(np.longdouble))
    assert float(np.max(np.abs(y - truth) / truth)) <= limits.eps
    x = in_lanes([0.0, -np.inf, np.inf, np.nan, limits.max, -limits.max], dtype)
    y = np.empty_like(x)
    powers_of_e(x, y)
    np.testing.assert_array_equal(y[:6], [1, 0, np.inf, np.nan, np.inf, 0])


@BOTH
def test_a_choice_by_sign(dtype):
    x = in_lanes([-1.0, 0.0, -0.0, 2.0, np.nan, -np.inf], dtype)
    out = np.empty_like(x)
    chosen_by_sign(x, np.full_like(x, np.inf), np.full_like(x, 5), out)
    np.testing.assert_array_equal(out[:6], [np.inf, 5, 5, 5, 5, np.inf])


@BOTH
def test_room_is_aligned_to_vectors(dtype):
    for rows in range(1, 20):
        x = room(np.empty(0, dtype), rows, 3)
        assert x.shape == (rows, 3) and x.dtype == dtype and x.flags.c_contiguous
        assert x.ctypes.data % (BITS // 8) == 0


@BOTH
def test_fetch_accepts_addresses_outside_the_array(dtype):
    x = np.arange(64, dtype=dtype)
    for first in (-(2**40), -1, 0, 32, 63, 2**40):
        fetched(x, first)
    np.testing.assert_array_equal(x, np.arange(64))


def test_compiled_code_on_disk_serves_until_vectors_change(tmp_path, monkeypatch):
    source = tmp_path / "doubled.py"
    source.write_text("from minigrad.compiled.simd import kernel\n\n\n@kernel\ndef twice(x):\n    return 2 * x\n")

    def served():
        specification = importlib.util.spec_from_file_location("doubled", source)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        assert module.twice(21) == 42
        return sum(module.twice.stats.cache_hits.values())

    assert [served(), served()] == [0, 1]
    monkeypatch.setattr(simd, "BITS", 128)
    assert [served(), served()] == [0, 1]

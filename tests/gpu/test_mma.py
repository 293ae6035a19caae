"""Tensor cores on the emulator: layouts of fragments and rounding are the PTX ISA's."""

import numpy as np
import pytest

from gpu import emulator

G, T = np.divmod(np.arange(32), 4)  # of every lane: its group, and its place among the group's four
KINDS = {"tf32": ("Tf32", 8, 11), "bf16": ("Bf16", 16, 8)}  # type, depth, bits of significand

CODE = """
#include "mma.cuh"
extern "C" __global__ void raw(const unsigned *a, const unsigned *b, float *d) {
    Left<KIND> left;
    Right<KIND> right;
    Sums sums;
    for (int i = 0; i < 4; i++) left.words[i] = a[threadIdx.x * 4 + i], sums.at[i] = d[threadIdx.x * 4 + i];
    for (int i = 0; i < 2; i++) right.words[i] = b[threadIdx.x * 2 + i];
    multiply(sums, left, right);
    for (int i = 0; i < 4; i++) d[threadIdx.x * 4 + i] = sums.at[i];
}
extern "C" __global__ void convert(const float *x, unsigned *y) {
    float here = x[threadIdx.x], next = x[(threadIdx.x + 1) % 32];
    y[threadIdx.x] = KIND::DEPTH == 16 ? to_bf16(here, next) : to_tf32(here);
}
extern "C" __global__ void chain(const real *a, const real *b, const real *c, real *y, int by_rows) {  // (A Bᵀ) Cᵀ
    __shared__ __align__(8) real A[16][24], B[16][24], C[16][24];
    for (int i = threadIdx.x; i < 256; i += 32)
        A[i / 16][i % 16] = a[i], B[i / 16][i % 16] = b[i], C[i / 16][i % 16] = c[i];
    __syncwarp();
    Left<KIND> left;
    Right<KIND> right;
    Sums first[2] = {}, second = {};
    for (int d = 0; d < 16; d += KIND::DEPTH)
        for (int eight = 0; eight < 2; eight++) {
            if (by_rows) rows(left, &A[0][d], 24), rows(right, &B[8 * eight][d], 24);
            else columns(left, &A[d][0], 24), columns(right, &B[d][8 * eight], 24);
            multiply(first[eight], left, right);
        }
    for (int d = 0; d < 16; d += KIND::DEPTH) {
        results(left, &first[d / 8]);
        if (by_rows) rows(right, &C[0][d], 24);
        else columns(right, &C[d][0], 24);
        multiply(second, left, right);
    }
    for (int i = 0; i < 4; i++) y[Sums::row(i) * 8 + Sums::column(i)] = second.at[i];
}
"""


@pytest.fixture
def kernel(tmp_path):
    """Return a function that compiles a kernel of the code above, or of a mutated copy."""

    def get(name, kind, original="", mutated=""):
        assert original in CODE
        source = tmp_path / "mma.cu"
        source.write_text(CODE.replace(original, mutated, 1))
        return emulator.Module(source, ("REAL=float", f"KIND={KINDS[kind][0]}")).get_function(name)

    return get


def layouts(kind):
    """Return row and column of every number that each lane holds of A, B and A Bᵀ: PTX ISA, matrix fragments of mma."""
    if kind == "tf32":
        a = [(G + 8 * (i % 2), T + 4 * (i // 2)) for i in range(4)]
        b = [(G, T + 4 * i) for i in range(2)]
    else:
        a = [(G + 8 * (i // 2 % 2), 2 * T + i % 2 + 8 * (i // 4)) for i in range(8)]
        b = [(G, 2 * T + i % 2 + 8 * (i // 2)) for i in range(4)]
    return a, b, [(G + 8 * (i // 2), 2 * T + i % 2) for i in range(4)]


def held(matrix, layout, kind):
    """Return the words of every lane."""
    numbers = np.stack([matrix[place] for place in layout], axis=-1).astype("f")
    return numbers.view("u4") if kind == "tf32" else (numbers.view("u4") >> 16).astype("u2").view("u4")


@pytest.mark.parametrize("kind", KINDS)
def test_every_lane_holds_what_it_does_in_ptx(kernel, kind):
    rng, depth = np.random.default_rng(0), KINDS[kind][1]
    A, B, C = (rng.integers(-9, 9, shape).astype("f") for shape in ((16, depth), (8, depth), (16, 8)))
    (a, b, c), ignored = layouts(kind), np.uint32(0x1FFF if kind == "tf32" else 0)
    for seed in range(3):
        d = held(C, c, "tf32").view("f").copy()
        with emulator.schedule(seed):
            kernel("raw", kind)((1,), (32,), [held(A, a, kind) | ignored, held(B, b, kind) | ignored, d])
        np.testing.assert_array_equal(d, held(C + A @ B.T, c, "tf32").view("f"))


def nearest(x, bits, *, away):
    """Round to so many bits of significand, ties away from zero or to even."""
    scale = 2.0 ** (bits - 1 - np.floor(np.log2(np.abs(x.astype("d")))))
    whole = np.abs(x) * scale
    return (np.copysign(np.floor(whole + 0.5) if away else np.rint(whole), x) / scale).astype("f")


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_rounded_to_nearest(kernel, kind):
    _, depth, bits = KINDS[kind]
    rng, ulp = np.random.default_rng(0), 2.0 ** (1 - bits)
    x = np.ldexp(rng.standard_normal(32), rng.integers(-30, 30, 32)).astype("f")
    x[:8] = 1 + ulp / 2, 1 + 3 * ulp / 2, -1 - ulp / 2, -1 - 3 * ulp / 2, 2 - ulp / 2, 1 + 0.49 * ulp, 1, -3
    y, rounded = emulator.empty((32,), np.uint32), nearest(x, bits, away=kind == "tf32")
    kernel("convert", kind)((1,), (32,), [x, y])
    if kind == "bf16":  # this lane's number, and above it the next lane's
        np.testing.assert_array_equal((y & 0xFFFF0000).view("f"), np.roll(rounded, -1))
        y <<= 16
    np.testing.assert_array_equal(y.view("f"), rounded)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, 0.0, -0.0])
def test_what_is_not_rounded_stays(kernel, kind, special):
    x, y = np.full(32, special, "f"), emulator.empty((32,), np.uint32)
    kernel("convert", kind)((1,), (32,), [x, y])
    actual = (y & 0xFFFF0000).view("f")
    np.testing.assert_array_equal(actual, x)
    np.testing.assert_array_equal(np.signbit(actual), np.signbit(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_rows", [True, False])
def test_operands_come_from_tiles_and_from_sums(kernel, kind, by_rows):
    A, B, C = np.random.default_rng(0).integers(-2, 3, (3, 16, 16)).astype("f")  # all sums are exact
    tiles = [x if by_rows else x.T.copy() for x in (A, B, C)]
    y = emulator.empty((16, 8), np.float32)
    kernel("chain", kind)((1,), (32,), [*tiles, y, np.int32(by_rows)])
    np.testing.assert_array_equal(y, (A @ B.T @ C.T)[:, :8])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize("which", ["A", "B", "C", "sums"])
def test_all_that_is_multiplied_is_rounded_to_nearest(kernel, kind, by_rows, which):
    """Multiply by 1, so that the product is the rounded factor."""
    rng, factors = np.random.default_rng(0), {name: np.eye(16, dtype="f") for name in "ABC"}
    if which == "sums":  # of whole numbers, all exact
        factors["A"], factors["B"] = rng.integers(1, 99, (2, 16, 16)).astype("f")
    else:
        factors[which] = rng.standard_normal((16, 16)).astype("f")
    A, B, C = factors.values()
    y = emulator.empty((16, 8), np.float32)
    kernel("chain", kind)((1,), (32,), [*(x if by_rows else x.T.copy() for x in (A, B, C)), y, np.int32(by_rows)])
    np.testing.assert_array_equal(y, nearest((A @ B.T @ C.T)[:, :8], KINDS[kind][2], away=kind == "tf32"))


@pytest.mark.parametrize(
    ("original", "mutated", "message"),
    [
        ("B[i / 16][i % 16] = b[i], ", "", "never written"),
        ("multiply(first", "if (threadIdx.x != 3) multiply(first", "mma_tf32: lanes fffffff7 of a warp wait"),
    ],
)
def test_invalid_warps_raise(kernel, original, mutated, message):
    x, y = np.ones((3, 256), "f"), emulator.empty((16, 8), np.float32)
    with pytest.raises(emulator.KernelError, match=message):
        kernel("chain", "tf32", original, mutated)((1,), (32,), [*x, y, np.int32(1)])

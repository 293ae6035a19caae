"""Tiles for tensor cores on the emulator: ldmatrix distributes as the PTX ISA says, and tiles hold what was loaded."""

import ml_dtypes
import numpy as np
import pytest

from gpu import emulator

KINDS = {"tf32": ("Tf32", "float"), "bf16": ("Bf16", "float"), "bf16 arrays": ("Bf16", "Bfloat16")}

CODE = """
#include "operands.cuh"
extern "C" __global__ void deal(const unsigned *x, const int *rows, unsigned *y, int transposed) {
    __shared__ __align__(16) unsigned tile[32][4];
    for (int i = 0; i < 4; i++) tile[threadIdx.x][i] = x[threadIdx.x * 4 + i];
    __syncwarp();
    unsigned words[4];
    if (transposed) ldmatrix_trans(words, tile[rows[threadIdx.x]]);
    else ldmatrix(words, tile[rows[threadIdx.x]]);
    for (int i = 0; i < 4; i++) y[threadIdx.x * 4 + i] = words[i];
}
extern "C" __global__ void chain(const Number *a, const Number *b, const Number *c, Number *y, int rows_of_a, int width,
                                 int columns_of_c) {  // A Bᵀ C, of 16 × width, 16 × width and 16 × up to 16 numbers
    DYNAMIC_SHARED(unsigned, shared);
    Tile A(shared, 16, width), B(shared, 32, width), C(shared, 16, columns_of_c);
    load_tile<16>(A, 0, {a, rows_of_a, width}, 0), load_tile<16>(B, 16, {b, 17, width}, 1);
    load_tile<16>(C, 0, {c, 16, columns_of_c}, 0);
    copy_wait();
    __syncthreads();
    Left<OPERAND> left;
    Rights right;
    Sums scores[2] = {}, sums[2] = {};
    const unsigned *a_from = left_rows(A, 0), *b_from = right_rows(B, 16), *c_from = right_columns(C, 0, 0);
    for (int d = 0; d < width; d += OPERAND::DEPTH) {
        rows(left, a_from + d / 8 * OPERAND::EIGHT), rows(right, b_from + d / 8 * OPERAND::EIGHT);
        multiply(scores[0], scores[1], left, right);
    }
    for (int d = 0; d < 16; d += OPERAND::DEPTH) {
        results(left, &scores[d / 8]), columns(right, c_from + d * C.stride, C.stride);
        multiply(sums[0], sums[1], left, right);
    }
    if (threadIdx.x >= 32) return;
    for (int eight = 0; eight < 2; eight++)
        for (int i = 0; i < 4; i++) narrow(y[Sums::row(i) * 16 + 8 * eight + Sums::column(i)], sums[eight].at[i]);
}
"""


@pytest.fixture
def kernel(tmp_path):
    """Return a function that compiles a kernel of the code above, or of a mutated copy."""

    def get(name, kind, original="", mutated=""):
        assert original in CODE
        source, (operand, array) = tmp_path / "operands.cu", KINDS[kind]
        source.write_text(CODE.replace(original, mutated, 1))
        return emulator.Module(source, ("REAL=float", f"OPERAND={operand}", f"ARRAY={array}")).get_function(name)

    return get


def test_matrices_are_dealt_out_as_the_isa_says(kernel):
    rng, y = np.random.default_rng(0), np.zeros((32, 8), np.uint16)
    x, places = rng.integers(0, 1 << 16, (32, 8), np.uint16), rng.permutation(32).astype(np.int32)
    matrices = x[places].reshape(4, 8, 8)  # lane l gives row l % 8 of matrix l / 8
    for transposed in (0, 1):
        kernel("deal", "bf16")((1,), (32,), [x.view("u4"), places, y.view("u4"), np.int32(transposed)])
        for matrix, actual in zip(matrices, y.reshape(32, 4, 2).swapaxes(0, 1), strict=True):
            expected = matrix.T if transposed else matrix  # lane l gets row l / 4, columns 2 (l % 4) and the next
            np.testing.assert_array_equal(actual, expected.reshape(32, 2))


def chain(kernel, kind, width=24, columns=16, rows=16, original="", mutated=""):
    """Compare A Bᵀ C of small integers, whose sums are exact, with NumPy; A ends before its tile."""
    rng, dtype = np.random.default_rng(0), ml_dtypes.bfloat16 if kind == "bf16 arrays" else np.float32
    A, B, C = (rng.integers(-1, 2, shape).astype(dtype) for shape in ((rows, width), (17, width), (16, columns)))
    y, stride = emulator.empty((16, 16), dtype), (32 if kind == "tf32" else 16) + 4
    kernel("chain", kind, original, mutated)(
        (1,), (128,), [A, B, C, y, *map(np.int32, (rows, width, columns))], shared_mem=4 * 64 * stride
    )
    expected = np.zeros((16, 16))
    expected[:rows, :columns] = A.astype("d") @ B[1:].astype("d").T @ C.astype("d")
    return y.astype("d"), expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [{}, {"width": 32}, {"width": 13, "columns": 7}, {"rows": 11}])
def test_tiles_hold_what_was_read_and_zeros(kernel, kind, sizes):
    np.testing.assert_array_equal(*chain(kernel, kind, **sizes))


@pytest.mark.parametrize(
    ("kind", "original", "mutated", "message"),
    [
        ("tf32", "load_tile<16>(A, 0", "load_tile<15>(A, 0", "never written"),
        ("bf16", "load_tile<16>(A, 0", "load_tile<15>(A, 0", "never written"),
        ("bf16 arrays", "load_tile<16>(A, 0", "load_tile<15>(A, 0", "never written"),
        ("bf16 arrays", "    copy_wait();\n", "", "a thread ends without waiting for its asynchronous copies"),
        (
            "tf32",
            "rows(left, a_from",
            "if (threadIdx.x % 32 != 3) rows(left, a_from",
            "is in mma_tf32, others of its warp in ldmatrix",
        ),
    ],
)
def test_invalid_warps_raise(kernel, kind, original, mutated, message):
    with pytest.raises(emulator.KernelError, match=message):
        chain(kernel, kind, original=original, mutated=mutated)

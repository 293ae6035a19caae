"""The emulator: it computes what CUDA does, and reports invalid kernels."""

import numpy as np
import pytest

from gpu import emulator

SUM = """
#include "common.cuh"
extern "C" __global__ void total(const real *x, real *y, int n) {
    __shared__ real tile[64];
    DYNAMIC_SHARED(real, warps);
    int i = blockIdx.x * 64 + threadIdx.x;
    tile[threadIdx.x] = i < n ? x[i] : 0;
    __syncthreads();
    real sum = warp_sum(tile[63 - threadIdx.x]);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) y[blockIdx.x] = warps[0] + warps[1];
}
"""


def run(tmp_path, code, n=150, seeds=range(6)):
    """Return the sums of 64 numbers each under every schedule."""
    source = tmp_path / "total.cu"
    source.write_text(code)
    total = emulator.Module(source).get_function("total")
    results = []
    for seed in seeds:
        x, y = np.arange(n, dtype=np.float32), emulator.empty((-(-n // 64),), np.float32)
        with emulator.schedule(seed):
            total((y.size,), (64,), [x, y, np.int32(n)], shared_mem=8)
        results.append(y)
    return results


def test_sums(tmp_path):
    expected = [np.arange(i, min(i + 64, 150)).sum() for i in (0, 64, 128)]
    assert all((y == expected).all() for y in run(tmp_path, SUM))


@pytest.mark.parametrize(
    ("original", "mutated", "message"),
    [
        ("i < n ? x[i] : 0", "x[i]", r"argument 0: access to element \d+, of 150"),
        ("y[blockIdx.x] =", "y[blockIdx.x + 1] = y[blockIdx.x] =", "argument 1: written outside"),
        ("y[blockIdx.x] =", "y[int(blockIdx.x) - 1] = y[blockIdx.x] =", "argument 1: written outside"),
        ("tile[threadIdx.x] = i", "if (threadIdx.x) tile[threadIdx.x] = i", "never written"),
        ("real sum", "if (threadIdx.x == 5) return;\\n real sum", "wait"),
        ("    __syncthreads();\\n    real", "    if (threadIdx.x) __syncthreads();\\n    real", "wait|is in|different"),
        (
            "    __syncthreads();\\n    real",
            "    if (threadIdx.x < 32) __syncthreads(); else\\n __syncthreads();\\n real",
            r"different barriers, lines \d+ and \d+",
        ),
        ("real sum", "__syncwarp(15); real sum", "__syncwarp: mask 0000000f, expected all 32 lanes"),
        ("real sum", "while (threadIdx.x == 9) __nanosleep(1);\\n real sum", "the grid is stuck"),
        ("warps[threadIdx.x / 32] = sum", "warps[threadIdx.x / 8] = sum", "dynamic shared memory: access outside"),
    ],
)
def test_invalid_kernels_raise(tmp_path, original, mutated, message):
    original, mutated = original.replace("\\n", "\n"), mutated.replace("\\n", "\n")
    assert original in SUM
    with pytest.raises(emulator.KernelError, match=f"total.cu, total, schedule 0: .*({message})"):
        run(tmp_path, SUM.replace(original, mutated, 1))


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_barrier_shows_under_some_schedule(tmp_path, which):
    parts = SUM.split("__syncthreads();")
    broken = "__syncthreads();".join(parts[: which + 1]) + "__syncthreads();".join(parts[which + 1 :])
    with pytest.raises((emulator.KernelError, AssertionError)):
        expected, *others = run(tmp_path, SUM)
        assert all((y == expected).all() for y in run(tmp_path, broken))


def test_a_schedule_is_its_seed(tmp_path):
    broken = SUM.replace("__syncthreads();", "")
    broken = broken.replace("tile[63 - threadIdx.x]", "(tile[threadIdx.x] > 0 ? 1 : 2)")

    def outcome(seed):
        try:
            return run(tmp_path, broken, seeds=[seed])[0].tobytes()
        except emulator.KernelError as error:
            return str(error)

    assert [outcome(seed) for seed in range(8)] == [outcome(seed) for seed in range(8)]


def test_arguments_are_named():
    module = emulator.Module(emulator.KERNELS / "scan.cu")
    kernel = module.get_function("scan_forward")
    x = np.zeros(4, np.float32)
    with pytest.raises(emulator.KernelError, match="3 arguments, expected 10"):
        kernel((1,), (256,), [x, x, x])
    with pytest.raises(emulator.KernelError, match="argument 5 has 8 bytes, expected a number of 4"):
        kernel((1,), (256,), [x, x, x, x, x, np.int64(1), *[np.int32(1)] * 4])
    with pytest.raises(emulator.KernelError, match="argument 1 is a number, expected an array"):
        kernel((1,), (256,), [x, np.int32(1), x, x, x, *[np.int32(1)] * 5])
    with pytest.raises(TypeError, match="NumPy's numbers, which have a size; got int"):
        kernel((1,), (256,), [1])


def test_compiler_errors_are_shown(tmp_path):
    (tmp_path / "odd.cu").write_text('extern "C" __global__ void odd(int n) { nothing; }')
    with pytest.raises(RuntimeError, match=r"(?s)odd.cu does not compile with .*nothing.* was not declared"):
        emulator.Module(tmp_path / "odd.cu")

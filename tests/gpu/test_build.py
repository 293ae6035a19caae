"""Every source compiles for every architecture without spills, and uses the recorded resources."""

import subprocess
import sys

import pytest

from gpu import build

HOW = "if that is meant: python -m gpu report --record"


@pytest.mark.parametrize("version", build.versions())
def test_float32_needs_what_is_recorded(version):
    recorded = build.recorded()[version]
    for architecture in build.architectures(version):
        actual = build.needs(*build.versions()[version], architecture)
        assert actual == {kernel: need[architecture] for kernel, need in recorded.items()}, HOW
        assert not any(need["spilled"] for need in actual.values())


@pytest.mark.parametrize(
    ("source", "defines"),
    [
        *((x, ("OPERAND=Bf16" if x.endswith(build.TENSOR_CORES) else "REAL=double",)) for x in build.sources()),
        *((source, ("OPERAND=Bf16",)) for source in build.PRODUCTS),
        *((source, (f"REAL={real}", "COMPLEX")) for source in build.COMPLEX for real in ("float", "double")),
    ],
)
def test_other_dtypes_compile(source, defines):
    assert build.needs(source, defines, "sm_90")


@pytest.mark.parametrize("architecture", build.ARCHITECTURES[1:])
@pytest.mark.parametrize("numbers", [("OPERAND=Tf32",), ("OPERAND=Bf16", "ARRAY=Bfloat16")])
@pytest.mark.parametrize(
    ("source", "kernels", "blocks"),
    [
        ("softmax_tensor_cores", ("backward_keys", "backward_queries", "forward", "row_dot"), 3),
        ("linear_attention_tensor_cores", ("outputs",), 5),
    ],
)
def test_registers_allow_the_resident_blocks(source, kernels, blocks, numbers, architecture):
    actual = build.needs(source, (*numbers, "COLUMNS=64"), architecture)
    for kernel in kernels:
        need = actual[f"{source.removesuffix(build.TENSOR_CORES)}_{kernel}"]
        assert (need["spilled"], need["registers"] <= 65536 // (blocks * 128)) == (0, True)


def test_the_record_is_of_these_sources():
    assert sorted(build.recorded()) == sorted(build.versions())


def test_compiler_errors_are_shown(tmp_path, monkeypatch):
    (tmp_path / "odd.cu").write_text('extern "C" __global__ void odd(int n) { nothing; }')
    monkeypatch.setattr(build, "KERNELS", tmp_path)
    with pytest.raises(build.BuildError, match=r'(?s)^odd.cu does not compile for sm_90:.*"nothing" is undefined'):
        build.needs("odd", (), "sm_90")


def test_a_missing_compiler_is_named(monkeypatch):
    build.nvrtc.cache_clear()
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        build.BuildError, match="^no NVRTC, which the extra 'gpu' installs: pip install nvidia-cuda-nvrtc$"
    ):
        build.needs("scan", ("REAL=float",), "sm_90")
    build.nvrtc.cache_clear()
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(build.BuildError, match=r"^no nvcc on PATH \(it comes with the CUDA toolkit\)$"):
        build.needs("scan", ("REAL=float",), "sm_90", tool="nvcc")


SANITIZED = """
from gpu.cases import CASES
for name, case in CASES.items():
    # For tensor cores these alone have other tiles for bfloat16, and the delta rules' text is as it was.
    other_tiles = name.startswith(("softmax", "linear_attention")) or case.precision == "tensorfloat32"
    if case.precision == "float32" or other_tiles and "delta" not in name:
        case.run(*case.draw(case.dtype, small=True))
print("clean")
"""


def sanitized(code, monkeypatch):
    """Run Python code with AddressSanitizer in the process and every kernel, and with checks of alignment."""
    library = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    monkeypatch.setenv("LD_PRELOAD", library.strip())
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0")
    monkeypatch.setenv("GPU_SANITIZE", "1")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=build.HERE.parent)


def test_sanitizers_find_nothing(monkeypatch):
    done = sanitized(SANITIZED, monkeypatch)
    assert done.stdout == "clean\n", done.stderr


@pytest.mark.parametrize(
    ("body", "message"),
    [
        # One number past a static tile lies in the next variable, where no page ends.
        ("__shared__ real a[40], b[40]; a[n] = b[n - 1] = 1; y[0] = a[1] + b[2];", "global-buffer-overflow"),
        # What a device reads at once must lie where its size divides its address; the host would read it anywhere.
        ("y[0] = reinterpret_cast<const float2 *>(&y[n - 39])->x;", "misaligned address"),
    ],
)
def test_sanitizers_find_what_pages_cannot(monkeypatch, tmp_path, body, message):
    kernel = f'extern "C" __global__ void odd(real *y, int n) {{ {body} }}'
    (tmp_path / "odd.cu").write_text(f'#include "common.cuh"\n{kernel}\n')
    code = f"""
import numpy as np, pathlib
from gpu import emulator
kernel = emulator.Module(pathlib.Path({str(tmp_path)!r}) / "odd.cu").get_function("odd")
kernel((1,), (32,), [np.zeros(4, np.float32), np.int32(40)])
"""
    assert message in sanitized(code, monkeypatch).stderr

"""nvcc in the place of NVRTC: its arguments, its parsed output, and, where it is installed, itself."""

import shutil

import pytest

from gpu import build

NVCC = """#!/bin/sh
printf '%s\\n' "$@" > "{folder}/asked"
echo "{message}" >&2
exit {status}
"""
LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    24 bytes stack frame, 20 bytes spill stores, 32 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 24 bytes cumulative stack size, 18432 bytes smem
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, used 0 barriers"""


@pytest.fixture
def nvcc(monkeypatch, tmp_path):
    """Return a function that puts a fake compiler on PATH, with this output and exit status."""

    def put(message, status):
        (tmp_path / "nvcc").write_text(NVCC.format(folder=tmp_path, message=message, status=status))
        (tmp_path / "nvcc").chmod(0o700)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return tmp_path / "asked"

    return put


def test_nvcc_compiles_a_cubin_and_its_figures_are_parsed(nvcc):
    arguments = nvcc(LOG, 0)
    actual = build.needs("scan", ("REAL=float", "WIDTH=4"), "sm_90", tool="nvcc")
    assert list(actual.items()) == [
        ("first", {"registers": 16, "shared": 0, "spilled": 0}),
        ("second", {"registers": 80, "shared": 18432, "spilled": 52}),
    ]
    *options, source = arguments.read_text().splitlines()
    assert source == str(build.KERNELS / "scan.cu")
    for option in ("-cubin", "-arch=sm_90", "-DREAL=float", "-DWIDTH=4", f"-I{build.KERNELS}"):
        assert option in options
    assert options[options.index("-Xptxas") + 1] == "-v"


def test_nvcc_errors_are_shown(nvcc):
    nvcc("scan.cu(7): error: no", 1)
    with pytest.raises(build.BuildError, match=r"(?s)^scan.cu does not compile for sm_75:\nscan.cu\(7\): error: no$"):
        build.needs("scan", (), "sm_75", tool="nvcc")


def test_nvcc_spills_nothing():
    """Check spills alone: nvcc optimises differently from NVRTC of the same release, and its figures differ."""
    for source, defines in build.versions().values() if shutil.which("nvcc") else ():
        for kernel, need in build.needs(source, defines, "sm_90", tool="nvcc").items():
            assert need["spilled"] == 0, f"{kernel} of {source}.cu, {defines}"

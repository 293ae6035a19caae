"""python -m gpu without a GPU: one line says what is missing and how to install it."""

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from gpu import __main__ as main
from gpu import check, device
from gpu.__main__ import app
from gpu.cases import CASES

RUN = CliRunner()


class Driver:
    """A fake of NVIDIA's driver library."""

    def __init__(self, code):
        self.code = code

    def cuDriverGetVersion(self, version):
        version.value = 13020
        return 0

    def cuInit(self, flags):
        return self.code

    def cuDeviceGetCount(self, count):
        count.value = 1
        return 0

    def cuDeviceGetName(self, name, size, i):
        name.value = b"a device"


@pytest.fixture(params=["driver", "device", "CuPy"])
def missing(request, monkeypatch):
    """Return a function that takes away one of three requirements, and the message for it."""

    def load(name):
        if request.param == "driver":
            raise OSError(name)
        return Driver(100 if request.param == "device" else 0)  # CUDA_ERROR_NO_DEVICE

    functions = {"c_int": ctypes.c_int, "create_string_buffer": ctypes.create_string_buffer, "byref": lambda x: x}
    monkeypatch.setattr(device, "ctypes", SimpleNamespace(CDLL=load, **functions))
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    return {
        "driver": device.DRIVER,
        "device": device.DEVICE.format(100),
        "CuPy": f"CuPy cannot be imported (import of cupy halted; None in sys.modules): {device.CUPY}",
    }[request.param]


@pytest.mark.parametrize("command", ["check", "bench"])
def test_what_is_missing_is_said_in_one_line(missing, command):
    done = RUN.invoke(app, [command])
    assert (done.exit_code, done.stderr) == (2, f"python -m gpu {command}: {missing}\n")


def test_info_says_what_is_missing_in_one_line_each(missing):
    done = RUN.invoke(app, ["info"])
    assert done.exit_code == 0
    assert f": missing: {missing}\n" in done.stdout
    assert len(done.stdout.splitlines()) == 10
    assert ("driver: CUDA 13.2\n" in done.stdout) == (missing != device.DRIVER)


def test_what_is_not_installed_is_said_with_what_brings_it(monkeypatch):
    monkeypatch.setattr(main, "PEERS", {"no-such-package": "its-name"})
    assert (
        "no-such-package: missing: no package no-such-package (pip install its-name)\n"
        in RUN.invoke(app, ["info"]).stdout
    )


def test_a_driver_that_cupy_is_too_new_for_is_said_in_one_line(monkeypatch):
    def count():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")

    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count)))
    monkeypatch.setattr(device, "names", lambda: ["a device"])
    monkeypatch.setattr(device, "cupy", lambda: cupy)
    done = RUN.invoke(app, ["check"])
    assert done.exit_code == 2
    assert done.stderr.startswith(
        "python -m gpu check: CuPy cannot use the NVIDIA driver (cudaErrorInsufficientDriver: "
    )
    assert done.stderr.endswith(f"): {device.OLDER_DRIVER}\n")
    assert done.stderr.count("\n") == 1


def test_a_device_is_named(monkeypatch):
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: Driver(0))
    monkeypatch.setattr(device.ctypes, "byref", lambda x: x)
    assert device.names() == ["a device"]


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs_in_both_widths(name):
    case = CASES[name]
    narrow, wide = (case.run(*case.draw(dtype, small=True)) for dtype in ("float32", "float64"))
    for a, b in zip(narrow, wide, strict=True):
        assert (a.real.dtype, b.real.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=check.margin(case, "float32") * max(1, abs(b).max()))

"""A fake GPU: arrays that claim to be CuPy's, limited memory, and modules that run on the emulator."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gpu import build, emulator, launch
from tests.fake_cupy import Walled, asarray

FREELY = 48 << 10  # bytes of shared memory that a block has without asking


class OutOfMemoryError(MemoryError):
    """The exception of `cupy.cuda.memory`."""


class Device(str):
    """A device with the attributes that a launch reads. NumPy takes it for the host."""

    def __new__(cls, number: int) -> "Device":
        return super().__new__(cls, "cpu")

    def __init__(self, number: int):
        self.id = number
        self.compute_capability = "80"
        self.attributes = {"MaxSharedMemoryPerBlockOptin": 99 << 10}
        self.room = 1 << 30  # bytes for arrays
        self.launches: list[str] = []
        self.entered = False  # else another device counts as the current one

    def __enter__(self) -> None:
        self.entered = True

    def __exit__(self, *_: Any) -> None:
        self.entered = False


class Kernel:
    """A kernel with the interface of `cupy.RawKernel`."""

    def __init__(self, device: Device, source: Path, name: str, defines: tuple[str, ...]):
        self.device, self.source, self.name, self.defines = device, source, name, defines
        width = 2 if "REAL=double" in defines else 1
        rounds = any(define.startswith("OPERAND=") for define in defines)
        version = source.stem + build.TENSOR_CORES * (rounds and source.stem in build.PRODUCTS)
        self.shared_size_bytes = width * build.recorded()[version][name]["sm_80"]["shared"]
        self.max_dynamic_shared_size_bytes = FREELY - self.shared_size_bytes

    def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int) -> None:
        available = self.device.attributes["MaxSharedMemoryPerBlockOptin"]
        needed = self.shared_size_bytes + self.max_dynamic_shared_size_bytes
        if not self.device.entered:
            raise RuntimeError("CUDA_ERROR_INVALID_HANDLE: invalid resource handle")
        if needed > available or shared_mem > max(0, self.max_dynamic_shared_size_bytes):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self.device.launches.append(self.name)
        inside = [x.inside if isinstance(x, Walled) else x for x in arguments]
        module = launch._emulated_module(self.source.stem, self.defines)
        module.get_function(self.name)(grid, block, inside, shared_mem=shared_mem)


def install(monkeypatch: Any) -> Device:
    """Install a fake CuPy and return device 0, on which arrays are unless `at` places them elsewhere."""
    device = Device(0)

    def empty(shape: Any, dtype: Any) -> Walled:
        assert device.entered, "made on another device"
        needed = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        if needed > device.room:
            raise OutOfMemoryError(f"Out of memory allocating {needed:,} bytes (allocated so far: 0 bytes).")
        return asarray(emulator.empty(shape, dtype))

    def zeros(shape: Any, dtype: Any) -> Walled:
        array = empty(shape, dtype)
        array.inside[...] = 0
        return array

    def upload(x: Any, dtype: Any = None) -> Walled:
        return asarray(x, dtype=dtype)

    class RawModule:
        def __init__(self, *, code: str, options: tuple[str, ...]):
            (self.source,) = (path for path in launch.KERNELS.glob("*.cu") if path.read_text(encoding="utf-8") == code)
            self.defines = tuple(option[2:] for option in options if option.startswith("-D"))

        def get_function(self, name: str) -> Kernel:
            return Kernel(device, self.source, name, self.defines)

    cupy = ModuleType("cupy")
    theirs = type("ndarray", (), {})  # which ours are not: their namespace is their own
    vars(cupy).update(ndarray=theirs, empty=empty, zeros=zeros, asarray=upload, RawModule=RawModule)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(Walled, "__module__", "cupy")
    monkeypatch.setattr(Walled, "device", property(lambda x: vars(x).get("at", device)), raising=False)
    launch._device_module.cache_clear()
    return device


def at(x: np.ndarray, device: Device) -> Walled:
    """Return an array on another device."""
    array = asarray(x)
    array.at = device
    return array

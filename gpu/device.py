"""Find a GPU that the kernels can run on, and report what is missing where there is none."""

import ctypes
import importlib
from typing import Any

CUPY = "in this repository, pip install -c constraints.txt -e '.[gpu]', which brings cupy-cuda13x with CUDA's libraries"
OLDER_DRIVER = "take a newer NVIDIA driver, or the CuPy of its CUDA version: pip install 'cupy-cuda12x[ctk]'"
DRIVER = "no NVIDIA driver (libcuda.so.1): install it from nvidia.com/drivers, on a machine with a GPU"
DEVICE = "the NVIDIA driver finds no device (error {}): see nvidia-smi, and CUDA_VISIBLE_DEVICES"


class MissingError(RuntimeError):
    """Raised where no kernel can run on a device; the message is one line: what is missing and how to install it."""


def ready() -> Any:
    """Return CuPy where it can use a device. Raises MissingError otherwise."""
    names()
    module = cupy()
    try:
        module.cuda.runtime.getDeviceCount()
    except RuntimeError as error:
        raise MissingError(f"CuPy cannot use the NVIDIA driver ({error}): {OLDER_DRIVER}") from None
    return module


def cupy() -> Any:
    """Import CuPy, which needs no device. Raises MissingError where it is not installed."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise MissingError(f"CuPy cannot be imported ({str(error).splitlines()[0]}): {CUPY}") from None


def driver() -> str:
    """Return the CUDA version that the driver supports. Raises MissingError where there is no driver."""
    version = ctypes.c_int()
    _library().cuDriverGetVersion(ctypes.byref(version))
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def names() -> list[str]:
    """Return the names of all devices. Raises MissingError where there is no driver or no device."""
    library = _library()
    count, name = ctypes.c_int(), ctypes.create_string_buffer(128)
    code = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        raise MissingError(DEVICE.format(code))
    devices = []
    for i in range(count.value):
        library.cuDeviceGetName(name, len(name), i)
        devices.append(name.value.decode())
    return devices


def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise MissingError(DRIVER) from None

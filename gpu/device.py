"""Is there a GPU that these kernels can run on, and if not, what is missing."""

import ctypes
import importlib
from typing import Any

CUPY = "in this repository, pip install -c constraints.txt -e '.[gpu]', which brings cupy-cuda13x with CUDA's libraries"
OLDER = "take a newer NVIDIA driver, or the CuPy of its CUDA version: pip install 'cupy-cuda12x[ctk]'"
DRIVER = "no NVIDIA driver (libcuda.so.1): install it from nvidia.com/drivers, on a machine with a GPU"
DEVICE = "the NVIDIA driver finds no device (error {}): see nvidia-smi, and CUDA_VISIBLE_DEVICES"


class MissingError(RuntimeError):
    """No kernel can run on a device here; the message is one line: what is missing, and how to come by it."""


def ready() -> Any:
    """CuPy, with a device behind it. Raises MissingError."""
    names()
    found = cupy()
    try:
        found.cuda.runtime.getDeviceCount()
    except RuntimeError as error:
        raise MissingError(f"CuPy cannot use the NVIDIA driver ({error}): {OLDER}") from None
    return found


def cupy() -> Any:
    """CuPy, which can be imported without a device. Raises MissingError."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise MissingError(f"CuPy cannot be imported ({str(error).splitlines()[0]}): {CUPY}") from None


def driver() -> str:
    """For which CUDA the driver is. Raises MissingError for no driver."""
    version = ctypes.c_int()
    _library().cuDriverGetVersion(ctypes.byref(version))
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def names() -> list[str]:
    """What the devices are called that NVIDIA's driver finds. Raises MissingError for no driver, and for no device."""
    library = _library()
    count, name = ctypes.c_int(), ctypes.create_string_buffer(128)
    code = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        raise MissingError(DEVICE.format(code))
    found = []
    for i in range(count.value):
        library.cuDeviceGetName(name, len(name), i)
        found.append(name.value.decode())
    return found


def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise MissingError(DRIVER) from None

"""Launch kernels on arrays: check the arrays, allocate results, compile for their device, or run the emulator."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpu import emulator
from gpu.precision import TENSOR_CORE_CAPABILITY

KERNELS = Path(__file__).parent / "kernels"
DTYPES = {"f": "float32", "d": "float64", "F": "complex64", "D": "complex128", "b": "bfloat16"}
REAL = {"bfloat16": "float", "float32": "float", "float64": "double", "complex64": "float", "complex128": "double"}


class DeviceMemoryError(MemoryError):
    """Raised where a device lacks global or shared memory; the message is one line: for what, and how much."""


class SharedMemoryError(DeviceMemoryError):
    """Raised where a kernel needs more shared memory than a block can have; the message says what to use instead."""


def launch(
    source: str,
    kernel: str,
    like: Any,
    grid: Sequence[int],
    threads: int,
    *arguments: Any,
    defines: tuple[str, ...] = (),
    shared: int = 0,
    of: str = "",
) -> None:
    """Launch a kernel of `gpu/kernels/<source>.cu`, compiled for the dtype of `like`, on the device of `like`.

    Python integers are passed as C's int. Raises SharedMemoryError where a block cannot have `shared` bytes of dynamic
    shared memory; `of` names the widths of the arrays that determine the size.
    """
    converted = [np.int32(x) if isinstance(x, int) else x for x in arguments]
    name = dtype_name(like.dtype)
    own = ("COMPLEX",) if like.dtype.kind == "c" else ("ARRAY=Bfloat16",) if name == "bfloat16" else ()
    defines = (f"REAL={REAL[name]}", *own, *defines)
    if isinstance(like, np.ndarray):
        _emulated_module(source, defines).get_function(kernel)(grid, (threads,), converted, shared_mem=shared)
        return
    with like.device:
        function = _device_module(source, defines, like.device.id).get_function(kernel)
        if shared:  # together with static shared memory it may exceed the 48 KB available without opting in
            _check_shared_memory(kernel, like, function.shared_size_bytes + shared, of)
            function.max_dynamic_shared_size_bytes = shared
        function((*grid, 1, 1)[:3], (threads, 1, 1), tuple(converted), shared_mem=shared)


def check(label: str, *, dtypes: str = "fd", accumulators: Sequence[str] = (), **arrays: Any) -> None:
    """Raise TypeError or ValueError unless the arrays are contiguous, not empty, on one device and of one dtype.

    `dtypes` holds the characters of the supported dtypes: NumPy's f, d, F and D, and b for bfloat16. Beside bfloat16
    the arrays named in `accumulators` are float32.
    """
    first, names = "", [DTYPES[c] for c in dtypes]
    for name, x in arrays.items():
        kind = type(x).__module__.partition(".")[0]
        if kind not in ("numpy", "cupy") or not hasattr(x, "dtype"):
            came = f"{type(x).__module__}.{type(x).__name__}"
            raise TypeError(f"{label}: {name} is {came}, expected a CuPy or NumPy array")
        own = dtype_name(x.dtype)
        if own not in names:
            raise TypeError(f"{label}: {name} is {own}, expected {' or '.join(names)}")
        if own == "bfloat16" and kind == "cupy" and int(x.device.compute_capability) < TENSOR_CORE_CAPABILITY:
            raise TypeError(
                f"{label}: {name} is bfloat16, which needs compute capability {TENSOR_CORE_CAPABILITY}, "
                f"device {x.device.id} has {x.device.compute_capability}: take float32"
            )
        if not x.flags.c_contiguous:
            raise ValueError(f"{label}: {name} is not contiguous, expected one that ascontiguousarray has made")
        if not x.size:
            raise ValueError(f"{label}: {name} has shape {x.shape}, expected at least one element along every axis")
        place = f"{kind} {own}" + (f" on device {x.device.id}" if kind == "cupy" else "")
        first = first or place
        expected = first.replace("bfloat16", "float32") if name in accumulators else first
        if place != expected:
            as_is = f"as {next(iter(arrays))} is" + " bfloat16" * (expected != first)
            raise TypeError(f"{label}: {name} is {place}, expected {expected} {as_is}")


@functools.cache
def dtype_name(dtype: np.dtype) -> str:
    """Return dtype.name, cached: NumPy builds the string on every access, which dominated the host cost of a launch."""
    return dtype.name


def check_same_shape(label: str, **arrays: Any) -> None:
    """Raise ValueError where the shape of an array differs from that of the first."""
    (first, x), *others = arrays.items()
    for name, y in others:
        if y.shape != x.shape:
            raise ValueError(f"{label}: {name} has shape {y.shape}, expected {x.shape} as {first} has")


def empty(like: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """Return an uninitialised array on the device of `like`, of its dtype by default."""
    if isinstance(like, np.ndarray):
        return emulator.empty(shape, dtype or like.dtype)
    return _allocate(like, "empty", shape, dtype or like.dtype)


def zeros(like: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """Return zeros on the device of `like`, of its dtype by default."""
    if isinstance(like, np.ndarray):
        return np.zeros(shape, dtype or like.dtype)
    return _allocate(like, "zeros", shape, dtype or like.dtype)


def to_device_of(like: Any, array: np.ndarray) -> Any:
    """Return a NumPy array on the device of `like`."""
    return array if isinstance(like, np.ndarray) else _allocate(like, "asarray", array, array.dtype)


def _allocate(like: Any, function: str, what: Any, dtype: Any) -> Any:
    """Call CuPy's function of that name on the device of `like`. Raises DeviceMemoryError."""
    import cupy

    with like.device:
        try:
            return getattr(cupy, function)(what, dtype)
        except MemoryError as error:
            shape = tuple(getattr(what, "shape", what))
            raise DeviceMemoryError(
                f"device {like.device.id} has no room for {np.dtype(dtype)} {shape}: {error}"
            ) from None


def _check_shared_memory(kernel: str, like: Any, needed: int, of: str) -> None:
    """Raise SharedMemoryError where a block cannot have so many bytes of shared memory."""
    device, float32_shares_less = like.device, like.dtype.name in ("bfloat16", "float64", "complex128")
    available = device.attributes["MaxSharedMemoryPerBlockOptin"]
    if needed > available:
        ways = ["float32"] * float32_shares_less + ["smaller widths"] * bool(of) + ["a form that is not fused"]
        raise SharedMemoryError(
            f"{kernel}: {of and f'{of} in '}{like.dtype} needs {needed:,} bytes of shared memory, "
            f"device {device.id} has {available:,} for a block: take {' or '.join(ways)}"
        )


@functools.cache
def _emulated_module(source: str, defines: tuple[str, ...]) -> emulator.Module:
    return emulator.Module(KERNELS / f"{source}.cu", defines)


@functools.cache
def _device_module(source: str, defines: tuple[str, ...], device: int) -> Any:
    import cupy

    code = (KERNELS / f"{source}.cu").read_text(encoding="utf-8")
    # CuPy's cache is keyed by source and options and ignores changes of included headers: their hash is an option.
    included = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(KERNELS.glob("*.cuh")))).hexdigest()
    options = ("-std=c++17", f"-I{KERNELS}", *(f"-D{d}" for d in defines), f"-UINCLUDED_{included[:16]}")
    return cupy.RawModule(code=code, options=options)

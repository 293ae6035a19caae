"""From arrays to a launch: which kernels run on them, what they may be, and what is said where they may not."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpu import host
from gpu.precision import SINCE

HERE = Path(__file__).parent
NUMBERS = {"f": "float32", "d": "float64", "F": "complex64", "D": "complex128", "b": "bfloat16"}
REAL = {"bfloat16": "float", "float32": "float", "float64": "double", "complex64": "float", "complex128": "double"}


class RoomError(MemoryError):
    """A device lacks memory, its own or what a block shares; the message is one line: for what, and how much."""


class BlockError(RoomError):
    """A block cannot share as much as a kernel needs; the message says what to take instead."""


def launch(
    source: str, kernel: str, like: Any, grid: Sequence[int], threads: int, *arguments: Any,
    defines: tuple[str, ...] = (), shared: int = 0, of: str = "",
) -> None:  # fmt: skip
    """Run a kernel of `gpu/<source>.cu`, built for the numbers of `like`, where `like` is. Integers go as C's int.

    Raises BlockError where the `shared` bytes, which widths `of` the arrays set, are more than a block can have.
    """
    given = [np.int32(x) if isinstance(x, int) else x for x in arguments]
    name = named(like.dtype)
    own = ("COMPLEX",) if like.dtype.kind == "c" else ("ARRAY=Bfloat16",) if name == "bfloat16" else ()
    defines = (f"REAL={REAL[name]}", *own, *defines)
    if isinstance(like, np.ndarray):
        _on_host(source, defines).get_function(kernel)(grid, (threads,), given, shared_mem=shared)
        return
    with like.device:
        function = _on_device(source, defines, like.device.id).get_function(kernel)
        if shared:  # with the static part, it may be more than the 48 KB that need no asking
            _see_room(kernel, like, function.shared_size_bytes + shared, of)
            function.max_dynamic_shared_size_bytes = shared
        function((*grid, 1, 1)[:3], (threads, 1, 1), tuple(given), shared_mem=shared)


def check(label: str, *, numbers: str = "fd", sums: Sequence[str] = (), **arrays: Any) -> None:
    """Raise TypeError or ValueError where arrays are not all alike, contiguous, on one device, and of such numbers.

    `numbers` are the characters of the types that will do: NumPy's f, d, F and D, and b for bfloat16, beside which the
    arrays that are named as `sums` are float32.
    """
    first, names = "", [NUMBERS[c] for c in numbers]
    for name, x in arrays.items():
        kind = type(x).__module__.partition(".")[0]
        if kind not in ("numpy", "cupy") or not hasattr(x, "dtype"):
            came = f"{type(x).__module__}.{type(x).__name__}"
            raise TypeError(f"{label}: {name} is {came}, expected a CuPy or NumPy array")
        own = named(x.dtype)
        if own not in names:
            raise TypeError(f"{label}: {name} is {own}, expected {' or '.join(names)}")
        if own == "bfloat16" and kind == "cupy" and int(x.device.compute_capability) < SINCE:
            raise TypeError(
                f"{label}: {name} is bfloat16, which needs compute capability {SINCE}, device {x.device.id} has "
                f"{x.device.compute_capability}: take float32"
            )
        if not x.flags.c_contiguous:
            raise ValueError(f"{label}: {name} is not contiguous, expected one that ascontiguousarray has made")
        if not x.size:
            raise ValueError(f"{label}: {name} has shape {x.shape}, expected at least one element along every axis")
        place = f"{kind} {own}" + (f" on device {x.device.id}" if kind == "cupy" else "")
        first = first or place
        expected = first.replace("bfloat16", "float32") if name in sums else first
        if place != expected:
            as_is = f"as {next(iter(arrays))} is" + " bfloat16" * (expected != first)
            raise TypeError(f"{label}: {name} is {place}, expected {expected} {as_is}")


@functools.cache
def named(dtype: np.dtype) -> str:
    """What a type is called, which NumPy spells out anew whenever it is asked: most of what a launch took of a host."""
    return dtype.name


def alike(label: str, **arrays: Any) -> None:
    """Raise ValueError where an array has another shape than the first."""
    (first, x), *others = arrays.items()
    for name, y in others:
        if y.shape != x.shape:
            raise ValueError(f"{label}: {name} has shape {y.shape}, expected {x.shape} as {first} has")


def empty(like: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """An array where `like` is, to be written by a kernel; of its numbers unless told."""
    if isinstance(like, np.ndarray):
        return host.empty(shape, dtype or like.dtype)
    return _made(like, "empty", shape, dtype or like.dtype)


def zeros(like: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """Zeros where `like` is, of its numbers unless told."""
    if isinstance(like, np.ndarray):
        return np.zeros(shape, dtype or like.dtype)
    return _made(like, "zeros", shape, dtype or like.dtype)


def copied(like: Any, array: np.ndarray) -> Any:
    """A NumPy array where `like` is."""
    return array if isinstance(like, np.ndarray) else _made(like, "asarray", array, array.dtype)


def _made(like: Any, how: str, what: Any, dtype: Any) -> Any:
    """By a function of CuPy's, on the device of `like`. Raises RoomError."""
    import cupy

    with like.device:
        try:
            return getattr(cupy, how)(what, dtype)
        except MemoryError as error:
            shape = tuple(getattr(what, "shape", what))
            raise RoomError(f"device {like.device.id} has no room for {np.dtype(dtype)} {shape}: {error}") from None


def _see_room(kernel: str, like: Any, needed: int, of: str) -> None:
    """Raise BlockError where a block cannot share so many bytes."""
    device, float32_shares_less = like.device, like.dtype.name in ("bfloat16", "float64", "complex128")
    there = device.attributes["MaxSharedMemoryPerBlockOptin"]
    if needed > there:
        ways = ["float32"] * float32_shares_less + ["smaller widths"] * bool(of) + ["a form that is not fused"]
        raise BlockError(
            f"{kernel}: {of and f'{of} in '}{like.dtype} needs {needed:,} bytes of shared memory, "
            f"device {device.id} has {there:,} for a block: take {' or '.join(ways)}"
        )


@functools.cache
def _on_host(source: str, defines: tuple[str, ...]) -> host.Module:
    return host.Module(HERE / f"{source}.cu", defines)


@functools.cache
def _on_device(source: str, defines: tuple[str, ...], device: int) -> Any:
    import cupy

    code = (HERE / f"{source}.cu").read_text(encoding="utf-8")
    # CuPy finds what it has compiled before by source and options, and does not look into what the source includes.
    included = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HERE.glob("*.cuh")))).hexdigest()
    options = ("-std=c++17", f"-I{HERE}", *(f"-D{d}" for d in defines), f"-UINCLUDED_{included[:16]}")
    return cupy.RawModule(code=code, options=options)

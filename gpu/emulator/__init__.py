"""Run CUDA kernels on the host, without a GPU: g++ compiles a `.cu` file against the headers of this folder.

The threads of a grid run as fibers under a schedule that a seed determines, on NumPy arrays. It is slow and meant for
tests: it finds missing barriers, reads of uninitialised shared memory, accesses out of bounds and deadlocks.

It does not find a missing `__threadfence`, a shuffle used as a memory barrier between lanes, or stale reads from the
first-level cache, as every write is visible to all fibers at once. Products of tensor cores are rounded after every
addition. `wgmma` and TMA, which no kernel uses, are not implemented.

The runtime (scheduler, guarded memory, launch) and the headers of this folder do not depend on the kernel: per set of
compiler flags they are compiled once, the runtime to an object that is linked to every kernel, the headers to a
precompiled header, which g++ reads where a kernel includes them.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
KERNELS = HERE.parent / "kernels"
FLAGS = (
    "-std=c++20",
    "-O1",
    "-g1",
    "-fPIC",
    "-fvisibility=hidden",
    "-ftrivial-auto-var-init=pattern",
    "-fsignaling-nans",
    "-U_FORTIFY_SOURCE",
    "-ffp-contract=off",
    "-Werror=return-type",
)
SANITIZE = ("-fsanitize=address,alignment", "-fno-sanitize-recover=alignment", "-fsanitize-sections=shared_memory")

# Words that repeat to a signalling NaN.
_NAN16, _NAN32, _NAN64 = np.uint16(0x7FA0), np.uint32(0x7FA0DEAD), np.uint32(0x7FF4DEAD)
SIGNALLING_NANS: dict[str, np.unsignedinteger] = {
    "bfloat16": _NAN16,
    "float32": _NAN32,
    "complex64": _NAN32,
    "float64": _NAN64,
    "complex128": _NAN64,
}

_schedule: ContextVar[tuple[int, int]] = ContextVar("schedule", default=(0, 0))  # seed, line of the skipped barrier


class KernelError(RuntimeError):
    """Raised where a kernel does what it must not; the message says what, and under which schedule."""


class _Argument(ctypes.Structure):  # emulator::Argument
    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t), ("array", ctypes.c_bool)]


@contextlib.contextmanager
def schedule(seed: int, *, skipped_barrier: int = 0) -> Iterator[None]:
    """Run the launches inside under the schedule of this seed: the order in which blocks, warps and lanes run.

    The barrier on line `skipped_barrier` of the source is skipped; if it is needed, some schedule should show it.
    """
    token = _schedule.set((seed, skipped_barrier))
    try:
        yield
    finally:
        _schedule.reset(token)


class Module:
    """The kernels of a source file, with the interface of `cupy.RawModule`.

    Raises RuntimeError if the source does not compile.
    """

    def __init__(self, source: Path, defines: Sequence[str] = ("REAL=float",)):
        self.name = source.name
        code = source.read_text(encoding="utf-8")
        self.kernels = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\(.*?\)\s*)?(\w+)\s*\(", code)
        self._library = ctypes.CDLL(str(_compile_kernels(source, self.kernels, defines)))

    def get_function(self, name: str) -> Callable[..., None]:
        """Return a kernel as `call(grid, block, arguments, shared_mem=0)`, which raises KernelError on misuse."""
        function = getattr(self._library, f"emulated_{name}")
        function.restype = ctypes.c_char_p

        def call(grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], *, shared_mem: int = 0) -> None:
            arrays = [_as_array(x) for x in arguments]  # referenced until the kernel has run
            structures = [
                _Argument(x.ctypes.data, x.nbytes, isinstance(y, np.ndarray))
                for x, y in zip(arrays, arguments, strict=True)
            ]
            shape = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
            seed, skipped_barrier = _schedule.get()
            error = function(
                (_Argument * len(arrays))(*structures),
                ctypes.c_size_t(len(arrays)),
                ctypes.c_uint64(seed),
                skipped_barrier,
                shape,
                ctypes.c_size_t(shared_mem),
            )
            if error is not None:
                raise KernelError(f"{self.name}, {name}, schedule {seed}: {error.decode()}")

        return call


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Return an uninitialised array, filled with signalling NaNs or bytes of 0x55 so that reading it is detected."""
    dtype = np.dtype(dtype)
    word = SIGNALLING_NANS.get(dtype.name, np.uint8(0x55))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize // word.itemsize
    return np.full(count, word).view(dtype).reshape(shape)


def _as_array(x: Any) -> np.ndarray:
    if isinstance(x, np.ndarray):
        if not x.flags.c_contiguous:
            raise ValueError("a kernel takes C-contiguous arrays")
        return x
    if not isinstance(x, np.generic):
        raise TypeError(f"a kernel takes arrays and NumPy's numbers, which have a size; got {type(x).__name__}")
    return np.array(x)


def _compile_kernels(source: Path, kernels: Sequence[str], defines: Sequence[str]) -> Path:
    """Return the shared library of a source file, from the cache if neither it nor what it includes has changed."""
    macros = (d.partition("=") for d in defines)  # after the header, which g++ reads where no macro differs
    lines = ['#include "emulator/launch.cuh"', *(f"#define {name} {value or 1}" for name, _, value in macros)]
    lines += [f'#include "{source}"', *(f"EMULATED_KERNEL({name})" for name in kernels)]
    headers = [path for folder in (HERE, KERNELS, source.parent) for path in sorted(folder.glob("*.cuh"))]
    runtime, options = _compile_runtime(), (f"-I{_precompile_headers()}", f"-I{HERE.parent}", f"-I{KERNELS}")
    unit = "\n".join(lines) + "\n"
    key = *defines, *kernels
    return _compile(source, unit, (*options, "-shared", str(runtime)), key, [*headers, source], ".so")


def _compile_runtime() -> Path:
    """Return the object file of the runtime."""
    source = HERE / "runtime.cpp"
    parts = [source, *sorted(HERE.glob("*.hpp")), *sorted(HERE.glob("*.cuh"))]
    return _compile(source, f'#include "{source}"\n', ("-c", f"-I{HERE}"), (), parts, ".o")


def _precompile_headers() -> Path:
    """Return the folder in which g++ finds the precompiled `emulator/launch.cuh` before the header itself."""
    source, files = HERE / "launch.cuh", sorted(HERE.glob("*.cuh"))
    return _compile(source, None, ("-x", "c++-header"), (), files, "/emulator/launch.cuh.gch").parents[1]


def _compile(
    source: Path,
    unit: str | None,
    options: Sequence[str],
    names: Sequence[str],
    files: Sequence[Path],
    suffix: str,
) -> Path:
    """Return the output of compiling a translation unit, from the cache where neither `names` nor `files` have changed.

    Without one it is the source itself: g++ reads no header from a pipe.

    With GPU_SANITIZE=1 in the environment it is compiled with AddressSanitizer, whose library must have been preloaded,
    and with checks of alignment.
    """
    flags = *FLAGS, *(SANITIZE if os.environ.get("GPU_SANITIZE") else ())
    compiler, texts = _compiler(), [path.read_text(encoding="utf-8") for path in files]
    key = hashlib.sha256("\0".join([_version(compiler), *flags, *options, *names, *texts]).encode()).hexdigest()[:16]
    target = _cache() / f"{source.stem}-{key}{suffix}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, output = tempfile.mkstemp(dir=target.parent, suffix=target.suffix)
    os.close(handle)
    try:
        objects = [x for x in options if x.endswith(".o")]  # after the source, as the linker wants them
        options = [x for x in options if not x.endswith(".o")]
        code = [str(source)] if unit is None else ["-x", "c++", "-", "-x", "none"]
        command = [compiler, *flags, *options, *code, *objects, "-o", output]
        environment = {name: x for name, x in os.environ.items() if name != "LD_PRELOAD"}  # no sanitizer inside g++
        done = subprocess.run(command, input=unit, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"{source.name} does not compile with {compiler}:\n{done.stderr.strip()}")
        os.replace(output, target)  # atomic: another process may build the same file
    finally:
        Path(output).unlink(missing_ok=True)
    return target


@functools.cache
def _compiler() -> str:
    for name in (os.environ.get("CXX", ""), "g++"):
        if name and (path := shutil.which(name)):
            return path
    raise RuntimeError("no g++ on PATH, which runs CUDA kernels on the host (Debian and Ubuntu: apt install g++)")


@functools.cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def _cache() -> Path:
    """Return a writable folder: beside this package's compiled Python, or else among temporary files."""
    for folder in (HERE / "__pycache__", Path(tempfile.gettempdir()) / f"gpu-emulator-{os.getuid()}"):
        try:
            folder.mkdir(exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise RuntimeError(f"neither {HERE} nor {tempfile.gettempdir()} can be written: nowhere to put compiled kernels")

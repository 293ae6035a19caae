"""A `.cu` file on the host: compiled by g++ against `emulator/*.cuh`, launched on NumPy arrays, under a drawn schedule.

It computes what the GPU would, thread by thread, and is as slow as that sounds: it is for tests. A missing barrier, a
read of shared memory that nobody wrote, an access out of bounds and a wait for a block that never comes are found here.

Not found here, as all fibers see each write at once: a missing `__threadfence`, a shuffle that is taken for a barrier
between the lanes of a warp, what a first-level cache still holds of another block's array. Nor are sums rounded as
tensor cores round them, and `wgmma` and TMA, which no kernel uses, cannot be run.
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
FLAGS = ("-std=c++20", "-O1", "-g1", "-fPIC", "-shared", "-fvisibility=hidden", "-ftrivial-auto-var-init=pattern",
         "-fsignaling-nans", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-Werror=return-type")  # fmt: skip
SANITIZE = ("-fsanitize=address,alignment", "-fno-sanitize-recover=alignment", "-fsanitize-sections=shared_memory")

_two, _four, _eight = np.uint16(0x7FA0), np.uint32(0x7FA0DEAD), np.uint32(0x7FF4DEAD)  # bytes; of a signalling NaN
POISON: dict[str, np.unsignedinteger] = {
    "bfloat16": _two, "float32": _four, "complex64": _four, "float64": _eight, "complex128": _eight,
}  # fmt: skip

_drawn: ContextVar[tuple[int, int]] = ContextVar("drawn", default=(0, 0))  # the seed, and the line of no barrier


class KernelError(RuntimeError):
    """A kernel did what it may not; the message says what and under which schedule."""


class _Argument(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t), ("array", ctypes.c_bool)]


@contextlib.contextmanager
def schedule(seed: int, *, without: int = 0) -> Iterator[None]:
    """Launches inside run under the schedule of this seed: which blocks, warps and lanes run before which.

    The barrier on line `without` of the source is passed over: some schedule should show that it is missed.
    """
    token = _drawn.set((seed, without))
    try:
        yield
    finally:
        _drawn.reset(token)


class Module:
    """The kernels of a source file, as `cupy.RawModule` gives them. Raises RuntimeError where it does not compile."""

    def __init__(self, source: Path, defines: Sequence[str] = ("REAL=float",)):
        self.name = source.name
        code = source.read_text(encoding="utf-8")
        self.kernels = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\(.*?\)\s*)?(\w+)\s*\(", code)
        self._library = ctypes.CDLL(str(_built(source, self.kernels, defines)))

    def get_function(self, name: str) -> Callable[..., None]:
        """A kernel as `call(grid, block, arguments, shared_mem=0)`. Raises KernelError where it misbehaves."""
        function = getattr(self._library, f"emulated_{name}")
        function.restype = ctypes.c_char_p

        def call(grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], *, shared_mem: int = 0) -> None:
            kept = [_kept(x) for x in arguments]  # alive until the kernel has run
            described = [
                _Argument(x.ctypes.data, x.nbytes, isinstance(y, np.ndarray))
                for x, y in zip(kept, arguments, strict=True)
            ]
            given = (_Argument * len(kept))(*described)
            sizes = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
            seed, without = _drawn.get()
            count, dynamic = ctypes.c_size_t(len(arguments)), ctypes.c_size_t(shared_mem)
            wrong = function(given, count, ctypes.c_uint64(seed), without, sizes, dynamic)
            if wrong is not None:
                raise KernelError(f"{self.name}, {name}, schedule {seed}: {wrong.decode()}")

        return call


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array in which nobody has written yet, and which shows it: signalling NaNs, or bytes of 0x55."""
    dtype = np.dtype(dtype)
    word = POISON.get(dtype.name, np.uint8(0x55))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize // word.itemsize
    return np.full(count, word).view(dtype).reshape(shape)


def _kept(x: Any) -> np.ndarray:
    if isinstance(x, np.ndarray):
        if not x.flags.c_contiguous:
            raise ValueError("a kernel takes C-contiguous arrays")
        return x
    if not isinstance(x, np.generic):
        raise TypeError(f"a kernel takes arrays and NumPy's numbers, which have a size; got {type(x).__name__}")
    return np.array(x)


def _built(source: Path, kernels: Sequence[str], defines: Sequence[str]) -> Path:
    """The shared object, from the cache where nothing it is made of has changed.

    GPU_SANITIZE=1 in the environment builds it with AddressSanitizer, whose library the process must have preloaded,
    and with a check that whatever is read or written lies where its type may.
    """
    sanitize = SANITIZE if os.environ.get("GPU_SANITIZE") else ()
    flags = [*FLAGS, *sanitize, *(f"-D{d}" for d in defines)]
    unit = f'#include "emulator/launch.cuh"\n#include "{source}"\n'
    unit += "".join(f"EMULATED_KERNEL({name})\n" for name in kernels)
    headers = [path for folder in (HERE, KERNELS, source.parent) for path in sorted(folder.glob("*.cuh"))]
    command = [_compiler(), *flags, f"-I{HERE.parent}", f"-I{KERNELS}"]
    texts = [path.read_text(encoding="utf-8") for path in (*headers, source)]
    made_of = "\0".join([_version(command[0]), *flags, *kernels, *texts])
    target = _cache() / f"{source.stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if target.exists():
        return target
    handle, fresh = tempfile.mkstemp(dir=target.parent, suffix=".so")
    os.close(handle)
    try:
        command += ["-x", "c++", "-", "-o", fresh]
        alone = {name: x for name, x in os.environ.items() if name != "LD_PRELOAD"}  # a sanitizer would slow g++ too
        done = subprocess.run(command, input=unit, capture_output=True, text=True, env=alone)
        if done.returncode:
            raise RuntimeError(f"{source.name} does not compile with {command[0]}:\n{done.stderr.strip()}")
        os.replace(fresh, target)  # at once, whoever else builds the same
    finally:
        Path(fresh).unlink(missing_ok=True)
    return target


@functools.cache
def _compiler() -> str:
    for name in (os.environ.get("CXX", ""), "g++"):
        if name and (found := shutil.which(name)):
            return found
    raise RuntimeError("no g++ on PATH, which runs CUDA kernels on the host (Debian and Ubuntu: apt install g++)")


@functools.cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def _cache() -> Path:
    """Beside the compiled Python of this package, or, where that cannot be written, among temporary files."""
    for folder in (HERE / "__pycache__", Path(tempfile.gettempdir()) / f"gpu-emulator-{os.getuid()}"):
        try:
            folder.mkdir(exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise RuntimeError(f"neither {HERE} nor {tempfile.gettempdir()} can be written: nowhere to put compiled kernels")

"""Compiled kernels of the engine, and the choice between a compiled kernel and the plain form of a function.

`simd`, `threads` and `compilation` are what kernels are written with; `scan`, `causal_conv1d` and `fused_elementwise`
are the engine's own. A kernel is a module with `forward` and `backward` on raw NumPy arrays. It is named by its import
path, and imported when it is first needed, for Numba takes half a second to import.
"""

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minigrad.conversion import copy_if_mutable
from minigrad.engine import Tensor, unwrap
from minigrad.fused import fused
from minigrad.pytree import arrays_of

WIDTHS = ("float32", "float64")
_PARTS = {"complex64": "float32", "complex128": "float64"}
LARGE = 4096  # elements from which a kernel is faster than NumPy


def with_kernel(path: str, reference: Callable) -> Callable:
    """Return a function of arrays and Tensors that the kernel module at an import path computes and differentiates.

    The gradient is the kernel's own; gradients of it are those of `reference`, which takes the same arguments, arrays
    and options by name, and returns the same. Where Numba or its LLVM cannot be imported, `reference` serves for all,
    after one warning. What it is given has passed `check_alike`.
    """

    def call(*inputs: Any, **options: Any) -> Any:
        if any(
            isinstance(x, Tensor) for x in inputs
        ):  # copied, since the graph saves them and the caller may change a mask
            options = {key: copy_if_mutable(value) for key, value in options.items()}
        kernel, plain = numba_module(path), functools.partial(reference, **options)
        if kernel is None:
            return plain(*inputs)
        return fused(functools.partial(kernel.forward, **options), kernel.backward, plain)(*inputs)

    return call


def worthwhile(*inputs: Any, size: int = LARGE) -> bool:
    """Return whether a kernel accepts these arrays and Tensors, and the first has at least `size` elements."""
    values = [unwrap(x) for x in inputs]
    return (
        all(isinstance(x, np.ndarray) and x.dtype is values[0].dtype for x in values)
        and values[0].dtype.name in WIDTHS
        and values[0].size >= size
    )


def chain(name: str, *inputs: Any) -> Callable | None:
    """Return a function of `minigrad.compiled.fused_elementwise`, or None for arrays that are too small or unfit."""
    if all(type(x) is np.ndarray for x in inputs) and worthwhile(*inputs):
        module = numba_module("minigrad.compiled.fused_elementwise")
        return module and getattr(module, name)
    return None


# Modules whose `scan` takes raw arrays of other libraries. They are import paths, for minigrad does not depend on gpu:
# the first call with such arrays imports the module, whatever was imported before.
SCANS = {"cupy": "gpu.kernels.scan"}


def scan_kernel(a: Any, x: Any) -> Callable | None:
    """Return the recurrence, (a, x, axis, reverse) → h, by a kernel for raw arrays such as these, or None."""
    other = SCANS.get(type(x).__module__.partition(".")[0])
    if not (other or isinstance(x, np.ndarray)) or a.dtype != x.dtype or x.dtype.name not in (*WIDTHS, *_PARTS):
        return None
    if other:
        return importlib.import_module(other).scan if x.size else None
    module = numba_module("minigrad.compiled.scan") if x.size >= LARGE // 4 else None  # it spares a loop in Python
    return module and module.scan


@functools.cache
def numba_module(path: str) -> Any:
    """Import a module that needs Numba, by its import path; return None where Numba cannot be imported.

    Every other error in the module propagates.
    """
    return importlib.import_module(path) if _compiler_starts() else None


@functools.cache
def _compiler_starts() -> bool:
    """Return whether Numba and its LLVM can be imported; warn, once, where they cannot."""
    try:
        numba = importlib.import_module("numba")
    except (ImportError, OSError) as error:  # llvmlite raises OSError where it cannot load LLVM's library
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        if not numba.config.DISABLE_JIT:
            return True
        reason = "NUMBA_DISABLE_JIT is set"
    warnings.warn(f"no compiled kernels, the plain forms run instead ({reason})", stacklevel=5)
    return False


def check_alike(arguments: Mapping[str, Any]) -> None:
    """Raise TypeError for arguments with arrays that are not NumPy's, of float32 or float64, or not all of one width.

    A mask, of booleans, is none of them.
    """
    expected = first = ""
    for name, x in ((name, unwrap(x)) for name, argument in arguments.items() for x in arrays_of(argument)):
        is_numpy = isinstance(x, np.ndarray | np.generic)
        if is_numpy and x.dtype == bool:
            continue
        width = _PARTS.get(x.dtype.name, x.dtype.name) if is_numpy else ""
        if width not in WIDTHS:
            actual = x.dtype if is_numpy else f"{type(x).__module__}.{type(x).__name__}"
            raise TypeError(f"{name} is {actual}, expected a NumPy array of float32 or float64")
        if expected and width != expected:
            raise TypeError(f"{name} is {x.dtype}, expected {expected} as {first} is")
        expected, first = expected or width, first or name

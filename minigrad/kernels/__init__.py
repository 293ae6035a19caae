"""Compiled kernels on raw NumPy arrays, forward and backward: the `fused` forms of the mechanisms run them."""

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
LARGE = 4096  # elements from which on a kernel is quicker than NumPy, and its compilation worth waiting for


def compiled(name: str, reference: Callable) -> Callable:
    """The kernel `minigrad.kernels.<name>` as a function of arrays and Tensors, whose derivatives are known.

    The gradient is the kernel's own; gradients of it are those of `reference`, which takes the same arguments, arrays
    and options by name, and returns the same. Where Numba or its LLVM cannot be imported, `reference` serves for all,
    after one warning. What it is given has passed `check_alike`.
    """

    def call(*inputs: Any, **options: Any) -> Any:
        if any(isinstance(x, Tensor) for x in inputs):  # the graph keeps them: their owner may change a mask
            options = {key: copy_if_mutable(value) for key, value in options.items()}
        kernel, plain = _kernel(name), functools.partial(reference, **options)
        if kernel is None:
            return plain(*inputs)
        return fused(functools.partial(kernel.forward, **options), kernel.backward, plain)(*inputs)

    return call


def worthwhile(*inputs: Any, size: int = LARGE) -> bool:
    """Whether a kernel can take these arrays and Tensors, and the first is large enough, of `size`, to gain by it."""
    values = [unwrap(x) for x in inputs]
    return (
        all(isinstance(x, np.ndarray) and x.dtype is values[0].dtype for x in values)
        and values[0].dtype.name in WIDTHS
        and values[0].size >= size
    )


def chain(name: str, *inputs: Any) -> Callable | None:
    """The function `name` of `minigrad.kernels.chains` where it can take these raw arrays and gains by it, or None."""
    if all(type(x) is np.ndarray for x in inputs) and worthwhile(*inputs) and (module := _kernel("chains")):
        return getattr(module, name)
    return None


SCANS: dict[str, Callable] = {}  # `scan_kernel` for another library's arrays, by its name: `models` puts CuPy's here


def scan_kernel(a: Any, x: Any) -> Callable | None:
    """The recurrence, (a, x, axis, reverse) → h, by a kernel that takes these raw arrays and gains by it, or None."""
    other = SCANS.get(type(x).__module__.partition(".")[0])
    if not (other or isinstance(x, np.ndarray)) or a.dtype != x.dtype or x.dtype.name not in (*WIDTHS, *_PARTS):
        return None
    if other:
        return other if x.size else None
    module = _kernel("scan") if x.size >= LARGE // 4 else None  # it spares a loop in Python
    return module and module.scan


@functools.cache
def _kernel(name: str) -> Any:
    """The module, imported when it is first needed: Numba takes half a second to import. None where there is no Numba.

    Only that is excused: whatever else goes wrong in a kernel's module is an error of ours.
    """
    return importlib.import_module(f"minigrad.kernels.{name}") if _compiler_starts() else None


@functools.cache
def _compiler_starts() -> bool:
    """Whether Numba and its LLVM can be imported and compile; warns where they do not, which is asked once."""
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


def check_alike(given: Mapping[str, Any]) -> None:
    """Raise TypeError for arguments with arrays that are not NumPy's, of float32 or float64, or not all of one width.

    A mask, of booleans, is none of them.
    """
    expected = first = ""
    for name, x in ((name, unwrap(x)) for name, argument in given.items() for x in arrays_of(argument)):
        ours = isinstance(x, np.ndarray | np.generic)
        if ours and x.dtype == bool:
            continue
        width = _PARTS.get(x.dtype.name, x.dtype.name) if ours else ""
        if width not in WIDTHS:
            came = x.dtype if ours else f"{type(x).__module__}.{type(x).__name__}"
            raise TypeError(f"{name} is {came}, expected a NumPy array of float32 or float64")
        if expected and width != expected:
            raise TypeError(f"{name} is {x.dtype}, expected {expected} as {first} is")
        expected, first = expected or width, first or name

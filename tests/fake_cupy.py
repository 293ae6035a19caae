"""A stand-in for CuPy where there is no GPU: NumPy behind a wall that is as high as CuPy's, with CuPy's doors.

An array of NumPy does not mix with one of these, as cupy.ndarray + numpy.ndarray raises TypeError; `np.asarray` of one
raises; NumPy's own functions and ufuncs are dispatched to it as they are to CuPy. `asarray` leads in and `get` out.
Whatever is called must be there in CuPy and take those arguments: see `tests.cupy_signatures`.
"""

import functools
from collections.abc import Callable
from typing import Any

import array_api_compat.cupy as xcp
import array_api_compat.numpy as xnp
import cupy
import cupyx.scipy.special
import numpy as np
import scipy.special
from cupy._core.flags import Flags
from numpy.lib.mixins import NDArrayOperatorsMixin

from tests.cupy_signatures import allow


class Walled(NDArrayOperatorsMixin):
    """An array of the other library."""

    def __init__(self, inside: np.ndarray):
        self.inside = inside

    dtype = property(lambda self: self.inside.dtype)
    shape = property(lambda self: self.inside.shape)
    ndim = property(lambda self: self.inside.ndim)

    def get(self) -> np.ndarray:
        return self.inside.copy()

    def __array__(self, *_: Any, **__: Any) -> None:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        theirs = getattr(cupy, ufunc.__name__, None) or getattr(cupyx.scipy.special, ufunc.__name__, None)
        return through(ufunc, theirs, inputs, options) if theirs and method == "__call__" else NotImplemented

    def __array_function__(self, function: Any, _types: Any, args: Any, options: Any) -> Any:
        try:
            module = functools.reduce(getattr, function.__module__.split(".")[1:], cupy)
            theirs = getattr(module, function.__name__)
        except AttributeError:
            return NotImplemented
        return through(function, theirs, args, options)

    def __cupy_override_elementwise_kernel__(self, theirs: cupy.ufunc, *args: Any, **options: Any) -> Any:
        """Call SciPy for a ufunc of `cupyx.scipy.special`, which asks its arguments for this method."""
        return through(getattr(scipy.special, theirs.__name__.rpartition("_")[2]), theirs, args, options)

    def __array_namespace__(self, **_: Any) -> Any:
        return LIBRARY

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # such as __array_interface__, which would be a hole
            raise AttributeError(name)
        theirs, result = getattr(cupy.ndarray, name), getattr(self.inside, name)
        return _Function(result, theirs) if callable(result) else _outwards(result)

    @property
    def flags(self) -> Flags:
        own = self.inside.flags
        return Flags(own.c_contiguous, own.f_contiguous, own.owndata)

    def __getitem__(self, index: Any) -> Any:
        return _outwards(self.inside[_place(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.inside[_place(index)] = _inwards(value)

    def __len__(self) -> int:
        return len(self.inside)

    def __bool__(self) -> bool:
        return bool(self.inside)

    def __int__(self) -> int:
        return int(self.inside)

    def __float__(self) -> float:
        return float(self.inside)

    def __index__(self) -> int:
        return self.inside.__index__()


def asarray(x: Any, **options: Any) -> Walled:
    """Convert a NumPy array, copied, or one of ours to one of ours."""
    if isinstance(x, Walled):
        return Walled(xnp.asarray(x.inside, **options))
    return Walled(xnp.asarray(x, **options | {"copy": True}))


def _inwards(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return type(x)(map(_inwards, x))
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return x.inside if isinstance(x, Walled) else x


def _place(index: Any) -> Any:
    """Return an index; CuPy accepts NumPy's arrays in it too."""
    if isinstance(index, tuple):
        return tuple(map(_place, index))
    return index.inside if isinstance(index, Walled) else index


def _outwards(x: Any) -> Any:
    if isinstance(x, tuple) and any(isinstance(item, np.ndarray) for item in x):
        return tuple(map(_outwards, x))
    return Walled(np.asarray(x)) if isinstance(x, (np.ndarray, np.generic)) else x


def through(function: Callable, theirs: Any, args: Any, options: Any) -> Any:
    """Return a NumPy function that accepts our arrays where CuPy's function `theirs` exists."""
    allow(theirs, args, options)
    return _outwards(function(*_inwards(args), **{name: _inwards(x) for name, x in options.items()}))


class _Function:
    """A function of NumPy's beside CuPy's."""

    def __init__(self, ours: Any, theirs: Any):
        self.ours, self.theirs = ours, theirs

    def __call__(self, *args: Any, **options: Any) -> Any:
        return through(self.ours, self.theirs, args, options)

    def at(self, x: Walled, index: Any, *others: Any) -> None:
        """Add at indices, in place: the kernel in CuPy is for real numbers, and for sums alone."""
        if self.theirs is not cupy.add or x.dtype.kind == "c":
            raise TypeError(f"{self.theirs.name}.at of CuPy: got {x.dtype}, expected a sum of real numbers")
        self.ours.at(x.inside, _place(index), *_inwards(others))


class _Library:
    """A module's functions, over walled arrays, where CuPy has them too."""

    def __init__(self, ours: Any, theirs: Any, **own: Any):
        self.ours, self.theirs, self.__name__ = ours, theirs, theirs.__name__
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        theirs, ours = getattr(self.theirs, name), getattr(self.ours, name)
        return theirs if isinstance(ours, type) or not callable(ours) else _Function(ours, theirs)


def _solve(a: Walled, b: Walled) -> Walled:
    """Solve without broadcasting, and without raising for a singular matrix."""
    if a.shape[:-1] != b.shape[:-1]:
        raise ValueError("a must have (..., M, M) shape and b must have (..., M, K) for multidimensional b")
    try:
        return through(np.linalg.solve, cupy.linalg.solve, (a, b), {})
    except np.linalg.LinAlgError:
        return asarray(np.full_like(b.inside, np.nan))


LIBRARY = _Library(
    xnp, xcp, asarray=asarray, linalg=_Library(xnp.linalg, xcp.linalg, solve=_solve), fft=_Library(xnp.fft, xcp.fft)
)

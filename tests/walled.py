"""A stand-in for CuPy where there is no GPU: NumPy behind a wall that is as high as CuPy's.

An array of NumPy does not mix with one of these, as cupy.ndarray + numpy.ndarray raises TypeError; `np.asarray` of one
raises; NumPy's own functions and ufuncs are dispatched to it as they are to CuPy. `asarray` leads in and `get` out.
"""

from typing import Any

import array_api_compat.numpy as xnp
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class Walled(NDArrayOperatorsMixin):
    """An array of the other library."""

    def __init__(self, inside: np.ndarray):
        self.inside = inside

    def get(self) -> np.ndarray:
        return self.inside

    def __array__(self, *_: Any, **__: Any) -> None:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return through(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, _types: Any, args: Any, options: Any) -> Any:
        return through(function, args, options)

    def __array_namespace__(self, **_: Any) -> Any:
        return LIBRARY

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # such as __array_interface__, which would be a hole
            raise AttributeError(name)
        found = getattr(self.inside, name)
        return (lambda *args, **options: through(found, args, options)) if callable(found) else _outwards(found)

    def __getitem__(self, index: Any) -> Any:
        return _outwards(self.inside[_inwards(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.inside[_inwards(index)] = _inwards(value)

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
    """An array of NumPy, or of ours, as ours."""
    return Walled(xnp.asarray(x.inside if isinstance(x, Walled) else x, **options))


def _inwards(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return type(x)(map(_inwards, x))
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return x.inside if isinstance(x, Walled) else x


def _outwards(x: Any) -> Any:
    if isinstance(x, tuple) and any(isinstance(item, np.ndarray) for item in x):
        return tuple(map(_outwards, x))
    return Walled(np.asarray(x)) if isinstance(x, (np.ndarray, np.generic)) else x


def through(function: Any, args: Any, options: Any) -> Any:
    """A function of NumPy's arrays, called with ours."""
    return _outwards(function(*_inwards(args), **{name: _inwards(x) for name, x in options.items()}))


class _Library:
    """A module's functions, over walled arrays."""

    __name__ = "walled"

    def __init__(self, module: Any, **own: Any):
        self.module = module
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        if isinstance(found, type) or not callable(found):
            return found
        return lambda *args, **options: through(found, args, options)


LIBRARY = _Library(xnp, asarray=asarray, linalg=_Library(xnp.linalg), fft=_Library(xnp.fft))

"""Creation of arrays. `full` and `linspace` have gradients with respect to Tensors; the others are constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.conversion import holds_tensor
from minigrad.engine import Tensor, constant, differentiable, primitive, unwrap
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array, integer, sizes
from minigrad.primitives.dtypes import library_of
from minigrad.primitives.elementwise import astype
from minigrad.primitives.reductions import sum as sum_
from minigrad.primitives.shapes import broadcast_to, stack
from minigrad.pytree import is_array


def _device_option(device: Any) -> dict:
    """Return the keyword argument `device`, or none: not every library accepts it."""
    return {} if device is None else {"device": device}


def _new(name: str, contents: str) -> Any:
    """Return a function that creates an array of a given shape."""

    def make(shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
        return getattr(library_of(dtype), name)(sizes(shape, name), dtype=dtype, **_device_option(device))

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"Return an array of {contents}."
    return make


def _new_like(name: str, contents: str) -> Any:
    """Return a function that creates an array in the shape of another."""

    def make(x: Any, *, dtype: Any = None, device: Any = None) -> Any:
        x = array(x, name)
        raw = unwrap(x)
        result = getattr(namespace(raw), name)(
            raw, **({} if dtype is None else {"dtype": dtype}), **_device_option(device)
        )
        return constant(result) if isinstance(x, Tensor) else result

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"Return an array of {contents} with the shape and, unless one is given, the dtype of x."
    return make


zeros, ones, empty = _new("zeros", "zeros"), _new("ones", "ones"), _new("empty", "uninitialised numbers")
zeros_like, ones_like = _new_like("zeros_like", "zeros"), _new_like("ones_like", "ones")
empty_like = _new_like("empty_like", "uninitialised numbers")


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """Return an array filled with one value, differentiable if it is a Tensor."""
    shape = sizes(shape, "full")
    if isinstance(fill_value, Tensor):
        if fill_value.ndim:
            raise ValueError(f"full: fill_value has shape {fill_value.shape}, expected a scalar")
        return broadcast_to(fill_value if dtype is None else astype(fill_value, dtype), shape)
    return library_of(dtype).full(shape, fill_value, dtype=dtype, **_device_option(device))


def full_like(x: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """Return an array filled with one value, with the shape and, unless one is given, the dtype of x."""
    x = array(x, "full_like")
    if isinstance(fill_value, Tensor):
        return full(tuple(x.shape), fill_value, dtype=x.dtype if dtype is None else dtype)
    raw = unwrap(x)
    options = {} if dtype is None else {"dtype": dtype}
    result = namespace(raw).full_like(raw, fill_value, **options, **_device_option(device))
    return constant(result) if isinstance(x, Tensor) else result


def eye(n_rows: int, n_cols: int | None = None, *, k: int = 0, dtype: Any = None, device: Any = None) -> Any:
    """Return a matrix with ones on its k-th diagonal, by default the identity, and zeros elsewhere."""
    rows = integer(n_rows, "eye", "n_rows")
    columns = rows if n_cols is None else integer(n_cols, "eye", "n_cols")
    return library_of(dtype).eye(rows, columns, k=integer(k, "eye", "k"), dtype=dtype, **_device_option(device))


def arange(start: Any, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Any:
    """Return start, start + step, … up to but not including stop; with one argument, from 0.

    Raises TypeError for Tensors that are differentiated: the length of the result has no derivative.
    """
    for name, x in (("start", start), ("stop", stop), ("step", step)):
        if isinstance(x, Tensor) and x._node is not None:
            raise TypeError(f"arange: {name} is a differentiated Tensor, expected a number (linspace has a gradient)")
    start, stop, step = (x.item() if isinstance(x, Tensor) else x for x in (start, stop, step))
    start, stop = (0, start) if stop is None else (start, stop)
    return library_of(dtype).arange(start, stop, step, dtype=dtype, **_device_option(device))


# ---- linspace


def _weights(like, ndim, num, endpoint):
    """Return the interpolation weights of `stop`, from 0 to 1 along the first axis, in the library of `like`."""
    t = np.arange(num) / max(num - 1 if endpoint else num, 1)
    return namespace(unwrap(like)).asarray(t.reshape((-1,) + (1,) * (ndim - 1)))


def _linspace_vjp(g, num, endpoint, stop):
    t = _weights(g, g.ndim, num, endpoint)
    return sum_(g * astype(t if stop else 1 - t, g.dtype), axis=0)


@primitive(
    start=lambda g, num, endpoint: _linspace_vjp(g, num, endpoint, False),
    stop=lambda g, num, endpoint: _linspace_vjp(g, num, endpoint, True),
)
def _linspace(xp, start, stop, *, num, dtype, endpoint):
    ndim = max(getattr(start, "ndim", 0), getattr(stop, "ndim", 0))
    if xp is not np and ndim:  # other libraries interpolate between scalars only
        t = _weights(start if hasattr(start, "ndim") else stop, ndim + 1, num, endpoint)
        return xp.astype(start * (1 - t) + stop * t, dtype)
    return xp.linspace(start, stop, num, dtype=dtype, endpoint=endpoint)


def linspace(start: Any, stop: Any, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True) -> Any:
    """Return num equally spaced numbers from start to stop, differentiable with respect to both."""
    num = integer(num, "linspace", "num")
    if isinstance(start, Tensor) or isinstance(stop, Tensor):
        if dtype is None and not any(isinstance(x, complex) for x in (start, stop)):
            dtype = next(x.dtype for x in (start, stop) if isinstance(x, Tensor))
            dtype = dtype if differentiable(dtype) else None
        return _linspace(start, stop, num=num, dtype=dtype, endpoint=endpoint)
    return library_of(dtype).linspace(start, stop, num, dtype=dtype, endpoint=endpoint, **_device_option(device))


# ---- conversion


def asarray(obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    """Convert obj to an array; a Tensor, or a nested list that holds Tensors, to a Tensor."""
    if isinstance(obj, Tensor):
        return obj if dtype is None or obj.dtype == dtype else astype(obj, dtype)
    if holds_tensor(obj):
        result = stack([asarray(x) for x in obj])
        return result if dtype is None else astype(result, dtype)
    default_library = library_of(dtype)
    xp = namespace(obj) if is_array(obj) and default_library is np else default_library
    return xp.asarray(obj, dtype=dtype, copy=copy, **_device_option(device))


def from_dlpack(x: Any, *, device: Any = None, copy: bool | None = None) -> Any:
    """Convert the array of another library to NumPy by DLPack; return a Tensor unchanged."""
    return x if isinstance(x, Tensor) else np.from_dlpack(x, device=device, copy=copy)

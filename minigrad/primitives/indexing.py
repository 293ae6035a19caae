"""Indexing, gathering and sorting, and their adjoints, which scatter and add."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.conversion import copy_if_mutable, is_complex, to_library_of
from minigrad.engine import SparseCotangent, Tensor, constant, primitive, unwrap
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array
from minigrad.primitives.shapes import _reshape
from minigrad.pytree import is_array

_BASIC = frozenset({int, slice, type(None), type(Ellipsis)})


@primitive(x=lambda g, index, shape: _index_cotangent(g, index, shape))
def _getitem(_, x, index):
    return x[index]


def _index_cotangent(g, index, shape):
    """Return the cotangent of x, of this shape, given that of x[index]; reshaped if all of x was selected, in order."""
    if math.prod(g.shape) == math.prod(shape) and _keeps_order(index):
        return g.reshape(shape) if type(g) is np.ndarray else _reshape(g, to=shape)
    return SparseCotangent(g, index)


def _keeps_order(index: Any) -> bool:
    """Return whether an index selects elements in the order in which they are stored, each at most once."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(type(p) in _BASIC and (type(p) is not slice or p.step is None or p.step > 0) for p in parts)


def getitem(x: Any, index: Any) -> Any:
    """Return x[index] for any index that NumPy accepts; arrays and lists in it are copied.

    Raises IndexError for an index out of range, or one that is neither integer nor boolean.
    """
    return _getitem(x, index if type(index) in _BASIC else _normalize_index(index, unwrap(x)))


def _normalize_index(index: Any, raw: Any) -> Any:
    """Convert an index to one of integers, slices, …, None, booleans and arrays of raw's library only."""
    parts = index if isinstance(index, tuple) else (index,)
    if _BASIC.issuperset(map(type, parts)):
        return index
    return tuple(p if type(p) in _BASIC else _normalize_index_entry(unwrap(p), raw) for p in parts)


def _normalize_index_entry(part: Any, raw: Any) -> Any:
    if is_array(part) and not isinstance(part, (np.ndarray, np.generic)):
        return copy_if_mutable(part)
    entry = np.array(part)
    if entry.size == 0 and isinstance(part, (list, tuple)):
        entry = entry.astype(np.intp)
    if entry.dtype.kind not in "biu":
        raise IndexError(f"index: got {type(part).__name__} ({entry.dtype}), expected integers, booleans or slices")
    if entry.ndim == 0:
        return entry.item()
    return to_library_of(raw, entry if entry.dtype.kind == "b" else entry.astype(np.intp))


@primitive(values=lambda g, i, indices: g[indices[i]])
def _to_dense(xp, *values, indices, shape, dtype):
    device_option = {} if isinstance(values[0], (np.ndarray, np.generic)) else {"device": values[0].device}
    dense = xp.zeros(shape, dtype=dtype, **device_option)
    for update, index in zip(values, indices, strict=True):
        dense = _add_at(xp, dense, index, update)
    return dense


def to_dense(sparse: Sequence[SparseCotangent], *, shape: tuple, dtype: Any) -> Any:
    """Return the sum of sparse cotangents as a dense array: zeros, with each g added at its index."""
    return _to_dense(*(s.g for s in sparse), indices=tuple(s.index for s in sparse), shape=shape, dtype=dtype)


def _may_repeat(index: Any) -> bool:
    """Return whether an index may select an element more than once, as an array of integers can."""
    parts = index if isinstance(index, tuple) else (index,)
    if _BASIC.issuperset(map(type, parts)):  # by far the most frequent case
        return False
    arrays = [p for p in parts if type(p) not in _BASIC and is_array(p)]
    return any(p.ndim > 0 and "bool" not in str(p.dtype) for p in arrays)


def _add_at(xp: Any, dense: Any, index: Any, update: Any) -> Any:
    """Return whole[index] += piece, accumulated over repeated indices; whole is modified where its library can."""
    name = xp.__name__
    if "jax" in name:
        return dense.at[index].add(update)
    if not _may_repeat(index):
        dense[index] += update
    elif "torch" in name:  # index_put_ takes no slices
        positions = xp.reshape(xp.arange(dense.numel(), device=dense.device), dense.shape)[index]
        dense.view(-1).index_put_((positions.reshape(-1),), update.reshape(-1), accumulate=True)
    elif "cupy" in name and is_complex(dense.dtype):  # cupy.add.at has no complex kernel
        _add_at(xp, dense.real, index, update.real)
        _add_at(xp, dense.imag, index, update.imag)
    else:
        (xp if "cupy" in name else np).add.at(dense, index, update)
    return dense


@primitive(x=lambda g, indices, shape, axis: take_adjoint(g, indices, size=shape[axis], axis=axis))
def _take(xp, x, indices, *, axis):
    return xp.take(x, indices, axis=axis)


def take(x: Any, indices: Any, *, axis: int | None = None) -> Any:
    """Return the slices of x along an axis at an array of indices of any shape; with axis 0, an embedding.

    Without an axis x is flattened. Raises IndexError when an index lies outside the axis or is no integer.
    """
    x = array(x, "take")
    x = x.reshape((-1,)) if axis is None else x
    axis = _axis(0 if axis is None else axis, x.ndim, "take")
    indices = unwrap(array(indices, "take", "indices"))
    if indices.dtype == np.float64 and not math.prod(indices.shape):
        indices = indices.astype(np.intp)  # an empty list
    kind = getattr(indices.dtype, "kind", str(indices.dtype))  # torch's dtypes have a name only
    if kind not in ("i", "u") and "int" not in kind:
        raise IndexError(f"take: indices are {indices.dtype}, expected integers")
    size, flat = x.shape[axis], indices.reshape(-1)
    if len(flat) and not (-size <= int(flat.min()) and int(flat.max()) < size):
        raise IndexError(f"take: indices span {int(flat.min())} to {int(flat.max())}, expected −{size} to {size - 1}")
    if isinstance(flat, np.ndarray):
        flat = to_library_of(x, flat.astype(np.intp))
    y = _take(x, flat % max(size, 1), axis=axis)
    shape = tuple(indices.shape)
    return y if len(shape) == 1 else y.reshape(tuple(x.shape[:axis]) + shape + tuple(x.shape[axis + 1 :]))


def _axis(axis: Any, ndim: int, caller: str) -> int:
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise IndexError(f"{caller}: got axis {axis}, expected one of an array of {ndim} axes")
    return axis % ndim


@primitive(x=lambda g, indices, axis: _take(g, indices, axis=axis))
def _take_adjoint(xp, x, indices, *, size, axis):
    """Add the slices of x at their indices; for NumPy as the product with a sparse selection matrix."""
    rows = xp.moveaxis(x, axis, 0)
    shape = (size, *rows.shape[1:])
    if xp is not np:
        result = _to_dense(rows, indices=((indices,),), shape=shape, dtype=x.dtype)
    elif rows.size == 0:
        result = np.zeros(shape, x.dtype)
    else:
        from scipy.sparse import csr_array  # here, for it takes a third of the time to import minigrad

        dtype = np.float32 if x.dtype.itemsize < 4 else x.dtype  # SciPy has no smaller floats
        select = csr_array(
            (np.ones(len(indices), dtype), (indices, np.arange(len(indices)))), shape=(size, len(indices))
        )
        result = (select @ rows.reshape(len(indices), -1).astype(dtype, copy=False)).astype(x.dtype, copy=False)
        result = result.reshape(shape)
    return xp.moveaxis(result, 0, axis)


def take_adjoint(g: Any, indices: Any, *, size: int, axis: int) -> Any:
    """Return zeros with every slice of g added at its index along the axis: the adjoint of take."""
    return _take_adjoint(g, indices, size=size, axis=axis % g.ndim)


def _index_along_axis(x: Any, indices: Any, axis: int, caller: str) -> tuple:
    """Return the index tuple that applies indices along one axis, and the identity along the others."""
    indices = unwrap(array(indices, caller, "indices"))
    if len(indices.shape) != x.ndim:
        raise ValueError(f"{caller}: indices have {len(indices.shape)} axes, expected {x.ndim} as x has")
    axis = _axis(axis, x.ndim, caller)
    for i, (n, m) in enumerate(zip(indices.shape, x.shape, strict=True)):
        if i != axis and n != m and 1 not in (n, m):
            raise IndexError(f"{caller}: indices have size {n} on axis {i}, expected 1 or {m} as x has")
    grid = [np.arange(n).reshape((-1,) + (1,) * (x.ndim - 1 - i)) for i, n in enumerate(x.shape)]
    return _normalize_index((*grid[:axis], indices, *grid[axis + 1 :]), unwrap(x))


def take_along_axis(x: Any, indices: Any, *, axis: int = -1) -> Any:
    """Return the elements of x at indices along one axis (gather); the other axes are broadcast.

    Raises ValueError when x and indices have not the same number of axes, IndexError when an index lies outside.
    """
    x = array(x, "take_along_axis")
    return getitem(x, _index_along_axis(x, indices, axis, "take_along_axis"))


def scatter_add(x: Any, indices: Any, values: Any, *, axis: int = -1) -> Any:
    """Return x with the values added at indices along one axis, the adjoint of take_along_axis."""
    x, values = array(x, "scatter_add"), array(values, "scatter_add", "values")
    index = _index_along_axis(x, indices, axis, "scatter_add")
    return x + to_dense([SparseCotangent(values, index)], shape=tuple(x.shape), dtype=x.dtype)


def argsort(x: Any, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """Return the indices that sort x along an axis, always stably; constant for gradients.

    NaNs come last, or first when descending.
    """
    x = array(x, "argsort")
    if isinstance(x, Tensor):
        return constant(argsort(x._value, axis=axis, descending=descending))
    raw, xp, axis = x, namespace(x), _axis(axis, x.ndim, "argsort")
    if not descending:
        return xp.argsort(raw, axis=axis, stable=True)
    backwards = xp.argsort(xp.flip(raw, axis=axis), axis=axis, stable=True)  # so that equal ones keep their order
    return raw.shape[axis] - 1 - xp.flip(backwards, axis=axis)


def sort(x: Any, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """Return x sorted along an axis, by the order of `argsort`."""
    x = array(x, "sort")
    return take_along_axis(x, argsort(x, axis=axis, descending=descending), axis=axis)

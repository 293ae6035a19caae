"""Reading parts of an array, and the adjoint of that: adding parts into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse

from minigrad.engine import Piece, Tensor, is_complex, primitive
from minigrad.namespace import namespace


@primitive(x=lambda g, index: Piece(g, index))
def _getitem(_, x, index):
    return x[index]


def getitem(x: Any, index: Any) -> Any:
    """x[index], with slices, integers, new axes, or arrays of integers or booleans."""
    return _getitem(x, index=_plain(index))


def _plain(index: Any) -> Any:
    """An index without Tensors, and without arrays that someone else may change."""
    if isinstance(index, tuple):
        return tuple(_plain(i) for i in index)
    if isinstance(index, Tensor):
        return index._value
    return index.copy() if isinstance(index, np.ndarray) else index


@primitive(pieces=lambda g, i, indices: g[indices[i]])
def _assemble(xp, *pieces, indices, shape, dtype):
    whole = xp.zeros(shape, dtype=dtype)
    for piece, index in zip(pieces, indices, strict=True):
        if _repeats(index):
            _add_at(xp, whole, index, piece)
        elif "jax" in xp.__name__:
            whole = whole.at[index].add(piece)
        else:
            whole[index] += piece
    return whole


def assemble(pieces: Sequence[Piece], *, shape: tuple, dtype: Any) -> Any:
    """The array of zeros into which every piece is added at its index: the adjoint of indexing."""
    return _assemble(*(p.g for p in pieces), indices=tuple(p.index for p in pieces), shape=shape, dtype=dtype)


def _repeats(index: Any) -> bool:
    """Whether an index may name one element twice: only arrays of integers can."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(
        isinstance(p, list) or (hasattr(p, "dtype") and p.ndim > 0 and "bool" not in str(p.dtype)) for p in parts
    )


def _add_at(xp: Any, whole: Any, index: Any, piece: Any) -> None:
    name = xp.__name__
    if "torch" in name:
        whole.index_put_(index if isinstance(index, tuple) else (index,), piece, accumulate=True)
    elif "cupy" in name and is_complex(whole.dtype):  # whose kernel adds real numbers
        _add_at(xp, whole.real, index, piece.real)
        _add_at(xp, whole.imag, index, piece.imag)
    elif "cupy" in name:
        xp.add.at(whole, index, piece)
    elif "jax" in name:
        raise TypeError("indexing: a gradient of an index array is not available for JAX arrays, use take")
    else:
        np.add.at(whole, index, piece)


@primitive(x=lambda g, indices, shape, axis: take_add(g, indices, size=shape[axis], axis=axis))
def _take(xp, x, indices, *, axis):
    return xp.take(x, indices, axis=axis)


def take(x: Any, indices: Any, *, axis: int) -> Any:
    """The slices of x along an axis at an array of indices (of any shape); an embedding is take with axis 0.

    Raises IndexError when an index lies outside the axis.
    """
    axis = axis % x.ndim
    indices = _plain(indices)
    flat = indices.reshape(-1) if hasattr(indices, "reshape") else np.asarray(indices).reshape(-1)
    size = x.shape[axis]
    if len(flat) and not (-size <= int(flat.min()) and int(flat.max()) < size):
        raise IndexError(f"take: indices span {int(flat.min())} to {int(flat.max())}, expected −{size} to {size - 1}")
    y = _take(x, flat, axis=axis)
    shape = np.shape(indices)
    return y if len(shape) == 1 else y.reshape(tuple(x.shape[:axis]) + tuple(shape) + tuple(x.shape[axis + 1 :]))


@primitive(x=lambda g, indices, axis: _take(g, indices, axis=axis))
def _take_add(xp, x, indices, *, size, axis):
    """As a product with the sparse matrix that the indices are, where SciPy has one."""
    rows = xp.moveaxis(x, axis, 0)
    if xp is np:
        places = (indices % size, np.arange(len(indices)))
        select = scipy.sparse.csr_array((np.ones(len(indices), x.dtype), places), shape=(size, len(indices)))
        added = (select @ rows.reshape(len(indices), -1)).reshape(size, *rows.shape[1:])
    else:
        added = _assemble(rows, indices=(indices,), shape=(size, *rows.shape[1:]), dtype=x.dtype)
    return xp.moveaxis(added, 0, axis)


def take_add(g: Any, indices: Any, *, size: int, axis: int) -> Any:
    """Zeros with every slice of g added at its index along the axis: the scatter that is take's adjoint."""
    return _take_add(g, indices, size=size, axis=axis % g.ndim)


def _along(indices: Any, axis: int) -> tuple:
    """The index tuple with which indices pick along one axis and every other axis is itself."""
    grid = [np.arange(n).reshape((-1,) + (1,) * (indices.ndim - 1 - i)) for i, n in enumerate(indices.shape)]
    grid = [namespace(indices).asarray(i) for i in grid]
    grid[axis] = indices
    return tuple(grid)


def take_along_axis(x: Any, indices: Any, *, axis: int = -1) -> Any:
    """xᵢ at i = indices along one axis, every other index its own (gather)."""
    indices = _plain(indices)
    shape = list(x.shape)
    shape[axis] = indices.shape[axis]
    indices = namespace(indices).broadcast_to(indices, tuple(shape))
    return x[_along(indices, axis % x.ndim)]


def scatter_add(x: Any, indices: Any, values: Any, *, axis: int = -1) -> Any:
    """x with the values added at indices along one axis: the adjoint of take_along_axis beside an identity."""
    index = _along(_plain(indices), axis % x.ndim)
    return x + assemble([Piece(values, index)], shape=tuple(x.shape), dtype=x.dtype)


def argsort(x: Any, *, axis: int = -1, descending: bool = False) -> Any:
    """The order that sorts x along an axis; stable, and constant for gradients."""
    raw = x._value if isinstance(x, Tensor) else x
    xp = namespace(raw)
    if descending:
        last = raw.shape[axis] - 1
        return last - xp.flip(argsort(xp.flip(raw, axis=axis), axis=axis), axis=axis)
    return xp.argsort(raw, axis=axis, stable=True)


def sort(x: Any, *, axis: int = -1, descending: bool = False) -> Any:
    """x sorted along an axis."""
    return take_along_axis(x, argsort(x, axis=axis, descending=descending), axis=axis)

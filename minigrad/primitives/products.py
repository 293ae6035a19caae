"""Products of vectors and matrices, and the diagonals of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.compiled.threads import product
from minigrad.engine import primitive
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array, integer, integers, normalize_axis, upcast_half
from minigrad.primitives.elementwise import conj, real
from minigrad.primitives.reductions import sum as sum_
from minigrad.primitives.shapes import (
    broadcast_arrays,
    expand_dims,
    matrix_transpose,
    moveaxis,
    permute_dims,
    reshape,
    stack,
    unstack,
)


def adjoint(x):
    """Return the conjugate transpose."""
    return conj(matrix_transpose(x))


def _flat(x):
    return x if x.ndim == 2 else reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _product(x, y):
    """Return x @ y; NumPy arrays are multiplied by `minigrad.compiled.threads`."""
    if not (type(x) is np.ndarray and type(y) is np.ndarray):
        return x @ y
    if y.ndim == 2 and x.ndim > 2 and x.flags.c_contiguous:  # one product instead of a batch
        return product(_flat(x), y).reshape(*x.shape[:-1], y.shape[-1])
    return product(x, y)


@primitive(
    x=lambda g, y: _product(g, adjoint(y)),
    y=lambda g, x, y: _product(adjoint(_flat(x)), _flat(g)) if y.ndim == 2 else _product(adjoint(x), g),
)
def _matmul(xp, x, y):
    return _product(x, y)


@upcast_half
def matmul(x: Any, y: Any) -> Any:
    """Return x @ y over the last two axes, the others broadcast.

    A vector is a row on the left and a column on the right. Raises ValueError for a scalar.
    """
    x, y = array(x, "matmul"), array(y, "matmul", "y")
    left, right = x.ndim, y.ndim
    if left > 1 and right > 1:
        return _matmul(x, y)
    if left == 0 or right == 0:
        raise ValueError("matmul: got a scalar, expected arrays of at least one axis")
    if left == 1:
        y_ = expand_dims(y, axis=-1) if right == 1 else y
        return (_matmul(x[None, :], y_))[..., 0, 0] if right == 1 else _matmul(x[None, :], y_)[..., 0, :]
    return _matmul(x, y[:, None])[..., 0]


def vecdot(x: Any, y: Any, *, axis: int = -1) -> Any:
    """Return Σ conj(xᵢ) yᵢ along an axis, the other axes broadcast."""
    x, y = array(x, "vecdot"), array(y, "vecdot", "y")
    for name, z in (("x", x), ("y", y)):
        if z.ndim == 0:
            raise ValueError(f"vecdot: {name} is a scalar, expected an array of at least one axis")
    place = normalize_axis(axis, x.ndim, "vecdot"), normalize_axis(axis, y.ndim, "vecdot")
    if x.shape[place[0]] != y.shape[place[1]]:
        raise ValueError(f"vecdot: got {x.shape[place[0]]} and {y.shape[place[1]]} numbers, expected as many")
    x, y = moveaxis(x, place[0], -1), moveaxis(y, place[1], -1)
    return matmul(expand_dims(conj(x), axis=-2), expand_dims(y, axis=-1))[..., 0, 0]


def outer(x: Any, y: Any) -> Any:
    """Return xᵢ yⱼ of two vectors."""
    x, y = array(x, "outer"), array(y, "outer", "y")
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"outer: got shapes {tuple(x.shape)} and {tuple(y.shape)}, expected two vectors")
    return x[:, None] * y[None, :]


def tensordot(x: Any, y: Any, *, axes: int | Sequence[Sequence[int]] = 2) -> Any:
    """Return the sum of products over the last `axes` axes of x and the first of y, or over the pairs named."""
    x, y = array(x, "tensordot"), array(y, "tensordot", "y")
    if hasattr(axes, "__index__"):
        count = integer(axes, "tensordot", "axes")
        if not 0 <= count <= min(x.ndim, y.ndim):
            raise ValueError(f"tensordot: got axes {axes}, expected 0 to {min(x.ndim, y.ndim)}")
        left, right = tuple(range(x.ndim - count, x.ndim)), tuple(range(count))
    else:
        left, right = (integers(pair, "tensordot", "axes") for pair in axes)
        left = tuple(normalize_axis(a, x.ndim, "tensordot") for a in left)
        right = tuple(normalize_axis(a, y.ndim, "tensordot") for a in right)
    if [x.shape[a] for a in left] != [y.shape[a] for a in right]:
        raise ValueError(
            f"tensordot: axes {left} of shape {tuple(x.shape)} and {right} of {tuple(y.shape)} differ in size"
        )
    rows, columns = ([a for a in range(z.ndim) if a not in contracted] for z, contracted in ((x, left), (y, right)))
    size, shape = math.prod(x.shape[a] for a in left), [x.shape[a] for a in rows] + [y.shape[a] for a in columns]
    x = reshape(permute_dims(x, (*rows, *left)), (math.prod(x.shape[a] for a in rows), size))
    y = reshape(permute_dims(y, (*right, *columns)), (size, math.prod(y.shape[a] for a in columns)))
    return reshape(matmul(x, y), shape)


def cross(x: Any, y: Any, *, axis: int = -1) -> Any:
    """Return the vector product x × y of vectors of three along an axis."""
    x, y = array(x, "cross"), array(y, "cross", "y")
    axes = normalize_axis(axis, x.ndim, "cross"), normalize_axis(axis, y.ndim, "cross")
    if x.shape[axes[0]] != 3 or y.shape[axes[1]] != 3:
        raise ValueError(f"cross: got shapes {tuple(x.shape)} and {tuple(y.shape)}, expected 3 along axis {axis}")
    a, b = unstack(x, axis=axes[0]), unstack(y, axis=axes[1])
    result = broadcast_arrays(*(a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)))
    return stack(result, axis=axis)


# ---- diagonals


def diagonal(x: Any, *, offset: int = 0) -> Any:
    """Return the elements x[…, i, i + offset], every (n + 1)-th of a matrix of n columns."""
    x, offset = array(x, "diagonal"), integer(offset, "diagonal", "offset")
    if x.ndim < 2:
        raise ValueError(f"diagonal: got shape {tuple(x.shape)}, expected at least two axes")
    m, n = x.shape[-2:]
    count = max(0, min(m + min(offset, 0), n - max(offset, 0)))
    start = max(offset, 0) - min(offset, 0) * n
    flat = reshape(x, (*x.shape[:-2], m * n))
    return flat[..., start : start + (count - 1) * (n + 1) + 1 : n + 1] if count else flat[..., :0]


def trace(x: Any, *, offset: int = 0, dtype: Any = None) -> Any:
    """Return Σ x[…, i, i + offset]."""
    return sum_(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def diagonal_matrix(d: Any) -> Any:
    """Return the matrix with d on its diagonal and zeros elsewhere."""
    d = array(d, "diagonal_matrix", "d")
    return d[..., None] * namespace(d).eye(d.shape[-1], dtype=real(d).dtype)

"""Primitives that reshape, reorder, join and repeat elements without computing new ones."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.engine import Tensor, primitive
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array, filled_like, integer, integers, normalize_axes, normalize_axis, sizes


@primitive(x=lambda g, shape: _reshape(g, to=shape))
def _reshape(xp, x, to):
    return xp.reshape(x, to)


def reshape(x: Any, shape: Any, *, copy: bool | None = None) -> Any:
    """Return x with the same elements in another shape; one size may be −1.

    With copy=False a raw array that would have to be copied raises ValueError; Tensors, being immutable, ignore it.
    """
    x, shape = array(x, "reshape"), sizes(shape, "reshape")
    if copy is not None and type(x) is not Tensor:
        return namespace(x).reshape(x, shape, copy=copy)
    return x if tuple(x.shape) == shape else _reshape(x, to=shape)


@functools.cache
def _inverse(axes):
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


@primitive(x=lambda g, axes: _permute_dims(g, _inverse(axes)))
def _permute_dims(xp, x, axes):
    return x.transpose(axes) if xp is np else xp.permute_dims(x, axes)  # a method spares NumPy's dispatch


def permute_dims(x: Any, axes: Sequence[int]) -> Any:
    """Return x with its axes in the given order. Raises ValueError unless every axis is named once."""
    x = array(x, "permute_dims")
    order = normalize_axes(axes, x.ndim, "permute_dims")
    if len(order) != x.ndim:
        raise ValueError(f"permute_dims: got axes {order}, expected the {x.ndim} axes of the array")
    return _permute_dims(x, order)


def matrix_transpose(x: Any) -> Any:
    """Return x with its last two axes exchanged."""
    if type(x) is np.ndarray and x.ndim >= 2 and x.dtype.isnative:  # in the backward pass by far the most frequent case
        return x.mT
    x = array(x, "matrix_transpose")
    if x.ndim < 2:
        raise ValueError(f"matrix_transpose: got shape {tuple(x.shape)}, expected at least two axes")
    return _permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def swapaxes(x: Any, a: int, b: int) -> Any:
    """Return x with the axes a and b exchanged."""
    x = array(x, "swapaxes")
    axes = list(range(x.ndim))
    a, b = normalize_axis(a, x.ndim, "swapaxes"), normalize_axis(b, x.ndim, "swapaxes")
    axes[a], axes[b] = b, a
    return _permute_dims(x, tuple(axes))


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """Return x with axes moved to other positions, the rest in order."""
    x = array(x, "moveaxis")
    origins, goals = normalize_axes(source, x.ndim, "moveaxis"), normalize_axes(destination, x.ndim, "moveaxis")
    if len(origins) != len(goals):
        raise ValueError(f"moveaxis: got {len(origins)} axes and {len(goals)} places, expected as many")
    order = [a for a in range(x.ndim) if a not in origins]
    for goal, origin in sorted(zip(goals, origins, strict=True)):
        order.insert(goal, origin)
    return _permute_dims(x, tuple(order))


def expand_dims(x: Any, axis: int | Sequence[int] = 0) -> Any:
    """Return x with new axes of size 1 at the given positions of the result."""
    x = array(x, "expand_dims")
    ndim = x.ndim + len(integers(axis, "expand_dims", "axis"))
    positions, old = normalize_axes(axis, ndim, "expand_dims"), iter(x.shape)
    return reshape(x, tuple(1 if i in positions else next(old) for i in range(ndim)))


def squeeze(x: Any, axis: int | Sequence[int]) -> Any:
    """Return x without the given axes. Raise ValueError unless their size is 1."""
    x = array(x, "squeeze")
    axes = normalize_axes(axis, x.ndim, "squeeze")
    if any(x.shape[a] != 1 for a in axes):
        raise ValueError(f"squeeze: got shape {tuple(x.shape)}, expected size 1 on axes {sorted(axes)}")
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))


@primitive(x=lambda g: g)  # the engine sums what was broadcast
def _broadcast_to(xp, x, to):
    return xp.broadcast_to(x, to)


def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    """Return x repeated along new axes and along axes of size 1, without a copy."""
    x, shape = array(x, "broadcast_to"), sizes(shape, "broadcast_to")
    return x if tuple(x.shape) == shape else _broadcast_to(x, to=shape)


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """Return the shape that these shapes broadcast to. Raise ValueError when they do not."""
    return np.broadcast_shapes(*shapes)


def broadcast_arrays(*arrays: Any) -> tuple:
    """Return the arrays broadcast against each other."""
    arrays = tuple(array(x, "broadcast_arrays") for x in arrays)
    shape = np.broadcast_shapes(*(tuple(x.shape) for x in arrays))
    return tuple(broadcast_to(x, shape) for x in arrays)


def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple:
    """Return coordinate matrices of vectors; indexing "xy" exchanges the first two axes, "ij" does not."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: got indexing {indexing!r}, expected 'xy' or 'ij'")
    arrays = tuple(array(x, "meshgrid") for x in arrays)
    count = len(arrays)
    axes = [1, 0, *range(2, count)] if indexing == "xy" and count > 1 else list(range(count))
    expanded = [reshape(x, (1,) * p + (-1,) + (1,) * (count - 1 - p)) for x, p in zip(arrays, axes, strict=True)]
    return broadcast_arrays(*expanded) if expanded else ()


# ---- joining


def _part(g, i, axis, ends):
    """Return the slice of g that comes from array i of a concatenation."""
    return g[(slice(None),) * axis + (slice(ends[i], ends[i + 1]),)]


@primitive(arrays=_part)
def _concat(xp, *arrays, axis, ends):
    return xp.concat(arrays, axis=axis)


def concat(arrays: Sequence[Any], *, axis: int | None = 0) -> Any:
    """Return the arrays joined along an existing axis; all flattened first if it is None."""
    arrays = [array(x, "concat", "arrays") for x in arrays]
    if not arrays:
        raise ValueError("concat: got no arrays, expected at least one")
    if axis is None:
        arrays, axis = [reshape(x, (-1,)) for x in arrays], 0
    axis = normalize_axis(axis, arrays[0].ndim, "concat")
    if any(x.ndim != arrays[0].ndim for x in arrays):
        raise ValueError(f"concat: got shapes {[tuple(x.shape) for x in arrays]}, expected as many axes each")
    if len(arrays) == 1:
        return arrays[0]
    return _concat(*arrays, axis=axis, ends=list(itertools.accumulate((x.shape[axis] for x in arrays), initial=0)))


@primitive(arrays=lambda g, i, axis: g[(slice(None),) * axis + (i,)])
def _stack(xp, *arrays, axis):
    return xp.stack(arrays, axis=axis)


def stack(arrays: Sequence[Any], *, axis: int = 0) -> Any:
    """Return the arrays joined along a new axis."""
    arrays = [array(x, "stack", "arrays") for x in arrays]
    if not arrays:
        raise ValueError("stack: got no arrays, expected at least one")
    return _stack(*arrays, axis=normalize_axis(axis, arrays[0].ndim + 1, "stack"))


def unstack(x: Any, *, axis: int = 0) -> tuple:
    """Return the slices of x along an axis."""
    x = array(x, "unstack")
    lead = (slice(None),) * normalize_axis(axis, x.ndim, "unstack")
    return tuple(x[(*lead, i)] for i in range(x.shape[len(lead)]))


# ---- reordering, padding and repeating


@primitive(x=lambda g, axis: _flip(g, axis=axis))
def _flip(xp, x, *, axis):
    return xp.flip(x, axis=axis)


def flip(x: Any, *, axis: int | Sequence[int] | None = None) -> Any:
    """Return x with the order of its elements reversed along the axes."""
    x = array(x, "flip")
    return _flip(x, axis=normalize_axes(axis, x.ndim, "flip"))


@primitive(x=lambda g, shift, axis: _roll(g, tuple(map(operator.neg, shift)), axis=axis))
def _roll(xp, x, shift, *, axis):
    return xp.roll(x, shift, axis=axis)


def roll(x: Any, shift: int | Sequence[int], *, axis: int | Sequence[int] | None = None) -> Any:
    """Return x with its elements shifted cyclically along each axis."""
    x, shifts = array(x, "roll"), integers(shift, "roll", "shift")
    if axis is None:
        return reshape(_roll(reshape(x, (-1,)), (sum(shifts),), axis=(0,)), tuple(x.shape))
    axes = tuple(normalize_axis(a, x.ndim, "roll") for a in integers(axis, "roll", "axis"))
    shifts = shifts * len(axes) if len(shifts) == 1 else shifts
    axes = axes * len(shifts) if len(axes) == 1 else axes
    if len(shifts) != len(axes):
        raise ValueError(f"roll: got shift {shift} and axis {axis}, expected as many")
    return _roll(x, shifts, axis=axes)


@primitive(x=lambda g, widths: g[tuple(slice(a, n - b) for n, (a, b) in zip(g.shape, widths, strict=True))])
def _pad(xp, x, widths):
    for axis, (before, after) in enumerate(widths):
        if before or after:
            edges = [tuple(x.shape[:axis]) + (n,) + tuple(x.shape[axis + 1 :]) for n in (before, after)]
            x = xp.concat([filled_like(edges[0], 0, x), x, filled_like(edges[1], 0, x)], axis=axis)
    return x


def pad(x: Any, widths: Sequence[tuple[int, int]]) -> Any:
    """Return x with (before, after) zeros on each axis. Raises ValueError for too few pairs or a negative count."""
    widths = tuple((int(a), int(b)) for a, b in widths)
    x = array(x, "pad")
    if len(widths) != x.ndim or any(a < 0 or b < 0 for a, b in widths):
        raise ValueError(f"pad: got widths {widths}, expected {x.ndim} pairs (before, after) of counts ≥ 0")
    return _pad(x, widths=widths) if any(a or b for a, b in widths) else x


@primitive(x=lambda g, k: _tril(g, k=k))
def _tril(xp, x, *, k):
    return xp.tril(x, k=k)


@primitive(x=lambda g, k: _triu(g, k=k))
def _triu(xp, x, *, k):
    return xp.triu(x, k=k)


def tril(x: Any, *, k: int = 0) -> Any:
    """Return x with zeros above the k-th diagonal of its matrices."""
    return _tril(array(x, "tril"), k=integer(k, "tril", "k"))


def triu(x: Any, *, k: int = 0) -> Any:
    """Return x with zeros below the k-th diagonal of its matrices."""
    return _triu(array(x, "triu"), k=integer(k, "triu", "k"))


def repeat(x: Any, repeats: Any, *, axis: int | None = None) -> Any:
    """Return x with every slice along the axis repeated, every element if it is None.

    `repeats` is one count, or one for each slice.
    """
    x = array(x, "repeat")
    x, axis = (reshape(x, (-1,)), 0) if axis is None else (x, normalize_axis(axis, x.ndim, "repeat"))
    lead, tail = tuple(x.shape[: axis + 1]), tuple(x.shape[axis + 1 :])
    counts = integers(repeats, "repeat", "repeats")
    if min(counts, default=0) < 0 or len(counts) not in (1, lead[-1]):
        raise ValueError(f"repeat: got repeats {repeats}, expected one or {lead[-1]} counts ≥ 0")
    if len(counts) != 1:
        part = (slice(None),) * axis
        parts = [repeat(x[(*part, slice(i, i + 1))], n, axis=axis) for i, n in enumerate(counts)]
        return concat(parts or [x], axis=axis)
    expanded = broadcast_to(reshape(x, (*lead, 1, *tail)), (*lead, *counts, *tail))
    return reshape(expanded, (*lead[:-1], lead[-1] * counts[0], *tail))


def tile(x: Any, repetitions: Sequence[int]) -> Any:
    """Return x repeated as a whole the given number of times along each axis."""
    x, counts = array(x, "tile"), integers(repetitions, "tile", "repetitions")
    x = reshape(x, (1,) * (len(counts) - x.ndim) + tuple(x.shape))
    counts = (1,) * (x.ndim - len(counts)) + counts
    expanded = reshape(x, tuple(m for n in x.shape for m in (1, n)))
    expanded = broadcast_to(expanded, tuple(m for r, n in zip(counts, x.shape, strict=True) for m in (r, n)))
    return reshape(expanded, tuple(r * n for r, n in zip(counts, x.shape, strict=True)))


def diff(x: Any, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    """Return the n-th differences xᵢ₊₁ − xᵢ along an axis, after prepending and appending to x."""
    x, n = array(x, "diff"), integer(n, "diff", "n")
    axis = normalize_axis(axis, x.ndim, "diff")
    if n < 0:
        raise ValueError(f"diff: got n = {n}, expected at least 0")
    parts = [array(part, "diff") for part in (prepend, x, append) if part is not None]
    x = concat(parts, axis=axis)
    lead = (slice(None),) * axis
    for _ in range(n):
        x = x[(*lead, slice(1, None))] - x[(*lead, slice(None, -1))]
    return x

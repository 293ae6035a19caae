"""Primitives that move elements and compute nothing; their adjoints move them back."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.engine import primitive


def _normalise(axis: int, ndim: int, who: str) -> int:
    if not -ndim <= axis < ndim:
        raise ValueError(f"{who}: got axis {axis}, expected one of an array of {ndim} axes")
    return axis % ndim


@primitive(x=lambda g, shape: reshape(g, shape))
def _reshape(xp, x, to):
    return xp.reshape(x, to)


def reshape(x: Any, shape: Any) -> Any:
    """x with the same elements in another shape; one size may be −1."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return x if tuple(x.shape) == shape else _reshape(x, to=shape)


@primitive(x=lambda g, axes: permute_dims(g, tuple(np.argsort(axes).tolist())))
def permute_dims(xp, x, axes):
    return xp.permute_dims(x, axes)


def matrix_transpose(x: Any) -> Any:
    """x with its last two axes exchanged."""
    return swapaxes(x, -1, -2)


def swapaxes(x: Any, a: int, b: int) -> Any:
    """x with the axes a and b exchanged."""
    axes = list(range(x.ndim))
    a, b = _normalise(a, x.ndim, "swapaxes"), _normalise(b, x.ndim, "swapaxes")
    axes[a], axes[b] = b, a
    return permute_dims(x, tuple(axes))


def moveaxis(x: Any, source: int, destination: int) -> Any:
    """x with one axis moved to another place, the rest in order."""
    axes = list(range(x.ndim))
    axes.insert(_normalise(destination, x.ndim, "moveaxis"), axes.pop(_normalise(source, x.ndim, "moveaxis")))
    return permute_dims(x, tuple(axes))


def expand_dims(x: Any, *, axis: int | Sequence[int] = 0) -> Any:
    """x with new axes of size 1 at the places that they have in the result."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    places = {_normalise(a, x.ndim + len(axes), "expand_dims") for a in axes}
    sizes = iter(x.shape)
    return reshape(x, tuple(1 if i in places else next(sizes) for i in range(x.ndim + len(axes))))


def squeeze(x: Any, axis: int | Sequence[int]) -> Any:
    """x without the named axes, whose size must be 1: another one raises ValueError."""
    axes = {_normalise(a, x.ndim, "squeeze") for a in ((axis,) if isinstance(axis, int) else axis)}
    if any(x.shape[a] != 1 for a in axes):
        raise ValueError(f"squeeze: got shape {tuple(x.shape)}, expected size 1 on axes {sorted(axes)}")
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))


@primitive(x=lambda g: g)  # the engine sums what was broadcast
def _broadcast_to(xp, x, to):
    return xp.broadcast_to(x, to)


def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    """x repeated along new axes and along axes of size 1, without a copy."""
    return x if tuple(x.shape) == tuple(shape) else _broadcast_to(x, to=tuple(shape))


def broadcast_arrays(*arrays: Any) -> list:
    """The arrays, all of their common shape."""
    shape = np.broadcast_shapes(*(tuple(x.shape) for x in arrays))
    return [broadcast_to(x, shape) for x in arrays]


def _part(g, i, axis, ends):
    """What concatenation put in place i."""
    return g[(slice(None),) * (axis % g.ndim) + (slice(ends[i], ends[i + 1]),)]


@primitive(arrays=_part)
def _concat(xp, *arrays, axis, ends):
    return xp.concat(arrays, axis=axis)


def concat(arrays: Sequence[Any], *, axis: int | None = 0) -> Any:
    """The arrays one behind another along an existing axis (all flattened when axis is None)."""
    if axis is None:
        arrays, axis = [reshape(x, (-1,)) for x in arrays], 0
    if len(arrays) == 1:
        return arrays[0]
    return _concat(*arrays, axis=axis, ends=list(itertools.accumulate((x.shape[axis] for x in arrays), initial=0)))


@primitive(arrays=lambda g, i, axis: g[(slice(None),) * (axis % g.ndim) + (i,)])
def _stack(xp, *arrays, axis):
    return xp.stack(arrays, axis=axis)


def stack(arrays: Sequence[Any], *, axis: int = 0) -> Any:
    """The arrays side by side along a new axis."""
    return _stack(*arrays, axis=axis)


def unstack(x: Any, *, axis: int = 0) -> tuple:
    """The slices of x along an axis."""
    lead = (slice(None),) * _normalise(axis, x.ndim, "unstack")
    return tuple(x[(*lead, i)] for i in range(x.shape[axis]))


@primitive(x=lambda g, axis: flip(g, axis=axis))
def flip(xp, x, *, axis=None):
    return xp.flip(x, axis=axis)


@primitive(x=lambda g, shift, axis: roll(g, _negated(shift), axis=axis))
def roll(xp, x, shift, *, axis=None):
    return xp.roll(x, shift, axis=axis)


def _negated(shift):
    return -shift if isinstance(shift, int) else tuple(map(operator.neg, shift))


@primitive(x=lambda g, widths: g[tuple(slice(a, n - b) for n, (a, b) in zip(g.shape, widths, strict=True))])
def _pad(xp, x, widths):
    for axis, (before, after) in enumerate(widths):
        if before or after:
            edges = [x.shape[:axis] + (n,) + x.shape[axis + 1 :] for n in (before, after)]
            head, tail = (xp.zeros(e, dtype=x.dtype) for e in edges)
            x = xp.concat([head, x, tail], axis=axis)
    return x


def pad(x: Any, widths: Sequence[tuple[int, int]]) -> Any:
    """x with (before, after) zeros on each axis. Raises ValueError for too few pairs or a negative count."""
    widths = tuple((int(a), int(b)) for a, b in widths)
    if len(widths) != x.ndim or any(a < 0 or b < 0 for a, b in widths):
        raise ValueError(f"pad: got widths {widths}, expected {x.ndim} pairs (before, after) of counts ≥ 0")
    return _pad(x, widths=widths) if any(a or b for a, b in widths) else x


@primitive(x=lambda g, k: tril(g, k=k))
def tril(xp, x, *, k=0):
    return xp.tril(x, k=k)


@primitive(x=lambda g, k: triu(g, k=k))
def triu(xp, x, *, k=0):
    return xp.triu(x, k=k)


def repeat(x: Any, repeats: int, *, axis: int) -> Any:
    """x with every slice along the axis repeated in place."""
    axis = _normalise(axis, x.ndim, "repeat")
    lead, tail = tuple(x.shape[: axis + 1]), tuple(x.shape[axis + 1 :])
    wide = broadcast_to(reshape(x, (*lead, 1, *tail)), (*lead, repeats, *tail))
    return reshape(wide, (*lead[:-1], lead[-1] * repeats, *tail))


def tile(x: Any, repetitions: Sequence[int]) -> Any:
    """x laid side by side the given number of times along each axis."""
    repetitions = tuple(repetitions)
    x = reshape(x, (1,) * (len(repetitions) - x.ndim) + tuple(x.shape))
    repetitions = (1,) * (x.ndim - len(repetitions)) + repetitions
    wide = reshape(x, tuple(m for n in x.shape for m in (1, n)))
    wide = broadcast_to(wide, tuple(m for r, n in zip(repetitions, x.shape, strict=True) for m in (r, n)))
    return reshape(wide, tuple(r * n for r, n in zip(repetitions, x.shape, strict=True)))

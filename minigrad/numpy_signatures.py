"""Adapters for functions of NumPy's whose arguments differ from their counterpart's by more than a name."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.primitives import elementwise, linalg, reductions, shapes, trigonometry


def _flat(x: Any) -> Any:
    return shapes.reshape(x, (-1,))


def _array(x: Any) -> Any:
    return x if hasattr(x, "shape") else np.asarray(x)


def _ndim(x: Any) -> int:
    return len(_array(x).shape)


def _transpose(a: Any, axes: Any = None) -> Any:
    return shapes.permute_dims(a, tuple(reversed(range(a.ndim))) if axes is None else tuple(axes))


def _concatenate(arrays: Any, axis: Any = 0) -> Any:
    return shapes.concat(list(map(_array, arrays)), axis=axis)


def _stack(arrays: Any, axis: int = 0) -> Any:
    return shapes.stack(list(map(_array, arrays)), axis=axis)


def _at_least(x: Any, n: int) -> Any:
    """Return x with leading axes of size 1 added until it has n."""
    x = _array(x)
    return shapes.reshape(x, (1,) * (n - x.ndim) + tuple(x.shape)) if x.ndim < n else x


def _vstack(tup: Any) -> Any:
    return _concatenate([_at_least(x, 2) for x in tup])


def _hstack(tup: Any) -> Any:
    arrays = [_at_least(x, 1) for x in tup]
    return _concatenate(arrays, axis=0 if arrays[0].ndim == 1 else 1)


def _column_stack(tup: Any) -> Any:
    return _concatenate([_at_least(x, 2).T if _ndim(x) < 2 else x for x in tup], axis=1)


def _split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list:
    size = ary.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        if size % indices_or_sections:
            raise ValueError(f"split: got {indices_or_sections} sections, expected a divisor of {size}")
        indices_or_sections = range(size // indices_or_sections, size, size // indices_or_sections)
    ends, lead = [0, *indices_or_sections, size], (slice(None),) * (axis % ary.ndim)
    return [ary[(*lead, slice(a, b))] for a, b in zip(ends, ends[1:], strict=False)]


def _where(condition: Any, *choices: Any) -> Any:
    if choices:
        return elementwise.where(condition, *choices)
    return tuple(np.nonzero(getattr(condition, "value", condition)))


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return elementwise.clip(a, a_min if min is None else min, a_max if max is None else max)


def _cumsum(a: Any, axis: int | None = None) -> Any:
    return reductions.cumulative_sum(_flat(a) if axis is None else a, axis=0 if axis is None else axis)


def _cumprod(a: Any, axis: int | None = None) -> Any:
    return reductions.cumulative_prod(_flat(a) if axis is None else a, axis=0 if axis is None else axis)


def _squeeze(a: Any, axis: Any = None) -> Any:
    return shapes.squeeze(a, tuple(i for i, n in enumerate(a.shape) if n == 1) if axis is None else axis)


def _ravel(a: Any) -> Any:
    return _flat(a)


def _copy(a: Any) -> Any:
    return a  # immutable


def _tile(A: Any, reps: Any) -> Any:
    return shapes.tile(A, (int(reps),) if isinstance(reps, (int, np.integer)) else reps)


def _repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    return shapes.repeat(_flat(a) if axis is None else a, repeats, axis=0 if axis is None else axis)


def _pad(array: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    if mode != "constant" or np.any(constant_values):
        raise TypeError(f"got mode {mode!r} with {constant_values}, expected 'constant' zeros")
    return shapes.pad(array, [tuple(pair) for pair in np.broadcast_to(pad_width, (array.ndim, 2)).tolist()])


def _dot(a: Any, b: Any) -> Any:
    if _ndim(a) == 0 or _ndim(b) == 0:
        return elementwise.multiply(a, b)
    if _ndim(b) <= 2:
        return linalg.matmul(_array(a), _array(b))
    return linalg.tensordot(_array(a), _array(b), axes=((-1,), (-2,)))


def _inner(a: Any, b: Any) -> Any:
    if _ndim(a) == 0 or _ndim(b) == 0:
        return elementwise.multiply(a, b)
    return linalg.tensordot(_array(a), _array(b), axes=((-1,), (-1,)))


def _vdot(a: Any, b: Any) -> Any:
    return reductions.sum(elementwise.conj(_flat(_array(a))) * _flat(_array(b)))


def _outer(a: Any, b: Any) -> Any:
    return _flat(_array(a))[:, None] * _flat(_array(b))[None, :]


def _einsum(subscripts: str, *operands: Any, optimize: Any = False) -> Any:
    return linalg.einsum(subscripts, *map(_array, operands))


def _last(a: Any, axis1: int, axis2: int) -> Any:
    """Return a with two of its axes last."""
    leading = [i for i in range(a.ndim) if i not in (axis1 % a.ndim, axis2 % a.ndim)]
    return shapes.permute_dims(a, (*leading, axis1 % a.ndim, axis2 % a.ndim))


def _diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return linalg.diagonal(_last(a, axis1, axis2), offset=offset)


def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return linalg.trace(_last(a, axis1, axis2), offset=offset)


def _diag(v: Any, k: int = 0) -> Any:
    if v.ndim == 2:
        return linalg.diagonal(v, offset=k)
    if k:
        raise TypeError("there is no option k= for a vector")
    return linalg.diagonal_matrix(v)


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Return NumPy's norm: of a matrix or of two axes it is a matrix norm, unless `ord` is None."""
    axes = (axis,) if isinstance(axis, int) else axis
    pair = len(axes) == 2 if axes is not None else x.ndim == 2
    if ord is None or not pair:
        return linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=2 if ord is None else ord)
    if axes is not None:
        raise TypeError("there are no options ord= and axis= of two axes together")
    return linalg.matrix_norm(x, keepdims=keepdims, ord=ord)


def _angle(z: Any) -> Any:
    return trigonometry.atan2(elementwise.imag(z), elementwise.real(z))


ADAPTED = {
    np.angle: _angle,
    np.linalg.norm: _norm,
    np.clip: _clip,
    np.column_stack: _column_stack,
    np.concatenate: _concatenate,
    np.copy: _copy,
    np.cumprod: _cumprod,
    np.cumsum: _cumsum,
    np.diag: _diag,
    np.diagonal: _diagonal,
    np.dot: _dot,
    np.einsum: _einsum,
    np.hstack: _hstack,
    np.inner: _inner,
    np.outer: _outer,
    np.pad: _pad,
    np.ravel: _ravel,
    np.repeat: _repeat,
    np.split: _split,
    np.squeeze: _squeeze,
    np.stack: _stack,
    np.tile: _tile,
    np.trace: _trace,
    np.transpose: _transpose,
    np.vdot: _vdot,
    np.vstack: _vstack,
    np.where: _where,
}

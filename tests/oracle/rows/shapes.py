"""Functions of shapes and indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle.draws import REAL
from tests.oracle.row import (
    ALONG,
    FULL,
    MASK,
    PLACES,
    REPEATED,
    cases,
    gaps,
    one,
)


def _index(index: Any) -> dict:
    return {"index": index}


INDICES = (
    ((4, 3), _index((FULL, 1))),
    ((4, 3), _index((slice(None, None, -2),))),
    ((4, 3), _index((..., None, 0))),
    ((4, 3), _index(REPEATED)),
    ((4, 3), _index((REPEATED,))),
    ((4, 3), _index(([0, 0],))),
    ((3,), _index(([0, -3],))),
    ((4, 3), _index((FULL, REPEATED))),
    ((3, 4, 3), _index((REPEATED, FULL, REPEATED))),
    ((4,), _index(-1)),
    ((4, 3), _index(((0, 0), FULL))),
    ((3,), _index(((0, 0),))),
    ((3, 2), _index(MASK)),
    ((3, 2), _index((MASK, 0))),
    ((3, 2), _index((MASK, REPEATED[:2]))),
    ((3, 2), _index((None, REPEATED, slice(1)))),
    ((3,), _index(())),
    ((3, 2), _index(np.ones((3, 2), bool))),
    ((3, 2), _index(np.array(1))),
    ((0, 2), _index((FULL, 1))),
    ((3, 2), _index(np.zeros(0, int))),
    ((2, 3), _index((np.uint8(1), [True, False, True]))),
    ((3, 3), _index((REPEATED[:, None], REPEATED))),
    ((), _index(...)),
    ((), _index(None)),
    ((4, 3), _index([0, 0, 1])),
)
TAKEN = (
    ((4, 2), {"indices": np.array([1, 0, 1]), "axis": 0}),
    ((4, 3), {"indices": REPEATED, "axis": 0}),
    ((2, 3, 2), {"indices": np.array([[0, 2], [2, 2]]), "axis": 1}),
    ((4,), {"indices": np.array(-1), "axis": -1}),
    ((3, 2), {"indices": np.zeros(0, int), "axis": 0}),
    ((3, 0), {"indices": REPEATED, "axis": 0}),
    ((4, 2), {"indices": np.array([1, 0]), "axis": 0}),
    ((3, 2), {"indices": np.array([1, 1], np.uint8), "axis": 1}),
    ((3, 2), {"indices": np.array([1, 1], ">i4"), "axis": 1}),
)


def _added(x: np.ndarray, values: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    outputs = x.copy()
    for position in np.ndindex(indices.shape):
        to = list(position)
        to[axis] = indices[position]
        outputs[tuple(to)] += values[position]
    return outputs


def _piece(g: Any, index: Any) -> Any:
    from minigrad.engine import SparseCotangent

    return SparseCotangent(g, index)


ROWS: dict[str, dict] = {
    # ---- shapes
    "diff": one(
        REAL,
        ((3, 4), {"axis": 0}),
        ((5,), {"n": 2}),
        ((2, 3), {"n": 1, "axis": -1}),
        ((0, 2), {"axis": 1}),
        ((3, 2), {"axis": 0, "prepend": np.ones((1, 2), "e"), "append": np.zeros((2, 2), "e")}),
        linear=True,
    ),
    "meshgrid": {
        "arguments": (REAL, REAL),
        "cases": cases([((2,), (3,))], (((2,), (3,)), {"indexing": "ij"})),
        "linear": True,
        "call": lambda xp, *xs, **options: tuple(xp.meshgrid(*xs, **options)),
    },
    "reshape": one(
        REAL,
        ((2, 3), {"shape": (3, -1)}),
        ((), {"shape": (1,)}),
        ((6,), {"shape": 6}),
        ((0, 2), {"shape": (2, 0)}),
        linear=True,
    ),
    "permute_dims": one(
        REAL,
        ((2, 3, 4), {"axes": (2, 0, 1)}),
        ((2, 3), {"axes": (-1, 0)}),
        ((), {"axes": ()}),
        ((0, 2), {"axes": (1, 0)}),
        linear=True,
    ),
    "matrix_transpose": one(REAL, ((2, 3),), ((2, 1, 3),), ((0, 2),), linear=True),
    "swapaxes": dict(
        one(REAL, ((2, 3, 4), {"a": 0, "b": -1}), ((2, 2), {"a": 1, "b": 1}), linear=True),
        call=lambda xp, x, a, b: xp.swapaxes(x, a, b),
    ),
    "moveaxis": dict(
        one(
            REAL,
            ((2, 3, 4), {"a": 0, "b": -1}),
            ((2, 3, 4), {"a": -1, "b": 0}),
            ((2, 3, 4), {"a": (0, 1), "b": (-1, 0)}),
            linear=True,
        ),
        call=lambda xp, x, a, b: xp.moveaxis(x, a, b),
    ),
    "expand_dims": one(REAL, ((2, 3), {"axis": (0, -1)}), ((), {"axis": 0}), ((3,), {"axis": -1}), linear=True),
    "squeeze": one(REAL, ((1, 3, 1), {"axis": (0, 2)}), ((1,), {"axis": 0}), ((1, 0), {"axis": 0}), linear=True),
    "broadcast_to": dict(
        one(
            REAL,
            ((2, 1), {"shape": (4, 2, 3)}),
            ((), {"shape": (2,)}),
            ((1,), {"shape": (0,)}),
            ((3,), {"shape": (3,)}),
            linear=True,
        ),
        call=lambda xp, x, shape: xp.broadcast_to(x, shape),
    ),
    "broadcast_arrays": {
        "arguments": (REAL, REAL),
        "cases": cases([((2, 1), (3,))], [((), (2,))], [((2,), (2,))]),
        "linear": True,
    },
    "concat": {
        "arguments": (REAL, REAL),
        "linear": True,
        "cases": cases(
            (((2, 1), (2, 3)), {"axis": 1}),
            (((2, 1), (3,)), {"axis": None}),
            [((2,), (0,))],
            (((1, 2), (3, 2)), {"axis": -2}),
        ),
        "call": lambda xp, *xs, **options: xp.concat(list(xs), **options),
    },
    "stack": {
        "arguments": (REAL, REAL),
        "linear": True,
        "cases": cases((((2, 3), (2, 3)), {"axis": -1}), [((), ())], (((0,), (0,)), {"axis": 1})),
        "call": lambda xp, *xs, **options: xp.stack(list(xs), **options),
    },
    "unstack": one(REAL, ((2, 3), {"axis": 1}), ((2, 3),), ((3,), {"axis": -1}), linear=True),
    "flip": one(REAL, ((2, 3), {"axis": 1}), ((2, 3),), ((2, 3, 2), {"axis": (0, -1)}), ((0,),), linear=True),
    "roll": one(
        REAL,
        ((3, 4), {"shift": (1, -2), "axis": (0, 1)}),
        ((3, 4), {"shift": 2}),
        ((5,), {"shift": -7, "axis": -1}),
        ((0, 2), {"shift": 1, "axis": 0}),
        linear=True,
    ),
    "pad": dict(
        one(
            REAL,
            ((2, 3), {"widths": ((1, 0), (2, 3))}),
            ((2,), {"widths": ((0, 0),)}),
            ((0,), {"widths": ((1, 2),)}),
            linear=True,
        ),
        reference=lambda x, widths: np.pad(x, widths),
    ),
    "tril": one(REAL, ((2, 3, 3), {"k": -1}), ((3, 4), {"k": 1}), ((3, 2),), ((0, 2),), linear=True),
    "triu": one(REAL, ((2, 3, 3), {"k": -1}), ((3, 4), {"k": 1}), ((3, 2),), ((0, 2),), linear=True),
    "repeat": one(
        REAL,
        ((2, 3), {"repeats": 3, "axis": 0}),
        ((2, 3), {"repeats": 2, "axis": -1}),
        ((2,), {"repeats": 0, "axis": 0}),
        linear=True,
    ),
    "tile": dict(
        one(
            REAL,
            ((2, 3), {"reps": (2, 1, 3)}),
            ((2, 3), {"reps": (2,)}),
            ((), {"reps": (2,)}),
            ((2,), {"reps": (0,)}),
            linear=True,
        ),
        call=lambda xp, x, reps: xp.tile(x, reps),
    ),
    # ---- indexing
    "getitem": dict(one(REAL, *INDICES, kinds="efdFDi", linear=True), call=lambda xp, x, index: x[index]),
    "take": dict(
        one(REAL, *TAKEN, kinds="efdFDi", linear=True),
        call=lambda xp, x, indices, axis: xp.take(x, xp.asarray(indices), axis=axis),
    ),
    "take_along_axis": dict(
        one(
            REAL,
            ((4, 2), {"indices": PLACES, "axis": 0}),
            ((3, 4), {"indices": np.array([[0, -1]]), "axis": 1}),
            ((2, 0), {"indices": np.zeros((2, 0), int), "axis": 1}),
            ((3,), {"indices": REPEATED}),
            linear=True,
            kinds="efdFDi",
        ),
        call=lambda xp, x, indices, axis=-1: xp.take_along_axis(x, xp.asarray(indices), axis=axis),
    ),
    "scatter_add": {
        "arguments": (REAL, REAL),
        "linear": True,
        "cases": cases(
            (((4, 2), (3, 2)), {"indices": PLACES, "axis": 0}),
            (((3,), (3,)), {"indices": REPEATED}),
            (((3,), (0,)), {"indices": np.zeros(0, int)}),
        ),
        "kinds": "efdFD",
        "call": lambda xp, x, v, indices, axis=-1: xp.scatter_add(x, indices, v, axis=axis),
        "reference": lambda x, v, indices, axis=-1: _added(x, v, indices, axis),
    },
    "to_dense": {
        "arguments": (REAL, REAL),
        "linear": True,
        "cases": cases([((3,), (2,))]),
        "kinds": "efdFD",
        "call": lambda xp, x, y: xp.to_dense([_piece(x, REPEATED), _piece(y, slice(1, 3))], shape=(3,), dtype=x.dtype),
        "reference": lambda x, y: np.array([x[0] + x[2], y[0], y[1] + x[1]]),
    },
    "sort": dict(
        one(REAL, *ALONG, ((5, 2), {"axis": 0, "descending": True}), kinds="efdi"),
        kinks=lambda x: gaps(x),
        reference=lambda x, axis=-1, descending=False: (
            np.flip(np.sort(x, axis), axis) if descending else np.sort(x, axis)
        ),
    ),
}

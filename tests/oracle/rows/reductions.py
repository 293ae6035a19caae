"""Sums, extremes, running results, and the linear recurrence."""

from __future__ import annotations

import numpy as np

from tests.oracle.draws import REAL
from tests.oracle.row import (
    ALONG,
    EMPTY,
    REDUCTIONS,
    cases,
    gaps,
    one,
)


def _linear_recurrence(a: np.ndarray, x: np.ndarray, axis: int = -2, reverse: bool = False) -> np.ndarray:
    a, x = np.broadcast_arrays(a, x)
    a, x = np.moveaxis(a, axis, 0), np.moveaxis(x, axis, 0)
    h, out = np.zeros(x.shape[1:], x.dtype), np.zeros(x.shape, np.result_type(a, x))
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        out[t] = h = a[t] * h + x[t]
    return np.moveaxis(out, 0, axis)


INITIAL = (((2, 3), {"axis": 1, "include_initial": True}), ((3, 2), {"axis": 0, "include_initial": True}))
ROWS: dict[str, dict] = {
    # ---- reductions
    "sum": dict(one(REAL, *REDUCTIONS, *EMPTY, ((3, 4), {"axis": ()}), kinds="efdFDiu"), linear=True),
    "mean": dict(one(REAL, *REDUCTIONS), linear=True),
    "var": one(
        REAL,
        *REDUCTIONS[:5],
        ((3, 4), {"axis": 1, "correction": 1}),
        points=[([[3]], {"correction": 1}, np.nan, [[np.nan]])],
    ),
    "std": one(
        REAL,
        *REDUCTIONS[:5],
        ((3, 4), {"axis": 1, "correction": 1}),
        flat=True,
        points=[([[1, -1]], {}, 1, [[0.5, -0.5]])],
    ),
    "prod": one(REAL, *REDUCTIONS, *EMPTY, kinds="efdFDi"),
    **{
        name: dict(
            one(REAL, *REDUCTIONS, kinds="efdi"),
            kinks=lambda x: gaps(x),
            points=[
                ([[1, np.nan, 2, np.nan]], {}, np.nan, [[0, 0.5, 0, 0.5]]),
                ([[2, 1, 2, 1]], {}, best, [[g, 0.5 - g, g, 0.5 - g]]),
            ],
        )
        for name, best, g in (("max", 2, 0.5), ("min", 1, 0))
    },
    "cumulative_sum": dict(one(REAL, *ALONG, *INITIAL, kinds="efdFDi"), linear=True),
    "cumulative_prod": one(REAL, *ALONG, *INITIAL, kinds="efdFDi"),
    "cumulative_max": dict(
        one(REAL, *ALONG[:3], kinds="efd"),
        kinks=lambda x: gaps(x),
        reference=lambda x, axis: np.maximum.accumulate(x, axis),
    ),
    "scan": {
        "arguments": (REAL, REAL),
        "reference": _linear_recurrence,
        "cases": cases(
            [((5, 2), (5, 2))],
            (((2, 4), (2, 4)), {"axis": -1}),
            (((2, 4), (2, 4)), {"axis": 1, "reverse": True}),
            [((4, 1), (2, 4, 3))],
            (((0, 3), (0, 3)), {"axis": 1}),
            (((1, 2), (1, 2)), {"axis": 0}),
            (((5,), (5,)), {"axis": 0}),
            [((0, 2), (0, 2))],
            (((3, 2), (3, 2)), {"axis": 0, "reverse": True}),
        ),
    },
}

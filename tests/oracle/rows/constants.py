"""Functions without a derivative: predicates, orders, counts, and new arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle.draws import NONZERO, REAL
from tests.oracle.row import (
    ALONG,
    BINARY,
    EMPTY,
    REDUCTIONS,
    UNARY,
    cases,
    one,
)


def _predicate(kinds: str = "efdi", count: int = 1, **more: Any) -> dict:
    return {
        "arguments": (REAL,) * count,
        "cases": [(s, {}) for s in (UNARY, BINARY)[count - 1]],
        "kinds": kinds,
        "elementwise": True,
        **more,
    }


ROWS: dict[str, dict] = {
    **{name: _predicate() for name in "isfinite isinf isnan".split()},
    **{name: _predicate("efdi") for name in "floor ceil round trunc logical_not".split()},
    "signbit": _predicate("efd"),
    **{name: _predicate("efdiu", 2) for name in "equal not_equal less less_equal greater greater_equal".split()},
    **{name: _predicate("efdi?", 2) for name in "logical_and logical_or logical_xor".split()},
    "floor_divide": {**_predicate("efdi", 2), "arguments": (REAL, NONZERO)},
    **{name: one(REAL, *REDUCTIONS, *EMPTY, kinds="efdi?") for name in ("all", "any")},
    "count_nonzero": one(REAL, *REDUCTIONS[:5], kinds="efdi?"),
    **{
        name: one(REAL, *[c for c in REDUCTIONS if not isinstance(c[1:] and c[1].get("axis"), tuple)], kinds="efdi")
        for name in ("argmax", "argmin")
    },
    "argsort": dict(
        one(REAL, *ALONG, ((5, 2), {"axis": 0, "descending": True}), kinds="efdi"),
        reference=lambda x, axis=-1, descending=False: np.argsort(-x if descending else x, axis, stable=True),
    ),
    "nonzero": one(REAL, ((3, 4),), ((0,),), kinds="efdi?"),
    "unique_values": one(REAL, ((3, 4),), ((0,),), kinds="efdi"),
    **{name: _predicate("iu", 2) for name in "bitwise_and bitwise_or bitwise_xor".split()},
    **{
        name: {**_predicate("iu", 2), "call": lambda xp, x, y, name=name: getattr(xp, name)(x, abs(y))}
        for name in ("bitwise_left_shift", "bitwise_right_shift")
    },
    "bitwise_invert": _predicate("iu?"),
    "nextafter": _predicate("fd", 2),
    "isin": {
        "arguments": (REAL, REAL),
        "cases": cases([((2, 3), (4,))], (((3,), (2, 2)), {"invert": True})),
        "kinds": "efdi",
    },
    **{f"unique_{name}": one(REAL, ((3, 4),), ((0,),), kinds="di") for name in ("counts", "inverse")},
    "unique_all": one(REAL, ((3, 4),), kinds="di"),
    "linalg.matrix_rank": one(REAL, ((3, 2),), ((2, 3, 3),), kinds="fdFD"),
    "searchsorted": {
        "arguments": (REAL, REAL),
        "cases": cases([((4,), (2, 3))], [((0,), (2,))]),
        "kinds": "efdi",
        "call": lambda xp, x, y: xp.searchsorted(xp.sort(x), y),
    },
    "zeros_like": one(REAL, ((2, 3),), ((),)),
    "ones_like": one(REAL, ((2, 3),), ((),)),
    "empty_like": dict(one(REAL, ((2, 0),)), reference=np.empty_like),
    "full_like": one(REAL, ((2, 3), {"fill_value": 2})),
    "stop_gradient": dict(one(REAL, ((2, 3),), ((),)), reference=lambda x: x),
    "zeros": one(None, ((), {"shape": (2, 3)}), ((), {"shape": 3}), ((), {"shape": (2, 0), "dtype": np.float32})),
    "empty": one(None, ((), {"shape": (2, 0)})),
    "fft.fftfreq": one(None, ((), {"n": 5}), ((), {"n": 4, "d": 0.5})),
    "fft.rfftfreq": one(None, ((), {"n": 5}), ((), {"n": 4, "d": 0.5})),
    "ones": one(None, ((), {"shape": (2, 3)}), ((), {"shape": 3})),
    "full": one(None, ((), {"shape": (2, 3), "fill_value": 2.5}), ((), {"shape": (), "fill_value": 1})),
    "eye": dict(
        one(None, ((), {"sizes": (3,)}), ((), {"sizes": (2, 3), "k": -1}), ((), {"sizes": (0,)})),
        call=lambda xp, sizes, k=0: xp.eye(*sizes, k=k),
    ),
    "arange": dict(
        one(
            None,
            ((), {"start": 3}),
            ((), {"start": 1, "stop": 8, "step": 3}),
            ((), {"start": 5, "stop": 0, "step": -2}),
        ),
        reference=lambda start, stop=None, step=1: np.arange(start) if stop is None else np.arange(start, stop, step),
    ),
}

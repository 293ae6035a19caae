"""Gates, norms, convolutions and layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

import minigrad.nn  # noqa: F401 - which `xp.nn` is
from tests.oracle.draws import REAL
from tests.oracle.row import (
    ALONG,
    MASK,
    PLACES,
    REDUCTIONS,
    cases,
    one,
)
from tests.oracle.rows.elementwise import logistic


def _softmax(x: np.ndarray, axis: int = -1, where: Any = None) -> np.ndarray:
    x = x if where is None else np.where(where, x, -np.inf)
    top = np.max(x.real, axis=axis, keepdims=True, initial=-np.inf)
    y = np.exp(x - np.where(np.isfinite(top), top, 0))
    total = np.sum(y, axis=axis, keepdims=True)
    return y / np.where(total != 0, total, 1)


def _log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return x - _logsumexp(x, axis, True) if x.size else x


def _logsumexp(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    return scipy.special.logsumexp(x, axis=axis, keepdims=keepdims)


def _causal(x: np.ndarray, w: np.ndarray, before: Any = None) -> np.ndarray:
    width, steps = w.shape[1], x.shape[-2]
    before = np.zeros((*x.shape[:-2], width - 1, x.shape[-1]), x.dtype) if before is None else before
    x = np.concatenate([before, x], axis=-2)
    return sum(
        (x[..., width - 1 - j : width - 1 - j + steps, :] * w[:, j] for j in range(width)), np.zeros((), x.dtype)
    )


def _layer(name: str, **attributes: Any) -> Callable:
    """Call a layer of minigrad.nn whose parameters are the arrays after the first."""

    def call(xp: Any, x: Any, *parameters: Any, **options: Any) -> Any:
        layer = object.__new__(getattr(xp.nn, name))
        vars(layer).update(attributes, **dict(zip(("weight", "bias"), parameters, strict=False)))
        return layer(x, **options)

    return call


ROWS: dict[str, dict] = {
    # ---- halves
    "swiglu": dict(
        one(REAL, ((3, 6),), ((4,),), ((0, 4),), ((2, 0),), ((2, 2, 2),), kinds="efdFD"),
        reference=lambda x: (a := np.split(x, 2, -1))[0] * logistic(a[0]) * a[1],
    ),
    "rotary": {
        "arguments": (REAL, REAL, REAL),
        "kinds": "efdFD",
        "cases": cases([((4, 2, 6), (2, 3), (2, 3))], [((2, 2), (2, 1), (2, 1))], [((0, 2, 4), (2, 2), (2, 2))]),
        "reference": lambda x, c, s: np.concatenate(
            [
                np.split(x, 2, -1)[0] * c - np.split(x, 2, -1)[1] * s,
                np.split(x, 2, -1)[0] * s + np.split(x, 2, -1)[1] * c,
            ],
            -1,
        ),
    },
    # ---- normalisers
    "softmax": dict(
        one(REAL, *ALONG, ((3, 3), {"where": MASK}), ((2, 3), {"where": MASK & False}), kinds="efdFD"),
        reference=_softmax,
    ),
    "log_softmax": dict(one(REAL, *ALONG, kinds="efdFD"), reference=_log_softmax),
    "logsumexp": dict(
        one(REAL, *[c for c in REDUCTIONS if "axis" in (c[1:] or ({},))[0]], kinds="efdFD"), reference=_logsumexp
    ),
    "cross_entropy": dict(
        one(
            REAL,
            ((2, 3, 4), {"targets": np.array([[0, 2, 1], [3, 3, 0]])}),
            ((4,), {"targets": np.array(2)}),
            kinds="efd",
        ),
        reference=lambda x, targets: (
            -np.mean(np.take_along_axis(scipy.special.log_softmax(x, -1), targets[..., None], -1))
        ),
    ),
    "rms_norm": dict(
        one(
            REAL,
            ((3, 4),),
            ((2, 16),),
            ((3, 2), {"axis": 0}),
            ((4,), {"eps": 0.5}),
            ((0, 3),),
            ((2, 1),),
            kinds="efdFD",
            points=[
                (
                    [[[3e-300, 3e-300], [1e200, 1e200], [1, np.inf]]],
                    {"eps": 0.0},
                    [[1, 1], [1, 1], [0, np.nan]],
                    [[[0, 0], [0, 0], [np.nan, np.nan]]],
                )
            ],
        ),
        reference=lambda x, axis=-1, eps=1e-6: x / np.sqrt(np.mean(x * x, axis=axis, keepdims=True) + eps),
    ),
    "causal_conv1d": {
        "arguments": (REAL, REAL, REAL),
        "reference": _causal,
        "cases": cases(
            [((2, 5, 3), (3, 4), (2, 3, 3))],
            [((5, 3), (3, 2), (1, 3))],
            [((4, 2), (2, 1), (0, 2))],
            [((0, 3, 2), (2, 2), (0, 1, 2))],
            [((2, 1, 2), (2, 3), (2, 2, 2))],
        ),
        "call": lambda xp, x, w, before: xp.causal_conv1d(x, w, before=before),
    },
    # ---- layers
    "nn.Linear": {
        "arguments": (REAL, REAL, REAL),
        "cases": cases([((2, 3), (4, 3), (4,))], [((0, 3), (2, 3), (2,))]),
        "kinds": "efd",
        "call": _layer("Linear"),
        "reference": lambda x, w, b: x @ w.T + b,
    },
    "nn.Embedding": dict(
        one(REAL, ((4, 3), {"tokens": PLACES % 4}), kinds="efd"),
        linear=True,
        call=lambda xp, w, tokens: _layer("Embedding")(xp, tokens, w),
        reference=lambda w, tokens: w[tokens],
    ),
    "nn.LayerNorm": {
        "arguments": (REAL, REAL, REAL),
        "cases": cases([((2, 3), (3,), (3,))], [((0, 3), (3,), (3,))]),
        "kinds": "efd",
        "call": _layer("LayerNorm", eps=1e-5),
        "reference": lambda x, w, b: (
            (x - np.mean(x, -1, keepdims=True)) / np.sqrt(np.var(x, -1, keepdims=True) + 1e-5) * w + b
        ),
    },
    "nn.RMSNorm": {
        "arguments": (REAL, REAL),
        "cases": cases([((2, 3), (3,))], [((2, 16), (16,))]),
        "kinds": "efd",
        "call": _layer("RMSNorm", eps=1e-6),
        "reference": lambda x, w: x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-6) * w,
    },
    "nn.Conv1d": {
        "arguments": (REAL, REAL, REAL, REAL),
        "cases": cases(
            [((2, 5, 3), (3, 4), (3,), (2, 3, 3))],
            [((2, 1, 3), (3, 4), (3,), (2, 3, 3))],
            [((4, 2), (2, 1), (2,), (0, 2))],
        ),
        "kinds": "efd",
        "call": lambda xp, x, w, b, state: _layer("Conv1d")(xp, x, w, b, state=state),
        "reference": lambda x, w, b, state: (
            _causal(x, w, state) + b,
            np.concatenate([state, x], -2)[..., x.shape[-2] :, :],
        ),
    },
    "nn.Dropout": dict(
        one(REAL, ((3, 4),), kinds="efd"),
        linear=True,
        call=lambda xp, x: _layer("Dropout", p=0.25)(xp, x, rng=np.random.default_rng(0)),
        reference=lambda x: np.where(np.random.default_rng(0).random(x.shape) >= 0.25, x / 0.75, 0),
    ),
}

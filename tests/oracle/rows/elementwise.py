"""Elementwise functions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import scipy.special

from tests.oracle.draws import ABOVE_MINUS_ONE, ABOVE_ONE, NONZERO, POSITIVE, REAL, SMALL, UNIT
from tests.oracle.row import (
    MASK,
    binary,
    cases,
    one,
    unary,
)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def _density(x: float) -> float:
    """Return erf′(x)."""
    with mpmath.workprec(200):
        return float(2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-(mpmath.mpf(x) ** 2)))


def _gelu(x: Any) -> Any:
    return max(x, 0) if abs(x) > 1e4 else x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def _normal(x: np.ndarray) -> np.ndarray:
    return (1 + scipy.special.erf(x / np.sqrt(2))) / 2 if np.iscomplexobj(x) else scipy.special.ndtr(x)


def _logaddexp(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    z = np.result_type(x, y).kind == "c"
    return np.log(np.exp(x) + np.exp(y)) if z else np.logaddexp(x, y)


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x)) if np.iscomplexobj(x) else scipy.special.expit(x).astype(x.dtype)


IMAGINARY = np.array([1j, -2j])  # where the two forms of σ meet
ON_AXIS = 1 / (1 + np.exp(-IMAGINARY))  # σ there

ROWS: dict[str, dict] = {
    # ---- elementwise
    "abs": unary(REAL, abs, "efdFDi", kinks=lambda x: abs(x), flat=True),
    "acos": unary(UNIT, mpmath.acos),
    "asin": unary(UNIT, mpmath.asin),
    "atan": unary(REAL, mpmath.atan, kinks=lambda x: np.real(x) if np.iscomplexobj(x) else 1 + 0 * x),
    "conj": unary(REAL, None, reference=np.conj),
    "cos": unary(REAL, mpmath.cos),
    "cosh": unary(REAL, mpmath.cosh),
    "erf": unary(
        REAL,
        mpmath.erf,
        "efdFD",
        reference=lambda x: scipy.special.erf(x).astype(x.dtype),
        points=[([x], {}, float(mpmath.erf(x)), [_density(x)]) for x in (3.3, 9.7, 17.7, 20.1, 23.3, 25.9)],
    ),
    "exp": unary(REAL, mpmath.exp),
    "expm1": unary(REAL, mpmath.expm1),
    "gelu": unary(REAL, _gelu, order=3, reference=lambda x: x * _normal(x).astype(x.dtype)),
    "imag": unary(REAL, None, "FD"),
    "log": unary(POSITIVE, mpmath.log),
    "log1p": unary(ABOVE_MINUS_ONE, mpmath.log1p),
    "log_sigmoid": unary(
        REAL, lambda x: -mpmath.log1p(mpmath.exp(-x)), "efd", reference=lambda x: -np.logaddexp(-x, 0)
    ),
    "negative": unary(REAL, lambda x: -x, "efdFDi", linear=True),
    "real": unary(REAL, None, "efdFD"),
    "reciprocal": unary(NONZERO, lambda x: 1 / x),
    "relu": unary(REAL, lambda x: max(x, 0), "efdi", kinks=lambda x: x, reference=lambda x: np.maximum(x, 0)),
    "sigmoid": unary(
        REAL,
        _sigmoid,
        reference=logistic,
        points=[([IMAGINARY], {}, ON_AXIS, [np.conj(ON_AXIS * (1 - ON_AXIS))])],
    ),
    "sign": unary(
        REAL,
        None,
        "efdFDi",
        kinks=lambda x: abs(x),
        flat=True,
        points=[([[np.nan, np.inf, 2]], {}, [np.nan, 1, 1], [[0, 0, 0]])],
    ),
    "positive": unary(REAL, lambda x: x, "efdFDi", linear=True),
    "acosh": unary(ABOVE_ONE, mpmath.acosh),
    "asinh": unary(REAL, mpmath.asinh, kinks=lambda x: np.real(x) if np.iscomplexobj(x) else 1 + 0 * x),
    "atanh": unary(UNIT, mpmath.atanh),
    "log2": unary(POSITIVE, lambda x: mpmath.log(x, 2)),
    "log10": unary(POSITIVE, mpmath.log10),
    "silu": unary(
        REAL,
        lambda x: x * _sigmoid(x),
        reference=lambda x: x * logistic(x),
        points=[([IMAGINARY], {}, IMAGINARY * ON_AXIS, [np.conj(ON_AXIS * (1 + IMAGINARY * (1 - ON_AXIS)))])],
    ),
    "sin": unary(REAL, mpmath.sin),
    "sinh": unary(REAL, mpmath.sinh),
    "softplus": unary(REAL, lambda x: mpmath.log1p(mpmath.exp(x)), "efd", reference=lambda x: np.logaddexp(x, 0)),
    "sqrt": unary(POSITIVE, mpmath.sqrt),
    "square": unary(REAL, lambda x: x * x, "efdFDi"),
    "tan": unary(SMALL, mpmath.tan),
    "tanh": unary(REAL, mpmath.tanh),
    "add": binary(REAL, REAL, lambda x, y: x + y, "efdFDiu", linear=True),
    "subtract": binary(REAL, REAL, lambda x, y: x - y, "efdFDi", linear=True),
    "multiply": binary(REAL, REAL, lambda x, y: x * y, "efdFDiu"),
    "divide": binary(REAL, NONZERO, lambda x, y: x / y),
    "pow": binary(
        POSITIVE,
        REAL,
        mpmath.power,
        units=(4, 256, 1024),
        points=[
            (
                [[0, 0, 0, -1.5], [0, -1, 2, 2]],
                {},
                [1, np.inf, 0, 2.25],
                [[0, -np.inf, 0, -3], [0, -np.inf, 0, np.nan]],
            ),
            ([2.0, 0.0], {}, 1, [0, math.log(2)], [1 / 2, 1 / 2 + math.log(2) ** 2]),  # ∂²xʸ/∂x∂y is 1/x at y = 0
            ([[-0.5, 2 + 1j], [0, 0j]], {}, 1, [[0, 0], np.log([-0.5, 2 + 1j]).conj()]),
            ([[0, np.nan, np.inf, 1e-310], [0] * 4], {}, 1, [[0] * 4, [0, np.nan, np.inf, math.log(1e-310)]]),
            ([[np.inf, 1e-150], [0, 0]], {}, 1, [[0, 0], None], [[0, 0], [0, 1e150]]),
            ([[complex(np.inf, 0), complex(np.nan, 1)], [0, 0]], {}, 1, [[0, 0], None]),
            ([[Fraction(0), Fraction(3), Fraction(2)], [0, 0, 3]], {}, [1, 1, 8], [[0, 0, 12], None]),
        ],
    ),
    "atan2": binary(REAL, NONZERO, mpmath.atan2, "efd", kinks=lambda y, x: np.minimum(abs(x), abs(y))),
    "logaddexp": binary(
        REAL,
        REAL,
        lambda x, y: max(x, y) + mpmath.log1p(mpmath.exp(-abs(x - y))),
        "efdFD",
        units=(32, 1024, 1024),
        reference=_logaddexp,
    ),
    "maximum": binary(REAL, REAL, max, "efdi", kinks=lambda x, y: x - y),
    "minimum": binary(REAL, REAL, min, "efdi", kinks=lambda x, y: x - y),
    "remainder": binary(
        REAL, NONZERO, lambda x, y: x - y * mpmath.floor(x / y), "efdi", kinks=lambda x, y: x / y - np.round(x / y)
    ),
    "copysign": binary(REAL, REAL, None, "efd", kinks=lambda x, y: np.minimum(abs(x), abs(y))),
    "hypot": binary(REAL, REAL, lambda x, y: mpmath.sqrt(x * x + y * y), "efd", kinks=lambda x, y: abs(x) + abs(y)),
    "astype": dict(
        one(REAL, *[((3, 2), {"dtype": np.complex128}), ((), {"dtype": np.complex128})], kinds="dD"),
        reference=lambda x, dtype: x.astype(dtype),
    ),
    "asarray": dict(one(REAL, ((3, 2),), ((),)), linear=True),
    "clip": {
        "arguments": None,
        "cases": cases(
            (((3, 4),), {"min": -0.5, "max": 0.5}),
            (((3,),), {"min": 0.2}),
            (((3,),), {"max": 0.2}),
            (((0,),), {"max": 1}),
            (((2,),), {"min": -1, "max": 1}),
            [((3, 4), (4,), (3, 1))],
            [((), (), ())],
            [((2, 3), ())],
            (((2, 3), (3,)), {"above": True}),
        ),
        "points": (
            ([[1, 2]], {"min": 1.0}, [1, 2], [[1, 1]]),
            ([[1, 0]], {"max": 1.0}, [1, 0], [[1, 1]]),
            ([[1, 0]], {"min": 1.0}, [1, 1], [[1, 0]]),
            ([[0, 1, 2], [1, 1, 1], [1, 1, 1]], {}, [1, 1, 1], [[0, 1, 0], [0, 0, 0], [0, 0, 1]]),
            ([[1, 0, 3], [1, 1, 1]], {}, [1, 1, 3], [[1, 0, 1], [0, 1, 0]]),
            ([[2, 0, 3], [2, 2, 2]], {"above": True}, [2, 0, 2], [[1, 1, 0], [0, 0, 1]]),
            ([[-1, 4], [0, 0], [3, 3]], {}, [0, 3], [[0, 0], [1, 0], [0, 1]]),
            ([[1, 3, 2], [1, 1, 3], [3, 3, 1]], {}, [1, 3, 1], [[1, 1, 0], [0, 0, 0], [0, 0, 1]]),
        ),
        "kinds": "efd",
        "call": lambda xp, x, min=None, max=None, above=False: xp.clip(x, *(None, min) if above else (min, max)),
        "reference": lambda x, min=None, max=None, above=False: np.clip(x, *(None, min) if above else (min, max)),
        "kinks": lambda *xs: np.stack(
            np.broadcast_arrays(
                *(abs(abs(xs[0]) - n) for n in (0.2, 0.5, 1)), *(x - y for x, y in itertools.combinations(xs, 2))
            )
        ),
    },
    "where": {
        "arguments": (REAL, REAL),
        "cases": cases(
            (((2, 3), (3,)), {"condition": MASK}),
            (((), (3,)), {"condition": MASK}),
            (((3,), (3,)), {"condition": True}),
            (((3, 1), (1, 2)), {"condition": MASK[:, None]}),
            (((0,), ()), {"condition": np.zeros((2, 0), bool)}),
        ),
        "call": lambda xp, x, y, condition: xp.where(xp.asarray(condition), x, y),
        "linear": True,
        "kinds": "efdFDiu",
    },
    "linspace": {
        "arguments": (REAL, REAL),
        "kinds": "dD",
        "linear": True,
        "cases": cases(
            (((), ()), {"num": 5}),
            (((), ()), {"num": 4, "endpoint": False}),
            (((), ()), {"num": 1}),
            (((2, 3), (3,)), {"num": 4}),
        ),
    },
}

"""One row for every public function: how its arguments are drawn, and what is right.

A row's call is written once over an array namespace, so that the same line runs in minigrad, NumPy, PyTorch and JAX.
`ROWS` are the differentiable functions, `CONSTANT` those without a derivative, `TOOLS` those that are no functions of
arrays. Every public name stands in one of them, and every rule of every primitive is reached by a row: `test_table`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mpmath
import numpy as np
import scipy.special

from tests.oracle.draws import (
    ABOVE_MINUS_ONE,
    ABOVE_ONE,
    INVERTIBLE,
    NONZERO,
    POSITIVE,
    REAL,
    SMALL,
    UNIT,
    Domain,
)

UNARY = tuple((shape,) for shape in ((3, 4), (), (1,), (0,), (2, 0, 3), (2, 1, 3)))
BINARY = (((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((), (3,)), ((2, 3), ()), ((), ()))
BINARY += (((0, 3), (1, 3)), ((1,), (0,)), ((2, 1, 3), (4, 1)))
NO_OPTIONS: tuple[dict, ...] = ({},)


class Row(NamedTuple):
    """A function: its call over a namespace, its arguments, their shapes with options, and where it is tested how."""

    call: Callable
    arguments: tuple[Domain, ...]
    cases: Sequence[tuple[tuple, dict]]
    kinds: str = "efdFD"  # dtypes, in NumPy's letters; i, u and ? for values only
    reference: Callable | None = None  # of NumPy arrays and the options; the call over NumPy when None
    exact: Callable | None = None  # of mpmath's numbers, for an elementwise function
    kinks: Callable | None = None  # arrays that are zero where one-sided derivatives differ
    linear: bool = False  # in all its arguments together: the gradient does not depend on them
    batch: bool = False  # axis 0 of the first case's arguments and result is a batch
    spread: float = 0.0  # absolute error allowed in a derivative, in eps; 0 where it keeps relative accuracy
    elementwise: bool = False
    units: tuple = (4, 16, 64)  # in the last place that value, gradient and second derivative may be off


def named(name: str) -> Callable:
    """Return the call of the function of that name, dotted or not, in a namespace."""

    def call(xp: Any, *arrays: Any, **options: Any) -> Any:
        for part in name.split("."):
            xp = getattr(xp, part)
        return xp(*arrays, **options)

    return call


def _unary(domain: Domain, exact: Callable | None, kinds: str = "efdFD", **more: Any) -> dict:
    return {"arguments": (domain,), "cases": [(s, {}) for s in UNARY], "exact": exact, "kinds": kinds, "elementwise": True, **more}


def _binary(x: Domain, y: Domain, exact: Callable | None, kinds: str = "efdFD", **more: Any) -> dict:
    return {"arguments": (x, y), "cases": [(s, {}) for s in BINARY], "exact": exact, "kinds": kinds, "elementwise": True, **more}


def _cases(*cases: tuple) -> list[tuple[tuple, dict]]:
    """((shape, …), options) for each; options may be left out."""
    return [(c[0], c[1] if len(c) > 1 else {}) for c in cases]


def _one(domain: Domain, *cases: tuple, kinds: str = "efdFD", **more: Any) -> dict:
    """A function of one array: (shape, options) for each case."""
    return {"arguments": (domain,), "cases": [((c[0],), c[1] if len(c) > 1 else {}) for c in cases], "kinds": kinds, **more}


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def _gelu(x: Any) -> Any:
    return max(x, 0) if abs(x) > 1e4 else x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x)) if np.iscomplexobj(x) else scipy.special.expit(x).astype(x.dtype)


def _softmax(x: np.ndarray, axis: int = -1, where: Any = None) -> np.ndarray:
    x = x if where is None else np.where(where, x, -np.inf)
    top = np.max(x, axis=axis, keepdims=True)
    y = np.exp(x - np.where(np.isfinite(top), top, 0))
    total = np.sum(y, axis=axis, keepdims=True)
    return y / np.where(total > 0, total, 1)


def _linear_recurrence(a: np.ndarray, x: np.ndarray, axis: int = -2, reverse: bool = False) -> np.ndarray:
    a, x = np.broadcast_arrays(a, x)
    a, x = np.moveaxis(a, axis, 0), np.moveaxis(x, axis, 0)
    h, out = np.zeros(x.shape[1:], x.dtype), np.zeros(x.shape, np.result_type(a, x))
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        out[t] = h = a[t] * h + x[t]
    return np.moveaxis(out, 0, axis)


def _causal(x: np.ndarray, w: np.ndarray, before: Any = None) -> np.ndarray:
    width, steps = w.shape[1], x.shape[-2]
    before = np.zeros((*x.shape[:-2], width - 1, x.shape[-1]), x.dtype) if before is None else before
    x = np.concatenate([before, x], axis=-2)
    return sum((x[..., width - 1 - j : width - 1 - j + steps, :] * w[:, j] for j in range(width)), np.zeros((), x.dtype))


def _layer(name: str, **attributes: Any) -> Callable:
    """Call a layer of minigrad.nn whose parameters are the arrays after the first."""

    def call(xp: Any, x: Any, *parameters: Any, **options: Any) -> Any:
        layer = object.__new__(getattr(xp.nn, name))
        vars(layer).update(attributes, **dict(zip(("weight", "bias"), parameters, strict=False)))
        return layer(x, **options)

    return call


def _logsumexp(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    return scipy.special.logsumexp(x, axis=axis, keepdims=keepdims)


def _index(index: Any) -> dict:
    return {"index": index}


def _gaps(x: np.ndarray) -> np.ndarray:
    """Return the differences between all entries: where two tie, the order changes."""
    flat = np.reshape(x, -1)
    return (flat[:, None] - flat)[~np.eye(flat.size, dtype=bool)]


def _hermitian(xp: Any, a: Any) -> Any:
    return (a + xp.conj(xp.matrix_transpose(a))) / 2


def _spectral(xp: Any, u: Any, s: Any, *_: Any) -> tuple:
    """Return the values and what does not depend on the sign or phase of a vector."""
    return s, (u * xp.expand_dims(s, axis=-2) ** 2) @ xp.conj(xp.matrix_transpose(u))


def _triangle(a: np.ndarray, lower: bool, unit: bool) -> np.ndarray:
    a = np.tril(a) if lower else np.triu(a)
    eye = np.eye(a.shape[-1], dtype=a.dtype)
    return a * (1 - eye) + eye if unit else a


def _added(x: np.ndarray, values: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    made = x.copy()
    for place in np.ndindex(indices.shape):
        to = list(place)
        to[axis] = indices[place]
        made[tuple(to)] += values[place]
    return made


def _piece(g: Any, index: Any) -> Any:
    from minigrad.engine import Piece

    return Piece(g, index)


FULL, REPEATED, MASK = slice(None), np.array([0, -1, 0]), np.array([True, False, True])
REDUCTIONS = (
    ((3, 4),), ((2, 3, 4), {"axis": 1}), ((2, 3, 4), {"axis": (0, -1), "keepdims": True}), ((5,), {"axis": -1}),
    ((2, 3, 2), {"axis": (2, 0)}), ((),), ((2, 0, 3), {"axis": -1}), ((1, 4), {"axis": 0}), ((3, 1), {"axis": 1}),
    ((3, 4), {"keepdims": True}),
)  # fmt: skip
EMPTY = (((2, 0, 3), {"axis": 1}), ((0,),), ((0, 2), {"axis": 0, "keepdims": True}))
ALONG = (((3, 4), {"axis": 0}), ((2, 3, 4), {"axis": 1}), ((5,), {"axis": -1}), ((2, 0), {"axis": 1}),
         ((0, 3), {"axis": 1}), ((1, 3), {"axis": 0}))  # fmt: skip
INDICES = (
    ((4, 3), _index((FULL, 1))), ((4, 3), _index((slice(None, None, -2),))), ((4, 3), _index((..., None, 0))),
    ((4, 3), _index(REPEATED)), ((4, 3), _index((REPEATED,))), ((4, 3), _index(([0, 0],))), ((3,), _index(([0, -3],))),
    ((4, 3), _index((FULL, REPEATED))), ((3, 4, 3), _index((REPEATED, FULL, REPEATED))), ((4,), _index(-1)),
    ((4, 3), _index(((0, 0), FULL))), ((3,), _index(((0, 0),))), ((3, 2), _index(MASK)), ((3, 2), _index((MASK, 0))),
    ((3, 2), _index((MASK, REPEATED[:2]))), ((3, 2), _index((None, REPEATED, slice(1)))), ((3,), _index(())),
    ((3, 2), _index(np.ones((3, 2), bool))), ((3, 2), _index(np.array(1))), ((0, 2), _index((FULL, 1))),
    ((3, 2), _index(np.zeros(0, int))), ((2, 3), _index((np.uint8(1), [True, False, True]))),
    ((3, 3), _index((REPEATED[:, None], REPEATED))), ((), _index(...)), ((), _index(None)), ((4, 3), _index([0, 0, 1])),
)  # fmt: skip
TAKEN = (((4, 3), {"indices": REPEATED, "axis": 0}), ((2, 3, 2), {"indices": np.array([[0, 2], [2, 2]]), "axis": 1}),
         ((4,), {"indices": np.array(-1), "axis": -1}), ((3, 2), {"indices": np.zeros(0, int), "axis": 0}),
         ((3, 0), {"indices": REPEATED, "axis": 0}), ((3, 2), {"indices": np.array([1, 1], np.uint8), "axis": 1}),
         ((3, 2), {"indices": np.array([1, 1], ">i4"), "axis": 1}))  # fmt: skip
PLACES = np.array([[1, 0], [0, -1], [3, 1]])
EINSUMS = (
    (((2,),), {"subscripts": "i->"}), (((2, 3), (3, 4)), {"subscripts": "ij,jk"}), (((3, 3),), {"subscripts": "ii"}),
    (((2, 3),), {"subscripts": "ij->ji"}), (((2, 3), (1, 4)), {"subscripts": "ij,ik->jk"}),
    (((2, 3, 4), (4,)), {"subscripts": "...ij,...j->...i"}), (((3, 3, 2),), {"subscripts": "iij->j"}),
    (((2, 3), (4,)), {"subscripts": "ij,k->k"}), (((2, 3), (2, 3), (3,)), {"subscripts": "ij,ij,j->i"}),
    (((2, 0), (0, 3)), {"subscripts": "ij,jk->ik"}), (((0, 2), (2, 3)), {"subscripts": "ij,jk->ik"}),
    (((), (3,)), {"subscripts": ",i->i"}), (((2, 3), (2, 3)), {"subscripts": "ij,ij"}), (((2, 1, 3), (3, 2)), {"subscripts": "abc,cd->bad"}),
    (((2, 3), (2, 1)), {"subscripts": "ij,ij->ij"}), (((3, 3), (3, 3)), {"subscripts": "ii,ij->j"}),
)  # fmt: skip
PRODUCTS = (
    ((2, 3), (3, 4)), ((3,), (3,)), ((3,), (2, 3, 4)), ((2, 2, 3), (3,)), ((2, 1, 2, 3), (4, 3, 2)), ((2, 3, 4), (4, 2)),
    ((2, 3), (2, 3, 2)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((0, 2, 3), (3, 4)), ((2, 3), (3, 0)), ((2, 0, 3), (3, 2)),
    ((1, 2, 3), (2, 3, 1)),
)  # fmt: skip
SPECTRA = (((2, 6),), ((5,),), ((5, 2), {"n": 8, "axis": 0}), ((2, 5), {"n": 3}), ((1,),), ((2, 2),), ((0, 3),),
           ((3, 2), {"n": 7, "axis": -2}))  # fmt: skip
MATRICES = (((3, 3),), ((2, 3, 3),), ((1, 1),), ((0, 3, 3),), ((0, 0),))


ROWS: dict[str, dict] = {
    # ---- elementwise
    "abs": _unary(REAL, abs, "efdFDi", kinks=lambda x: abs(x)),
    "acos": _unary(UNIT, mpmath.acos),
    "asin": _unary(UNIT, mpmath.asin),
    "atan": _unary(REAL, mpmath.atan, kinks=lambda x: np.real(x) if np.iscomplexobj(x) else 1 + 0 * x, spread=2),
    "conj": _unary(REAL, None, reference=np.conj),
    "cos": _unary(REAL, mpmath.cos),
    "cosh": _unary(REAL, mpmath.cosh),
    "erf": _unary(REAL, mpmath.erf, "efd", reference=lambda x: scipy.special.erf(x).astype(x.dtype)),
    "exp": _unary(REAL, mpmath.exp),
    "expm1": _unary(REAL, mpmath.expm1, spread=2),
    "gelu": _unary(REAL, _gelu, "efd", reference=lambda x: x * scipy.special.ndtr(x).astype(x.dtype)),
    "imag": _unary(REAL, None, "FD"),
    "log": _unary(POSITIVE, mpmath.log),
    "log1p": _unary(ABOVE_MINUS_ONE, mpmath.log1p),
    "log_sigmoid": _unary(REAL, lambda x: -mpmath.log1p(mpmath.exp(-x)), "efd", reference=lambda x: -np.logaddexp(-x, 0)),
    "negative": _unary(REAL, lambda x: -x, "efdFDi", linear=True),
    "real": _unary(REAL, None, "efdFD"),
    "reciprocal": _unary(NONZERO, lambda x: 1 / x),
    "relu": _unary(REAL, lambda x: max(x, 0), "efdi", kinks=lambda x: x, reference=lambda x: np.maximum(x, 0)),
    "sigmoid": _unary(REAL, _sigmoid, spread=2, reference=_logistic),
    "sign": _unary(REAL, None, "efdi", kinks=lambda x: x),
    "positive": _unary(REAL, lambda x: x, "efdFDi", linear=True),
    "acosh": _unary(ABOVE_ONE, mpmath.acosh, spread=2),
    "asinh": _unary(REAL, mpmath.asinh, spread=2, kinks=lambda x: np.real(x) if np.iscomplexobj(x) else 1 + 0 * x),
    "atanh": _unary(UNIT, mpmath.atanh),
    "log2": _unary(POSITIVE, lambda x: mpmath.log(x, 2)),
    "log10": _unary(POSITIVE, mpmath.log10),
    "silu": _unary(REAL, lambda x: x * _sigmoid(x), spread=2, reference=lambda x: x * _logistic(x)),
    "sin": _unary(REAL, mpmath.sin),
    "sinh": _unary(REAL, mpmath.sinh),
    "softplus": _unary(REAL, lambda x: mpmath.log1p(mpmath.exp(x)), "efd", reference=lambda x: np.logaddexp(x, 0)),
    "sqrt": _unary(POSITIVE, mpmath.sqrt),
    "square": _unary(REAL, lambda x: x * x, "efdFDi"),
    "tan": _unary(SMALL, mpmath.tan),
    "tanh": _unary(REAL, mpmath.tanh, spread=2),
    "add": _binary(REAL, REAL, lambda x, y: x + y, "efdFDiu", linear=True),
    "subtract": _binary(REAL, REAL, lambda x, y: x - y, "efdFDi", linear=True),
    "multiply": _binary(REAL, REAL, lambda x, y: x * y, "efdFDiu"),
    "divide": _binary(REAL, NONZERO, lambda x, y: x / y),
    "pow": _binary(POSITIVE, REAL, mpmath.power, units=(4, 256, 1024)),
    "atan2": _binary(REAL, NONZERO, mpmath.atan2, "efd", kinks=lambda y, x: np.minimum(abs(x), abs(y))),
    "logaddexp": _binary(REAL, REAL, lambda x, y: max(x, y) + mpmath.log1p(mpmath.exp(-abs(x - y))), "efd",
                         units=(32, 1024, 1024)),
    "maximum": _binary(REAL, REAL, max, "efdi", kinks=lambda x, y: x - y),
    "minimum": _binary(REAL, REAL, min, "efdi", kinks=lambda x, y: x - y),
    "remainder": _binary(REAL, NONZERO, lambda x, y: x - y * mpmath.floor(x / y), "efdi",
                         kinks=lambda x, y: x / y - np.round(x / y)),
    "copysign": _binary(REAL, REAL, None, "efd", kinks=lambda x, y: np.minimum(abs(x), abs(y))),
    "hypot": _binary(REAL, REAL, lambda x, y: mpmath.sqrt(x * x + y * y), "efd", kinks=lambda x, y: abs(x) + abs(y), spread=2),
    "astype": dict(_one(REAL, *[((3, 2), {"dtype": np.complex128}), ((), {"dtype": np.complex128})], kinds="dD"),
                   reference=lambda x, dtype: x.astype(dtype)),
    "asarray": dict(_one(REAL, ((3, 2),), ((),)), linear=True),
    "clip": dict(_one(REAL, ((3, 4), {"min": -0.5, "max": 0.5}), ((3,), {"min": 0.2}), ((3,), {"max": 0.2}), ((),),
                      ((0,), {"max": 1}), ((2,), {"min": -1, "max": 1}), kinds="efd"),
                 kinks=lambda x: np.minimum(abs(abs(x) - 0.5), np.minimum(abs(abs(x) - 0.2), abs(abs(x) - 1))),
                 reference=lambda x, min=None, max=None: np.clip(x, min, max)),
    "where": {"arguments": (REAL, REAL), "cases": _cases(
        (((2, 3), (3,)), {"condition": MASK}), (((), (3,)), {"condition": MASK}), (((3,), (3,)), {"condition": True}),
        (((3, 1), (1, 2)), {"condition": MASK[:, None]}), (((0,), ()), {"condition": np.zeros((2, 0), bool)})),
        "call": lambda xp, x, y, condition: xp.where(xp.asarray(condition), x, y), "linear": True, "kinds": "efdFDiu"},
    "linspace": dict(arguments=(REAL, REAL), kinds="dD", linear=True, cases=_cases(
        (((), ()), {"num": 5}), (((), ()), {"num": 4, "endpoint": False}), (((), ()), {"num": 1}))),
    # ---- halves
    "swiglu": dict(_one(REAL, ((3, 6),), ((4,),), ((0, 4),), ((2, 0),), ((2, 2, 2),), kinds="efdFD"), batch=True,
                   reference=lambda x: (a := np.split(x, 2, -1))[0] * _logistic(a[0]) * a[1]),
    "turn": dict(arguments=(REAL, REAL, REAL), kinds="efd", cases=_cases(
        [((4, 2, 6), (2, 3), (2, 3))], [((2, 2), (2, 1), (2, 1))], [((0, 2, 4), (2, 2), (2, 2))]),
        reference=lambda x, c, s: np.concatenate([np.split(x, 2, -1)[0] * c - np.split(x, 2, -1)[1] * s,
                                                  np.split(x, 2, -1)[0] * s + np.split(x, 2, -1)[1] * c], -1)),
    # ---- reductions
    "sum": dict(_one(REAL, *REDUCTIONS, *EMPTY, ((3, 4), {"axis": ()}), kinds="efdFDiu"), linear=True),
    "mean": dict(_one(REAL, *REDUCTIONS), linear=True),
    "var": _one(REAL, *REDUCTIONS[:5], ((3, 4), {"axis": 1, "correction": 1})),
    "std": _one(REAL, *REDUCTIONS[:5], ((3, 4), {"axis": 1, "correction": 1})),
    "prod": _one(REAL, *REDUCTIONS, *EMPTY, kinds="efdFDi"),
    "max": dict(_one(REAL, *REDUCTIONS, kinds="efdi"), kinks=lambda x: _gaps(x)),
    "min": dict(_one(REAL, *REDUCTIONS, kinds="efdi"), kinks=lambda x: _gaps(x)),
    "cumulative_sum": dict(_one(REAL, *ALONG, kinds="efdFDi"), linear=True),
    "cumulative_prod": _one(REAL, *ALONG, kinds="efdFDi"),
    "cumulative_max": dict(_one(REAL, *ALONG[:3], kinds="efd"), kinks=lambda x: _gaps(x),
                           reference=lambda x, axis: np.maximum.accumulate(x, axis)),
    "scan": dict(arguments=(REAL, REAL), reference=_linear_recurrence, cases=_cases(
        [((5, 2), (5, 2))], (((2, 4), (2, 4)), {"axis": -1}), (((2, 4), (2, 4)), {"axis": 1, "reverse": True}),
        [((4, 1), (2, 4, 3))], (((0, 3), (0, 3)), {"axis": 1}), (((1, 2), (1, 2)), {"axis": 0}),
        (((5,), (5,)), {"axis": 0}), [((0, 2), (0, 2))], (((3, 2), (3, 2)), {"axis": 0, "reverse": True}))),
    # ---- normalisers
    "softmax": dict(_one(REAL, *ALONG, ((3, 3), {"where": MASK}), ((2, 3), {"where": MASK & False}), kinds="efd"),
                    reference=_softmax),
    "log_softmax": dict(_one(REAL, *ALONG[:-1], kinds="efd"), reference=scipy.special.log_softmax),
    "logsumexp": dict(_one(REAL, *[c for c in REDUCTIONS if "axis" in (c[1:] or ({},))[0]], kinds="efd"), reference=_logsumexp),
    "cross_entropy": dict(_one(REAL, ((2, 3, 4), {"targets": np.array([[0, 2, 1], [3, 3, 0]])}),
                               ((4,), {"targets": np.array(2)}), kinds="efd"),
                          reference=lambda x, targets: -np.mean(np.take_along_axis(
                              scipy.special.log_softmax(x, -1), targets[..., None], -1))),
    "rms_norm": dict(_one(REAL, ((3, 4),), ((2, 16),), ((3, 2), {"axis": 0}), ((4,), {"eps": 0.5}), ((0, 3),), ((2, 1),),
                          kinds="efd"),
                     reference=lambda x, axis=-1, eps=1e-6: x / np.sqrt(np.mean(x * x, axis=axis, keepdims=True) + eps)),
    "causal_conv1d": dict(arguments=(REAL, REAL, REAL), reference=_causal, cases=_cases(
        [((2, 5, 3), (3, 4), (2, 3, 3))], [((5, 3), (3, 2), (1, 3))], [((4, 2), (2, 1), (0, 2))],
        [((0, 3, 2), (2, 2), (0, 1, 2))], [((2, 1, 2), (2, 3), (2, 2, 2))]),
        call=lambda xp, x, w, before: xp.causal_conv1d(x, w, before=before)),
    # ---- products and solves
    "matmul": dict(arguments=(REAL, REAL), cases=[(s, {}) for s in PRODUCTS], kinds="efdFDi"),
    "vecdot": dict(arguments=(REAL, REAL), kinds="efdFDi", cases=_cases(
        [((2, 3), (2, 3))], (((3, 2), (3, 1)), {"axis": 0}), [((3,), (2, 3))], [((0,), (0,))], [((2, 0), (2, 0))])),
    "outer": dict(arguments=(REAL, REAL), cases=_cases([((2,), (3,))], [((0,), (3,))], [((1,), (1,))])),
    "tensordot": dict(arguments=(REAL, REAL), cases=_cases(
        (((2, 3, 4), (3, 4, 2)), {"axes": 2}), (((2, 3), (2,)), {"axes": 0}), (((2, 3), (3, 2)), {"axes": 1}),
        (((2, 3, 4), (4, 2)), {"axes": ((0, 2), (1, 0))}), (((2, 0), (0, 3)), {"axes": 1}),
        (((2, 3), (3, 2)), {"axes": ([-1], [0])}))),
    "einsum": dict(arguments=None, cases=list(EINSUMS),
                   call=lambda xp, *xs, subscripts: xp.einsum(subscripts, *xs)),
    "solve": dict(reference=np.linalg.solve, arguments=(INVERTIBLE, REAL), kinds="fdFD", cases=_cases(
        [((3, 3), (3, 2))], [((3, 3), (3,))], [((2, 3, 3), (2, 3, 1))], [((2, 3, 3), (3, 2))], [((3, 3), (2, 3, 1))],
        [((0, 3, 3), (0, 3, 2))], [((3, 3), (3, 0))], [((0, 0), (0, 2))])),
    "solve_triangular": dict(arguments=(INVERTIBLE, REAL), kinds="fdFD", cases=_cases(
        (((3, 3), (3, 2)), {"lower": True}), [((3, 3), (3,))], (((2, 3, 3), (3, 2)), {"unit_diagonal": True}),
        (((2, 3, 3), (2, 3, 1)), {"lower": True, "unit_diagonal": True}), [((0, 3, 3), (0, 3, 2))]),
        reference=lambda a, b, lower=False, unit_diagonal=False: np.linalg.solve(
            _triangle(a, lower, unit_diagonal), b)),
    "linalg.inv": _one(INVERTIBLE, *MATRICES, kinds="fdFD"),
    "linalg.det": _one(INVERTIBLE, *MATRICES, kinds="fdFD"),
    "linalg.cholesky": dict(_one(INVERTIBLE, *MATRICES[:3], kinds="fdFD"),
                            call=lambda xp, a: xp.linalg.cholesky(a @ xp.conj(xp.matrix_transpose(a)))),
    "linalg.slogdet": dict(_one(INVERTIBLE, *MATRICES, kinds="fdFD"), reference=lambda a: tuple(np.linalg.slogdet(a))),
    "linalg.matrix_power": _one(INVERTIBLE, ((3, 3), {"n": 3}), ((2, 2, 2), {"n": 0}), ((3, 3), {"n": -2}), kinds="fdFD"),
    "linalg.pinv": _one(REAL, ((3, 2),), ((2, 3),), ((2, 3, 3),), kinds="fdFD"),
    "linalg.qr": dict(_one(REAL, ((3, 2),), ((3, 3),), ((2, 3, 2),), kinds="fdFD"), call=lambda xp, a: tuple(xp.linalg.qr(a))),
    "linalg.svd": dict(_one(REAL, ((3, 3),), ((3, 2),), ((2, 2, 3),), kinds="fdFD"),
                       call=lambda xp, a: _spectral(xp, *xp.linalg.svd(a, full_matrices=False))),
    "linalg.svdvals": _one(REAL, ((3, 2),), ((2, 3, 3),), kinds="fdFD"),
    "linalg.eigh": dict(_one(INVERTIBLE, ((3, 3),), ((2, 2, 2),), kinds="fdFD"),
                        call=lambda xp, a: _spectral(xp, *reversed(xp.linalg.eigh(_hermitian(xp, a))))),
    "linalg.eigvalsh": dict(_one(INVERTIBLE, ((3, 3),), ((2, 2, 2),), kinds="fdFD"),
                            call=lambda xp, a: xp.linalg.eigvalsh(_hermitian(xp, a))),
    "linalg.cross": dict(arguments=(REAL, REAL), cases=_cases([((2, 3), (2, 3))], (((3, 2), (3, 1)), {"axis": 0})), kinds="efdFD"),
    "linalg.vector_norm": _one(REAL, ((2, 3), {"axis": -1}), ((3,), {"ord": 1}), ((3,), {"ord": 3}), ((2, 3), {"axis": 0, "ord": np.inf}),
                               kinds="fdFD"),
    "linalg.matrix_norm": _one(REAL, ((3, 2),), ((2, 3, 3), {"ord": 1}), ((2, 3), {"ord": "nuc"}), ((2, 3), {"ord": 2}),
                               ((2, 3), {"ord": np.inf, "keepdims": True}), kinds="fdFD"),
    "linalg.norm": dict(_one(REAL, ((2, 3), {"axis": -1}), ((2, 3, 2), {"axis": (0, 2), "keepdims": True}), ((3,),), ((),)),
                        reference=lambda x, axis=None, keepdims=False: np.sqrt(np.sum(abs(x) ** 2, axis, keepdims=keepdims))),
    "trace": dict(_one(REAL, ((2, 3, 4), {"offset": 1}), ((3, 3),), ((2, 3), {"offset": -2}), ((0, 2, 2),), ((2, 2), {"offset": 5})),
                  linear=True, reference=lambda x, offset=0: np.trace(x, offset, -2, -1)),
    "diagonal": dict(_one(REAL, ((4, 3), {"offset": -1}), ((2, 3, 3),), ((2, 3), {"offset": 2}), ((0, 2, 2),), ((2, 2), {"offset": 5})),
                     linear=True, reference=lambda x, offset=0: np.diagonal(x, offset, -2, -1)),
    "diagonal_matrix": dict(_one(REAL, ((3,),), ((2, 3),), ((0,),), ((0, 2),)), linear=True,
                            reference=lambda d: d[..., None] * np.eye(d.shape[-1], dtype=d.dtype)),
    # ---- shapes
    "diff": _one(REAL, ((3, 4), {"axis": 0}), ((5,), {"n": 2}), ((2, 3), {"n": 1, "axis": -1}), ((0, 2), {"axis": 1}), linear=True),
    "meshgrid": dict(arguments=(REAL, REAL), cases=_cases([((2,), (3,))], (((2,), (3,)), {"indexing": "ij"})), linear=True,
                     call=lambda xp, *xs, **options: tuple(xp.meshgrid(*xs, **options))),
    "reshape": _one(REAL, ((2, 3), {"shape": (3, -1)}), ((), {"shape": (1,)}), ((6,), {"shape": 6}), ((0, 2), {"shape": (2, 0)}),
                    linear=True),
    "permute_dims": _one(REAL, ((2, 3, 4), {"axes": (2, 0, 1)}), ((2, 3), {"axes": (-1, 0)}), ((), {"axes": ()}),
                         ((0, 2), {"axes": (1, 0)}), linear=True),
    "matrix_transpose": _one(REAL, ((2, 3),), ((2, 1, 3),), ((0, 2),), linear=True),
    "swapaxes": dict(_one(REAL, ((2, 3, 4), {"a": 0, "b": -1}), ((2, 2), {"a": 1, "b": 1}), linear=True),
                     call=lambda xp, x, a, b: xp.swapaxes(x, a, b)),
    "moveaxis": dict(_one(REAL, ((2, 3, 4), {"a": 0, "b": -1}), ((2, 3, 4), {"a": -1, "b": 0}),
                          ((2, 3, 4), {"a": (0, 1), "b": (-1, 0)}), linear=True),
                     call=lambda xp, x, a, b: xp.moveaxis(x, a, b)),
    "expand_dims": _one(REAL, ((2, 3), {"axis": (0, -1)}), ((), {"axis": 0}), ((3,), {"axis": -1}), linear=True),
    "squeeze": _one(REAL, ((1, 3, 1), {"axis": (0, 2)}), ((1,), {"axis": 0}), ((1, 0), {"axis": 0}), linear=True),
    "broadcast_to": dict(_one(REAL, ((2, 1), {"shape": (4, 2, 3)}), ((), {"shape": (2,)}), ((1,), {"shape": (0,)}),
                              ((3,), {"shape": (3,)}), linear=True),
                         call=lambda xp, x, shape: xp.broadcast_to(x, shape)),
    "broadcast_arrays": dict(arguments=(REAL, REAL), cases=_cases([((2, 1), (3,))], [((), (2,))], [((2,), (2,))]), linear=True),
    "concat": dict(arguments=(REAL, REAL), linear=True, cases=_cases(
        (((2, 1), (2, 3)), {"axis": 1}), (((2, 1), (3,)), {"axis": None}), [((2,), (0,))], (((1, 2), (3, 2)), {"axis": -2})),
        call=lambda xp, *xs, **options: xp.concat(list(xs), **options)),
    "stack": dict(arguments=(REAL, REAL), linear=True, cases=_cases(
        (((2, 3), (2, 3)), {"axis": -1}), [((), ())], (((0,), (0,)), {"axis": 1})),
        call=lambda xp, *xs, **options: xp.stack(list(xs), **options)),
    "unstack": _one(REAL, ((2, 3), {"axis": 1}), ((2, 3),), ((3,), {"axis": -1}), linear=True),
    "flip": _one(REAL, ((2, 3), {"axis": 1}), ((2, 3),), ((2, 3, 2), {"axis": (0, -1)}), ((0,),), linear=True),
    "roll": _one(REAL, ((3, 4), {"shift": (1, -2), "axis": (0, 1)}), ((3, 4), {"shift": 2}), ((5,), {"shift": -7, "axis": -1}),
                 ((0, 2), {"shift": 1, "axis": 0}), linear=True),
    "pad": dict(_one(REAL, ((2, 3), {"widths": ((1, 0), (2, 3))}), ((2,), {"widths": ((0, 0),)}), ((0,), {"widths": ((1, 2),)}),
                     linear=True),
                reference=lambda x, widths: np.pad(x, widths)),
    "tril": _one(REAL, ((2, 3, 3), {"k": -1}), ((3, 4), {"k": 1}), ((3, 2),), ((0, 2),), linear=True),
    "triu": _one(REAL, ((2, 3, 3), {"k": -1}), ((3, 4), {"k": 1}), ((3, 2),), ((0, 2),), linear=True),
    "repeat": _one(REAL, ((2, 3), {"repeats": 3, "axis": 0}), ((2, 3), {"repeats": 2, "axis": -1}),
                   ((2,), {"repeats": 0, "axis": 0}), linear=True),
    "tile": dict(_one(REAL, ((2, 3), {"reps": (2, 1, 3)}), ((2, 3), {"reps": (2,)}), ((), {"reps": (2,)}), ((2,), {"reps": (0,)}),
                      linear=True),
                 call=lambda xp, x, reps: xp.tile(x, reps)),
    # ---- indexing
    "getitem": dict(_one(REAL, *INDICES, kinds="efdFDi", linear=True), call=lambda xp, x, index: x[index]),
    "take": dict(_one(REAL, *TAKEN, kinds="efdFDi", linear=True),
                 call=lambda xp, x, indices, axis: xp.take(x, xp.asarray(indices), axis=axis)),
    "take_along_axis": dict(
        _one(REAL, ((4, 2), {"indices": PLACES, "axis": 0}), ((3, 4), {"indices": np.array([[0, -1]]), "axis": 1}),
             ((2, 0), {"indices": np.zeros((2, 0), int), "axis": 1}), ((3,), {"indices": REPEATED}), linear=True, kinds="efdFDi"),
        call=lambda xp, x, indices, axis=-1: xp.take_along_axis(x, xp.asarray(indices), axis=axis)),
    "scatter_add": dict(arguments=(REAL, REAL), linear=True, cases=_cases(
        (((4, 2), (3, 2)), {"indices": PLACES, "axis": 0}), (((3,), (3,)), {"indices": REPEATED}),
        (((3,), (0,)), {"indices": np.zeros(0, int)})), kinds="efdFD",
        call=lambda xp, x, v, indices, axis=-1: xp.scatter_add(x, indices, v, axis=axis),
        reference=lambda x, v, indices, axis=-1: _added(x, v, indices, axis)),
    "assemble": dict(arguments=(REAL, REAL), linear=True, cases=_cases([((3,), (2,))]), kinds="efdFD",
                     call=lambda xp, x, y: xp.assemble([_piece(x, REPEATED), _piece(y, slice(1, 3))], shape=(3,), dtype=x.dtype),
                     reference=lambda x, y: np.array([x[0] + x[2], y[0], y[1] + x[1]])),
    "sort": dict(_one(REAL, *ALONG, ((5, 2), {"axis": 0, "descending": True}), kinds="efdi"), kinks=lambda x: _gaps(x),
                 reference=lambda x, axis=-1, descending=False: np.flip(np.sort(x, axis), axis) if descending else np.sort(x, axis)),
    # ---- Fourier transforms
    "fft.fft": _one(REAL, *SPECTRA, kinds="fdFD", linear=True),
    "fft.ifft": _one(REAL, *SPECTRA, kinds="fdFD", linear=True),
    "fft.rfft": _one(REAL, *SPECTRA, kinds="fd", linear=True),
    "fft.irfft": _one(REAL, *SPECTRA[:2], *SPECTRA[5:6], ((2, 3), {"n": 9}), ((4,), {"n": 5}), ((2, 2), {"n": 6, "axis": 0}),
                      ((2, 4), {"n": 3}), kinds="FD", linear=True),
    "fft.hfft": _one(REAL, ((4,),), ((2, 3), {"n": 5}), ((3, 2), {"axis": 0}), kinds="FD", linear=True),
    "fft.ihfft": _one(REAL, ((6,),), ((2, 5),), ((3, 2), {"n": 4, "axis": 0}), kinds="fd", linear=True),
    "fft.fftn": _one(REAL, ((2, 3),), ((2, 3, 2), {"axes": (0, -1)}), kinds="fdFD", linear=True),
    "fft.ifftn": _one(REAL, ((2, 3),), ((2, 3, 2), {"axes": (0, -1)}), kinds="fdFD", linear=True),
    "fft.rfftn": _one(REAL, ((2, 3),), ((2, 3, 2), {"axes": (0, -1)}), kinds="fd", linear=True),
    "fft.irfftn": _one(REAL, ((2, 3),), ((2, 3, 2), {"axes": (0, -1), "s": (2, 3)}), kinds="FD", linear=True),
    "fft.fftshift": _one(REAL, ((5,),), ((2, 3), {"axes": 1}), linear=True),
    "fft.ifftshift": _one(REAL, ((5,),), ((2, 3), {"axes": (0, 1)}), linear=True),
    # ---- layers
    "nn.Linear": dict(arguments=(REAL, REAL, REAL), cases=_cases([((2, 3), (4, 3), (4,))], [((0, 3), (2, 3), (2,))]), kinds="efd",
                      call=_layer("Linear"), reference=lambda x, w, b: x @ w.T + b),
    "nn.Embedding": dict(_one(REAL, ((4, 3), {"tokens": PLACES % 4}), kinds="efd"), linear=True,
                         call=lambda xp, w, tokens: _layer("Embedding")(xp, tokens, w), reference=lambda w, tokens: w[tokens]),
    "nn.LayerNorm": dict(arguments=(REAL, REAL, REAL), cases=_cases([((2, 3), (3,), (3,))], [((0, 3), (3,), (3,))]), kinds="efd",
                         call=_layer("LayerNorm", eps=1e-5), reference=lambda x, w, b: (x - np.mean(x, -1, keepdims=True))
                         / np.sqrt(np.var(x, -1, keepdims=True) + 1e-5) * w + b),
    "nn.RMSNorm": dict(arguments=(REAL, REAL), cases=_cases([((2, 3), (3,))], [((2, 16), (16,))]), kinds="efd",
                       call=_layer("RMSNorm", eps=1e-6),
                       reference=lambda x, w: x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-6) * w),
    "nn.Conv1d": dict(arguments=(REAL, REAL, REAL, REAL), cases=_cases([((2, 5, 3), (3, 4), (3,), (2, 3, 3))],
                                                                       [((2, 1, 3), (3, 4), (3,), (2, 3, 3))],
                                                                       [((4, 2), (2, 1), (2,), (0, 2))]), kinds="efd",
                      call=lambda xp, x, w, b, state: _layer("Conv1d")(xp, x, w, b, state=state),
                      reference=lambda x, w, b, state: (_causal(x, w, state) + b, np.concatenate([state, x], -2)[..., x.shape[-2]:, :])),
    "nn.Dropout": dict(_one(REAL, ((3, 4),), kinds="efd"), linear=True,
                       call=lambda xp, x: _layer("Dropout", p=0.25)(xp, x, rng=np.random.default_rng(0)),
                       reference=lambda x: np.where(np.random.default_rng(0).random(x.shape) >= 0.25, x / 0.75, 0)),
}  # fmt: skip


def _predicate(kinds: str = "efdi", count: int = 1, **more: Any) -> dict:
    return {"arguments": (REAL,) * count, "cases": [(s, {}) for s in (UNARY, BINARY)[count - 1]], "kinds": kinds, "elementwise": True, **more}


CONSTANT: dict[str, dict] = {
    **{name: _predicate() for name in "isfinite isinf isnan".split()},
    **{name: _predicate("efdi") for name in "floor ceil round trunc logical_not".split()},
    "signbit": _predicate("efd"),
    **{name: _predicate("efdiu", 2) for name in "equal not_equal less less_equal greater greater_equal".split()},
    **{name: _predicate("efdi?", 2) for name in "logical_and logical_or logical_xor".split()},
    "floor_divide": {**_predicate("efdi", 2), "arguments": (REAL, NONZERO)},
    **{name: _one(REAL, *REDUCTIONS, *EMPTY, kinds="efdi?") for name in ("all", "any")},
    "count_nonzero": _one(REAL, *REDUCTIONS[:5], kinds="efdi?"),
    **{name: _one(REAL, *[c for c in REDUCTIONS if not isinstance(c[1:] and c[1].get("axis"), tuple)], kinds="efdi")
       for name in ("argmax", "argmin")},
    "argsort": dict(_one(REAL, *ALONG, ((5, 2), {"axis": 0, "descending": True}), kinds="efdi"),
                    reference=lambda x, axis=-1, descending=False: np.argsort(-x if descending else x, axis, stable=True)),
    "nonzero": _one(REAL, ((3, 4),), ((0,),), kinds="efdi?"),
    "unique_values": _one(REAL, ((3, 4),), ((0,),), kinds="efdi"),
    **{name: _predicate("iu", 2) for name in "bitwise_and bitwise_or bitwise_xor".split()},
    **{name: {**_predicate("iu", 2), "call": lambda xp, x, y, name=name: getattr(xp, name)(x, abs(y))}
       for name in ("bitwise_left_shift", "bitwise_right_shift")},
    "bitwise_invert": _predicate("iu?"),
    "nextafter": _predicate("fd", 2),
    "isin": dict(arguments=(REAL, REAL), cases=_cases([((2, 3), (4,))], (((3,), (2, 2)), {"invert": True})), kinds="efdi"),
    **{f"unique_{name}": _one(REAL, ((3, 4),), ((0,),), kinds="di") for name in ("counts", "inverse")},
    "unique_all": _one(REAL, ((3, 4),), kinds="di"),
    "linalg.matrix_rank": _one(REAL, ((3, 2),), ((2, 3, 3),), kinds="fdFD"),
    "searchsorted": dict(arguments=(REAL, REAL), cases=_cases([((4,), (2, 3))], [((0,), (2,))]), kinds="efdi",
                         call=lambda xp, x, y: xp.searchsorted(xp.sort(x), y)),
    "zeros_like": _one(REAL, ((2, 3),), ((),)),
    "ones_like": _one(REAL, ((2, 3),), ((),)),
    "empty_like": dict(_one(REAL, ((2, 0),)), reference=np.empty_like),
    "full_like": _one(REAL, ((2, 3), {"fill_value": 2})),
    "stop_gradient": dict(_one(REAL, ((2, 3),), ((),)), reference=lambda x: x),
    "zeros": _one(None, ((), {"shape": (2, 3)}), ((), {"shape": 3}), ((), {"shape": (2, 0), "dtype": np.float32})),
    "empty": _one(None, ((), {"shape": (2, 0)})),
    "fft.fftfreq": _one(None, ((), {"n": 5}), ((), {"n": 4, "d": 0.5})),
    "fft.rfftfreq": _one(None, ((), {"n": 5}), ((), {"n": 4, "d": 0.5})),
    "ones": _one(None, ((), {"shape": (2, 3)}), ((), {"shape": 3})),
    "full": _one(None, ((), {"shape": (2, 3), "fill_value": 2.5}), ((), {"shape": (), "fill_value": 1})),
    "eye": dict(_one(None, ((), {"sizes": (3,)}), ((), {"sizes": (2, 3), "k": -1}), ((), {"sizes": (0,)})),
                call=lambda xp, sizes, k=0: xp.eye(*sizes, k=k)),
    "arange": dict(_one(None, ((), {"start": 3}), ((), {"start": 1, "stop": 8, "step": 3}), ((), {"start": 5, "stop": 0, "step": -2})),
                   reference=lambda start, stop=None, step=1: np.arange(start) if stop is None else np.arange(start, stop, step)),
}  # fmt: skip

TOOLS = """
Tensor broadcast_shapes can_cast check_grads checkpoint finfo from_dlpack fused get_num_threads grad gradients hvp iinfo isdtype jvp keep_freed_memory namespace primitive
result_type set_num_threads value_and_grad vjp
""".split()


def _row(name: str, fields: dict) -> Row:
    return Row(**{"call": named(name), **fields})


ROWS = {name: _row(name, fields) for name, fields in ROWS.items()}
CONSTANT = {name: _row(name, fields) for name, fields in CONSTANT.items()}

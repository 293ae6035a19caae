"""A row of the table: what the oracle is told about one function, and how rows are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.oracle.draws import Domain

UNARY = tuple((shape,) for shape in ((3, 4), (), (1,), (0,), (2, 0, 3), (2, 1, 3)))
BINARY = (((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((), (3,)), ((2, 3), ()), ((), ()))
BINARY += (((0, 3), (1, 3)), ((1,), (0,)), ((2, 1, 3), (4, 1)))
FULL, REPEATED, MASK = slice(None), np.array([0, -1, 0]), np.array([True, False, True])
PLACES = np.array([[1, 0], [0, -1], [3, 1]])  # along an axis of 4
REDUCTIONS = (
    ((3, 4),),
    ((2, 3, 4), {"axis": 1}),
    ((2, 3, 4), {"axis": (0, -1), "keepdims": True}),
    ((5,), {"axis": -1}),
    ((2, 3, 2), {"axis": (2, 0)}),
    ((),),
    ((2, 0, 3), {"axis": -1}),
    ((1, 4), {"axis": 0}),
    ((3, 1), {"axis": 1}),
    ((3, 4), {"keepdims": True}),
)
EMPTY = (((2, 0, 3), {"axis": 1}), ((0,),), ((0, 2), {"axis": 0, "keepdims": True}))
ALONG = (
    ((3, 4), {"axis": 0}),
    ((2, 3, 4), {"axis": 1}),
    ((5,), {"axis": -1}),
    ((2, 0), {"axis": 1}),
    ((0, 3), {"axis": 1}),
    ((1, 3), {"axis": 0}),
)


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
    elementwise: bool = False
    fractions: bool = False  # whether it takes exact numbers
    flat: bool = False  # whether its first and second derivatives at 0 are 0, by convention
    # (arrays, options, value, gradients for a cotangent of ones, and perhaps the gradients of these gradients' sum)
    points: Sequence[tuple] = ()
    hermitian: Callable | None = None  # a function of a Hermitian matrix, whose gradient must be Hermitian
    order: int = 2  # up to which derivatives are compared with differences
    units: tuple = (4, 16, 64)  # in the last place that value, gradient and second derivative may be off


def named(name: str) -> Callable:
    """Return the call of the function of that name, dotted or not, in a namespace."""

    def call(xp: Any, *arrays: Any, **options: Any) -> Any:
        for part in name.split("."):
            xp = getattr(xp, part)
        return xp(*arrays, **options)

    return call


def unary(domain: Domain, exact: Callable | None, kinds: str = "efdFD", **more: Any) -> dict:
    return {
        "arguments": (domain,),
        "cases": [(s, {}) for s in UNARY],
        "exact": exact,
        "kinds": kinds,
        "elementwise": True,
        **more,
    }


def binary(x: Domain, y: Domain, exact: Callable | None, kinds: str = "efdFD", **more: Any) -> dict:
    return {
        "arguments": (x, y),
        "cases": [(s, {}) for s in BINARY],
        "exact": exact,
        "kinds": kinds,
        "elementwise": True,
        **more,
    }


def cases(*cases: tuple) -> list[tuple[tuple, dict]]:
    """Return cases from ((shape, …), options); options may be left out."""
    return [(c[0], c[1] if len(c) > 1 else {}) for c in cases]


def one(domain: Domain, *cases: tuple, kinds: str = "efdFD", **more: Any) -> dict:
    """Return a row for a function of one array, from (shape, options) for each case."""
    return {
        "arguments": (domain,),
        "cases": [((c[0],), c[1] if len(c) > 1 else {}) for c in cases],
        "kinds": kinds,
        **more,
    }


def gaps(x: np.ndarray) -> np.ndarray:
    """Return the differences between all entries: where two tie, the order changes."""
    flat = np.reshape(x, -1)
    return (flat[:, None] - flat)[~np.eye(flat.size, dtype=bool)]

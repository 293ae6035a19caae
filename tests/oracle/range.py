"""Elementwise functions over the whole range of a dtype, against mpmath."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import mpmath
import numpy as np

import minigrad as mg
from tests.oracle.domains import ROWS
from tests.oracle.draws import DTYPES, special
from tests.oracle.row import Row

BITS = {"e": 800, "f": 900, "d": 2600}  # (1e308)² + (2⁻³⁰⁰)² keeps the digits of both
STEP = mpmath.mpf(2) ** -300
WHAT = ("value", "gradient", "second derivative")
COUNTS = {"e": (80, 80, 0), "f": (120, 80, 0), "d": (80, 50, 25)}  # points at most, for each order


def points(row: Row, kind: str, order: int) -> list[np.ndarray]:
    """Return special numbers, or drawn pairs of them, within the domain of the function; mpmath has no −0."""
    columns = [[float(x) for x in special(kind)[:-3] if domain.contains(float(x))] for domain in row.arguments]
    near = 1e-300 if len(columns) == 1 else 1e-12  # a kink
    tuples = [t for t in itertools.product(*columns) if row.kinks is None or abs(row.kinks(*t)) > near]
    if order == 2:
        tuples = [t for t in tuples if max(map(abs, t)) < 1e100]
    chosen = np.random.default_rng(0).permutation(len(tuples))[: COUNTS[kind][order]]
    return [np.array(c, DTYPES[kind]) + 0 for c in zip(*(tuples[i] for i in chosen), strict=True)]


@functools.cache
def true(name: str, kind: str, order: int, position: int, *numbers: float) -> Any:
    """Return the function's value or derivative at one point, by differences in many digits; None where it has none."""
    exact = ROWS[name].exact
    assert exact
    with mpmath.workprec(BITS[kind]):
        xs = [mpmath.mpf(x) for x in numbers]
        smallest = 0 if ROWS[name].arguments[position].contains(0.0) is False else mpmath.mpf(2) ** -200
        h = STEP * min(max(abs(xs[position]), smallest), 1)

        def at(n: int) -> Any:
            return exact(*xs[:position], xs[position] + n * h, *xs[position + 1 :])

        try:
            outputs = (
                (at(0), (at(1) - at(-1)) / (2 * h), (at(1) - 2 * at(0) + at(-1)) / h**2)[order] if order else at(0)
            )
        except (ZeroDivisionError, ValueError):
            return None
        return outputs if isinstance(outputs, mpmath.mpf) else None


def wrong(actual: Any, expected: Any, units: float, slack: float) -> bool:
    """Return whether a number lies further from mpmath's than some units in the last place, overflow apart."""
    info = np.finfo(actual.dtype)
    largest, smallest = mpmath.mpf(float(info.max)), mpmath.mpf(float(info.smallest_subnormal))
    nearly = 1 - min(units * float(info.eps), 0.5)
    if abs(expected) > largest * nearly and abs(float(actual)) >= float(info.max) * nearly:
        return bool((actual > 0) != (expected > 0))
    if not np.isfinite(actual):
        return True
    if abs(expected) < smallest / 8:
        return abs(float(actual)) > units * float(smallest) + slack
    unit = max(float(info.eps) * abs(expected), smallest)
    return abs(mpmath.mpf(float(actual)) - expected) > units * unit + slack


def check_range(name: str, kind: str, order: int) -> None:
    """Raise AssertionError for special points whose value or derivative is off by more than some units."""
    row, dtype = ROWS[name], DTYPES[kind]
    xs, actual = points(row, kind, order), []

    def function(*a: Any) -> Any:
        return row.call(mg, *a)

    for position in range(len(xs) if order else 1):

        def first(*a: Any, position: int = position) -> Any:
            return mg.vjp(function, *a)[1](np.ones(a[0].shape, dtype))[position]

        def second(*a: Any, position: int = position, first: Any = first) -> Any:
            return mg.vjp(first, *a)[1](np.ones(a[0].shape, dtype))[position]

        for result, *at in zip(np.asarray((function, first, second)[order](*xs)), *xs, strict=True):
            numbers = [float(x) for x in at]
            expected = true(name, kind, order, position, *numbers)
            slack = 8 * float(np.finfo(dtype).eps) * (order == 2)
            if expected is not None and wrong(result, expected, row.units[order], slack):
                actual.append(f"{WHAT[order]} {position} at {numbers} is {result}, expected {mpmath.nstr(expected, 9)}")
    assert not actual, f"{len(actual)} of {name} in {dtype.__name__}: " + "; ".join(actual[:3])

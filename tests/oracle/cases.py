"""The cases of a row, its derivatives by differences, and comparisons of arrays: what the checks are made of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import minigrad as mg
from tests.oracle.draws import REAL, drawn
from tests.oracle.row import Row

STEP = 2.0**-9


class Case(NamedTuple):
    """A function of arrays in minigrad, what NumPy makes of the same, and the arrays."""

    row: Row
    function: Callable
    reference: Callable
    arrays: list[np.ndarray]


@contextmanager
def quiet() -> Iterator[None]:
    """Let NumPy divide by zero and overflow without a word, as here it must."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def cases(row: Row, kind: str, seed: int = 0) -> Iterator[Case]:
    """Yield every case of a row with arrays of a dtype, away from the kinks."""
    for shapes, options in row.cases:
        yield Case(row, bound(row, mg, options), reference(row, options), regular(row, shapes, kind, seed))


def bound(row: Row, xp: Any, options: dict) -> Callable:
    """Return the row's call over a namespace, with options."""
    return lambda *arrays: row.call(xp, *arrays, **options)


def reference(row: Row, options: dict) -> Callable:
    """Return what NumPy makes of the same, with options."""
    if row.reference is None:
        return bound(row, np, options)
    return lambda *arrays: row.reference(*arrays, **options)


def regular(row: Row, shapes: tuple, kind: str, seed: int) -> list[np.ndarray]:
    """Draw arguments of a dtype, away from the kinks."""
    domains = row.arguments or (REAL,) * len(shapes)
    if row.arguments == (None,):
        return []
    for attempt in range(1000):
        arrays = [
            drawn(d, s, kind, 1000 * seed + 10 * attempt + i)
            for i, (d, s) in enumerate(zip(domains, shapes, strict=True))
        ]
        if row.kinks is None or kind in "iu?" or np.all(np.abs(row.kinks(*arrays)) > 0.02):
            return arrays
    raise AssertionError(f"{shapes}: no draw away from the kinks")


# ---- derivatives by differences


def raw(outputs: Any) -> Any:
    """Return the value of a Tensor, and anything else as it is."""
    return outputs.value if isinstance(outputs, mg.Tensor) else outputs


def parts(outputs: Any) -> list[np.ndarray]:
    """Return a function's results as a list of arrays."""
    return [np.asarray(raw(m)) for m in (outputs if isinstance(outputs, (tuple, list)) else [outputs])]


def weights(outputs: Any, seed: int = 1) -> list[np.ndarray]:
    """Draw a cotangent for each result, of its dtype."""
    return [drawn(REAL, m.shape, np.dtype(m.dtype).char, seed + i) for i, m in enumerate(parts(outputs))]


def pulled(function: Callable, arrays: list, ws: list[np.ndarray], *, record: bool = False) -> tuple[Any, list]:
    """Return a function's results and the cotangents of its arguments, by the plain pass or by the recorded one."""
    out, pull = mg.vjp(function, *(map(mg.Tensor, arrays) if record else arrays))
    g = tuple(ws) if isinstance(out, (tuple, list)) else ws[0]
    return out, list(pull(g))


def adjoint(function: Callable, count: int) -> Callable:
    """Return the gradient as a function of the arguments and of the cotangents, which come after them."""
    return lambda *xs: tuple(pulled(function, list(xs[:count]), list(xs[count:]))[1])


def by_differences(function: Callable, arrays: list, ws: list, most: int) -> Iterator[tuple[int, tuple, complex]]:
    """Yield (argument, place, ∂ Re⟨w, f⟩) for up to `most` entries: central differences, extrapolated twice."""

    def objective(moved: list[np.ndarray]) -> float:
        return sum(float(np.sum((np.conj(w) * y).real)) for w, y in zip(ws, parts(function(*moved)), strict=True))

    def slope(n: int, position: tuple, step: complex) -> float:
        sides = []
        for sign in (1, -1):
            moved = [a.copy() for a in arrays]
            moved[n][position] += sign * step
            sides.append(objective(moved))
        return (sides[0] - sides[1]) / (2 * abs(step))

    def extrapolated(n: int, position: tuple, unit: complex) -> float:
        one, two, three = (slope(n, position, unit * STEP / h) for h in (1, 2, 4))
        return (16 * (4 * three - two) - (4 * two - one)) / 45

    positions = [(n, position) for n, a in enumerate(arrays) for position in np.ndindex(a.shape)]
    for i in np.random.default_rng(0).permutation(len(positions))[:most]:
        n, position = positions[i]
        imaginary = 1j * extrapolated(n, position, 1j) if arrays[n].dtype.kind == "c" else 0
        yield n, position, extrapolated(n, position, 1) + imaginary


# ---- comparisons


def close(label: str, actual: Any, expected: Any, tolerance: float) -> None:
    """Compare relative to the largest finite expected entry; NaN and infinities must be in the same places."""
    actual, expected = np.asarray(raw(actual)), np.asarray(raw(expected))
    assert actual.shape == expected.shape, f"{label} has shape {actual.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    wide = np.result_type(expected.dtype, np.float64)
    with np.errstate(all="ignore"):
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        scale = max(1.0, float(np.max(np.abs(expected[finite]), initial=0)))
        error = np.abs(actual.astype(wide) - expected.astype(wide))
    bad = ~same & ~(finite & (error <= tolerance * scale))
    assert not np.any(bad), (
        f"{label} is {actual[bad][:3]}, expected {expected[bad][:3]} (at {np.argwhere(bad)[0].tolist()})"
    )


def identical(label: str, actual: Any, expected: Any) -> None:
    """Compare bit for bit, except for the bits of a NaN."""
    close(label, actual, expected, 0)

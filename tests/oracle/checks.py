"""What holds of every row: the checks that the tests and the mutants run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import minigrad as mg
import minigrad.nn
from tests.oracle.domains import CONSTANT, ROWS
from tests.oracle.draws import DTYPES, REAL, drawn, layouts, numpy_integers, special
from tests.oracle.row import BINARY, Row

WIDER = {"e": "d", "f": "d", "d": "d", "F": "D", "D": "D"}
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
        yield Case(row, _bound(row, mg, options), _expected(row, options), _regular(row, shapes, kind, seed))


def _bound(row: Row, xp: Any, options: dict) -> Callable:
    return lambda *arrays: row.call(xp, *arrays, **options)


def _expected(row: Row, options: dict) -> Callable:
    if row.reference is None:
        return _bound(row, np, options)
    return lambda *arrays: row.reference(*arrays, **options)


def _regular(row: Row, shapes: tuple, kind: str, seed: int) -> list[np.ndarray]:
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


def raw(made: Any) -> Any:
    """Return the value of a Tensor, and anything else as it is."""
    return made.value if isinstance(made, mg.Tensor) else made


def parts(made: Any) -> list[np.ndarray]:
    """Return a function's results as a list of arrays."""
    return [np.asarray(raw(m)) for m in (made if isinstance(made, (tuple, list)) else [made])]


def weights(made: Any, seed: int = 1) -> list[np.ndarray]:
    """Draw a cotangent for each result, of its dtype."""
    return [drawn(REAL, m.shape, np.dtype(m.dtype).char, seed + i) for i, m in enumerate(parts(made))]


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

    def slope(n: int, place: tuple, step: complex) -> float:
        sides = []
        for sign in (1, -1):
            moved = [a.copy() for a in arrays]
            moved[n][place] += sign * step
            sides.append(objective(moved))
        return (sides[0] - sides[1]) / (2 * abs(step))

    def extrapolated(n: int, place: tuple, unit: complex) -> float:
        one, two, three = (slope(n, place, unit * STEP / h) for h in (1, 2, 4))
        return (16 * (4 * three - two) - (4 * two - one)) / 45

    places = [(n, place) for n, a in enumerate(arrays) for place in np.ndindex(a.shape)]
    for i in np.random.default_rng(0).permutation(len(places))[:most]:
        n, place = places[i]
        imaginary = 1j * extrapolated(n, place, 1j) if arrays[n].dtype.kind == "c" else 0
        yield n, place, extrapolated(n, place, 1) + imaginary


# ---- comparisons


def close(what: str, got: Any, expected: Any, tolerance: float) -> None:
    """Hold got to expected, relative to the largest finite entry of that; NaN and infinities in their places."""
    got, expected = np.asarray(raw(got)), np.asarray(raw(expected))
    assert got.shape == expected.shape, f"{what} has shape {got.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    wide = np.result_type(expected.dtype, np.float64)
    with np.errstate(all="ignore"):
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        scale = max(1.0, float(np.max(np.abs(expected[finite]), initial=0)))
        error = np.abs(got.astype(wide) - expected.astype(wide))
    bad = ~same & ~(finite & (error <= tolerance * scale))
    assert not np.any(bad), (
        f"{what} is {got[bad][:3]}, expected {expected[bad][:3]} (at {np.argwhere(bad)[0].tolist()})"
    )


def identical(what: str, got: Any, expected: Any) -> None:
    """Hold got to expected, bit for bit but for the NaN."""
    close(what, got, expected, 0)


# ---- the checks


def check_values(row: Row) -> None:
    """Values and dtypes are those of the reference, for every dtype; a Tensor gives the same."""
    for kind in row.kinds:
        for case in cases(row, kind):
            plain, boxed = case.function(*case.arrays), case.function(*map(mg.Tensor, case.arrays))
            expected = case.reference(*[a.astype(DTYPES[WIDER.get(kind, kind)]) for a in case.arrays])
            for r, b, e in zip(parts(plain), parts(boxed), parts(expected), strict=True):
                tolerance = 32 * float(np.finfo(DTYPES[kind]).eps) if kind in WIDER else 0
                close(f"value ({kind})", r, e, tolerance)
                identical(f"value of a Tensor ({kind})", b, r)
            for r, e in zip(parts(plain), parts(case.reference(*case.arrays)), strict=True):
                assert r.dtype == e.dtype, f"dtype of {kind} is {r.dtype}, expected {e.dtype}"


def check_gradients(row: Row) -> None:
    """First and second derivatives are those of differences, plain pass and recorded pass alike."""
    for kind in row.kinds:
        if kind not in "dD":
            continue
        for case in cases(row, kind):
            function, arrays = case.function, case.arrays
            for order in range(1, row.order + 1):
                ws = weights(function(*arrays))
                _, plain = pulled(function, arrays, ws)
                for n, (p, a) in enumerate(zip(plain, arrays, strict=True)):
                    assert p.dtype == a.dtype, f"gradient {n} is {p.dtype}, expected {a.dtype}"
                    assert p.shape == a.shape, f"gradient {n} has shape {p.shape}, expected {a.shape}"
                if order == 1:
                    for n, (p, r) in enumerate(zip(plain, pulled(function, arrays, ws, record=True)[1], strict=True)):
                        close(f"gradient {n} of the recorded pass ({kind})", r, p, 1e-13)
                for n, place, slope in by_differences(function, arrays, ws, 24 if order == 1 else 8):
                    what = f"gradient {n} of order {order} at {place} ({kind})"
                    close(what, plain[n][place], slope, 10.0 ** (order - 9))
                function, arrays = adjoint(function, len(arrays)), [*arrays, *ws]


def check_low_precision(row: Row) -> None:
    """The gradient in few bits is that of float64 at the same numbers, rounded."""
    for kind in row.kinds:
        if kind not in "efF":
            continue
        for case in cases(row, kind):
            wide = [a.astype(DTYPES[WIDER[kind]]) for a in case.arrays]
            ws = weights(case.function(*case.arrays))
            _, narrow = pulled(case.function, case.arrays, ws)
            ws = [w.astype(np.result_type(w.dtype, np.float64)) for w in ws]
            _, exact = pulled(case.function, wide, ws)
            for n, (g, e) in enumerate(zip(narrow, exact, strict=True)):
                assert g.dtype == case.arrays[n].dtype, f"gradient {n} is {g.dtype}, expected {case.arrays[n].dtype}"
                close(f"gradient {n} ({kind})", g, e, 64 * float(np.finfo(DTYPES[kind]).eps))


def check_layouts(row: Row) -> None:
    """Neither values nor gradients depend on how the arguments lie in memory, and nothing is written into them."""
    for kind in set(row.kinds) & set("fD" if "D" in row.kinds else "f"):
        for case in cases(row, kind):
            ws = weights(case.function(*case.arrays))
            out, expected = pulled(case.function, case.arrays, ws)
            for layout in ("Fortran order", "negative strides", "strides", "big-endian", "unaligned and read-only"):
                arrays = [dict(layouts(a))[layout] for a in case.arrays]
                before = [a.copy() for a in arrays]
                g = [dict(layouts(w))[layout] for w in ws]
                made, found = pulled(case.function, arrays, g)
                plain = case.function(*arrays)
                for m, r, e in zip(parts(made), parts(plain), parts(out), strict=True):
                    close(f"value, {layout} ({kind})", m, e, 1e-6)
                    close(f"value of raw arrays, {layout} ({kind})", r, e, 1e-6)
                for n, (f, e) in enumerate(zip(found, expected, strict=True)):
                    close(f"gradient {n}, {layout} ({kind})", f, e, 1e-5)
                for a, b in zip(arrays, before, strict=True):
                    identical(f"argument after the call, {layout}", a, b)


def check_memory(row: Row) -> None:
    """Gradients are fresh, writable arrays that share memory with nothing."""
    for case in cases(row, "d" if "d" in row.kinds else "D"):
        ws = weights(case.function(*case.arrays))
        arrays, given = [a.copy() for a in case.arrays], [w.copy() for w in ws]
        out, found = pulled(case.function, arrays, given)
        for n, f in enumerate(found):
            assert f.flags.writeable or isinstance(f, np.generic), f"gradient {n} is read-only"
            for m, other in enumerate([*arrays, *given, *found[:n], *parts(out)]):
                assert not np.shares_memory(f, other), (
                    f"gradient {n} shares memory with array {m} of arguments, cotangents, gradients"
                )
        for a, b in zip([*arrays, *given], [*case.arrays, *ws], strict=True):
            identical("argument after the gradient", a, b)


def check_linear(row: Row) -> None:
    """A linear function's gradient does not depend on its arguments, NaN and infinities included."""
    if not row.linear:
        return
    for case in cases(row, "d" if "d" in row.kinds else "D"):
        ws = weights(case.function(*case.arrays))
        _, expected = pulled(case.function, case.arrays, ws)
        for value in (np.nan, np.inf, 0.0):
            _, found = pulled(case.function, [np.full_like(a, value) for a in case.arrays], ws)
            for n, (f, e) in enumerate(zip(found, expected, strict=True)):
                identical(f"gradient {n} at {value}", f, e)


def check_options(row: Row) -> None:
    """NumPy's integers serve where Python's do, in values and gradients."""
    for shapes, options in row.cases:
        other = numpy_integers(options)
        if repr(other) == repr(options):
            continue
        kind = "d" if "d" in row.kinds else "D"
        arrays = _regular(row, shapes, kind, 0)
        one, two = _bound(row, mg, options), _bound(row, mg, other)
        for r, e in zip(parts(two(*arrays)), parts(one(*arrays)), strict=True):
            identical("value with NumPy's integers", r, e)
        if not arrays or row in CONSTANT.values():
            continue
        ws = weights(one(*arrays))
        for r, e in zip(pulled(two, arrays, ws)[1], pulled(one, arrays, ws)[1], strict=True):
            identical("gradient with NumPy's integers", r, e)


def check_mixed(row: Row) -> None:
    """Two dtypes give NumPy's; a Python number takes the array's; a gradient has its argument's dtype."""
    if not row.elementwise or len(row.arguments) != 2 or row in CONSTANT.values():
        return
    x, y = _regular(row, BINARY[0], "d", 0)

    def function(*xs: Any) -> Any:
        return row.call(mg, *xs)

    for one, two in ("fd", "df", "ed", "ef", "dD", "Ff", "di", "fi"):
        if not {one, two} <= {*row.kinds, "i"}:
            continue
        arrays = [x.astype(DTYPES[one]), np.round(2 * y + 0.1).astype(int) if two == "i" else y.astype(DTYPES[two])]
        out, expected = function(*arrays), _expected(row, {})(*arrays)
        assert out.dtype == expected.dtype, f"{one} and {two} make {out.dtype}, expected {expected.dtype}"
        close(f"value of {one} and {two}", out, expected, 16 * float(np.finfo(out.dtype).eps))
        if two == "i":
            continue
        wide = [a.astype(out.dtype) for a in arrays]
        ws = weights(out)
        for n, (got, e) in enumerate(zip(pulled(function, arrays, ws)[1], pulled(function, wide, ws)[1], strict=True)):
            assert got.dtype == arrays[n].dtype, (
                f"gradient {n} of {one} and {two} is {got.dtype}, expected {arrays[n].dtype}"
            )
            close(
                f"gradient {n} of {one} and {two}",
                got,
                e if got.dtype.kind == "c" else e.real,
                4 * float(np.finfo(got.dtype).eps),
            )
    for kind in set(row.kinds) & set("efdF"):
        a = x.astype(DTYPES[kind])
        for f, place in ((lambda t: function(t, 0.75), 0), (lambda t: function(0.75, t), 1)):
            both = [a, np.full_like(a, 0.75)] if place == 0 else [np.full_like(a, 0.75), a]
            out = f(a)
            assert out.dtype == a.dtype, f"{kind} and a Python number make {out.dtype}"
            ws = weights(out)
            close(f"value beside a number ({kind})", out, function(*both), 4 * float(np.finfo(out.dtype).eps))
            got, e = pulled(f, [a], ws)[1][0], pulled(function, both, ws)[1][place]
            assert got.dtype == a.dtype, f"gradient beside a number is {got.dtype}, expected {a.dtype}"
            close(f"gradient beside a number ({kind})", got, e, 16 * float(np.finfo(out.dtype).eps))


def check_special(row: Row) -> None:
    """NaN, infinities and signed zeros come out where NumPy's function of the same array has them."""
    if not row.elementwise:
        return
    for kind in set(row.kinds) & set("efd"):
        x = special(kind)
        arrays = [x] if len(row.arguments) == 1 else [np.repeat(x, x.size), np.tile(x, x.size)]
        properties = {"NaN": np.isnan, "infinity": np.isinf}
        if row.kinks is None:
            properties["sign of zero"] = lambda v: (v == 0) & np.signbit(v)
        got, narrow, wide = (
            f(*xs)
            for f, xs in (
                (_bound(row, mg, {}), arrays),
                (_expected(row, {}), arrays),
                (_expected(row, {}), [a.astype(float) for a in arrays]),
            )
        )
        for g, e, f in zip(parts(got), parts(narrow), parts(wide), strict=True):
            for what, has in properties.items() if g.dtype.kind == "f" else ():
                differ = np.nonzero((has(g) != has(e)) & (has(g) != has(f.astype(g.dtype))))[0]
                at = [float(a[differ[0]]) for a in arrays] if len(differ) else None
                assert at is None, f"{what} at {at} ({kind}): {g[differ[0]]}, expected {e[differ[0]]}"


def check_constant(row: Row) -> None:
    """A Tensor in makes constants, through which no gradient flows."""
    for case in cases(row, "d" if "d" in row.kinds else "i"):
        if not case.arrays:
            continue
        made = case.function(*map(mg.Tensor, case.arrays))
        for m in made if isinstance(made, tuple) else [made]:
            assert isinstance(m, mg.Tensor) and m._node is None, "the result is no constant Tensor"


EVERY = (
    check_values,
    check_options,
    check_gradients,
    check_low_precision,
    check_layouts,
    check_memory,
    check_linear,
    check_mixed,
    check_special,
)


def check(name: str) -> None:
    """Raise AssertionError, or whatever the function raises, where a row does not hold."""
    row = ROWS.get(name) or CONSTANT[name]
    with quiet():
        for one in EVERY if name in ROWS else (check_values, check_options, check_special, check_constant):
            one(row)


def touch(name: str) -> None:
    """Run the value and the derivatives of every case of a row, whatever they are."""
    row = ROWS.get(name) or CONSTANT[name]
    for kind in sorted(set(row.kinds) & set("dD")) or row.kinds[0]:
        for case in cases(row, kind):
            function, arrays = case.function, case.arrays
            with contextlib.suppress(Exception):
                function(*arrays)
                for _ in range(row.order if name in ROWS else 0):
                    ws = weights(function(*arrays))
                    function, arrays = adjoint(function, len(arrays)), [*arrays, *ws]
                function(*arrays)

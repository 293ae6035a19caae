"""Checks of a row of the oracle's table, run by the tests and against mutants."""

from __future__ import annotations

import contextlib
import itertools
from fractions import Fraction
from typing import Any

import numpy as np

import minigrad as mg
import minigrad.nn
from tests.oracle.cases import (
    adjoint,
    bound,
    by_differences,
    cases,
    close,
    identical,
    parts,
    pulled,
    quiet,
    reference,
    regular,
    weights,
)
from tests.oracle.domains import CONSTANT, ROWS
from tests.oracle.draws import DTYPES, layouts, numpy_integers, special
from tests.oracle.row import BINARY, Row

WIDER = {"e": "d", "f": "d", "d": "d", "F": "D", "D": "D"}


def check_values(row: Row) -> None:
    """Check values and dtypes against the reference, for every dtype, and for Tensors."""
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
    """Check first and second derivatives against differences, in ordinary and recorded passes."""
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
                for n, position, slope in by_differences(function, arrays, ws, 24 if order == 1 else 8):
                    label = f"gradient {n} of order {order} at {position} ({kind})"
                    close(label, plain[n][position], slope, 10.0 ** (order - 9))
                function, arrays = adjoint(function, len(arrays)), [*arrays, *ws]


def check_low_precision(row: Row) -> None:
    """Check that a gradient of low precision is that of float64 at the same numbers, rounded."""
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
    """Check that results do not depend on the arguments' memory layout, and that no argument is written to."""
    for kind in set(row.kinds) & set("fD" if "D" in row.kinds else "f"):
        for case in cases(row, kind):
            ws = weights(case.function(*case.arrays))
            out, expected = pulled(case.function, case.arrays, ws)
            for layout in ("Fortran order", "negative strides", "strides", "big-endian", "unaligned and read-only"):
                arrays = [dict(layouts(a))[layout] for a in case.arrays]
                before = [a.copy() for a in arrays]
                g = [dict(layouts(w))[layout] for w in ws]
                outputs, actual = pulled(case.function, arrays, g)
                plain = case.function(*arrays)
                for m, r, e in zip(parts(outputs), parts(plain), parts(out), strict=True):
                    close(f"value, {layout} ({kind})", m, e, 1e-6)
                    close(f"value of raw arrays, {layout} ({kind})", r, e, 1e-6)
                for n, (f, e) in enumerate(zip(actual, expected, strict=True)):
                    close(f"gradient {n}, {layout} ({kind})", f, e, 1e-5)
                for a, b in zip(arrays, before, strict=True):
                    identical(f"argument after the call, {layout}", a, b)


def check_memory(row: Row) -> None:
    """Check that gradients are writable arrays that share memory with nothing."""
    for case in cases(row, "d" if "d" in row.kinds else "D"):
        ws = weights(case.function(*case.arrays))
        arrays, arguments = [a.copy() for a in case.arrays], [w.copy() for w in ws]
        out, result = pulled(case.function, arrays, arguments)
        for n, f in enumerate(result):
            assert f.flags.writeable or isinstance(f, np.generic), f"gradient {n} is read-only"
            for m, other in enumerate([*arrays, *arguments, *result[:n], *parts(out)]):
                assert not np.shares_memory(f, other), (
                    f"gradient {n} shares memory with array {m} of arguments, cotangents, gradients"
                )
        for a, b in zip([*arrays, *arguments], [*case.arrays, *ws], strict=True):
            identical("argument after the gradient", a, b)


def check_linear(row: Row) -> None:
    """Check that a linear function's gradient does not depend on its arguments, NaN and infinities included."""
    if not row.linear:
        return
    for case in cases(row, "d" if "d" in row.kinds else "D"):
        ws = weights(case.function(*case.arrays))
        _, expected = pulled(case.function, case.arrays, ws)
        for value in (np.nan, np.inf, 0.0):
            _, actual = pulled(case.function, [np.full_like(a, value) for a in case.arrays], ws)
            for n, (f, e) in enumerate(zip(actual, expected, strict=True)):
                identical(f"gradient {n} at {value}", f, e)


def check_fractions(row: Row) -> None:
    """Check that exact numbers give what floats give, in values and gradients."""
    if not row.fractions:
        return
    for case in cases(row, "d"):
        arrays = [np.array([Fraction(float(x)) for x in a.flat], object).reshape(a.shape) for a in case.arrays]
        outputs = case.function(*case.arrays)
        close("value of fractions", np.asarray(case.function(*arrays)).astype(float), outputs, 1e-12)
        ws = weights(outputs)
        exact = [np.array([Fraction(float(x)) for x in w.flat], object).reshape(w.shape) for w in ws]
        _, expected = pulled(case.function, case.arrays, ws)
        for n, (g, e) in enumerate(zip(pulled(case.function, arrays, exact)[1], expected, strict=True)):
            close(f"gradient {n} of fractions", np.asarray(g).astype(float), e, 1e-12)


def check_zeros(row: Row) -> None:
    """Check that first and second derivatives at zeros are zero where a convention says so."""
    for kind in sorted({*"dD"} & {*row.kinds}) if row.flat else ():
        for case in cases(row, kind):
            function, arrays = case.function, [np.zeros_like(a) for a in case.arrays]
            for _ in range(2):
                ws = weights(function(*arrays))
                for n, g in enumerate(pulled(function, arrays, ws)[1]):
                    identical(f"gradient {n} at zeros ({kind})", g, np.zeros_like(g))
                function, arrays = adjoint(function, len(arrays)), [*arrays, *ws]


def _exact(x: Any) -> bool:
    return np.asarray(x).dtype == object


def check_points(row: Row) -> None:
    """Check value and gradients at the row's special points, each relative to its own size.

    Where a point has them, so are the gradients of the sum of all gradients. A gradient that is None is not taken.
    """
    for arguments, options, value, gradients, *second in row.points:
        arrays = [
            np.asarray(a) if _exact(a) else np.asarray(a, complex if np.iscomplexobj(a) else float) for a in arguments
        ]
        function, positions = bound(row, mg, options), [n for n, g in enumerate(gradients) if g is not None]

        def first(*xs: Any, function: Any = function, positions: list[int] = positions) -> tuple:
            def partial(*moved: Any) -> Any:
                return function(*(moved[positions.index(n)] if n in positions else x for n, x in enumerate(xs)))

            ones = [np.ones_like(w) for w in parts(function(*xs))]
            return tuple(pulled(partial, [xs[n] for n in positions], ones)[1])

        compared = [("value", parts(function(*arrays))[0], value)]
        compared += [(f"gradient {n}", g, gradients[n]) for n, g in zip(positions, first(*arrays), strict=True)]
        if second:
            actual = pulled(first, arrays, [np.ones_like(arrays[n]) for n in positions])[1]
            compared += [(f"second gradient {n}", *pair) for n, pair in enumerate(zip(actual, *second, strict=True))]
        for label, result, expected in compared:
            if _exact(result):
                assert np.array_equal(result, expected), f"{label} at {arguments} is {result}, expected {expected}"
                continue
            assert np.allclose(result, expected, rtol=2e-14, atol=0, equal_nan=True), (
                f"{label} at {arguments} is {result}, expected {expected}"
            )


def check_hermitian(row: Row) -> None:
    """Check that the gradient for a Hermitian matrix is Hermitian, although one triangle of it is read."""
    for kind in "dD" if row.hermitian else "":
        for case in cases(row, kind):
            (a,) = case.arrays
            a = a @ np.conj(np.swapaxes(a, -1, -2))
            _, (g,) = pulled(row.hermitian, [a], weights(row.hermitian(a)))
            close(f"gradient ({kind})", np.conj(np.swapaxes(g, -1, -2)), g, 1e-12)


def check_options(row: Row) -> None:
    """Check that NumPy's integers are accepted as Python's are, in values and gradients."""
    for shapes, options in row.cases:
        other = numpy_integers(options)
        if repr(other) == repr(options):
            continue
        kind = "d" if "d" in row.kinds else "D"
        arrays = regular(row, shapes, kind, 0)
        one, two = bound(row, mg, options), bound(row, mg, other)
        for r, e in zip(parts(two(*arrays)), parts(one(*arrays)), strict=True):
            identical("value with NumPy's integers", r, e)
        if not arrays or row in CONSTANT.values():
            continue
        ws = weights(one(*arrays))
        for r, e in zip(pulled(two, arrays, ws)[1], pulled(one, arrays, ws)[1], strict=True):
            identical("gradient with NumPy's integers", r, e)


def check_mixed(row: Row) -> None:
    """Check the promotion of two dtypes and of Python numbers; a gradient has its argument's dtype."""
    if not row.elementwise or len(row.arguments) != 2 or row in CONSTANT.values():
        return
    x, y = regular(row, BINARY[0], "d", 0)

    def function(*xs: Any) -> Any:
        return row.call(mg, *xs)

    for one, two in ("fd", "df", "ed", "ef", "dD", "Ff", "di", "fi"):
        if not {one, two} <= {*row.kinds, "i"}:
            continue
        arrays = [x.astype(DTYPES[one]), np.round(2 * y + 0.1).astype(int) if two == "i" else y.astype(DTYPES[two])]
        out, expected = function(*arrays), reference(row, {})(*arrays)
        assert out.dtype == expected.dtype, f"{one} and {two} make {out.dtype}, expected {expected.dtype}"
        close(f"value of {one} and {two}", out, expected, 16 * float(np.finfo(out.dtype).eps))
        if two == "i":
            continue
        wide = [a.astype(out.dtype) for a in arrays]
        ws = weights(out)
        for n, (actual, e) in enumerate(
            zip(pulled(function, arrays, ws)[1], pulled(function, wide, ws)[1], strict=True)
        ):
            assert actual.dtype == arrays[n].dtype, (
                f"gradient {n} of {one} and {two} is {actual.dtype}, expected {arrays[n].dtype}"
            )
            close(
                f"gradient {n} of {one} and {two}",
                actual,
                e if actual.dtype.kind == "c" else e.real,
                4 * float(np.finfo(actual.dtype).eps),
            )
    for kind, number in itertools.product(sorted(set(row.kinds) & set("efdF")), (0.75, 0.0, -1.5)):
        a = x.astype(DTYPES[kind])
        if number < 0 and kind == "F":
            continue
        if number == 0:
            a[0, 0] = 0
        for f, position in ((lambda t, n=number: function(t, n), 0), (lambda t, n=number: function(n, t), 1)):
            both = [a, np.full_like(a, number)] if position == 0 else [np.full_like(a, number), a]
            out = f(a)
            assert out.dtype == a.dtype, f"{kind} and a Python number make {out.dtype}"
            ws = weights(out)
            close(f"value beside a number ({kind})", out, function(*both), 4 * float(np.finfo(out.dtype).eps))
            actual, e = pulled(f, [a], ws)[1][0], pulled(function, both, ws)[1][position]
            assert actual.dtype == a.dtype, f"gradient beside a number is {actual.dtype}, expected {a.dtype}"
            close(f"gradient beside a number ({kind})", actual, e, 16 * float(np.finfo(out.dtype).eps))


def check_special(row: Row) -> None:
    """Check that NaN, infinities and signed zeros are where NumPy's function of the same array has them."""
    if not row.elementwise:
        return
    for kind in set(row.kinds) & set("efd"):
        x = special(kind)
        arrays = [x] if len(row.arguments) == 1 else [np.repeat(x, x.size), np.tile(x, x.size)]
        properties = {"NaN": np.isnan, "infinity": np.isinf}
        if row.kinks is None:
            properties["sign of zero"] = lambda v: (v == 0) & np.signbit(v)
        result, narrow, wide = (
            f(*xs)
            for f, xs in (
                (bound(row, mg, {}), arrays),
                (reference(row, {}), arrays),
                (reference(row, {}), [a.astype(float) for a in arrays]),
            )
        )
        for g, e, f in zip(parts(result), parts(narrow), parts(wide), strict=True):
            for label, has in properties.items() if g.dtype.kind == "f" else ():
                differ = np.nonzero((has(g) != has(e)) & (has(g) != has(f.astype(g.dtype))))[0]
                at = [float(a[differ[0]]) for a in arrays] if len(differ) else None
                assert at is None, f"{label} at {at} ({kind}): {g[differ[0]]}, expected {e[differ[0]]}"


def check_constant(row: Row) -> None:
    """Check that a function of a Tensor returns constants, through which no gradient flows."""
    for case in cases(row, "d" if "d" in row.kinds else "i"):
        if not case.arrays:
            continue
        outputs = case.function(*map(mg.Tensor, case.arrays))
        for m in outputs if isinstance(outputs, tuple) else [outputs]:
            assert isinstance(m, mg.Tensor) and m._node is None, "the result is no constant Tensor"


EVERY = (
    check_values,
    check_options,
    check_gradients,
    check_low_precision,
    check_layouts,
    check_memory,
    check_linear,
    check_fractions,
    check_zeros,
    check_points,
    check_hermitian,
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
    check_fractions(row)
    for kind in sorted(set(row.kinds) & set("dD")) or row.kinds[0]:
        for case in cases(row, kind):
            function, arrays = case.function, case.arrays
            with contextlib.suppress(Exception):
                function(*arrays)
                for _ in range(row.order if name in ROWS else 0):
                    ws = weights(function(*arrays))
                    function, arrays = adjoint(function, len(arrays)), [*arrays, *ws]
                function(*arrays)

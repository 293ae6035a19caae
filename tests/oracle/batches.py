"""Functions that map over a leading axis: all at once is one by one, on both sides of every size that changes the form.

The pieces are small enough for the plain form, so the compiled one is held to it; and what is NaN in one piece leaves
the others as they were.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import minigrad as mg
from tests.oracle.cases import close, parts, pulled
from tests.oracle.domains import ROWS
from tests.oracle.draws import DTYPES, REAL, drawn, special
from tests.oracle.row import Row

SIZES = (4095, 4096, 4097)  # minigrad.compiled.LARGE and its neighbours
ONE, TWO = (True,), (True, True)

# (shapes, options, which arguments have the leading axis); the sizes at which forms change are named beside them
BATCHES: dict[str, list[tuple]] = {
    "softmax": [
        (((3, 63, 65),), {}, ONE),
        (((2, 2, 64, 64),), {}, ONE),
        (((2, 64, 65),), {"axis": -2}, ONE),
        (((3, 4),), {}, ONE),
    ],
    "log_softmax": [(((3, 64, 64),), {}, ONE), (((3, 4),), {}, ONE)],
    "logsumexp": [(((3, 64, 64),), {"axis": -1}, ONE), (((3, 4),), {"axis": -1}, ONE)],
    "rms_norm": [
        (((16, 16, 16),), {}, ONE),
        (((17, 15, 16),), {}, ONE),
        (((18, 16, 15),), {}, ONE),
        (((3, 4),), {}, ONE),
    ],
    "scan": [
        (((2, 511, 1), (2, 511, 1)), {}, TWO),
        (((2, 512, 1), (2, 512, 1)), {}, TWO),
        (((2, 257, 2), (2, 257, 2)), {"axis": -2, "reverse": True}, TWO),
        (((2, 3, 171), (2, 3, 171)), {"axis": -1}, TWO),
        (((3, 4, 1), (3, 4, 2)), {}, TWO),
    ],
    "swiglu": [
        (((8, 8, 64),), {}, ONE),
        (((20, 8, 30),), {}, ONE),
        (((16, 8, 32),), {}, ONE),
        (((9, 8, 66),), {}, ONE),
    ],
    "rotary": [
        (((8, 8, 64), (8, 32), (8, 32)), {}, (True, False, False)),
        (((20, 8, 30), (8, 15), (8, 15)), {}, (True, False, False)),
        (((9, 8, 66), (8, 33), (8, 33)), {}, (True, False, False)),
    ],
    "causal_conv1d": [
        (((4, 64, 16), (16, 4), (4, 3, 16)), {}, (True, False, True)),
        (((3, 65, 21), (21, 2), (3, 1, 21)), {}, (True, False, True)),
    ],
    "matmul": [
        (((3, 65, 64), (64, 64)), {}, (True, False)),
        (((40, 330), (330, 330)), {}, (True, False)),
        (((2, 65, 65), (2, 65, 65)), {}, TWO),
        (((3, 2, 3), (3, 3, 2)), {}, TWO),
    ],
    "cumulative_sum": [(((3, 4, 2),), {"axis": -2}, ONE), (((3, 4),), {"axis": -1}, ONE)],
    "cumulative_prod": [(((3, 4, 2),), {"axis": -2}, ONE)],
    "cumulative_max": [(((3, 4, 2),), {"axis": -2}, ONE)],
    "sort": [(((3, 4),), {}, ONE)],
    **{
        name: [(((3, 4, 2),), {"axis": -2}, ONE), (((3, 4),), {"axis": -1}, ONE)]
        for name in ("sum", "mean", "var", "std", "prod", "max", "min", "linalg.vector_norm")
    },
    "solve": [(((2, 3, 3), (2, 3, 1)), {}, TWO)],
    "linalg.inv": [(((2, 3, 3),), {}, ONE)],
    "linalg.det": [(((2, 3, 3),), {}, ONE)],
    "solve_triangular": [(((2, 3, 3), (2, 3, 1)), {}, TWO)],
    "vecdot": [(((2, 3), (2, 3)), {}, TWO)],
    "fft.fft": [(((3, 8),), {}, ONE)],
    "fft.ifft": [(((3, 8),), {}, ONE)],
    "fft.rfft": [(((3, 8),), {}, ONE)],
    "fft.irfft": [(((3, 5),), {}, ONE)],
    "nn.LayerNorm": [(((3, 4), (4,), (4,)), {}, (True, False, False))],
}


def cases(name: str, kind: str) -> Any:
    """Yield arrays, options and the arguments that have the leading axis; elementwise functions see special numbers."""
    row = ROWS[name]
    for shapes, options, batched in BATCHES.get(name, ()):
        yield (
            [drawn(d, s, kind, i) for i, (d, s) in enumerate(zip(row.arguments, shapes, strict=True))],
            options,
            batched,
        )
    if row.exact:
        for size in SIZES:
            numbers = special(kind) if kind in "efd" else drawn(row.arguments[0], (100,), kind, 0)
            moved = [np.roll(np.resize(numbers, size), 7 * i) for i in range(len(row.arguments))]
            yield moved, {}, (True,) * len(moved)


def check_batches(row: Row, name: str) -> None:
    """Check that a batch gives what single pieces give, in values and gradients; NaN stays in its piece."""
    for kind in sorted(set("fD") & set(row.kinds)):
        for arrays, options, batched in cases(name, kind):

            def function(*xs: Any, options: dict = options) -> Any:
                return row.call(mg, *xs, **options)

            w = drawn(REAL, np.shape(function(*arrays)), np.asarray(function(*arrays)).dtype.char, 3)
            out, result = pulled(function, arrays, [w])
            step = 1000 if not BATCHES.get(name) else 1
            values, gradients = [], []
            for i in range(0, len(arrays[0]), step):
                piece = [a[i : i + step] if b else a for a, b in zip(arrays, batched, strict=True)]
                if step == 1:
                    piece = [a[0] if b else a for a, b in zip(piece, batched, strict=True)]
                value, gradient = pulled(function, piece, [w[i : i + step] if step > 1 else w[i]])
                values.append(value)
                gradients.append(gradient)
            join = np.concatenate if step > 1 else np.stack
            tolerance = 256 * float(np.finfo(DTYPES[kind]).eps)
            near(f"value ({kind}, {arrays[0].shape})", out, join(values), tolerance, step > 1)
            for n, b in enumerate(batched):
                one_by_one = [g[n] for g in gradients]
                near(
                    f"gradient {n} ({kind}, {arrays[0].shape})",
                    result[n],
                    join(one_by_one) if b else sum(one_by_one),
                    tolerance,
                    step > 1,
                )
            if all(batched) and step == 1:
                for value in (np.nan, np.inf):
                    spoiled = [np.concatenate([np.full_like(a[:1], value), a[1:]]) for a in arrays]
                    out_, found_ = pulled(function, spoiled, [w])
                    close(f"value beside {value} ({kind})", parts(out_)[0][1:], parts(out)[0][1:], tolerance)
                    for n, g in enumerate(found_):
                        close(f"gradient {n} beside {value} ({kind})", g[1:], result[n][1:], tolerance)


def near(label: str, actual: Any, expected: Any, tolerance: float, elementwise: bool) -> None:
    """Compare each entry relative to its own size for elementwise functions, else to the largest of its piece."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{label} has shape {actual.shape}, expected {expected.shape}"
    wide = np.result_type(expected.dtype, np.float64)
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    scale = np.abs(expected) if elementwise else np.max(np.abs(np.where(np.isfinite(expected), expected, 0)), initial=1)
    bad = ~same & ~(
        np.abs(actual.astype(wide) - expected.astype(wide)) <= tolerance * scale + np.finfo(actual.dtype).tiny
    )
    assert not np.any(bad), (
        f"{label} is {actual[bad][:3]}, expected {expected[bad][:3]} (at {np.argwhere(bad)[0].tolist()})"
    )

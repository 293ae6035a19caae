"""Compare arrays and locate the first difference; compare two functions of any frameworks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from models.errors import UserError
from proofs.port.frameworks import PRECISIONS, Framework
from proofs.port.locating import described
from proofs.port.recognition import framework
from proofs.port.reference import cotangents, leaves


@dataclass(frozen=True)
class Divergence:
    """The first entry of a result or gradient that differs from the reference by more than the tolerance."""

    result: str  # "y", "state", "gradient of q", or "" for the call
    place: str  # "batch 0, head 1, token 3 (chunk 1, place 0), V 2"
    got: complex | float
    expected: complex | float
    tolerance: float
    message: str = ""  # instead of numbers: what was raised, or a shape

    def __str__(self) -> str:
        if self.message:
            return f"{self.result}: {self.message}" if self.result else self.message
        off = abs(self.got - self.expected)
        return (
            f"{self.result} at {self.place}: got {self.got:.9g}, expected {self.expected:.9g}; "
            f"off by {off:.2g}, rounding allows {self.tolerance:.2g}"
        )


def failure(result: str, message: str) -> Divergence:
    """Return the divergence of a result that is no array to compare."""
    return Divergence(result, "", np.nan, np.nan, 0.0, message)


def difference(
    result: str,
    got: np.ndarray,
    expected: np.ndarray,
    tolerance: float | np.ndarray,
    labels: Sequence[str],
    chunk: int = 0,
) -> Divergence | None:
    """Return where two arrays of one shape first differ by more than the tolerance, None where nowhere.

    The tolerance is a number, or one for each entry.

    First is the earliest token; for a gradient the latest, since the backward pass begins there. What is expected to be
    NaN is not compared.
    """
    with np.errstate(invalid="ignore"):
        wrong = ~((np.abs(got - expected) <= tolerance) | (got == expected) | np.isnan(expected))
    if not wrong.any():
        return None
    indices = np.argwhere(wrong)
    if "token" in labels:
        times = indices[:, labels.index("token")]
        indices = indices[times == (times.max() if result.startswith("gradient") else times.min())]
    index = tuple(int(i) for i in indices[0])

    def named(label: str, i: int) -> str:
        if label == "token" and chunk and expected.shape[labels.index("token")] > chunk:
            return f"token {i} (chunk {i // chunk}, place {i % chunk})"
        return f"{label} {i}"

    place = ", ".join(named(label, i) for label, i in zip(labels, index, strict=True)) or "the number"
    allowed = float(np.broadcast_to(tolerance, expected.shape)[index])
    return Divergence(result, place, _number(got[index]), _number(expected[index]), allowed)


def axis_labels(axes: str, ndim: int, batch_letters: Sequence[str]) -> list[str]:
    """Return a word for each axis: batch, head, token, and the letters of the features."""
    own = axes.split()
    batch = ndim - len([axis for axis in own if axis != "*batch"])
    words = {"b": "batch", "h": "head"}
    leading = (
        [words[x] for x in batch_letters] if len(batch_letters) == batch else [f"batch axis {i}" for i in range(batch)]
    )
    features = [axis for axis in own if axis != "*batch"]
    return [
        *leading,
        *(
            "token" if axis == "T" else f"{'channel' if len(features) < 3 and 'T' in own else ''} {axis}".strip()
            for axis in features
        ),
    ]


def compare(
    left: Callable[..., Any],
    right: Callable[..., Any],
    inputs: Mapping[str, np.ndarray],
    *,
    frameworks: tuple[str | None, str | None] = (None, None),
    precision: str = "float64",
    tolerance: float | None = None,
    gradients: bool = True,
) -> None:
    """Compare two functions of any frameworks: all results, and the gradients of all inputs where both can give them.

    Both take the inputs by place and return an array or a tuple of arrays. A function without a framework among its
    module's globals takes NumPy arrays and, if it is written over `minigrad.namespace`, is differentiated by minigrad.
    The tolerance is relative to the largest entry, by default 2¹⁰ units of roundoff.

    Raises AssertionError, naming the result or gradient and the first entry that differ, and UserError for what cannot
    be compared.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision: expected one of {', '.join(PRECISIONS)}, got '{precision}'")
    bound = 2.0**10 * PRECISIONS[precision] if tolerance is None else tolerance
    sides = [
        _evaluate(function, framework(name, function), inputs, precision, gradients)
        for function, name in zip((left, right), frameworks, strict=True)
    ]
    (values, pulled), (expected, expected_pulled) = sides
    if len(values) != len(expected):
        raise AssertionError(f"{len(values)} results on the left, {len(expected)} on the right")
    pairs = [(f"result {i}", x, y) for i, (x, y) in enumerate(zip(values, expected, strict=True))]
    if pulled is not None and expected_pulled is not None:
        pairs += [(f"gradient of {n}", x, y) for n, x, y in zip(inputs, pulled, expected_pulled, strict=True)]
    for name, x, y in pairs:
        if x.shape != y.shape:
            raise AssertionError(f"{name} has shape {x.shape} on the left, {y.shape} on the right")
        allowed = bound * float(np.max(np.abs(y[np.isfinite(y)]), initial=0.0))
        if found := difference(name, x, y, allowed, [f"axis {i}:" for i in range(x.ndim)]):
            raise AssertionError(str(found))


def _evaluate(
    function: Callable[..., Any], library: Framework, inputs: Mapping[str, np.ndarray], precision: str, gradients: bool
) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Return the results, and the gradients where they can be had."""

    def call(arrays: list[Any]) -> list[Any]:
        returned = function(*arrays)
        return leaves(returned if isinstance(returned, (tuple, list)) else (returned,))

    with library.context:
        arrays = [library.array(np.asarray(x), precision) for x in inputs.values()]
        values = [library.numpy(x) for x in call(arrays)]
        weights = list(cotangents({str(i): x for i, x in enumerate(values)}).values())
        if not gradients:
            return values, None
        if library.differentiates:
            pulled = library.gradients(call, arrays, weights, precision)
            return values, [
                np.zeros_like(library.numpy(a)) if g is None else library.numpy(g)
                for a, g in zip(arrays, pulled, strict=True)
            ]
        if library.name != "numpy":
            return values, None
        try:
            _, pull = mg.vjp(lambda *xs: call(list(xs)), *arrays)
            return values, [
                np.asarray(g) for g in pull([w.astype(v.dtype) for w, v in zip(weights, call(arrays), strict=True)])
            ]
        except Exception as error:  # plain NumPy code, which minigrad cannot follow
            raise UserError(f"gradients: minigrad cannot differentiate {function!r} ({described(error)})") from None


def _number(x: Any) -> complex | float:
    return complex(x) if np.iscomplexobj(x) else float(x)

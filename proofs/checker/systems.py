"""The number systems in which a statement is evaluated, and the comparison of its two sides in each.

    fractions, modular               values, compared with ==; modulo a prime they are drawn uniformly from 𝔽ₚ
    float64, float32                 values, within the bound of `proofs.checker.rounding`
    torch, jax, cupy                 the same lines on these libraries' arrays, float64, within the same bound
    gradient, second gradient        derivatives by minigrad of both sides along one random cotangent, float64
    cupy gradient                    the same on a GPU, where a compiled form's are those of its raw kernel
    exact gradient, exact second gradient     the same over fractions and modulo a prime, compared with ==

Both sides, and their derivatives, are those of `proofs.checker.evaluate`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from gpu import device
from minigrad.exact import Log, Modular
from minigrad.namespace import to_numpy
from proofs.checker import degrees, encoding, naming, rounding
from proofs.checker.evaluate import elementwise, evaluate, results
from proofs.checker.statements import Statement
from proofs.checker.strategies import Exact, Strategy, walk

PRIME = 2**61 - 1
INEQUALITIES = "≤≰→"


@dataclass(frozen=True)
class Place:
    """The first entry in which two sides differ: the number of its array, its index there, and both values."""

    array: int
    index: tuple[int, ...]
    left: Any
    right: Any


@dataclass(frozen=True)
class Comparison:
    """The comparison of both sides at one example: the worst error, its bound, and the failure, if any."""

    error: float = 0.0
    bound: float = 0.0
    failure: str = ""
    vacuous: bool = False
    false_pass: float | None = None  # the chance that a false equality passes a uniform draw; None where unknown
    place: Place | None = None  # of the failure, where the sides could be compared


@dataclass(frozen=True)
class System:
    """A number system: how rationals are converted to it, and the order of derivatives that is compared."""

    name: str
    convert: Callable[[Exact, bool], Any]  # (rationals, whether the argument is their logarithm) → array
    order: int = 0
    precision: str = ""  # "" where == decides
    library: str = ""
    sizes: Mapping[str, Any] = field(default_factory=dict)  # where others would cost too much
    prime: int = 0  # values are drawn uniformly modulo it
    long: bool = False  # cheap enough for sequences of up to 64 tokens

    @property
    def installed(self) -> bool:
        """Return whether its library is installed, and for CuPy whether there is a device."""
        if self.library == "cupy":
            return _has_device()
        return not self.library or importlib.util.find_spec(self.library) is not None

    def applies_to(self, statement: Statement) -> bool:
        """Return whether the statement can be evaluated in this number system."""
        if self.order and not (statement.derivatives and any(d.differentiable for d in arrays(statement))):
            return False
        if statement.kind == "refuted":  # one counterexample, in the strictest system there is
            return self.name == ("fractions" if statement.exact else "float64")
        if statement.only and self.name not in statement.only:
            return False
        # There is no order modulo a prime.
        return bool(self.precision) or statement.exact and (self.name != "modular" or statement.relation == "=")

    def compare(self, statement: Statement, example: Mapping[str, Any]) -> Comparison:
        """Evaluate both sides of the statement at this example and compare them."""
        try:
            left, right = self.evaluate(statement, example)
        except Exception as error:  # any exception in a statement is a failure
            return Comparison(np.inf, 0.0, f"{type(error).__name__}: {error}")
        if failure := _find_mismatch(left, right, self):
            return Comparison(np.inf, 0.0, failure)
        if self.prime:
            compared = _compare_exactly(statement, left, right)
            return replace(compared, false_pass=_false_pass(statement, example, self.order, self.prime))
        if not self.precision:
            return _compare_exactly(statement, left, right)
        if _bitwise_equal(left, right):  # within any bound, and bounds take longer than all the rest
            return Comparison()
        limits = bounds(statement, encoding.dumps(example), self.order, self.precision)
        return _compare_within_bounds(statement, left, right, limits)

    def evaluate(self, statement: Statement, example: Mapping[str, Any]) -> tuple[list, list]:
        """Return the arrays of both results, or of their derivatives, in this number system."""
        with _context(self.library), np.errstate(over="raise", divide="raise", invalid="raise"):
            return evaluate(statement, example, self.convert, self.order)

    def describe(self, statement: Statement, example: Mapping[str, Any], compared: Comparison) -> str:
        """Return the failure of a comparison with the result or the gradient that differs, its index and both entries.

        An example: "state at [0, 1]: 1/2 on the left, 1/3 on the right".
        """
        place = compared.place
        if place is None:
            return compared.failure
        if self.order:
            names = naming.derivative_names(statement, example, self.order)
        else:
            with _context(self.library):
                left, _ = results(statement, example, self.convert)
            names = naming.result_names(left, naming.sides(statement)[0])
        index = f" at [{', '.join(map(str, place.index))}]" if place.index else ""
        left, right = map(naming.number, (place.left, place.right))
        measured = f"; {compared.failure}" if self.precision else ""
        return f"{names[place.array]}{index}: {left} on the left, {right} on the right{measured}"


def _has_device() -> bool:
    try:
        device.ready()
    except device.MissingError:
        return False
    return True


def arrays(statement: Statement) -> Iterator[Strategy]:
    """Return how the arrays among a statement's arguments are drawn."""
    return (strategy for strategy in walk(statement.strategies) if strategy.fill is not None)


# Comparison


def _find_mismatch(left: list, right: list, system: System) -> str:
    """Return why the two sides cannot be compared: shapes or dtypes; an empty string where they can."""
    shapes = [[np.shape(x) for x in side] for side in (left, right)]
    if shapes[0] != shapes[1]:
        return f"shapes {shapes[0]} on the left, {shapes[1]} on the right"
    for x in (*left, *right):
        dtype = str(getattr(x, "dtype", "")).rpartition(".")[2]
        expected = (system.precision, {"float64": "complex128", "float32": "complex64"}.get(system.precision))
        if system.precision and dtype.startswith(("float", "complex")) and dtype not in expected:
            return f"{dtype} from {system.precision} arguments"
    return ""


def _bitwise_equal(left: list, right: list) -> bool:
    """Return whether both sides are the same finite numbers, of which there are some; False for other objects."""
    pairs = [(to_numpy(x), to_numpy(y)) for x, y in zip(left, right, strict=True)]
    if not any(x.size for x, _ in pairs) or any(z.dtype.kind not in "biufc" for pair in pairs for z in pair):
        return False
    return all(bool(np.all((x == y) & np.isfinite(x))) for x, y in pairs)


def _compare_exactly(statement: Statement, left: list, right: list) -> Comparison:
    for i, (x, y) in enumerate(zip(left, right, strict=True)):
        x, y = np.asarray(x, dtype=object), np.asarray(y, dtype=object)
        for j, (a, b) in enumerate(zip(x.ravel(), y.ravel(), strict=True)):
            if not (a <= b if statement.relation in INEQUALITIES else a == b):
                error = abs(float(a - b)) if not isinstance(a - b, Modular) else float((a - b).value)
                failure = f"{a} {'>' if statement.relation in '≤≰' else '≠'} {b}"
                return Comparison(error, 0.0, failure, place=Place(i, _unravel(j, x.shape), a, b))
    return Comparison()


def _compare_within_bounds(statement: Statement, left: list, right: list, limits: list[np.ndarray] | str) -> Comparison:
    if isinstance(limits, str):
        return Comparison(np.inf, 0.0, limits)
    worst, vacuous = Comparison(), True
    for i, (x, y, limit) in enumerate(zip(left, right, limits, strict=True)):
        x, y = to_numpy(x), to_numpy(y)
        difference = x.astype(complex) - y.astype(complex)
        difference = difference.real if statement.relation in INEQUALITIES else np.abs(difference)
        for j, (error, bound) in enumerate(zip(np.ravel(difference), np.ravel(limit), strict=True)):
            vacuous = vacuous and not np.isfinite(bound)
            if not error <= bound:
                index = _unravel(j, difference.shape)
                failure = f"error {error:.3g}, bound {bound:.3g}"
                return Comparison(float(error), float(bound), failure, place=Place(i, index, x[index], y[index]))
            if np.isfinite(bound) and error * worst.bound >= worst.error * bound:
                worst = Comparison(float(error), float(bound))
    return Comparison(worst.error, worst.bound, vacuous=vacuous)


def _unravel(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(position, shape))


@functools.lru_cache(maxsize=512)
def _evaluate_rounded(statement: Statement, encoded: str, order: int) -> tuple[list, list] | str:
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # a bound may well be infinite
            return evaluate(statement, encoding.loads(encoded, statement.strategies), _convert_rounded, order)
    except Exception as error:
        return f"no bound: {type(error).__name__}: {error}"


def bounds(statement: Statement, encoded: str, order: int, precision: str) -> list[np.ndarray] | str:
    """Return the bound on the difference of the two sides that rounding allows, entry by entry."""
    sides = _evaluate_rounded(statement, encoded, order)
    if isinstance(sides, str):
        return sides
    return [rounding.errors(x, precision) + rounding.errors(y, precision) for x, y in zip(*sides, strict=True)]


def _false_pass(statement: Statement, example: Mapping[str, Any], order: int, prime: int) -> float | None:
    """Return a bound on the chance that a false equality passes at sizes like these; None where it is not known.

    By the lemma of Schwartz and Zippel it is the degree over the prime; `proofs.checker.degrees` bounds the degree by
    computing with degrees.
    """
    largest = max((strategy.degree for strategy in arrays(statement)), default=0)
    if not largest:
        return None

    def unknown(_: Fraction) -> degrees.Degree:
        return degrees.Degree(largest, {degrees.Divisor(largest): 1} if largest > 1 else None)

    try:
        return degrees.of_differences(lambda: evaluate(statement, example, _convert_exact(unknown), order)) / prime
    except Exception:  # an operation that degrees do not know, such as a comparison: the statement is checked only
        return None


# Conversion of rationals


def _convert_exact(number: Callable[[Fraction], Any]) -> Callable[[Exact, bool], Any]:
    return lambda array, logarithm: elementwise(lambda x: Log(number(x)) if logarithm else number(x))(array)


def _modular(x: Fraction) -> Modular:
    return Modular(x.numerator, PRIME) / x.denominator


def _floats(array: Exact, logarithm: bool) -> np.ndarray:
    """Convert to float64; a logarithm is rounded to float32, so that every precision starts from the same number."""
    values = np.asarray(array, dtype=np.float64)
    if not logarithm:
        return values
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values), dtype=np.float32).astype(np.float64)


def _convert_rounded(array: Exact, logarithm: bool) -> Any:
    return elementwise(rounding.Rounded.of)(_floats(array, True) if logarithm else array)


def _convert_torch(array: Exact, logarithm: bool) -> Any:
    return importlib.import_module("torch").from_numpy(_floats(array, logarithm))


def _convert_library(name: str) -> Callable[[Exact, bool], Any]:
    return lambda array, logarithm: importlib.import_module(name).asarray(_floats(array, logarithm))


def _context(library: str) -> AbstractContextManager[Any]:
    if library == "jax":
        return importlib.import_module("jax").enable_x64(True)
    return nullcontext()


def _float32(array: Exact, logarithm: bool) -> np.ndarray:
    return _floats(array, logarithm).astype(np.float32)


_fractions = _convert_exact(Fraction)
_residues = _convert_exact(_modular)

SYSTEMS = {
    system.name: system
    for system in (
        System("fractions", _fractions),
        System("modular", _residues, prime=PRIME, long=True),
        System("float64", _floats, precision="float64", long=True),
        System("float32", _float32, precision="float32"),
        System("exact gradient", _fractions, order=1),
        System("gradient", _floats, order=1, precision="float64"),
        System("exact second gradient", _residues, order=2, prime=PRIME),
        System("second gradient", _floats, order=2, precision="float64"),
        System("torch", _convert_torch, precision="float64", library="torch"),
        # JAX compiles every operation for every shape.
        System(
            "jax",
            _convert_library("jax.numpy"),
            precision="float64",
            library="jax",
            sizes={"*batch": (2,), "T": 3, "K": 2, "V": 2, "S": 2, "D": 2, "N": 2, "P": 2},
        ),
        System("cupy", _convert_library("cupy"), precision="float64", library="cupy"),
        System("cupy gradient", _convert_library("cupy"), order=1, precision="float64", library="cupy"),
    )
}

# What a narrow table writes for a system.
SYMBOLS = {
    "fractions": "ℚ",
    "modular": "𝔽ₚ",
    "float64": "f64",
    "float32": "f32",
    "exact gradient": "∇ℚ",
    "gradient": "∇f64",
    "exact second gradient": "∇²𝔽ₚ",
    "second gradient": "∇²f64",
    "counted": "count",
}

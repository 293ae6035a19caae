"""The number systems in which a statement is computed, and the verdict of each on one example.

    fractions, modular               values, compared with ==
    float64, float32                 values, within the bound of `proofs.rounding`
    torch, jax, cupy                 the same lines on these libraries' arrays, float64, within the same bound
    gradient, second gradient        derivatives by minigrad of both sides along one random cotangent, float64
    cupy gradient                    the same on a GPU, where a compiled form's are those of its raw kernel
    exact gradient, exact second gradient     the same over fractions and modulo a prime, compared with ==

Both sides, and their derivatives, are those of `proofs.sides`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from gpu import device
from minigrad.exact import Log, Modular
from minigrad.namespace import to_numpy
from proofs import encoding, rounding
from proofs.sides import entrywise, sides
from proofs.statements import Statement
from proofs.strategies import Drawn, Exact, walk

PRIME = 2**61 - 1
INEQUALITIES = "≤≰→"


@dataclass(frozen=True)
class Judgement:
    """What one number system says about one example: a worst error, the bound there, and what is wrong, if anything."""

    error: float = 0.0
    bound: float = 0.0
    objection: str = ""
    vacuous: bool = False


@dataclass(frozen=True)
class System:
    """A number system: how rationals enter it, and to which order of derivatives it compares."""

    name: str
    enter: Callable[[Exact, bool], Any]  # (rationals, whether the argument is their logarithm) → array
    order: int = 0
    precision: str = ""  # "" where == decides
    library: str = ""
    sizes: Mapping[str, Any] = field(default_factory=dict)  # where others would cost too much

    @property
    def installed(self) -> bool:
        """Whether its library is here, and with CuPy a device to run on."""
        if self.library == "cupy":
            return _has_device()
        return not self.library or importlib.util.find_spec(self.library) is not None

    def holds(self, statement: Statement) -> bool:
        """Whether the statement says anything here."""
        if self.order and not (statement.derivatives and any(d.differentiable for d in arrays(statement))):
            return False
        if statement.kind == "refuted":  # one counterexample, in the strictest system there is
            return self.name == ("fractions" if statement.exact else "float64")
        if statement.only and self.name not in statement.only:
            return False
        # There is no order modulo a prime.
        return bool(self.precision) or statement.exact and (self.name != "modular" or statement.relation == "=")

    def judge(self, statement: Statement, example: Mapping[str, Any]) -> Judgement:
        """Both sides of the statement at this example, compared."""
        try:
            left, right = self.sides(statement, example)
        except Exception as error:  # whatever the statement raises is an objection to it
            return Judgement(np.inf, 0.0, f"{type(error).__name__}: {error}")
        if objection := _misfit(left, right, self):
            return Judgement(np.inf, 0.0, objection)
        if not self.precision:
            return _exactly(statement, left, right)
        return _within(statement, left, right, bounds(statement, encoding.dumps(example), self.order, self.precision))

    def sides(self, statement: Statement, example: Mapping[str, Any]) -> tuple[list, list]:
        """The arrays of the two results, or of their derivatives, in this number system."""
        with _context(self.library), np.errstate(over="raise", divide="raise", invalid="raise"):
            return sides(statement, example, self.enter, self.order)


def _has_device() -> bool:
    try:
        device.ready()
    except device.MissingError:
        return False
    return True


def arrays(statement: Statement) -> Iterator[Drawn]:
    """How the arrays among a statement's arguments are drawn."""
    return (drawn for drawn in walk(statement.wanted) if drawn.fill is not None)


# The verdict


def _misfit(left: list, right: list, system: System) -> str:
    """Why the two sides cannot even be compared, or an empty string."""
    shapes = [[np.shape(x) for x in side] for side in (left, right)]
    if shapes[0] != shapes[1]:
        return f"shapes {shapes[0]} on the left, {shapes[1]} on the right"
    for x in (*left, *right):
        dtype = str(getattr(x, "dtype", "")).rpartition(".")[2]
        allowed = (system.precision, {"float64": "complex128", "float32": "complex64"}.get(system.precision))
        if system.precision and dtype.startswith(("float", "complex")) and dtype not in allowed:
            return f"{dtype} came of {system.precision}"
    return ""


def _exactly(statement: Statement, left: list, right: list) -> Judgement:
    for x, y in zip(left, right, strict=True):
        for a, b in zip(np.ravel(np.asarray(x, dtype=object)), np.ravel(np.asarray(y, dtype=object)), strict=True):
            if not (a <= b if statement.relation in INEQUALITIES else a == b):
                error = abs(float(a - b)) if not isinstance(a - b, Modular) else float((a - b).value)
                return Judgement(error, 0.0, f"{a} {'>' if statement.relation in '≤≰' else '≠'} {b}")
    return Judgement()


def _within(statement: Statement, left: list, right: list, bound: list[np.ndarray] | str) -> Judgement:
    if isinstance(bound, str):
        return Judgement(np.inf, 0.0, bound)
    worst, vacuous = Judgement(), True
    for x, y, limit in zip(left, right, bound, strict=True):
        difference = to_numpy(x).astype(complex) - to_numpy(y).astype(complex)
        difference = difference.real if statement.relation in INEQUALITIES else np.abs(difference)
        for error, allowed in zip(np.ravel(difference), np.ravel(limit), strict=True):
            vacuous = vacuous and not np.isfinite(allowed)
            if not error <= allowed:
                return Judgement(float(error), float(allowed), f"error {error:.3g}, bound {allowed:.3g}")
            if np.isfinite(allowed) and error * worst.bound >= worst.error * allowed:
                worst = Judgement(float(error), float(allowed))
    return Judgement(worst.error, worst.bound, vacuous=vacuous)


@functools.lru_cache(maxsize=512)
def _rounded(statement: Statement, encoded: str, order: int) -> tuple[list, list] | str:
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # a bound may well be infinite
            return sides(statement, encoding.loads(encoded, statement.wanted), _enter_rounded, order)
    except Exception as error:
        return f"no bound: {type(error).__name__}: {error}"


def bounds(statement: Statement, encoded: str, order: int, precision: str) -> list[np.ndarray] | str:
    """How far apart rounding alone can bring the two sides, entry by entry."""
    found = _rounded(statement, encoded, order)
    if isinstance(found, str):
        return found
    return [rounding.errors(x, precision) + rounding.errors(y, precision) for x, y in zip(*found, strict=True)]


# How rationals enter


def _enter_exact(number: Callable[[Fraction], Any]) -> Callable[[Exact, bool], Any]:
    return lambda array, logarithm: entrywise(lambda x: Log(number(x)) if logarithm else number(x))(array)


def _modular(x: Fraction) -> Modular:
    return Modular(x.numerator, PRIME) / x.denominator


def _floats(array: Exact, logarithm: bool) -> np.ndarray:
    """float64; a logarithm is cut to what float32 holds, so that every precision starts from the same number."""
    values = np.asarray(array, dtype=np.float64)
    if not logarithm:
        return values
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values), dtype=np.float32).astype(np.float64)


def _enter_rounded(array: Exact, logarithm: bool) -> Any:
    return entrywise(rounding.Rounded.of)(_floats(array, True) if logarithm else array)


def _enter_torch(array: Exact, logarithm: bool) -> Any:
    return importlib.import_module("torch").from_numpy(_floats(array, logarithm))


def _enter_library(name: str) -> Callable[[Exact, bool], Any]:
    return lambda array, logarithm: importlib.import_module(name).asarray(_floats(array, logarithm))


def _context(library: str) -> AbstractContextManager[Any]:
    if library == "jax":
        return importlib.import_module("jax").enable_x64(True)
    return nullcontext()


def _float32(array: Exact, logarithm: bool) -> np.ndarray:
    return _floats(array, logarithm).astype(np.float32)


_fractions = _enter_exact(Fraction)
_residues = _enter_exact(_modular)

SYSTEMS = {
    system.name: system
    for system in (
        System("fractions", _fractions),
        System("modular", _residues),
        System("float64", _floats, precision="float64"),
        System("float32", _float32, precision="float32"),
        System("exact gradient", _fractions, order=1),
        System("gradient", _floats, order=1, precision="float64"),
        System("exact second gradient", _residues, order=2),
        System("second gradient", _floats, order=2, precision="float64"),
        System("torch", _enter_torch, precision="float64", library="torch"),
        # JAX compiles every operation for every shape.
        System(
            "jax",
            _enter_library("jax.numpy"),
            precision="float64",
            library="jax",
            sizes={"*batch": (2,), "T": 3, "K": 2, "V": 2, "S": 2, "D": 2, "N": 2, "P": 2},
        ),  # fmt: skip
        System("cupy", _enter_library("cupy"), precision="float64", library="cupy"),
        System("cupy gradient", _enter_library("cupy"), order=1, precision="float64", library="cupy"),
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

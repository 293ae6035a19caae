"""Decorators that turn a function into a statement: it returns the two results that the claim compares.

    @identity("(QKᵀ)V = Q(KᵀV)", source="katharopoulos2020, eq. 6; talk-titans, 10:25", exact=True)
    def order_of_multiplication(q: Queries, k: Keys, v: Values):
        return (q @ k.mT) @ v, q @ (k.mT @ v)

- `identity`   the two (nested) results are equal, and so are their first and second derivatives
- `bounded`    the first is at most the second, entry by entry
- `refuted`    a plausible equality (or, with `relation="≤"`, inequality) that has a counterexample
- `converges`  errors for a growing effort stay below the theorem's bounds, and those go to 0
- `grows`      a cost, measured at 1, 2 and 4 times a length, grows with the order claimed

`exact=True`: the two sides are polynomial or rational in the arguments, so they are compared exactly, over fractions
and modulo a prime. With `over`, a general statement has an instance for each function: see
`proofs.identities.every_mechanism`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from models.references import Citation, citations
from proofs.checker import subjects
from proofs.checker.strategies import arguments

ROOT = Path(__file__).parents[2]
EXACT = ("fractions", "modular")
CUPY = ("cupy", "cupy gradient")
FLOATS = ("float64", "float32", "gradient", "second gradient")

Claim: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Instance:
    """One case of a general statement: its label, and the arguments that are bound."""

    label: str
    fixed: Mapping[str, Any]
    strategies: Mapping[str, Any]  # further arguments with how they are drawn, or a nested mapping of such
    exact: bool = True  # False where this case takes the statement out of the rational numbers
    only: tuple[str, ...] = ()  # the number systems in which this case can be computed, where not in all
    lengths: tuple[int, int, int] | None = None  # of a statement of growth, where other ones do for this case


@dataclass(frozen=True, eq=False)
class Statement:
    """A claim, its source, and the function that computes the two sides."""

    name: str
    sentence: str
    source: str  # keys of models/references.bib with places
    kind: str  # identity, bounded, refuted, converges, grows
    relation: str  # = ≤ ≠ → ∝
    exact: bool
    function: Claim
    fixed: Mapping[str, Any]
    strategies: Mapping[str, Any]  # how each remaining argument is drawn
    chapter: str
    derivatives: bool = True
    only: tuple[str, ...] = ()  # the number systems that can tell, where not all can
    order: float = 0.0
    lengths: tuple[int, int, int] = (16, 32, 64)
    instead: str = ""  # of what is refuted: the name of a statement that holds in its place

    @property
    def place(self) -> tuple[str, int]:
        """The file, relative to the repository, and the line of the statement."""
        code = inspect.unwrap(self.function).__code__
        return Path(code.co_filename).relative_to(ROOT).as_posix(), code.co_firstlineno

    @property
    def citations(self) -> list[Citation]:
        """The citations in the source."""
        return citations(self.source)

    @property
    def instance(self) -> str:
        """The label of the instance of a general statement, which its name has in brackets; else empty."""
        return self.name.partition("[")[2].removesuffix("]")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the statement, of its chapter and of its instance, long and short."""
        short, instance = self.name.partition(".")[2], self.instance
        general = [name.partition("[")[0] for name in (self.name, short)]
        return (self.name, short, *general, self.chapter, instance, instance.partition(".")[0])

    def __call__(self, **values: Any) -> Any:
        return self.function(**self.fixed, **values)


STATEMENTS: dict[str, Statement] = {}


def _decorator(
    kind: str,
    relation: str,
    sentence: str,
    source: str,
    exact: bool,
    over: Iterable[Instance] | None,
    register: bool = True,
    **options: Any,
) -> Callable[[Claim], Claim]:
    def decorate(function: Claim) -> Claim:
        chapter, parameters = function.__module__.rpartition(".")[2], inspect.signature(function).parameters
        function.statements = []  # type: ignore[attr-defined]
        citations(source)  # raises for an unknown key
        for case in [Instance("", {}, {})] if over is None else over:
            name = f"{chapter}.{function.__name__}" + (f"[{case.label}]" if case.label else "")
            from_instance = {key: x for key, x in case.strategies.items() if key in parameters}
            strategies = (
                arguments(function, omit={*case.fixed, *from_instance, *(["length"] if kind == "grows" else [])})
                | from_instance
            )
            decided = exact and case.exact
            symbol = "~" if relation == "=" and not decided else relation
            statement = Statement(
                name, sentence, source, kind, symbol, decided, function, case.fixed, strategies, chapter, **options
            )
            if case.only:
                statement = replace(statement, only=case.only)
            if case.lengths:
                statement = replace(statement, lengths=case.lengths)
            function.statements.append(statement)  # type: ignore[attr-defined]
            if register:
                STATEMENTS[name] = statement
        return function

    return decorate


def identity(
    sentence: str,
    *,
    source: str,
    exact: bool = False,
    over: Iterable[Instance] | None = None,
    derivatives: bool = True,
    only: tuple[str, ...] = (),
    register: bool = True,
) -> Callable[[Claim], Claim]:
    """State that the two results, and their derivatives, are equal for all arguments, in every number system.

    `derivatives=False` restricts the claim to values; `only=EXACT` or `only=FLOATS` restricts the number systems.
    """
    return _decorator("identity", "=", sentence, source, exact, over, register, derivatives=derivatives, only=only)


def bounded(
    sentence: str,
    *,
    source: str,
    exact: bool = False,
    over: Iterable[Instance] | None = None,
    only: tuple[str, ...] = (),
    register: bool = True,
) -> Callable[[Claim], Claim]:
    """State that the first result is at most the second, entry by entry."""
    return _decorator("bounded", "≤", sentence, source, exact, over, register, derivatives=False, only=only)


def refuted(
    sentence: str, *, source: str, exact: bool = False, relation: str = "=", instead: str = "", register: bool = True
) -> Callable[[Claim], Claim]:
    """State a plausible claim that is false: the checker must find a counterexample.

    `instead` is the full name of a statement that holds in its place, of which a claim of the talks needs one.
    """
    symbol = {"=": "≠", "≤": "≰"}[relation]
    return _decorator("refuted", symbol, sentence, source, exact, None, register, derivatives=False, instead=instead)


def converges(sentence: str, *, source: str, register: bool = True) -> Callable[[Claim], Claim]:
    """State convergence: the function returns errors and bounds along the last axis, and the bounds go to 0."""
    return _decorator("converges", "→", sentence, source, False, None, register, derivatives=False)


def grows(
    sentence: str,
    *,
    source: str,
    order: float,
    over: Iterable[Instance] | None = None,
    lengths: tuple[int, int, int] = (16, 32, 64),
    register: bool = True,
) -> Callable[[Claim], Claim]:
    """State an order of growth: the function takes a `length` and returns a cost of this order in it.

    `lengths` are T, 2T and 4T.
    """
    return _decorator(
        "grows", "∝", sentence, source, False, over, register, order=order, lengths=lengths, derivatives=False
    )


def select(names: Iterable[str] | None = None) -> list[Statement]:
    """Return the statements with these names, in the order of the chapters.

    A statement answers to its full name `chapter.function[instance]`, to the name without the instance, without the
    chapter, or to either of these alone; to the mechanisms and forms that it calls, "memory.delta_rule" and
    "memory.delta_rule.chunkwise", to the paths of their files and of its own, and to patterns of these with * and ?.
    Raises LookupError, with the nearest name, for what selects nothing.
    """
    importlib.import_module("proofs.identities")
    if not names:
        return list(STATEMENTS.values())
    selected: dict[str, Statement] = {}
    for name in map(subjects.normalized, names):
        matches = {key: s for key, s in STATEMENTS.items() if subjects.matches(name, subjects.names_of(s))}
        if not matches:
            if (ROOT / name).is_file():
                raise LookupError(f"no statement is about {name}")
            known = dict.fromkeys(known for s in STATEMENTS.values() for known in subjects.names_of(s) if known)
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise LookupError(f"no identity is called {name!r}; the nearest name is {near[0]!r}")
        selected |= matches
    return list(selected.values())

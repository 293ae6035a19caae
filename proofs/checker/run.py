"""The checker: every statement, in every number system where it says something, on examples drawn where bugs live.

Hypothesis draws the examples, the same ones on every run, and shrinks what fails.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from models.references import cited
from proofs.checker import encoding, measured
from proofs.checker.statements import STATEMENTS, Statement, select
from proofs.checker.strategies import example
from proofs.checker.systems import SYMBOLS, SYSTEMS, Judgement, System


@dataclass(frozen=True)
class Profile:
    """How many examples each kind of number system gets."""

    values: int
    gradients: int
    second_gradients: int
    libraries: int
    patience: float = 20.0  # seconds of shrinking

    def examples(self, system: System) -> int:
        if system.library:
            return self.libraries
        return (self.values, self.gradients, self.second_gradients)[system.order]


PROFILES = {
    "quick": Profile(values=20, gradients=6, second_gradients=3, libraries=2),
    "default": Profile(values=50, gradients=15, second_gradients=8, libraries=4),
    "deep": Profile(values=600, gradients=200, second_gradients=80, libraries=20, patience=120),
}


@dataclass
class SystemResult:
    """What became of a statement in one number system."""

    status: str  # passed, failed, not installed
    worst_error: float = 0.0
    bound: float = 0.0  # at the example where the error came closest to it
    examples: int = 0
    seconds: float = 0.0
    objection: str = ""
    counterexample: Any = None
    snippet: str = ""


@dataclass
class Result:
    """What became of a statement. `asdict` of it is plain JSON."""

    identity: str
    sentence: str
    source: str
    chapter: str
    kind: str
    relation: str
    systems: dict[str, SystemResult] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return "failed" if any(s.status == "failed" for s in self.systems.values()) else "holds"

    @property
    def closest(self) -> SystemResult:
        """The system in which the error came closest to its bound."""
        return max(
            self.systems.values(), key=lambda s: (s.status == "failed", s.worst_error / s.bound if s.bound else 0.0)
        )

    @property
    def examples(self) -> int:
        return sum(system.examples for system in self.systems.values())

    @property
    def seconds(self) -> float:
        return sum(system.seconds for system in self.systems.values())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; an error that is not a number is null."""
        plain = asdict(self)
        for name, system in plain["systems"].items():
            system["symbol"] = SYMBOLS.get(name, name)
        for values in (plain, *plain["systems"].values()):
            if values is plain:
                closest = self.closest
                values |= {"verdict": self.verdict, "examples": self.examples, "seconds": self.seconds}
                values |= {"worst_error": closest.worst_error, "bound": closest.bound}
            for key in ("worst_error", "bound"):
                values[key] = values[key] if math.isfinite(values[key]) else None
        return plain


Progress: TypeAlias = Callable[[Result, str], None]


def check(
    names: Iterable[str] | None = None, profile: str = "quick", progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Check the statements with these names (all by default) and return plain JSON, one object for each.

    `progress(result, system)` is called after every number system.
    Raises LookupError for an unknown name, with the nearest known one.
    """
    return [check_statement(statement, profile, progress).to_json() for statement in select(names)]


def check_statement(statement: Statement, profile: str = "quick", progress: Progress | None = None) -> Result:
    """Every number system in turn, up to the first that objects."""
    result = Result(
        statement.name,
        statement.sentence,
        cited(statement.source),
        statement.chapter,
        statement.kind,
        statement.relation,
    )
    for name in systems_of(statement):
        result.systems[name] = check_system(statement, name, profile)
        if progress:
            progress(result, name)
        if result.systems[name].status == "failed":
            break
    return result


def systems_of(statement: Statement) -> list[str]:
    """The number systems in which a statement says something, the strictest first."""
    if statement.kind in measured.KINDS:
        return [measured.KINDS[statement.kind]]
    return [name for name, system in SYSTEMS.items() if system.holds(statement)]


def check_system(statement: Statement, name: str, profile: str = "quick") -> SystemResult:
    """One statement in one number system."""
    start, budget = time.perf_counter(), PROFILES[profile]
    if statement.kind in measured.KINDS:
        search = Search(statement, lambda drawn: measured.judge(statement, drawn), budget.gradients, budget.patience)
    else:
        system = SYSTEMS[name]
        if not system.installed:
            return SystemResult("not installed")
        judge = functools.partial(system.judge, statement)
        search = Search(statement, judge, budget.examples(system), budget.patience, system.sizes)
    found = search.run()
    found.seconds = time.perf_counter() - start
    if found.counterexample is not None:
        found.snippet = snippet(statement, name, found)
    return found


class Search:
    """Examples until one is objected to, and then smaller ones."""

    def __init__(self, statement: Statement, judge: Callable[[Mapping[str, Any]], Judgement], examples: int,
                 patience: float, sizes: Mapping[str, Any] | None = None):  # fmt: skip
        self.statement, self.judge, self.sizes = statement, judge, sizes
        self.examples, self.patience = examples, patience
        self.refuting = statement.kind == "refuted"
        self.seen: set[str] = set()
        self.vacuous = 0
        self.closest = Judgement()
        self.objected: tuple[Judgement, Mapping[str, Any]] | None = None
        self.deadline = float("inf")

    def run(self) -> SystemResult:
        wanted, limit = self.statement.wanted, self.examples if self.statement.wanted else 1

        @settings(max_examples=max(limit, 100) if self.refuting else limit, derandomize=True, database=None,
                  deadline=None, phases=(Phase.generate, Phase.shrink), report_multiple_bugs=False,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(st.composite(lambda draw: example(draw, wanted, self.sizes))())
        def attempt(drawn: Mapping[str, Any]) -> None:
            self.attempt(drawn)

        with contextlib.suppress(Objection, Flaky):  # flaky: patience with the shrinking ran out
            attempt()
        return self.refutation() if self.refuting else self.verdict()

    def attempt(self, drawn: Mapping[str, Any]) -> None:
        if time.perf_counter() > self.deadline:
            return
        if self.objected is None:
            spelled = encoding.dumps(drawn)
            if spelled in self.seen:
                return
            self.seen.add(spelled)
        judged = self.judge(drawn)
        if judged.objection:
            if self.objected is None:
                self.deadline = time.perf_counter() + self.patience
            self.objected = judged, drawn
            raise Objection
        if self.objected is None:
            self.vacuous += judged.vacuous
            if not judged.vacuous and judged.error * self.closest.bound >= self.closest.error * judged.bound:
                self.closest = judged

    @property
    def tried(self) -> int:
        return len(self.seen)

    def verdict(self) -> SystemResult:
        if self.objected:
            judged, drawn = self.objected
            return SystemResult("failed", judged.error, judged.bound, self.tried, objection=judged.objection,
                                counterexample=encoding.plain(drawn))  # fmt: skip
        result = SystemResult("passed", self.closest.error, self.closest.bound, self.tried)
        if self.vacuous == self.tried:
            result.status, result.objection = "failed", "no example had a finite bound, so nothing was shown"
        return result

    def refutation(self) -> SystemResult:
        if self.objected is None:
            return SystemResult("failed", examples=self.tried, objection=f"no counterexample in {self.tried} examples")
        judged, drawn = self.objected
        return SystemResult("passed", judged.error, judged.bound, self.tried, objection=judged.objection,
                            counterexample=encoding.plain(drawn))  # fmt: skip


class Objection(AssertionError):
    """Raised through Hypothesis by an example that a number system objects to."""


def snippet(statement: Statement, system: str, found: SystemResult) -> str:
    """Python that shows a counterexample again, wherever it is pasted."""
    registered = STATEMENTS.get(statement.name) is statement
    function = statement.function
    lines = [f"# {statement.sentence}", f"# {system}: {found.objection}", "from proofs import replay"]
    if registered:
        target = repr(statement.name)
    else:
        lines.append(f"from {function.__module__} import {function.__qualname__}")
        target = function.__qualname__
    arguments = "".join(f"    {name}={value!r},\n" for name, value in found.counterexample.items())
    return "\n".join(lines) + f"\n\nreplay(\n    {target}, {system!r},\n{arguments})\n"


def replay(statement: str | Callable[..., Any], system: str, **spelled: Any) -> None:
    """Compute both sides of a statement once more for arguments spelled as in a snippet, print them, and judge.

    Raises AssertionError, with the error and its bound, where the number system objects.
    """
    stated: Statement = select([statement])[0] if isinstance(statement, str) else statement.statements[0]  # type: ignore[attr-defined]
    drawn = encoding.restored(spelled, stated.wanted)
    if stated.kind in measured.KINDS:
        judged = measured.judge(stated, drawn)
    else:
        judged = SYSTEMS[system].judge(stated, drawn)
        for side, leaves in zip(("left", "right"), SYSTEMS[system].sides(stated, drawn), strict=True):
            print(f"{side}:", *leaves, sep="\n")
    if judged.objection and stated.kind != "refuted":
        raise AssertionError(f"{stated.name}, {system}: {judged.objection}")
    print(judged.objection or f"error {judged.error:.3g} within {judged.bound:.3g}")

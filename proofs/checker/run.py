"""Check statements in every number system that applies, on examples drawn from edge cases.

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

from models.references import citations, spelled
from proofs.checker import encoding, measuring, naming
from proofs.checker.profiles import PROFILES, Profile
from proofs.checker.statements import STATEMENTS, Statement, select
from proofs.checker.strategies import example, lengthens
from proofs.checker.systems import SYMBOLS, SYSTEMS, Comparison


@dataclass
class SystemResult:
    """The result of one statement in one number system."""

    status: str  # passed, failed, not installed
    worst_error: float = 0.0
    bound: float = 0.0  # at the example where the error came closest to it
    examples: int = 0
    seconds: float = 0.0
    failure: str = ""
    false_pass: float | None = None  # at most the chance that a false equality passes an example; None: no such bound
    counterexample: Any = None
    encodings: list[str] = field(default_factory=list)  # what its numbers stand for, where not clear
    left: str = ""  # of a counterexample: the expression of the left side, with the forms it calls
    right: str = ""
    snippet: str = ""


@dataclass
class Result:
    """The result of one statement; `asdict` of it is plain JSON."""

    identity: str
    sentence: str
    source: str  # keys of models/references.bib with places
    chapter: str
    kind: str
    relation: str
    systems: dict[str, SystemResult] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return "failed" if any(s.status == "failed" for s in self.systems.values()) else "holds"

    @property
    def closest(self) -> SystemResult:
        """The result whose error is the largest fraction of its bound."""
        return max(
            self.systems.values(), key=lambda s: (s.status == "failed", s.worst_error / s.bound if s.bound else 0.0)
        )

    @property
    def false_pass(self) -> float | None:
        """At most the chance that a false equality passes an example drawn uniformly from 𝔽ₚ; None: no such bound."""
        system = self.systems.get("modular")
        return system.false_pass if system and system.status == "passed" else None

    @property
    def strength(self) -> str:
        """Return whether the statement is proven, up to a chance, or checked on examples."""
        if self.false_pass is None:
            return "checked"
        if not self.false_pass:
            return "proven at the sizes drawn"
        unit = 10.0 ** (math.floor(math.log10(self.false_pass)) - 1)
        rounded_up = math.ceil(self.false_pass / unit) * unit
        return f"proven at the sizes drawn, up to a chance of at most {rounded_up:.1e}"

    @property
    def examples(self) -> int:
        return sum(system.examples for system in self.systems.values())

    @property
    def seconds(self) -> float:
        return sum(system.seconds for system in self.systems.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; an infinite or undefined error is null."""
        plain = asdict(self) | {"source": spelled(self.source)}
        plain["citations"] = [citation.to_json() for citation in citations(self.source)]
        for name, system in plain["systems"].items():
            system["symbol"] = SYMBOLS.get(name, name)
        for values in (plain, *plain["systems"].values()):
            if values is plain:
                closest = self.closest
                values |= {
                    "strength": self.strength,
                    "verdict": self.verdict,
                    "examples": self.examples,
                    "seconds": self.seconds,
                }
                values |= {"worst_error": closest.worst_error, "bound": closest.bound}
            for key in ("worst_error", "bound"):
                values[key] = values[key] if math.isfinite(values[key]) else None
        return plain


Progress: TypeAlias = Callable[[Result, str], None]


def check(
    names: Iterable[str] | None = None, profile: str = "short", progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Check the statements with these names (all by default) and return plain JSON, one object for each.

    `progress(result, system)` is called after every number system.
    Raises LookupError for an unknown name, with the nearest known one.
    """
    return [check_statement(statement, profile, progress).to_json() for statement in select(names)]


def check_statement(statement: Statement, profile: str = "short", progress: Progress | None = None) -> Result:
    """Check a statement in each number system that the profile has in turn, up to the first failure."""
    result = Result(
        statement.name,
        statement.sentence,
        statement.source,
        statement.chapter,
        statement.kind,
        statement.relation,
    )
    for name in systems_of(statement):
        if name in PROFILES[profile].without:
            continue
        result.systems[name] = check_system(statement, name, profile)
        if progress:
            progress(result, name)
        if result.systems[name].status == "failed":
            break
    return result


def systems_of(statement: Statement) -> list[str]:
    """Return the number systems that apply to a statement, the strictest first."""
    if statement.kind in measuring.KINDS:
        return [measuring.KINDS[statement.kind]]
    return [name for name, system in SYSTEMS.items() if system.applies_to(statement)]


def check_system(statement: Statement, name: str, profile: str | Profile = "short") -> SystemResult:
    """Check one statement in one number system."""
    start, budget = time.perf_counter(), PROFILES[profile] if isinstance(profile, str) else profile
    system = SYSTEMS.get(name, SYSTEMS["float64"])
    if statement.kind in measuring.KINDS:
        compare = functools.partial(measuring.compare, statement)
        search = Search(statement, compare, budget.gradients, budget.shrink_seconds)
    else:
        if not system.installed:
            return SystemResult("not installed")
        compare = functools.partial(system.compare, statement)
        search = Search(statement, compare, budget.examples(system), budget.shrink_seconds, system.sizes, system.prime)
        search.long = budget.long if system.long and lengthens(statement.strategies) else 0
    result = search.run()
    result.seconds = time.perf_counter() - start
    if search.failed is not None and result.counterexample is not None:
        compared, sample = search.failed
        result.failure = system.describe(statement, sample, compared)
        result.left, result.right = (side.text for side in naming.sides(statement))
        result.encodings = naming.encodings(statement, sample)
        result.snippet = snippet(statement, name, result)
    return result


class Search:
    """Draw examples until one fails, then shrink it."""

    def __init__(
        self,
        statement: Statement,
        compare: Callable[[Mapping[str, Any]], Comparison],
        examples: int,
        shrink_seconds: float,
        sizes: Mapping[str, Any] | None = None,
        prime: int = 0,
    ):
        self.statement, self.compare, self.sizes, self.prime = statement, compare, sizes, prime
        self.false_pass: float | None = 0.0
        self.examples, self.shrink_seconds = examples, shrink_seconds
        self.refuting = statement.kind == "refuted"
        self.seen: set[str] = set()
        self.vacuous = 0
        self.closest = Comparison()
        self.failed: tuple[Comparison, Mapping[str, Any]] | None = None
        self.raised = ""  # what went wrong in an example of a refuted statement: it is no counterexample
        self.deadline = float("inf")
        self.long = 0

    def run(self) -> SystemResult:
        self.draw_examples(self.examples if self.statement.strategies else 1)
        if self.long and self.failed is None and not self.refuting:
            self.draw_examples(self.long, long=True)
        return self.refutation() if self.refuting else self.verdict()

    def draw_examples(self, limit: int, *, long: bool = False) -> None:
        strategies = self.statement.strategies

        @settings(
            max_examples=max(limit, 100) if self.refuting else limit,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink) if self.shrink_seconds else (Phase.generate,),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.composite(lambda draw: example(draw, strategies, self.sizes, self.prime, long))())
        def attempt(sample: Mapping[str, Any]) -> None:
            self.attempt(sample)

        with contextlib.suppress(Failure, Flaky):  # flaky: the time for shrinking is over
            attempt()

    def attempt(self, sample: Mapping[str, Any]) -> None:
        if time.perf_counter() > self.deadline:
            return
        if self.failed is None:
            encoded = encoding.dumps(sample)
            if encoded in self.seen:
                return
            self.seen.add(encoded)
        try:
            compared = self.compare(sample)
        except Exception as raised:  # Hypothesis would take it for flaky, since no example is compared again
            compared = Comparison(math.inf, 0.0, f"{type(raised).__name__}: {raised}")
        if self.refuting and not math.isfinite(compared.error):
            self.raised = self.raised or compared.failure
            return
        if compared.failure:
            if self.failed is None:
                self.deadline = time.perf_counter() + self.shrink_seconds
            self.failed = compared, sample
            raise Failure
        if self.failed is None:
            self.vacuous += compared.vacuous
            if self.false_pass is None or compared.false_pass is None:
                self.false_pass = None
            else:
                self.false_pass = max(self.false_pass, compared.false_pass)
            if compared.vacuous or self.closest.bound and not compared.bound:  # equal bit for bit: no bound was needed
                return
            if compared.error * self.closest.bound >= self.closest.error * compared.bound:
                self.closest = compared

    @property
    def tried(self) -> int:
        return len(self.seen)

    def verdict(self) -> SystemResult:
        if self.failed:
            compared, sample = self.failed
            return SystemResult(
                "failed",
                compared.error,
                compared.bound,
                self.tried,
                failure=compared.failure,
                counterexample=encoding.encode(sample),
            )
        result = SystemResult("passed", self.closest.error, self.closest.bound, self.tried, false_pass=self.false_pass)
        if self.vacuous == self.tried:
            result.status, result.failure = "failed", "no example had a finite bound, so nothing was shown"
        return result

    def refutation(self) -> SystemResult:
        if self.raised:
            return SystemResult("failed", examples=self.tried, failure=f"no counterexample: {self.raised}")
        if self.failed is None:
            return SystemResult("failed", examples=self.tried, failure=f"no counterexample in {self.tried} examples")
        compared, sample = self.failed
        return SystemResult(
            "passed",
            compared.error,
            compared.bound,
            self.tried,
            failure=compared.failure,
            counterexample=encoding.encode(sample),
        )


class Failure(AssertionError):
    """Raised inside Hypothesis when an example refutes the statement."""


def snippet(statement: Statement, system: str, result: SystemResult) -> str:
    """Return Python code that evaluates a counterexample again."""
    registered = STATEMENTS.get(statement.name) is statement
    function = statement.function
    sides = [f"left:  {result.left}", f"right: {result.right}"]
    notes = [statement.sentence, f"{system}: {result.failure}", *sides, *result.encodings]
    lines = [*(f"# {note}" for note in notes), "from proofs import replay"]
    if registered:
        target = repr(statement.name)
    else:
        lines.append(f"from {function.__module__} import {function.__qualname__}")
        target = function.__qualname__
    arguments = "".join(f"    {name}={value!r},\n" for name, value in result.counterexample.items())
    return "\n".join(lines) + f"\n\nreplay(\n    {target}, {system!r},\n{arguments})\n"


def replay(statement: str | Callable[..., Any], system: str, **encoded: Any) -> None:
    """Evaluate both sides of a statement for arguments encoded as in a snippet, print and compare them.

    Raises AssertionError, with the error and its bound, where they differ by more.
    """
    stated: Statement = select([statement])[0] if isinstance(statement, str) else statement.statements[0]  # type: ignore[attr-defined]
    sample = encoding.decode(encoded, stated.strategies)
    if stated.kind in measuring.KINDS:
        compared = measuring.compare(stated, sample)
    else:
        compared = SYSTEMS[system].compare(stated, sample)
        both = zip(("left", "right"), naming.sides(stated), SYSTEMS[system].evaluate(stated, sample), strict=True)
        for name, side, leaves in both:
            print(f"{name}: {side.text}", *leaves, sep="\n")
    failure = SYSTEMS.get(system, SYSTEMS["float64"]).describe(stated, sample, compared) if compared.failure else ""
    if failure and stated.kind != "refuted":
        raise AssertionError(f"{stated.name}, {system}: {failure}")
    print(failure or f"error {compared.error:.3g} within {compared.bound:.3g}")

"""Check a port against a form: run all cases in all precisions, find the smallest failure, and name the slip."""

from __future__ import annotations

import inspect
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.errors import UserError, known_name
from proofs.checker.forms import Form
from proofs.port import recognition
from proofs.port.cases import CASES, SIZES, Case, Example, Inputs, select_cases, smaller
from proofs.port.comparing import Divergence, axis_labels, difference, failure
from proofs.port.forms import find_form, full_name, has_norm
from proofs.port.frameworks import PRECISIONS
from proofs.port.intermediates import Intermediates, compare_intermediates
from proofs.port.reference import Expected, Reference
from proofs.port.running import NOT_RUN, Outcome, Port
from proofs.port.signature import CHUNK, declare
from proofs.port.statements import FAILS, Stated, check_statements
from proofs.port.suspicions import suspect

RIGHT, WRONG = "right", "wrong"
SHRINK_SECONDS = 15.0


@dataclass(frozen=True)
class Finding:
    """A case that fails in a precision, and where it does."""

    case: Case
    precision: str
    divergence: Divergence


@dataclass
class Report:
    """The result of a check: `right`, the cells of the table, and what is known of the failures."""

    form: str
    port: str
    framework: str
    cells: dict[tuple[str, str, str], str] = field(default_factory=dict)  # (precision, case, result) → right or wrong
    not_applied: dict[str, str] = field(default_factory=dict)  # case → why
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    slips: list[str] = field(default_factory=list)
    suspicion: str = ""  # how the port would be right, declared otherwise
    statements: list[Stated] = field(default_factory=list)
    intermediates: Intermediates | None = None
    snippet: str = ""
    seconds: float = 0.0
    seed: int | None = None  # of the adversarial checks, where they were made

    @property
    def right(self) -> bool:
        return bool(self.cells) and not self.findings and self.failed_statement is None

    @property
    def failed_statement(self) -> Stated | None:
        """The first statement that fails with the port in the form's place."""
        return next((stated for stated in self.statements if stated.status == FAILS), None)

    @property
    def cases(self) -> list[str]:
        """Return the names of the cases that were run."""
        return list(dict.fromkeys(case for _, case, _ in self.cells))

    @property
    def precisions(self) -> list[str]:
        """Return the precisions that were checked."""
        return list(dict.fromkeys(precision for precision, _, _ in self.cells))

    @property
    def first(self) -> Finding:
        """The failure to look at first: of the values before the gradients, in the widest precision."""

        def rank(finding: Finding) -> tuple[bool, bool, int, bool]:
            result = finding.divergence.result
            ordinary = finding.case.name in CASES
            return (
                result == "output",
                not ordinary,
                list(PRECISIONS).index(finding.precision),
                result.startswith("gradient"),
            )

        return min(self.findings, key=rank)

    def __str__(self) -> str:
        from proofs.port.report import text

        return text(self)


class Checker:
    """A port beside its form, on examples of one set of sizes."""

    def __init__(self, port: Port, example: Example):
        self.port, self.example, self.reference = port, example, Reference(port.signature)
        self._inputs: dict[str, Inputs] = {}
        self._expected: dict[tuple[int, tuple[str, ...], bool], tuple[Inputs, Expected]] = {}

    def inputs(self, case: Case) -> Inputs:
        """Return the inputs of a case, drawn once."""
        return self._inputs.setdefault(case.name, self.example.draw(case))

    def expected(self, inputs: Inputs, returned: Sequence[str], *, gradients: bool) -> Expected:
        """Return what is right, computed once for all precisions."""
        key = id(inputs), tuple(returned), gradients
        if key not in self._expected:
            self._expected[key] = inputs, self.reference.evaluate(inputs, returned, gradients=gradients)
        return self._expected[key][1]

    def compare(self, inputs: Inputs, precision: str, *, gradients: bool = True) -> dict[str, Divergence | None]:
        """Return for each result and gradient where it first differs, None where it is right."""
        outcome = self.port.run(inputs, precision, gradients=gradients)
        if outcome.failures.get("") == NOT_RUN:
            return {}
        if "" in outcome.failures:
            return {"": failure("", outcome.failures[""])}
        gradients = gradients and self.port.differentiates
        expected = self.expected(inputs, list(outcome.values), gradients=gradients)
        return dict(self.differences(outcome, expected, precision, inputs.chunk))

    def differences(
        self, outcome: Outcome, expected: Expected, precision: str, chunk: int
    ) -> Iterator[tuple[str, Divergence | None]]:
        """Yield the name of each result and gradient of an outcome, and where it first differs."""
        for name, x in outcome.values.items():
            if message := outcome.failures.get(name):
                yield name, failure(name, message)
            else:
                axes = self.port.axes[name]
                yield name, self._difference(name, axes, x, expected.values[name], expected, precision, chunk)
        for name in ("output", "gradient"):
            if message := outcome.failures.get(name):
                yield name, failure(name, message)
        for name, x in outcome.gradients.items():
            axes = self.port.axes.get(name) or self.port.form.axes[name]
            label = f"gradient of {name}"
            yield label, self._difference(label, axes, x, expected.gradients[name], expected, precision, chunk)

    def _difference(
        self, label: str, axes: str, x: np.ndarray, want: np.ndarray, expected: Expected, precision: str, chunk: int
    ) -> Divergence | None:
        signature = self.port.signature
        state = label.removeprefix("gradient of ").startswith("state")
        shape = signature.to_port(axes, want, state=state).shape
        if x.shape != shape:
            return failure(label, f"has shape {x.shape}, expected {shape}")
        got = signature.from_port(axes, x, state=state)
        labels = axis_labels(axes, want.ndim, signature.batch_letters)
        return difference(label, got, want, expected.tolerance(label, precision), labels, chunk)


def check(
    port: Callable[..., Any],
    form: str | Callable[..., Any],
    *,
    backward: Callable[..., Any] | None = None,
    framework: str | None = None,
    layout: str | None = None,
    arguments: str | Sequence[str] | None = None,
    scale: float | str | None = None,
    state: str | None = None,
    decay: str = "log",
    returns: str | Sequence[str] | None = None,
    variant: str | None = None,
    chunk: int | None = None,
    sizes: Mapping[str, int] | None = None,
    cases: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    statements: bool | None = None,
    intermediates: Callable[..., Any] | None = None,
    adversarial: bool = False,
    seed: int | None = None,
    source: str = "",
) -> Report:
    """Check a port of a form, `"memory.delta_rule.chunkwise"`: values, final state and gradients in every case.

    `layout`, `arguments`, `scale`, `state`, `decay` and `returns` declare how the port differs from the form
    (`proofs.port.signature`). `backward(*arguments, *cotangents)` returns a gradient for each array where the framework
    has no automatic differentiation. `chunk` is the port's size of chunks or of mini-batches where it takes none, and
    `variant` chooses among the shapes a form allows. `statements` says whether the statements that the form takes part
    in are checked with the port in its place, by default where all cases are run. `intermediates(*arguments)` returns a
    dict of the intermediates of chunks, where the port itself does not return it last (`proofs.port.intermediates`).
    `adversarial` adds the checks of `proofs.port.adversarial`, on numbers drawn anew each time, or from this seed.
    `source` is the line that imports the port, for the snippet.

    Runs the port in this process. Raises UserError, in one line, for what cannot be checked.
    """
    start = time.perf_counter()
    if not callable(port):
        raise UserError(f"port: expected a function, got {type(port).__name__}")
    chosen = find_form(form, variant)
    library = recognition.framework(framework, port)
    declared: dict[str, Any] = {
        "layout": layout,
        "arguments": arguments,
        "scale": scale,
        "state": state,
        "decay": decay,
    }
    signature = declare(chosen, port, **declared, returns=returns)
    runner = Port(port, signature, library, backward)
    size = chunk if chunk is not None else 4 if signature.takes(CHUNK) else _default_chunk(chosen)
    if size < 1:
        raise UserError(f"chunk: expected at least 1, got {size}")
    batch = tuple({"b": 2, "h": 3}[x] for x in signature.batch_letters)
    checker = Checker(runner, Example(chosen, batch, size, signature.factors, _sizes(chosen, sizes)))
    name = getattr(port, "__name__", type(port).__name__)
    report = Report(full_name(chosen), name, library.name)
    for precision in _precisions(chosen, runner, precisions):
        for case in select_cases(list(cases) if cases else None):
            if reason := checker.example.applies(
                case, takes_state=signature.takes("state"), fixed_batch=layout is not None
            ):
                report.not_applied[case.name] = reason
                continue
            _run(checker, case, precision, report)
    _remark(checker, report)
    if (statements if statements is not None else not cases) and report.precisions:
        if {"float64", "float32"} & {*report.precisions}:
            report.statements = list(check_statements(runner, size, report.precisions))
        else:
            report.notes.append("no statement was checked, which needs float64 or float32")
    if report.precisions:
        report.intermediates = compare_intermediates(checker, intermediates, report.precisions[0])
    if report.findings:
        from proofs.port import slips, snippets

        if report.first.divergence.result not in ("", "output"):  # a failure with numbers, which a slip may explain
            report.slips = slips.identify(checker, report)
        report.snippet = snippets.counterexample(checker, *shrink(checker, report.first), source)
        if any(not finding.divergence.result.startswith("gradient") for finding in report.findings):
            report.suspicion = suspect(checker, {**declared, "returns": returns}, report.first.precision)
    if adversarial:
        from proofs.port.adversarial import attack

        attack(checker, report, secrets.randbelow(2**32) if seed is None else seed)
    report.seconds = time.perf_counter() - start
    return report


def _run(checker: Checker, case: Case, precision: str, report: Report) -> None:
    """Run one case in one precision, and enter its cells and its first divergence."""
    found = checker.compare(checker.inputs(case), precision)
    for result, divergence in found.items():
        report.cells[precision, case.name, result] = WRONG if divergence else RIGHT
    wrong = [divergence for divergence in found.values() if divergence]
    report.findings += [Finding(case, precision, divergence) for divergence in wrong]


def _remark(checker: Checker, report: Report) -> None:
    """Note what was not checked, and why."""
    results = {result for _, _, result in report.cells}
    if not checker.port.differentiates:
        report.notes.append(
            f"no gradients were checked: {report.framework} has none, and no backward function was given"
        )
    if "y" in results and not any(result.startswith("state") for result in results):
        report.notes.append("the final state was not checked: the port returns none")
    if not checker.port.signature.takes("state"):
        report.notes.append(
            "no initial state was given: the port takes no argument of that name (declare it in arguments)"
        )
    if any(f.case.name == "no batch axis" and not f.divergence.result for f in report.findings):
        report.notes.append("a port whose arrays always have batch axes says so by its layout, as in 'b h t k'")


def shrink(checker: Checker, finding: Finding) -> tuple[Inputs, str, Divergence]:
    """Return the smallest inputs found at which the same result is wrong, the precision, and where it then differs."""
    deadline = time.perf_counter() + SHRINK_SECONDS
    result, case = finding.divergence.result, finding.case
    original = checker.inputs(case)
    for inputs in _candidates(checker, case, original.length):
        if time.perf_counter() > deadline:
            break
        found = checker.compare(inputs, finding.precision, gradients=result.startswith("gradient"))
        if divergence := found.get(result):
            return inputs, finding.precision, divergence
    return original, finding.precision, finding.divergence


def _candidates(checker: Checker, case: Case, length: int) -> Iterator[Inputs]:
    """Yield inputs of growing size: few tokens, small chunks, one sequence, one or two channels, multiples of 1/4."""
    example, signature = checker.example, checker.port.signature
    if checker.port.framework.name == "jax":  # which compiles for every shape
        for T in sorted({1, 2, length}):
            yield smaller(example, tuple(1 for _ in example.batch), 2, 4).draw(replace(case, batch=True), length=T)
        return
    chunks = sorted({2, example.chunk}) if signature.takes(CHUNK) else [example.chunk]
    lengths = sorted({1, 2, 3, 4, 5, example.chunk + 1, 2 * example.chunk, 2 * example.chunk + 1, 33, 65, length})
    batches: list[tuple[int, ...]] = [()] if signature.layout is None else []
    batches += [tuple(1 for _ in example.batch)] if example.batch else []
    narrow = case if case.batch else replace(case, batch=True)
    for T in (n for n in lengths if n <= length):
        for chunk in chunks:
            for size in (1, 2, max(SIZES.values())):
                for batch in batches[:1] if T > 5 else batches or [()]:
                    yield smaller(replace(example, chunk=chunk), batch, size, 4).draw(narrow, length=T)


def _default_chunk(form: Form) -> int:
    """Return the default size of chunks or mini-batches; 16 where the form has none."""
    parameters = inspect.signature(form.function).parameters
    defaults = [parameters[x].default for x in ("chunk_size", "batch_size") if x in parameters]
    return defaults[0] if defaults and isinstance(defaults[0], int) else 16


def _precisions(form: Form, port: Port, names: Sequence[str] | None) -> list[str]:
    """Return the precisions to check, by default all that the framework has and the numbers of the form allow."""
    has_complex = any(strategy.complex for strategy in form.tokens.values())
    possible = [x for x in port.framework.precisions if not (has_complex and x == "bfloat16")]
    return [known_name(name, "precisions", possible) for name in names or possible]


def _sizes(form: Form, sizes: Mapping[str, int] | None) -> Mapping[str, int]:
    for axis, size in (sizes or {}).items():
        known_name(axis, "sizes", SIZES)
        if size < 1:
            raise UserError(f"sizes: {axis} is {size}, expected at least 1")
    found = {**SIZES, **(sizes or {})}
    return {**found, "V": found["K"]} if has_norm(form) else found

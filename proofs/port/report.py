"""The text of a report: right or wrong, the table, the smallest failure, where it first differs, and the slip."""

from __future__ import annotations

from proofs.port.checking import RIGHT, Report
from proofs.port.statements import FAILS, HOLDS, LEFT_OUT, Stated

MARKS = {RIGHT: "ok", "wrong": "WRONG"}


def text(report: Report) -> str:
    """Return the whole report."""
    parts = [verdict(report), *table(report)]
    parts += [f"not run: {name} ({reason})" for name, reason in report.not_applied.items()]
    parts += [f"note: {note}" for note in report.notes]
    parts += [*statements(report), *intermediates(report)]
    if report.findings:
        parts += ["", *failures(report)]
    if (failed := report.failed_statement) is not None:
        parts += ["", *statement(failed)]
    if report.snippet:
        parts += ["", "the smallest example found:", "", report.snippet]
    return "\n".join(parts).rstrip() + "\n"


def verdict(report: Report) -> str:
    """Return the first line."""
    if not report.cells:
        return f"NOTHING was checked: no case applies to {report.port} ({report.framework}) as {report.form}"
    precisions = ", ".join(report.precisions)
    return (
        f"{'right' if report.right else 'WRONG'}: {report.port} ({report.framework}) as {report.form}, "
        f"in {precisions}, {report.seconds:.1f} s"
    )


def table(report: Report) -> list[str]:
    """Return a table for each precision, a row for each result or gradient and a column for each case."""
    lines = []
    for precision in report.precisions:
        cells = {(case, result): mark for (p, case, result), mark in report.cells.items() if p == precision}
        cases = list(dict.fromkeys(case for case, _ in cells))
        results = list(dict.fromkeys(result for _, result in cells if result))
        rows = [[precision, *cases]]
        rows += [[result, *(_cell(cells, case, result) for case in cases)] for result in results or ["y"]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["", *("  ".join(x.ljust(n) for x, n in zip(row, widths, strict=True)).rstrip() for row in rows)]
    return [*lines, ""]


def _cell(cells: dict[tuple[str, str], str], case: str, result: str) -> str:
    if (case, "") in cells:
        return "FAILS"
    return MARKS[cells[case, result]] if (case, result) in cells else "-"


def failures(report: Report) -> list[str]:
    """Return what fails first, what else fails, and the slips that explain it."""
    first = report.first
    lines = [f"first failure: {first.case.name}, {first.precision}: {first.divergence}"]
    lines += [f"this is the slip: {slip}" for slip in report.slips]
    lines += [f"suspicion: {report.suspicion}"] if report.suspicion else []
    others = [finding for finding in report.findings if finding is not first and finding.case is first.case]
    lines += [f"also: {x.case.name}, {x.precision}: {x.divergence}" for x in others if x.precision == first.precision]
    return lines


def statements(report: Report) -> list[str]:
    """Return how many statements hold with the port in the form's place, and which were left out, by reason."""
    if not report.statements:
        return []
    held = [stated for stated in report.statements if stated.status == HOLDS]
    failed = [stated for stated in report.statements if stated.status == FAILS]
    examples = sum(stated.examples for stated in report.statements)
    lines = [
        f"statements with the port in the form's place: {len(held)} hold, {len(failed)} fail, on {examples} examples"
    ]
    lines += [f"  fails: {stated.name}" for stated in failed]
    reasons: dict[str, list[str]] = {}
    for stated in report.statements:
        if stated.status == LEFT_OUT:
            reasons.setdefault(stated.reason, []).append(stated.name.partition("[")[0])
    for reason, names in reasons.items():
        several = list(dict.fromkeys(names))
        shown = ", ".join(several[:4]) + (", …" if len(several) > 4 else "")
        lines.append(f"  {len(names)} left out ({reason}): {shown}")
    return lines


def statement(stated: Stated) -> list[str]:
    """Return what a statement says that fails, its sides, and the counterexample."""
    lines = [f"first statement that fails: {stated.name}", f"  {stated.sentence}", f"  source: {stated.source}"]
    lines += [f"  left:  {stated.left}", f"  right: {stated.right}", f"  in {stated.system}: {stated.failure}"]
    return lines + [f"    {line}" for line in stated.counterexample.splitlines()]


def intermediates(report: Report) -> list[str]:
    """Return whether the intermediates of chunks are right, or the first that differs and its line of the equations."""
    found = report.intermediates
    if found is None:
        return []
    lines = [f"note: no intermediate of this form is called {name}" for name in found.unknown]
    if found.divergence is not None:
        lines += [f"first intermediate that differs: {found.divergence}"]
        lines += [f"  its line: {found.line}"] if found.line else []
    elif found.compared:
        lines += [f"intermediates of two chunks are right: {', '.join(found.compared)}"]
    return lines

"""The text of a report: right or wrong, the table, the smallest failure, where it first differs, and the slip."""

from __future__ import annotations

from proofs.port.checking import RIGHT, Report

MARKS = {RIGHT: "ok", "wrong": "WRONG"}


def text(report: Report) -> str:
    """Return the whole report."""
    parts = [verdict(report), *table(report)]
    parts += [f"not run: {name} ({reason})" for name, reason in report.not_applied.items()]
    parts += [f"note: {note}" for note in report.notes]
    if report.findings:
        parts += ["", *failures(report)]
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
    others = [finding for finding in report.findings if finding is not first and finding.case is first.case]
    lines += [f"also: {x.case.name}, {x.precision}: {x.divergence}" for x in others if x.precision == first.precision]
    return lines

"""The report of a check for machines, as JSON.

version     1; it is raised when a field is renamed, removed or given another meaning
verdict     "right", "wrong", "nothing checked", or "not run", where `error` says why and nothing else follows
port, form, framework, precisions, cases
seconds     that the check took
seed        of the adversarial checks, null without them
cells       the table: {precision, case, result, verdict}; result is y, state, gradient of NAME, gradient or output,
            "" where the call fails; verdict is "right" or "wrong"
left_out    {case: why it says nothing about this port}
notes       what else was not checked
findings    {case, precision, result, place, got, expected, tolerance, message}: where each result that is wrong
            first differs; place and the numbers are null where there is a message instead. A number that is
            not finite is "nan", "inf" or "-inf", a complex one {"real", "imag"}
first       the index in findings of the failure to look at first, null where there is none
slips       the slips of the catalogue that give the same numbers
suspicion   how the port would be right, declared otherwise; "" where that is not known
statements  {name, sentence, source, status, reason, examples, system, failure, left, right, counterexample}: those that
            the form takes part in; status is "holds", "fails" or "left out"
intermediates
            of chunks: {compared, unknown, line}, and the fields of a finding of the first that differs; line is its
            line of the equations; null where the port shows none
snippet     the smallest example found, as code
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from proofs.port.checking import Finding, Report
from proofs.port.comparing import Divergence
from proofs.port.intermediates import Intermediates

VERSION = 1


def to_json(report: Report) -> dict[str, Any]:
    """Return a report as JSON's types."""
    return {
        "version": VERSION,
        "verdict": "right" if report.right else "wrong" if report.cells else "nothing checked",
        "port": report.port,
        "form": report.form,
        "framework": report.framework,
        "precisions": report.precisions,
        "cases": report.cases,
        "seconds": round(report.seconds, 3),
        "seed": report.seed,
        "cells": [
            {"precision": precision, "case": case, "result": result, "verdict": verdict}
            for (precision, case, result), verdict in report.cells.items()
        ],
        "left_out": report.not_applied,
        "notes": report.notes,
        "findings": [_finding(finding) for finding in report.findings],
        "first": report.findings.index(report.first) if report.findings else None,
        "slips": report.slips,
        "suspicion": report.suspicion,
        "statements": [asdict(stated) for stated in report.statements],
        "intermediates": _intermediates(report.intermediates),
        "snippet": report.snippet,
    }


def not_run(error: str) -> dict[str, Any]:
    """Return what stands for a report where nothing could be run."""
    return {"version": VERSION, "verdict": "not run", "error": error}


def _finding(finding: Finding) -> dict[str, Any]:
    return {"case": finding.case.name, "precision": finding.precision, **_divergence(finding.divergence)}


def _intermediates(found: Intermediates | None) -> dict[str, Any] | None:
    if found is None:
        return None
    first = {} if found.divergence is None else _divergence(found.divergence)
    return {"compared": found.compared, "unknown": found.unknown, **first, "line": found.line or None}


def _divergence(divergence: Divergence) -> dict[str, Any]:
    numbers = {"got": divergence.got, "expected": divergence.expected, "tolerance": divergence.tolerance}
    return {
        "result": divergence.result,
        "place": divergence.place or None,
        **{name: None if divergence.message else _number(x) for name, x in numbers.items()},
        "message": divergence.message or None,
    }


def _number(x: complex | float) -> Any:
    if isinstance(x, complex):
        return {"real": _number(x.real), "imag": _number(x.imag)}
    return float(x) if math.isfinite(x) else str(float(x))

"""Report results: lines for a terminal, JSON, JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console

from models import tables
from models.references import Citation, citations, spelled
from proofs.checker import Result
from proofs.checker.statements import Statement
from proofs.checker.systems import SYMBOLS
from proofs.files import write
from proofs.talks import Claim


def show(console: Console, result: Result) -> None:
    """Print a statement's verdict and name, then its source, the number systems it passed in, and the worst error."""
    failed, closest = result.verdict == "failed", result.closest
    error = f"worst error {closest.worst_error:.1e} of at most {closest.bound:.1e}"
    if closest.status == "passed" and closest.bound == 0:
        error = "exact" if result.kind != "refuted" else f"off by {closest.worst_error:.1e}"
    systems = {
        status: " ".join(SYMBOLS.get(name, name) for name, s in result.systems.items() if s.status == status)
        for status in ("passed", "failed", "not installed")
    }
    status_lines = [f"{status}: {names}" if status != "passed" else names for status, names in systems.items() if names]
    examples = f"{result.examples} example{'s' if result.examples != 1 else ''}"
    tables.write(console, f"{'✗' if failed else result.relation} {result.identity}", style="bold red" if failed else "")
    rest = "; ".join([*status_lines, error, examples, *([] if failed else [result.strength])])
    write_source(console, citations(result.source), f"; {rest}")


def write_source(console: Console, source: Iterable[Citation], rest: str) -> None:
    """Print citations and what follows them: links on a terminal, elsewhere with their addresses."""
    source = list(source)
    texts = [c.spelled if console.is_terminal or not c.url else f"{c.spelled} <{c.url}>" for c in source]
    links = [(c.spelled, c.url) for c in source if c.url]
    tables.write(console, "; ".join(texts) + rest, indent=4, style="dim", links=links)


def failures(result: Result) -> str:
    """Return the failures, each with a minimal counterexample as Python to paste; empty where there are none."""
    return "\n".join(
        f"{result.identity} fails first in {name}: {system.failure}\n{system.snippet}"
        for name, system in result.systems.items()
        if system.status == "failed"
    )


def write_json(path: Path, results: Iterable[Result]) -> None:
    """Write all results as a JSON array."""
    write(path, json.dumps([result.to_json() for result in results], indent=1, ensure_ascii=False, allow_nan=False))


def write_statements(path: Path, statements: Iterable[Statement]) -> None:
    """Write statements as a JSON array, with the file and line of each and the works it cites, with their addresses."""
    rows = [
        {
            "identity": s.name,
            "sentence": s.sentence,
            "source": spelled(s.source),
            "chapter": s.chapter,
            "relation": s.relation,
            "instead": s.instead,
            "file": s.place[0],
            "line": s.place[1],
            "citations": [citation.to_json() for citation in s.citations],
        }
        for s in statements
    ]
    write(path, json.dumps(rows, indent=1, ensure_ascii=False))


def write_claims(path: Path, claims: Iterable[Claim]) -> None:
    """Write claims of the talks as a JSON array, each with its evidence resolved."""
    write(path, json.dumps([claim.to_json() for claim in claims], indent=1, ensure_ascii=False))


def write_junit(path: Path, results: Iterable[Result]) -> None:
    """Write a JUnit test case for every statement and number system."""
    suite = ElementTree.Element("testsuite", name="proofs")
    counts = dict.fromkeys(("tests", "failures", "skipped"), 0)
    for result in results:
        for name, system in result.systems.items():
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=result.chapter,
                name=f"{result.identity}-{name}",
                time=f"{system.seconds:.3f}",
            )
            counts["tests"] += 1
            if system.status == "failed":
                counts["failures"] += 1
                ElementTree.SubElement(case, "failure", message=system.failure).text = system.snippet
            elif system.status == "not installed":
                counts["skipped"] += 1
                ElementTree.SubElement(case, "skipped", message=f"{name} is not installed")
    for key, count in counts.items():
        suite.set(key, str(count))
    write(path, ElementTree.tostring(suite, encoding="unicode", xml_declaration=True))


def summary(results: list[Result]) -> dict[str, Any]:
    """Count the statements that hold, those of them that are proven, those that fail, and the examples tried."""
    failed = sum(result.verdict == "failed" for result in results)
    proven = sum(result.verdict == "holds" and result.false_pass is not None for result in results)
    examples = sum(result.examples for result in results)
    return {"hold": len(results) - failed, "proven": proven, "failed": failed, "examples": examples}

"""What a check found, for people and for machines: rows of a table, JSON, JUnit XML."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.table import Table
from rich.text import Text

from proofs.checker import Result
from proofs.systems import SYMBOLS

COLOURS = {"passed": "green", "failed": "bold red", "not installed": "dim"}
HEADINGS = ("", "identity", "source", "number systems", "worst error / bound", "examples")


def row(result: Result) -> tuple[Text, ...]:
    """A statement as a row under `HEADINGS`."""
    systems = Text(" ").join(Text(SYMBOLS.get(name, name), COLOURS[s.status]) for name, s in result.systems.items())
    mark = Text("✗", "bold red") if result.verdict == "failed" else Text(result.relation, "green")
    closest = result.closest
    error = f"{closest.worst_error:.1e} / {closest.bound:.1e}"
    if closest.status == "passed" and closest.bound == 0:
        error = "exact" if result.kind != "refuted" else f"off by {closest.worst_error:.1e}"
    # Text, not str: a table would read the [instance] of a name as markup.
    return mark, Text(result.identity), Text(result.source), systems, Text(error), Text(str(result.examples))


def table(rows: Iterable[tuple[Text, ...]], width: int, *, header: bool = True) -> Table:
    """The rows; every table of the same width has the same columns, so that tables can be printed under each other."""
    made = Table(box=None, show_header=header, pad_edge=False, padding=(0, 1, 0, 0), width=width)
    fixed = {"": 1, "worst error / bound": 19, "examples": 8}
    free = width - sum(fixed.values()) - len(HEADINGS) + 1  # what one space between the columns leaves
    fixed |= {"source": free * 2 // 9, "number systems": free * 3 // 9}
    for heading in HEADINGS:
        made.add_column(
            heading,
            width=fixed.get(heading, free - fixed["source"] - fixed["number systems"]),
            no_wrap=heading == "source",
            overflow="ellipsis" if heading == "source" else "fold",  # a name is there to be copied
            justify="right" if heading == "examples" else "left",
        )
    for cells in rows:
        made.add_row(*cells)
    return made


def failures(result: Result) -> str:
    """What is wrong, and the smallest counterexample as Python to paste; empty where nothing is."""
    return "\n".join(
        f"{result.identity} fails first in {name}: {system.objection}\n{system.snippet}"
        for name, system in result.systems.items()
        if system.status == "failed"
    )


def write_json(path: Path, results: Iterable[Result]) -> None:
    """All results as a JSON array."""
    _write(path, json.dumps([result.to_json() for result in results], indent=1, ensure_ascii=False, allow_nan=False))


def write_junit(path: Path, results: Iterable[Result]) -> None:
    """A JUnit test case for every statement and number system."""
    suite = ElementTree.Element("testsuite", name="proofs")
    counts = dict.fromkeys(("tests", "failures", "skipped"), 0)
    for result in results:
        for name, system in result.systems.items():
            case = ElementTree.SubElement(suite, "testcase", classname=result.chapter, name=f"{result.identity}-{name}",
                                          time=f"{system.seconds:.3f}")  # fmt: skip
            counts["tests"] += 1
            if system.status == "failed":
                counts["failures"] += 1
                ElementTree.SubElement(case, "failure", message=system.objection).text = system.snippet
            elif system.status == "not installed":
                counts["skipped"] += 1
                ElementTree.SubElement(case, "skipped", message=f"{name} is not installed")
    for key, count in counts.items():
        suite.set(key, str(count))
    _write(path, ElementTree.tostring(suite, encoding="unicode", xml_declaration=True))


def _write(path: Path, text: str) -> None:
    """The whole file or none of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def summary(results: list[Result]) -> dict[str, Any]:
    """How many statements hold, how many fail, and on how many examples that rests."""
    failed = sum(result.verdict == "failed" for result in results)
    return {"hold": len(results) - failed, "failed": failed, "examples": sum(result.examples for result in results)}

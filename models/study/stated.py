"""Section of the report on statements: which hold, which were not run, and where each is stated."""

import html
import math
import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.study.reading import Results

ROOT = Path(__file__).parent.parent.parent
Case = Mapping[str, Any]


def statements(results: Results, page: Path) -> dict[str, Any] | None:
    """Return all statements by chapter, with sentences on what was found; None while the checks have not finished.

    `page` is the file whose links lead to the source.
    """
    done = results["jobs"]["proofs"]["result"]
    if done is None:
        return None
    checked = {case["identity"]: case for case in done["proofs"]}
    chapters: dict[str, dict[str, list[Case]]] = {}
    for stated in done["statements"]:
        rows = chapters.setdefault(stated["chapter"], {})
        rows.setdefault(stated["sentence"], []).append({**stated, **checked.get(stated["identity"], {})})
    tables: list[dict[str, Any]] = [
        {"name": chapter, "title": chapter.replace("_", " "), "rows": [_row(cases, page) for cases in found.values()]}
        for chapter, found in chapters.items()
    ]
    sentences = _sentences(done, tables)
    counted = [{**table, **_counted(table["rows"])} for table in tables]
    return {"chapters": counted, "sentences": sentences, "conclusion": sentences[0]}


def _row(cases: list[Case], page: Path) -> dict[str, Any]:
    """Return a row for one sentence and all the mechanisms it is stated of."""
    run = [case for case in cases if "verdict" in case]
    ratios = [case["worst_error"] / case["bound"] for case in run if case["bound"] and math.isfinite(case["bound"])]
    passed = dict.fromkeys(case["systems"][name]["symbol"] for case in run for name in _passed(case))
    first, exact = cases[0], "exact" if run else ""
    return {
        "sentence": first["sentence"],
        "source": _linked(first["source"], first["papers"]),
        "relation": first["relation"],
        "place": f"{Path(first['file']).name}:{first['line']}",
        "link": f"{_relative_link(page, first['file'])}#L{first['line']}",
        "cases": len(cases),
        "run": len(run),
        "holds": sum(case["verdict"] == "holds" for case in run),
        "systems": " ".join(passed),
        "examples": sum(case["examples"] for case in run),
        "ratio": "refuted" if run and run[0]["kind"] == "refuted" else f"{max(ratios):.2g}" if ratios else exact,
    }


def _counted(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "holds": sum(0 < row["run"] == row["holds"] for row in rows),
        "failed": sum(row["holds"] < row["run"] for row in rows),
        "left": sum(not row["run"] for row in rows),
    }


def _sentences(done: Mapping[str, Any], tables: list[dict[str, Any]]) -> list[str]:
    flat = [row for table in tables for row in table["rows"]]
    counted = _counted(flat)
    systems = sorted({name for case in done["proofs"] for name in _passed(case)})
    cases, examples = (sum(row[what] for row in flat) for what in ("run", "examples"))
    sentences = [
        f"{counted['holds']} of the {counted['holds'] + counted['failed']} statements that were checked hold, over "
        f"{cases} cases and {examples:,} examples; a statement about every mechanism or form is one case for each.",
        f"Number systems in which they were checked: {', '.join(systems)}.",
    ]
    if counted["left"]:
        sentences.append(f"{counted['left']} more were not run here; they are listed with the command that runs them.")
    if counted["failed"]:
        failed = "; ".join(row["sentence"] for row in flat if row["holds"] < row["run"])
        sentences.append(f"Failed: {failed}.")
    return sentences


def _passed(case: Case) -> list[str]:
    return [name for name, system in case["systems"].items() if system["status"] == "passed"]


def _linked(source: str, papers: Mapping[str, str]) -> str:
    """Return a source as HTML, the papers it names as links."""
    text = html.escape(source)
    for name, address in papers.items():
        shown = html.escape(name)
        text = text.replace(shown, f'<a href="{html.escape(address)}">{shown}</a>')
    return text


def _relative_link(page: Path, file: str) -> str:
    """Return the address of a file of the repository, relative to the page where that is possible."""
    try:
        return urllib.parse.quote(Path(os.path.relpath(ROOT / file, page.resolve().parent)).as_posix())
    except ValueError:  # on another drive of Windows
        return (ROOT / file).as_uri()

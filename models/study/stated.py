"""Section of the report on statements: which hold, which were not run, and where each is stated."""

import html
import math
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.study.reading import Results

ROOT = Path(__file__).parent.parent.parent
Case = Mapping[str, Any]


def statements(results: Results, page: Path) -> dict[str, Any] | None:
    """Return all statements by chapter, with sentences on what was found; None while the checks have not finished.

    `page` is the file whose links lead to the source.
    """
    result = results["jobs"]["proofs"]["result"]
    if result is None:
        return None
    checked = {case["identity"]: case for case in result["proofs"]}
    chapters: dict[str, dict[str, list[Case]]] = {}
    for stated in result["statements"]:
        rows = chapters.setdefault(stated["chapter"], {})
        rows.setdefault(stated["sentence"], []).append({**stated, **checked.get(stated["identity"], {})})
    tables: list[dict[str, Any]] = [
        {
            "name": chapter,
            "title": chapter.replace("_", " "),
            "rows": [_row(cases, page) for cases in sentences_of.values()],
        }
        for chapter, sentences_of in chapters.items()
    ]
    sentences = _sentences(result, tables)
    counted_tables = [{**table, **_counts(table["rows"])} for table in tables]
    anchors = {anchor for table in tables for row in table["rows"] for anchor in row["anchors"]}
    return {"chapters": counted_tables, "sentences": sentences, "conclusion": sentences[0], "anchors": anchors}


def _row(cases: list[Case], page: Path) -> dict[str, Any]:
    """Return a row for one sentence and all the mechanisms it is stated of."""
    run = [case for case in cases if "verdict" in case]
    ratios = [case["worst_error"] / case["bound"] for case in run if case["bound"] and math.isfinite(case["bound"])]
    passed = dict.fromkeys(case["systems"][name]["symbol"] for case in run for name in _passed_systems(case))
    first, exact = cases[0], "exact" if run else ""
    return {
        "sentence": first["sentence"],
        "source": linked(first["citations"]),
        "relation": first["relation"],
        "instead": first.get("instead", ""),
        "anchors": list(dict.fromkeys(case["identity"].partition("[")[0] for case in cases)),
        "place": f"{Path(first['file']).name}:{first['line']}",
        "link": f"{relative_link(page, first['file'])}#L{first['line']}",
        "cases": len(cases),
        "run": len(run),
        "holds": sum(case["verdict"] == "holds" for case in run),
        "systems": " ".join(passed),
        "examples": sum(case["examples"] for case in run),
        "ratio": "refuted" if run and run[0]["kind"] == "refuted" else f"{max(ratios):.2g}" if ratios else exact,
    }


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "holds": sum(0 < row["run"] == row["holds"] for row in rows),
        "failed": sum(row["holds"] < row["run"] for row in rows),
        "left": sum(not row["run"] for row in rows),
    }


def _sentences(result: Mapping[str, Any], tables: list[dict[str, Any]]) -> list[str]:
    flat = [row for table in tables for row in table["rows"]]
    counts = _counts(flat)
    systems = sorted({name for case in result["proofs"] for name in _passed_systems(case)})
    cases, examples = (sum(row[key] for row in flat) for key in ("run", "examples"))
    sentences = [
        f"{counts['holds']} of the {counts['holds'] + counts['failed']} statements that were checked hold, over "
        f"{cases} cases and {examples:,} examples; a statement about every mechanism or form is one case for each.",
        f"Number systems in which they were checked: {', '.join(systems)}.",
    ]
    holding = [case for case in result["proofs"] if case["verdict"] == "holds"]
    if proven := [case for case in holding if case["strength"].startswith("proven")]:
        sentences.append(_strength(proven, len(result["proofs"])))
    if counts["left"]:
        sentences.append(f"{counts['left']} more were not run here; they are listed with the command to run them.")
    if counts["failed"]:
        failed = "; ".join(row["sentence"] for row in flat if row["holds"] < row["run"])
        sentences.append(f"Failed: {failed}.")
    return sentences


def _strength(proven: list[Case], cases: int) -> str:
    chance = max(case["systems"]["modular"]["false_pass"] for case in proven)
    return (
        f"{len(proven)} of the {cases} cases are proven at the sizes drawn: both sides agree at points drawn uniformly "
        f"from a prime field, where a false equality passes with a chance of at most {chance:.1e} (Schwartz and "
        "Zippel). The others are checked on examples."
    )


def _passed_systems(case: Case) -> list[str]:
    return [name for name, system in case["systems"].items() if system["status"] == "passed"]


def linked(citations: Sequence[Mapping[str, str]]) -> str:
    """Return a source as HTML: works that have an address are links, whose tooltip is the title."""
    return "; ".join(map(_link, citations))


def _link(citation: Mapping[str, str]) -> str:
    text, label, title, url = (html.escape(citation[key]) for key in ("text", "label", "title", "url"))
    return f'<a href="{url}" title="{title}">{label}</a>{text.removeprefix(label)}' if url else text


def relative_link(page: Path, file: str) -> str:
    """Return the address of a file of the repository, relative to the page where that is possible."""
    try:
        return urllib.parse.quote(Path(os.path.relpath(ROOT / file, page.resolve().parent)).as_posix())
    except ValueError:  # on another drive of Windows
        return (ROOT / file).as_uri()

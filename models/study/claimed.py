"""Section of the report on the talks: what was said, what holds, and what shows it."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.study.reading import Results
from models.study.sections import SECTIONS
from models.study.stated import linked, relative_link

VERDICTS = ("true", "true if", "loose", "wrong")


def claims(results: Results, page: Path) -> dict[str, Any] | None:
    """Return the claims by talk, each with links to what shows it; None while the checks have not finished.

    `page` is the file whose links lead to the source.
    """
    result = results["jobs"]["proofs"]["result"]
    if result is None:
        return None
    talks: dict[str, dict[str, Any]] = {}
    for claim in result["claims"]:
        work = {key: claim[key] for key in ("title", "full_title", "url")}
        talk = talks.setdefault(claim["talk"], {"name": claim["talk"], "rows": [], **work})
        talk["rows"].append(_row(claim, page))
    rows = [row for talk in talks.values() for row in talk["rows"]]
    counts = Counter(row["verdict"] for row in rows)
    shown = sum(row["shown"] for row in rows)
    return {
        "talks": list(talks.values()),
        "verdicts": [(verdict, _name(verdict), counts[verdict]) for verdict in VERDICTS],
        "missing": len(rows) - shown,
        "conclusion": f"Of the {len(rows)} claims of {len(talks)} talks, "
        f"{', '.join(f'{counts[verdict]} are {_words(verdict)}' for verdict in VERDICTS)}; "
        f"the verdicts on {shown} are shown, those on {len(rows) - shown} not yet.",
    }


def _row(claim: Mapping[str, Any], page: Path) -> dict[str, Any]:
    return {
        **{name: claim[name] for name in ("number", "place", "said", "verdict", "condition", "precise", "missing")},
        "name": _name(claim["verdict"]),
        "shown": claim["shown"],
        "statements": [
            {
                "relation": s["relation"],
                "name": s["name"],
                "anchor": s["identity"].partition("[")[0],
                "sentence": s["sentence"],
                "place": f"{Path(s['file']).name}:{s['line']}",
                "link": f"{relative_link(page, s['file'])}#L{s['line']}",
            }
            for s in claim["statements"]
        ],
        "study": [
            {"section": s["section"], "title": SECTIONS[s["section"]].title, "job": s["name"]} for s in claim["study"]
        ],
        "source": linked(claim["citations"]),
    }


def _name(verdict: str) -> str:
    """Return a verdict as a name in HTML."""
    return verdict.replace(" ", "-")


def _words(verdict: str) -> str:
    return "true under a condition" if verdict == "true if" else verdict

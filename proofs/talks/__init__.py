"""The claims of the five talks that this project comes from, each with a verdict and with what shows it.

A talk is a file, KEY.toml, with KEY a key of `models/references.bib`; in it, a claim is a table `[[claims]]`:

    number       1 … 216, through all talks
    place        minute, slide or heading, as the talk has it
    said         the claim, in one English sentence
    verdict      "true", "true if" (under the `condition`), "loose", or "wrong"
    condition    what a claim that is true under a condition needs
    precise      what holds, exactly
    statements   names as `python -m proofs list` prints them; without an instance, all instances
    study        sections of the study's report, or jobs of the study, by their names or how these begin
    source       for what only a paper can say, such as history: keys of `references.bib` with places
    missing      what is not shown yet; a claim that has this counts as not shown
"""

from __future__ import annotations

import functools
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.references import citations, cited, references, spelled
from models.study.sections import SECTIONS, section_of
from proofs.checker.statements import Statement, select

TALKS = ("talk-titans", "talk-mamba", "book-ssm", "talk-papers", "talk-meeting")
VERDICTS = ("true", "true if", "loose", "wrong")


@dataclass(frozen=True)
class Claim:
    """A claim of a talk, its verdict, and the names of what shows it."""

    talk: str  # a key of models/references.bib
    number: int
    place: str
    said: str
    verdict: str
    precise: str
    condition: str = ""
    statements: tuple[str, ...] = ()
    study: tuple[str, ...] = ()
    source: str = ""
    missing: str = ""

    @property
    def shown(self) -> bool:
        """Return whether all of the verdict is shown."""
        return bool(self.statements or self.study or self.source) and not self.missing

    @property
    def found(self) -> list[Statement]:
        """Return the first instance of each statement. Raises LookupError for an unknown name."""
        return [select([name])[0] for name in self.statements]

    def to_json(self) -> dict[str, Any]:
        """Return the claim with its evidence resolved: files and lines of statements, sections of the report."""
        return {
            **asdict(self),
            "title": label(self.talk),
            "full_title": references()[self.talk].title,
            "url": references()[self.talk].url,
            "shown": self.shown,
            "statements": [
                {
                    "name": name,
                    "identity": s.name,
                    "relation": s.relation,
                    "sentence": s.sentence,
                    "chapter": s.chapter,
                    "file": s.place[0],
                    "line": s.place[1],
                }
                for name, s in zip(self.statements, self.found, strict=True)
            ],
            "study": [{"name": name, "section": section_of(name)} for name in self.study],
            "source": spelled(self.source) if self.source else "",
            "citations": [citation.to_json() for citation in citations(self.source)] if self.source else [],
        }


@functools.cache
def claims() -> tuple[Claim, ...]:
    """Return all claims, in the talks' order."""
    return tuple(_claim(talk, row) for talk in TALKS for row in _read(talk))


def _read(talk: str) -> list[dict[str, Any]]:
    text = Path(__file__).with_name(f"{talk}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["claims"]


def _claim(talk: str, row: dict[str, Any]) -> Claim:
    """Return the claim of a table, with its lists as tuples and its text in one line."""
    fields: dict[str, Any] = {
        name: " ".join(value.split()) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        for name, value in row.items()
    }
    return Claim(talk, **fields)


def select_claims(names: Iterable[str] | None = None, verdict: str = "", *, missing: bool = False) -> list[Claim]:
    """Return the claims of these talks and of these numbers, all by default, with a verdict, or not shown yet.

    Raises LookupError for a name that is neither, and ValueError for an unknown verdict.
    """
    if verdict and verdict not in VERDICTS:
        raise ValueError(f"expected one of the verdicts {', '.join(VERDICTS)}, got {verdict!r}")
    known = {*TALKS, *(str(claim.number) for claim in claims())}
    for name in names or ():
        if name not in known:
            raise LookupError(
                f"expected a talk ({', '.join(TALKS)}) or a number from 1 to {len(claims())}, got {name!r}"
            )
    return [
        claim
        for claim in claims()
        if (not names or not {claim.talk, str(claim.number)}.isdisjoint(names))
        and verdict in ("", claim.verdict)
        and not (missing and claim.shown)
    ]


def summary(selected: Iterable[Claim]) -> str:
    """Return how many claims have each verdict, and how many are shown."""
    selected = list(selected)
    verdicts = Counter(claim.verdict for claim in selected)
    shown = [claim for claim in selected if claim.shown]
    by_source = sum(not claim.statements and not claim.study for claim in shown)
    counted = f"{len(selected)} claim{'' if len(selected) == 1 else 's'}"
    return (
        f"{counted}: {', '.join(f'{verdicts[verdict]} {verdict}' for verdict in VERDICTS)}; {len(shown)} shown, "
        f"{by_source} of them by a source alone, {len(selected) - len(shown)} not shown yet"
    )


def label(talk: str) -> str:
    """Return how a talk is named in text."""
    return references()[talk].label


def evidence(claim: Claim) -> list[str]:
    """Return what shows a claim, a line for each kind of evidence, and what is missing."""
    sections = [f"{name} ({SECTIONS[section_of(name)].title})" for name in claim.study]
    lines = {
        "shown by": ", ".join(claim.statements),
        "measured": ", ".join(sections),
        "source": cited(claim.source) if claim.source else "",
        "not shown yet": claim.missing,
    }
    return [f"{kind}: {text}" for kind, text in lines.items() if text]

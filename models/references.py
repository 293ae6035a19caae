"""Sources of statements and mechanisms: keys of `references.bib`, each with a place in the work.

    "katharopoulos2020, eq. 16–20; talk-titans, 12:17"

A source is a list of citations separated by semicolons. A citation is a key and, after a comma, a place. In the file an
entry is `@misc{key,` followed by lines `field = {value},`; the field `label` is how the work is named in text.
"""

import functools
import re
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("references.bib")


class Reference(NamedTuple):
    """A work of `references.bib`."""

    key: str
    label: str  # as in text: "Gu et al. 2022 (S4)"
    title: str
    author: str
    year: str
    url: str  # arXiv, DOI or web page; empty where there is none


class Citation(NamedTuple):
    """A work and a place in it, which may be empty."""

    reference: Reference
    place: str

    def __str__(self) -> str:
        return ", ".join(filter(None, [self.reference.label, self.place]))

    @property
    def spelled(self) -> str:
        """The citation as text, with the title of a work whose label has no year: a talk, or a program."""
        work = self.reference
        return ", ".join(filter(None, [work.label, "" if work.year else f'"{work.title}"', self.place]))

    @property
    def url(self) -> str:
        """The address of the work, of a video that of the minute where the place begins; empty where there is none."""
        time = re.match(r"(?:(\d+):)?(\d\d):(\d\d)\b", self.place)
        if time is None or "youtube.com" not in self.reference.url:
            return self.reference.url
        hours, minutes, seconds = (int(number or 0) for number in time.groups())
        return f"{self.reference.url}&t={3600 * hours + 60 * minutes + seconds}s"

    def to_json(self) -> dict[str, str]:
        """Return the citation as text, and its parts."""
        work = self.reference
        return {"text": self.spelled, "label": work.label, "title": work.title, "place": self.place, "url": self.url}


@functools.cache
def references() -> dict[str, Reference]:
    """Return all works by key."""
    entries = {}
    text = FILE.read_text(encoding="utf-8")
    for key, body in re.findall(r"^@\w+\{([^,]+),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        field = dict(re.findall(r"^ +(\w+) += \{(.*)\},$", body, re.MULTILINE))
        links = (("eprint", "https://arxiv.org/abs/"), ("doi", "https://doi.org/"), ("url", ""))
        url = next((start + field[name] for name, start in links if name in field), "")
        author, year = field.get("author", ""), field.get("year", "")
        entries[key] = Reference(key, field["label"], field["title"], author, year, url)
    return entries


def citations(source: str) -> list[Citation]:
    """Parse a source. Raises ValueError where a key is not in `references.bib`."""
    citations = []
    for part in source.split(";"):
        key, _, place = part.strip().partition(", ")
        if key not in references():
            raise ValueError(f"source {source!r}: {key!r} is no key of {FILE.name}")
        citations.append(Citation(references()[key], place))
    return citations


def spelled(source: str) -> str:
    """Return a source as text, as `cited` does, with the titles of talks."""
    return "; ".join(citation.spelled for citation in citations(source))


def cited(source: str) -> str:
    """Return a source as text, each work under its label. Raises ValueError where a key is not in `references.bib`."""
    return "; ".join(map(str, citations(source)))

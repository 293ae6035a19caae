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
        return f"{self.reference.label}, {self.place}" if self.place else self.reference.label


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


def cited(source: str) -> str:
    """Return a source as text, each work under its label. Raises ValueError where a key is not in `references.bib`."""
    return "; ".join(map(str, citations(source)))

"""Tables for a terminal of any width, in which no word is cut: cells wrap, and rows stack where columns do not fit."""

import re
from collections.abc import Iterable, Sequence
from textwrap import fill

from rich.console import Console
from rich.text import Text

GAP = 2  # spaces between two columns


def show(console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their headings; where the longest words do not fit side by side, one cell under the other."""
    rows = [tuple(row) for row in rows]
    widths = fit([headings, *rows], console.width)
    if widths is None:
        for row in rows:
            write(console, row[0], style="bold")
            for heading, cell in zip(headings[1:], row[1:], strict=True):
                write(console, f"{heading}: {cell}", indent=2)
        return
    for i, row in enumerate([headings, *rows]):
        cells = [wrapped(cell, width).split("\n") for cell, width in zip(row, widths, strict=True)]
        for j in range(max(len(lines) for lines in cells)):
            line = "".join(
                (lines[j] if j < len(lines) else "").ljust(width + GAP)
                for lines, width in zip(cells, widths, strict=True)
            )
            _print(console, Text(line.rstrip(), style="bold" if i == 0 else ""))


def fit(rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Return a width for each column, or None if their longest words do not fit side by side.

    A column has room for its longest word; what is left goes to those that need more, in proportion.
    """
    columns = list(zip(*rows, strict=True))
    least = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    longest = [max(map(len, column)) for column in columns]
    spare = width - sum(least) - GAP * (len(columns) - 1)
    if spare < 0:
        return None
    shortfall = sum(longest) - sum(least)
    share = min(1.0, spare / shortfall) if shortfall else 0.0
    return [low + int(share * (high - low)) for low, high in zip(least, longest, strict=True)]


def write(
    console: Console, text: str, *, indent: int = 0, style: str = "", links: Iterable[tuple[str, str]] = ()
) -> None:
    """Print a paragraph that wraps between words; a word longer than a line is left to the terminal, to be copied.

    `links` are passages of the text, in their order, each with the address to which a terminal links it.
    """
    paragraph, start = Text(wrapped(text, console.width, " " * indent), style=style), 0
    for passage, address in links:
        words = r"\s+".join(map(re.escape, passage.split()))
        if found := re.compile(words).search(paragraph.plain, start):
            start = found.end()
            paragraph.stylize(f"link {address}", *found.span())
    _print(console, paragraph)


def wrapped(text: str, width: int, indent: str = "") -> str:
    """Return text in lines of at most `width`, but for words that are longer."""
    return fill(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True, highlight=False)

"""Generate the tables of README.md that come from the code: `python -m docs.tables` rewrites them.

A table stands between two comments, `<!-- NAME:begin -->` and `<!-- NAME:end -->`. Edit the code, not the table.
"""

import inspect
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def mechanisms() -> str:
    """Return a table of all mechanisms, with the first sentence of each module and its forms."""
    from models.forms import mechanisms as known

    rows = [["mechanism", "in a sentence", "forms, the plainest first"], ["---"] * 3]
    for name, forms in known().items():
        path = f"models/{name.replace('.', '/')}.py"
        sentence = (inspect.getdoc(sys.modules[f"models.{name}"]) or "").partition("\n")[0]
        rows.append([f"[`{name}`]({path})", sentence, " ".join(f"`{form}`" for form in forms)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def filled(text: str) -> str:
    """Return the text with a fresh table between the markers.

    Raises
    ------
    ValueError
        A marker is missing.
    """
    begin, end = "<!-- mechanisms:begin -->", "<!-- mechanisms:end -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"README.md has no pair {begin} {end}")
    return f"{before}{begin}\n{mechanisms()}\n{end}{after}"


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")

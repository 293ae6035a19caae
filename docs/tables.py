"""Generate the tables of README.md that come from the code: `python -m docs.tables` rewrites them.

A table stands between two comments, `<!-- NAME:begin -->` and `<!-- NAME:end -->`. Edit the code, not the table.
"""

import inspect
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def mechanisms() -> str:
    """Return the table of mechanisms: the first sentence of the module of each, and its forms."""
    from models.forms import mechanisms as known

    rows = [["mechanism", "in a sentence", "forms, the plainest first"], ["---"] * 3]
    for name, forms in known().items():
        path = f"models/{name.replace('.', '/')}.py"
        sentence = (inspect.getdoc(sys.modules[f"models.{name}"]) or "").partition("\n")[0]
        rows.append([f"[`{name}`]({path})", sentence, " ".join(f"`{form}`" for form in forms)])
    return _table(rows)


def kernels() -> str:
    """Return the table of `models.kernels.dispatch`: mechanism, Numba kernel, CUDA kernel, reference form."""
    from models.kernels.dispatch import KERNELS

    rows = [["mechanism", "Numba kernel", "CUDA kernel", "reference form"], ["---"] * 4]
    for name, kernel in KERNELS.items():
        mechanism, _, part = name.partition(": ")
        paths = (_link(path) if path else "none" for path in (kernel.numba, kernel.cuda))
        rows.append([f"`{mechanism}`" + (f", {part}" if part else ""), *paths, f"`{kernel.reference}`"])
    return _table(rows)


def _link(module: str) -> str:
    """Return a link to a module's file, whose text is the last part of the name."""
    return f"[`{module.rpartition('.')[2]}`]({module.replace('.', '/')}.py)"


def _table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


TABLES = {"mechanisms": mechanisms, "kernels": kernels}


def filled(text: str) -> str:
    """Return the text with a fresh table between each pair of markers.

    Raises
    ------
    ValueError
        A marker is missing.
    """
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, found_begin, remainder = text.partition(begin)
        _, found_end, after = remainder.partition(end)
        if not (found_begin and found_end):
            raise ValueError(f"README.md has no pair {begin} {end}")
        text = f"{before}{begin}\n{table()}\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")

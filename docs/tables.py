"""Generate the tables of the documents that come from the code: `python -m docs.tables` rewrites them.

A table stands between two comments, `<!-- NAME:begin -->` and `<!-- NAME:end -->`. Edit the code, not the table.
"""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docs import frameworks

README = Path(__file__).parents[1] / "README.md"
CONVENTIONS = Path(__file__).with_name("CONVENTIONS.md")
FRAMEWORKS = Path(__file__).with_name("FRAMEWORKS.md")


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


def conventions() -> str:
    """Return the table of `proofs/port/conventions.toml` for mechanisms here: arguments, scale, gates and state."""
    from proofs.port.conventions import conventions
    from proofs.vectors.evaluate import subjects

    rows = [["mechanism", "arguments, in this order", "scale", "gates", "state"], ["---"] * 5]
    for subject in subjects().values():
        name, convention = subject.mechanism, conventions()[subject.mechanism]
        variant = f", {subject.variant}" if subject.variant else ""
        arguments = ", ".join(f"{x} ({axes})" for x, axes in subject.form.axes.items())
        label = f"[`{name}`](../models/{name.replace('.', '/')}.py){variant}"
        rows.append([label, _axes(arguments), convention.scale, convention.gates, _axes(convention.state)])
    return _table(rows)


def libraries() -> str:
    """Return the table of `proofs/port/conventions.toml` for functions of other libraries, with the kit's verdicts."""
    from proofs.port.conventions import libraries

    head = ["function", "form here", "layout; arguments, in this order", "scale", "gates", "state", "verdict"]
    rows = [head, ["---"] * len(head)]
    for row in libraries():
        options = row.options
        names = [item.rpartition("=") for item in options["arguments"].split(",")]
        shown = ", ".join(keyword or name for keyword, _, name in names)
        holds_state = any(name == "state" for _, _, name in names)
        state = options.get("state", "as here") if holds_state else "none given"
        gates = {"log": "as here", "factor": "factors"}[options.get("decay", "log")]
        verdict = "; ".join(filter(None, (_verdict(row), row.note)))
        rows.append(
            [
                f"{row.package} {row.version}, `{row.function}`",
                f"`{row.form}`" + (f", {options['variant']}" if "variant" in options else ""),
                f"{options['layout']}; {shown}",
                options.get("scale", "as here"),
                gates,
                state,
                verdict,
            ]
        )
    return _table(rows)


def _verdict(row: Any) -> str:
    if row.verdict:
        return row.verdict
    if row.wrong:
        return f"**wrong** at a {' and a '.join(row.wrong)}: NaN"
    cases = ", ".join(row.options.get("cases", ()))
    return f"right ({cases})" if cases else "right"


def _axes(text: str) -> str:
    """Return text whose stars Markdown does not read."""
    return text.replace("*", r"\*")


def mutants() -> str:
    """Return the table of the recorded run of `python -m proofs mutate`, with its command and date."""
    from proofs.mutate.choosing import group_of
    from proofs.mutate.verdicts import RECORDED, read_record, read_survivors, tally

    record, survivors = read_record(RECORDED), read_survivors()
    rows = [["", "mutants", "judged", "killed by statements", "equivalent", "left", "score"], ["---"] * 7]
    for group, number in record.mutants.items():
        count = tally((v for v in record.verdicts if group_of(v.mutant.file) == group), survivors)
        left = count.survived + count.killed_by_tests
        numbers = [number, count.judged, count.killed, count.equivalent, left, f"{count.score():.1%}"]
        rows.append([group, *map(str, numbers)])
    return f"{_table(rows)}\n\n`{record.command}`, {record.date[:10]}."


def _link(module: str) -> str:
    """Return a link to a module's file, whose text is the last part of the name."""
    return f"[`{module.rpartition('.')[2]}`]({module.replace('.', '/')}.py)"


def _table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


TABLES: dict[Path, dict[str, Callable[[], str]]] = {
    README: {"mechanisms": mechanisms, "kernels": kernels, "mutants": mutants},
    CONVENTIONS: {"conventions": conventions, "libraries": libraries},
    FRAMEWORKS: {"frameworks": lambda: _table(frameworks.rows()), "exceptions": frameworks.reasons},
}


def filled(text: str, path: Path = README) -> str:
    """Return the text of a document with a fresh table between each pair of markers.

    Raises
    ------
    ValueError
        A marker is missing.
    """
    for name, table in TABLES[path].items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, found_begin, remainder = text.partition(begin)
        _, found_end, after = remainder.partition(end)
        if not (found_begin and found_end):
            raise ValueError(f"{path.name} has no pair {begin} {end}")
        text = f"{before}{begin}\n{table()}\n{end}{after}"
    return text


if __name__ == "__main__":
    for document in TABLES:
        document.write_text(filled(document.read_text(encoding="utf-8"), document), encoding="utf-8")

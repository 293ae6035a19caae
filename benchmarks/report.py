"""What is kept of a benchmark: a JSON record a workload, and a Markdown table made from the records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
SCALE = {"s": 1.0, "ms": 1e3, "µs": 1e6}


def save(record: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write a record to `<folder>/<workload>.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record['workload']}.json"
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return path


def load(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return every record of a folder, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def table(record: Mapping[str, Any]) -> str:
    """Return one record as a Markdown heading, a table, and a line that says how to repeat it."""
    factor, memory = SCALE[record["unit"]], record["shows_memory"]
    head = ["", f"{record['unit']} per {record['per']} (quartiles)", "ours ÷ this (quartiles)"]
    lines = [_row(head + ["memory: growth", "peak"] * memory), _row(["---"] * (len(head) + 2 * memory))]
    for name, one in record["implementations"].items():
        cells = [f"**{name}**" if name == record["ours"] else name, _figure(one["seconds"], factor)]
        cells.append("1" if name == record["ours"] else _figure(one["ours_over_this"]))
        if memory:
            cells += [f"{one['memory_bytes'][key] / 2**20:.0f} MiB" for key in ("growth", "peak")]
        lines.append(_row(cells))
    if least := record.get("floor"):
        cells = [f"*floor: {_work(least)}*", _figure(least["seconds"], factor), _figure(least["ours_over_this"])]
        lines.append(_row([*cells, *["", ""] * memory]))
    for name, modules in record["missing"].items():
        lines.append(_row([name, f"not installed: {', '.join(modules)}", ""] + ["", ""] * memory))
    return f"**{record['title']}**\n\n" + "\n".join(lines) + f"\n\n{_footnote(record)}\n"


def write(records: Sequence[Mapping[str, Any]], readme: Path = README) -> None:
    """Put the tables of all records between the markers of a README.

    Raises:
        ValueError: the README does not hold both markers, in order.
    """
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme.name}: expected a line {BEGIN} and a line {END} after it, found none")
    body = "\n".join(table(record) for record in records)
    readme.write_text(f"{before}{BEGIN}\n{body}{END}{after}", encoding="utf-8")


def _work(floor: Mapping[str, Any]) -> str:
    """What the work is and at which rates: `17 M exponentials at 9.3 G/s`."""
    rates = {"exponentials": ("exp2", "/s"), "bytes": ("triad", "B/s"), "operations": ("GEMM", "/s")}
    parts = []
    for kind, count in floor["work"].items():
        name, unit = rates[kind]
        parts.append(f"{count / 1e6:.3g} M {kind} at {floor['rates'][name] / 1e9:.3g} G{unit}")
    return ", ".join(parts)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _figure(quartiles: Mapping[str, float], factor: float = 1.0) -> str:
    middle, low, high = (quartiles[key] * factor for key in ("median", "lower", "upper"))
    return f"{middle:.3g} ({low:.3g}–{high:.3g})"


def _footnote(record: Mapping[str, Any]) -> str:
    found: dict[str, str] = {}
    for one in record["implementations"].values():
        found |= one["versions"]
    libraries = ", ".join(f"{name} {number}" for name, number in found.items())
    machine, threads = record["machine"], record["threads"]
    load = f"; load {machine['load']:.1f} from other work" if machine.get("load", 0) >= 0.5 else ""
    return (
        f"{threads} thread{'s' * (threads != 1)} for each on {machine['cpu']} ({machine['cores']} cores{load}), "
        f"{record['rounds']} interleaved rounds, {record['date'][:10]}; {libraries}. Repeat: `{record['command']}`."
    )

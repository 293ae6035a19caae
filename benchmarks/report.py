"""Records of benchmarks: one JSON file a workload, and Markdown tables made from them.

`benchmarks/RESULTS.md` holds a summary, and every implementation of every workload; README.md a row for each of the
workloads that `benchmarks.summary` chooses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import summary

FOLDER = Path(__file__).parent
RESULTS, FULL = FOLDER / "results", FOLDER / "RESULTS.md"
SCALING, MEMORY = RESULTS / "scaling", RESULTS / "memory"
README = FOLDER.parent / "README.md"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
HEAD = """# Every measurement

Written by `python -m benchmarks table` from the records in [`results/`](results). Each framework ran in its own process
and all of them took turns; ratios are taken within a round, and they are more reliable than the times. In every process
the C library kept freed memory, as minigrad's training does.

## Summary

Each workload beside its best peer. A ratio "peer ÷ ours" above 1 is how many times faster ours is; the floor is the
time that the measured rates of this machine allow for the same work.

![Each workload a row: the times of other implementations, ours being 1](../docs/speed.png)
"""
LENGTHS_HEAD = """## Time against length

![Time against length](../docs/scaling.png)
"""

MEMORY_HEAD = """## Memory against length

The growth of resident memory over one step, forward and backward: y and the gradients of q, k and v, which are T long
whatever the algorithm, and the workspace besides.
"""


def save(record: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write a record to `<folder>/<workload>.json` atomically."""
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
    factor, memory = summary.SCALE[record["unit"]], record["shows_memory"]
    head = ["", f"{record['unit']} per {record['per']} (quartiles)", "ours ÷ this (quartiles)"]
    lines = summary.header(*head, *["memory: growth", "peak"] * memory)
    for name, entry in record["implementations"].items():
        cells = [f"**{name}**" if name == record["ours"] else name, summary.figure(entry["seconds"], factor)]
        cells.append("1" if name == record["ours"] else summary.figure(entry["ours_over_this"]))
        if memory:
            cells += [f"{entry['memory_bytes'][key] / 2**20:.0f} MiB" for key in ("growth", "peak")]
        lines.append(summary.row(*cells))
    if least := record.get("floor"):
        cells = [f"*floor: {_work(least)}*", summary.figure(least["seconds"], factor)]
        lines.append(summary.row(*cells, summary.figure(least["ours_over_this"]), *["", ""] * memory))
    for name, modules in record["missing"].items():
        lines.append(summary.row(name, f"not installed: {', '.join(modules)}", "", *["", ""] * memory))
    return f"**{record['title']}**\n\n" + "\n".join(lines) + f"\n\n{_footnote(record)}\n"


def lengths(curve: Mapping[str, Any]) -> str:
    """Return the record of a curve as a Markdown heading, a table with a row a length, and how to repeat it."""
    implementations = curve["implementations"]
    lines = summary.header("T", *(f"{name}, ms (quartiles)" for name in implementations))
    for T in map(str, curve["sizes"]["length"]):
        cells = (
            summary.figure(entry["seconds"][T], 1e3) if T in entry["seconds"] else entry["missing"][T]
            for entry in implementations.values()
        )
        lines.append(summary.row(f"{int(T):,}", *cells))
    return f"**{curve['title']}, at length T**\n\n" + "\n".join(lines) + f"\n\nRepeat: `{curve['command']}`.\n"


def memory(record: Mapping[str, Any]) -> str:
    """Return the record of memory as a Markdown heading, a table with a row a length, and how to repeat it."""
    implementations = record["implementations"]
    lines = summary.header("T", "results alone, MiB", *(f"{name}, MiB" for name in implementations))
    for T in map(str, record["sizes"]["length"]):
        cells = (
            f"{entry['measured'][T]['bytes'] / 2**20:,.0f}" if T in entry["measured"] else entry["missing"][T]
            for entry in implementations.values()
        )
        lines.append(summary.row(f"{int(T):,}", f"{record['result_bytes'][T] / 2**20:,.0f}", *cells))
    return f"**{record['title']}, at length T**\n\n" + "\n".join(lines) + f"\n\nRepeat: `{record['command']}`.\n"


def write(
    records: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]] = (),
    readme: Path = README,
    full: Path = FULL,
    memories: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the chosen rows between the README's markers, and all tables into a file of their own.

    Raises
    ------
    ValueError
        The README does not hold both markers, in order.
    """
    text = filled(readme.read_text(encoding="utf-8") if readme.exists() else "", records, readme.name)
    readme.write_text(text, encoding="utf-8")
    growth = [LENGTHS_HEAD, summary.scaling(curves), *map(lengths, curves)] if curves else []
    memory_growth = [MEMORY_HEAD, *map(memory, memories)] if memories else []
    parts = [HEAD, summary.speed(records), "## Every workload\n", *map(table, records), *growth, *memory_growth]
    full.write_text("\n".join(parts), encoding="utf-8")


def filled(text: str, records: Sequence[Mapping[str, Any]], name: str = README.name) -> str:
    """Return the text of a README with the rows chosen for it between the markers.

    Raises
    ------
    ValueError
        The text does not hold both markers, in order.
    """
    before, begin, remainder = text.partition(BEGIN)
    _, end, after = remainder.partition(END)
    if not (begin and end):
        raise ValueError(f"{name}: expected a line {BEGIN} and a line {END} after it, found none")
    return f"{before}{BEGIN}\n{summary.speed(summary.select(records))}{END}{after}"


def _work(floor: Mapping[str, Any]) -> str:
    """Format the work of a floor with its rates: `17 M exponentials at 9.3 G/s`."""
    rates = {"exponentials": ("exp2", "/s"), "bytes": ("triad", "B/s"), "operations": ("GEMM", "/s")}
    parts = []
    for kind, count in floor["work"].items():
        name, unit = rates[kind]
        if count:
            parts.append(f"{count / 1e6:.3g} M {kind} at {floor['rates'][name] / 1e9:.3g} G{unit}")
    return ", ".join(parts)


def _footnote(record: Mapping[str, Any]) -> str:
    versions: dict[str, str] = {}
    for entry in record["implementations"].values():
        versions |= entry["versions"]
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items())
    machine, threads = record["machine"], record["threads"]
    load = f", {machine['others']:.1f} of them busy with other work" if machine.get("others") is not None else ""
    return (
        f"{threads} thread{'s' * (threads != 1)} for each on {machine['cpu']} ({machine['cores']} cores{load}), "
        f"{record['rounds']} interleaved rounds, {record['date'][:10]}; {libraries}. Repeat: `{record['command']}`."
    )

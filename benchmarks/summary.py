"""Short tables: a row a workload beside its best peer, and a row a curve. README.md shows the workloads of `SHOWN`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SCALE = {"s": 1.0, "ms": 1e3, "µs": 1e6}
Record = Mapping[str, Any]

# The rows of README.md, from the smallest unit of work to the largest: where ours is slower than a peer, where it is
# level, and where it is faster. benchmarks/RESULTS.md has all rows.
SHOWN = ("primitives", "softmax", "delta_rule", "selective_scan", "s4d", "titans", "lm_step", "mamba_step")


def select(records: Sequence[Record], names: Sequence[str] = SHOWN) -> list[Record]:
    """Return the records of the named workloads, in the order of the names; a name without a record is left out."""
    by_name = {record["workload"]: record for record in records}
    return [by_name[name] for name in names if name in by_name]


def speed(records: Sequence[Record]) -> str:
    """Return a table, a row per workload: our time, the best peer's, the ratios to peer and floor, and memory."""
    if not records:
        return ""
    lines = header("", "ours (quartiles)", "best peer", "", "peer ÷ ours", "ours ÷ floor", "peak MiB, ours / peer")
    for record in records:
        unit = record["unit"]
        ours, (name, peer) = record["implementations"][record["ours"]], best_peer(record)
        times = 1 / peer["ours_over_this"]["median"]
        floor = number(record["floor"]["ours_over_this"]["median"]) if record.get("floor") else ""
        memory = " / ".join(f"{entry['memory_bytes']['peak'] / 2**20:.0f}" for entry in (ours, peer))
        cells = [record["title"], f"{figure(ours['seconds'], SCALE[unit], unit)}", name]
        cells += [f"{number(peer['seconds']['median'] * SCALE[unit])} {unit}", f"**{number(times)}**", floor]
        lines.append(row(*cells, memory if record["shows_memory"] else ""))
    return "\n".join([*lines, "", _circumstances(records), *_absent(records)]) + "\n"


def best_peer(record: Record) -> tuple[str, Record]:
    """Return the fastest peer, relative to ours: no form of ours, and nothing that does only part of the work.

    Raises ValueError where no peer was measured.
    """
    peers = [(name, entry) for name, entry in record["implementations"].items() if entry["peer"]]
    if not peers:
        raise ValueError(f"{record['workload']}: no peer was measured, expected one of {', '.join(record['missing'])}")
    return max(peers, key=lambda item: item[1]["ours_over_this"]["median"])


def scaling(curves: Sequence[Record]) -> str:
    """Return a row a curve: the growth claimed, and the exponent and the longest length of ours and of a peer."""
    if not curves:
        return ""
    lines = header("time against the length T", "claimed", "ours", "a peer", "")
    for record in curves:
        ours, *peers = record["implementations"]
        cells = [record["title"], record["growth"], _course(record, ours)]
        lines.append(row(*cells, *peers, *(_course(record, name) for name in peers)))
    return "\n".join([*lines, "", _circumstances(curves)]) + "\n"


def _course(record: Record, name: str) -> str:
    """Format a course: `T^1.02, 65,536 in 84 ms`, with the reason where lengths are missing."""
    entry = record["implementations"][name]
    reason = f"{min(map(int, entry['missing'])):,}: {next(iter(entry['missing'].values()))}" if entry["missing"] else ""
    if not entry["seconds"]:
        return reason
    longest = max(map(int, entry["seconds"]))
    fitted = f"T^{entry['exponent']:.2f}, " if entry["exponent"] is not None else ""
    text = f"{fitted}{longest:,} in {number(entry['seconds'][str(longest)]['median'] * 1e3)} ms"
    return f"{text} (from {reason})" if reason else text


def _circumstances(records: Sequence[Record]) -> str:
    """Name the threads, machine, other work and dates of all records in a line."""
    threads = sorted({record["threads"] for record in records})
    machines = sorted({f"{record['machine']['cpu']} ({record['machine']['cores']} cores)" for record in records})
    load = max((record["machine"].get("others") or 0 for record in records), default=0)
    dates = sorted({record["date"][:10] for record in records})
    return (
        f"{' or '.join(map(str, threads))} thread{'s' * (threads != [1])} for each on {', '.join(machines)}, of which "
        f"other work kept at most {load:.1f} busy; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}."
    )


def _absent(records: Sequence[Record]) -> list[str]:
    """Return a line that names the peers that were not installed."""
    missing = {name: modules for record in records for name, modules in record["missing"].items()}
    names = ", ".join(f"{name} ({', '.join(modules)})" for name, modules in missing.items())
    return ["", f"Not installed, so not measured: {names}."] if names else []


def header(*cells: str) -> list[str]:
    """Return the first two lines of a table."""
    return [row(*cells), row(*["---"] * len(cells))]


def row(*cells: str) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(cells) + " |"


def figure(quartiles: Record, factor: float = 1.0, unit: str = "") -> str:
    """Return the median with its unit and the quartiles."""
    middle, low, high = (quartiles[key] * factor for key in ("median", "lower", "upper"))
    return f"{number(middle)}{unit and ' '}{unit} ({number(low)}–{number(high)})"


def number(x: float) -> str:
    """Return three digits, or all before the point."""
    return f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}"

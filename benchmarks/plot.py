"""Plots of all records: times relative to ours, a row per workload; and time against length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
PICTURE, CURVES = DOCS / "speed.png", DOCS / "scaling.png"
GROUPS = {  # the first that a name holds
    "minigrad": "C0",
    "fla-core": "C1",
    "Hugging Face": "C6",
    "mamba.py": "C4",
    "PyTorch": "C3",
    "JAX": "C2",
    "autograd": "C5",
    "NumPy": "C7",
}


def draw(records: Sequence[Mapping[str, Any]], path: Path = PICTURE) -> Path:
    """Draw relative times into a file; return its path.

    Raises ValueError when there are no records.
    """
    if not records:
        raise ValueError("plot: there are no records, expected some in benchmarks/results (python -m benchmarks run)")
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(9, 0.8 + 0.33 * len(records)), layout="constrained")
    for row, record in enumerate(reversed(records)):
        for name, entry in record["implementations"].items():
            times = 1 / entry["ours_over_this"]["median"]
            axes.plot(times, row, "o", color=GROUPS[group(name)], markersize=10 if name == record["ours"] else 7)
        if least := record.get("floor"):
            axes.plot(1 / least["ours_over_this"]["median"], row, "|", color="black", markersize=14)
    axes.axvline(1, color="C0", linewidth=0.8)
    axes.set(xscale="log", xlabel="time, ours = 1; the bar is the floor that the machine sets")
    axes.set_yticks(range(len(records)), [record["workload"].replace("_", " ") for record in reversed(records)])
    groups = {group(name) for record in records for name in record["implementations"]}
    for name in (name for name in GROUPS if name in groups):
        axes.plot([], [], "o", color=GROUPS[name], label=name)
    figure.legend(loc="outside upper center", ncols=len(groups), fontsize="small")
    axes.grid(axis="x", alpha=0.3)
    return _save(figure, path)


def draw_curves(curves: Sequence[Mapping[str, Any]], path: Path = CURVES) -> Path:
    """Draw time against length, ours solid and the peer dashed, into a file; return its path.

    Raises ValueError when there are no records.
    """
    if not curves:
        raise ValueError("plot: there are no curves, expected some in benchmarks/results/scaling (… benchmarks scale)")
    figure, panels = _pyplot().subplots(1, 2, figsize=(11, 4.5), sharex=True, sharey=True, layout="constrained")
    names = list(dict.fromkeys(curve["title"].partition(",")[0] for curve in curves))
    for curve in curves:
        name, _, passes = curve["title"].partition(", ")
        axes, color = panels[0 if passes == "forward" else 1], f"C{names.index(name)}"
        for implementation, course in curve["implementations"].items():
            lengths, times = [int(T) for T in course["seconds"]], [t["median"] for t in course["seconds"].values()]
            fitted = f" ~ T^{course['exponent']:.2f}" if course["exponent"] is not None else ""
            label = f"{name}{fitted} (claimed {curve['growth']})" if implementation == curve["ours"] else None
            axes.plot(lengths, times, "-o" if label else "--", color=color, markersize=3, linewidth=1.2, label=label)
        axes.set_xscale("log", base=2)
        axes.set(yscale="log", title=passes, xlabel="length T; dashed: the peer")
    panels[0].set_ylabel("seconds a step")
    for axes in panels:
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    return _save(figure, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    _pyplot().close(figure)
    return path


def group(name: str) -> str:
    """Return the library of an implementation, by its name; NumPy where the name has none."""
    return next((group for group in GROUPS if group in name), "NumPy")

"""Figures as inline SVG, whose text takes the page's colour and is legible on light and dark pages."""

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from models.study.reading import words

INK = "#123456"  # a colour used nowhere else, replaced by the page's text colour
PLAIN, DASHED, DOTTED = "-", "--", ":"
LEAST_WEIGHT = 0.02  # of attention that is drawn
WIDE, HANDLE = 110, 5  # letters of a legend in one line, and the width of a curve's sample in letters
STYLES = {  # colours that the colour-blind can tell apart (Okabe & Ito), and markers for print in black
    "softmax": ("#999999", "s", PLAIN),
    "linear_attention": ("#e69f00", "^", PLAIN),
    "gated_linear_attention": ("#d55e00", "v", PLAIN),
    "delta_rule": ("#2b8cd6", "o", PLAIN),
    "gated_delta_rule": ("#009e73", "D", PLAIN),
    "ttt_linear": ("#cc5fa0", "P", PLAIN),
    "ttt_mlp": ("#cc5fa0", "X", DASHED),
    "titans": ("#7b61c9", "*", PLAIN),
    "TTT (paper)": ("#cc5fa0", "P", DASHED),
    "Mamba2 (paper)": ("#d55e00", "v", DASHED),
    "DeltaNet (paper)": ("#2b8cd6", "o", DASHED),
    "Titans (LMM) (paper)": ("#7b61c9", "*", DASHED),
    "S4": ("#2b8cd6", "o", PLAIN),
    "S4D": ("#e69f00", "^", PLAIN),
    "LSSL": ("#009e73", "D", PLAIN),
    "RNN": ("#999999", "s", PLAIN),
    "Mamba": ("#cc5fa0", "v", PLAIN),
    "rotation × 0.9": ("#2b8cd6", "o", PLAIN),
    "bound, rotation × 0.9": ("#2b8cd6", "", DASHED),
    "rotation × 1": ("#009e73", "D", PLAIN),
    "bound, rotation × 1": ("#009e73", "", DASHED),
    "rotation × 1.5": ("#d55e00", "v", PLAIN),
    "bound, rotation × 1.5": ("#d55e00", "", DASHED),
    "Gaussian, radius 0.9": ("#999999", "s", PLAIN),
    "bound, Gaussian, radius 0.9": ("#999999", "", DASHED),
    "ViT": ("#2b8cd6", "o", PLAIN),
    "CNN": ("#d55e00", "v", PLAIN),
    "all objects": ("#2b8cd6", "o", PLAIN),
    "wholes": ("#009e73", "D", PLAIN),
    "parts": ("#d55e00", "v", PLAIN),
    "claimed": (INK, "", DOTTED),
    "equal": (INK, "", DOTTED),
    "1 click": ("#2b8cd6", "o", PLAIN),
    "3 clicks": ("#7b61c9", "s", PLAIN),
    "5 clicks": ("#cc5fa0", "P", PLAIN),
    "a box": ("#e69f00", "^", DASHED),
    "lstm": ("#009e73", "D", PLAIN),
    "s4d": ("#2b8cd6", "o", PLAIN),
    "mamba": ("#cc5fa0", "v", PLAIN),
    "minigrad quadratic, NumPy": ("#d55e00", "v", PLAIN),
    "minigrad lazy, NumPy": ("#2b8cd6", "o", PLAIN),
    "minigrad fused": ("#009e73", "D", PLAIN),
    "PyTorch, scaled_dot_product_attention": ("#999999", "s", PLAIN),
    "y and gradients": (INK, "", DOTTED),
    "signal": (INK, "", DOTTED),
    "LegS": ("#2b8cd6", "", PLAIN),
    "LegS, at best": ("#2b8cd6", "o", "none"),
    "LegT": ("#d55e00", "", PLAIN),
    "LegT, at best": ("#d55e00", "^", "none"),
    "layer 1": ("#2b8cd6", "", PLAIN),
    "layer 1, first memory": ("#2b8cd6", "", DOTTED),
    "layer 2": ("#d55e00", "", PLAIN),
    "layer 2, first memory": ("#d55e00", "", DOTTED),
    "Mamba, here": ("#cc5fa0", "v", PLAIN),
    "Mamba (paper)": ("#cc5fa0", "", DASHED),
    "Hyena (paper)": ("#009e73", "", DASHED),
    "H3 (paper)": ("#2b8cd6", "", DASHED),
    "attention, RoPE (paper)": ("#999999", "", DASHED),
    "attention, xPos (paper)": ("#d55e00", "", DASHED),
}
SPARE = ("#e69f00", "#009e73", "#2b8cd6", "#d55e00", "#999999")  # for curves that have no style of their own, in turn
SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Panel:
    """One set of axes: a curve a name, each a pair (x, y)."""

    title: str
    x_label: str
    y_label: str
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    log_x: bool = False
    log_y: bool = False
    y_limits: tuple[float, float] | None = None
    marks: Sequence[float] = ()  # positions on the x axis to mark


def draw(panels: Sequence[Panel], description: str) -> str:
    """Return the panels side by side as one `<svg>` element that a screen reader calls `description`."""
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": description}):
        figure = Figure(figsize=(9.2, 3.5), layout="constrained")
        handles: dict[str, Line2D] = {}
        styles = _styles([name for panel in panels for name in panel.curves])
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for name, (x, y) in panel.curves.items():
                mark_every = 1 if len(x) <= 20 else 0.1
                (line,) = axes.plot(x, y, markersize=4, markevery=mark_every, linewidth=1.6, **styles[name])
                handles.setdefault(words(name), line)
            for place in panel.marks:
                axes.axvline(place, color=INK, linewidth=0.8, linestyle=DOTTED, zorder=0)
            axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
            if panel.log_x:
                axes.set_xscale("log", base=2)
            if panel.log_y:
                axes.set_yscale("log")
                low, high = axes.get_ylim()
                subs = (1, 2, 5) if high < 1000 * low else (1,)
                axes.yaxis.set(major_locator=LogLocator(subs=subs), major_formatter="{x:,g}")
                axes.yaxis.set(minor_locator=NullLocator())
            if panel.y_limits:
                axes.set_ylim(*panel.y_limits)
        letters = sum(len(name) + HANDLE for name in handles)
        columns = len(handles) if letters < WIDE else -(-len(handles) // 2)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
        return to_svg(figure, description)


def draw_choices(rows: Mapping[str, Mapping[str, str]], notes: Mapping[str, str], description: str) -> str:
    """Return a chart of rows with one choice in every group of columns: a dot marks the choice, a note ends the row.

    A group's columns are the choices of all rows, in order of first appearance.
    """
    groups = {group: list(dict.fromkeys(row[group] for row in rows.values())) for group in next(iter(rows.values()))}
    columns = [(group, choice) for group, choices in groups.items() for choice in choices]
    place = {column: i + list(groups).index(column[0]) for i, column in enumerate(columns)}  # a gap between groups
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": description, "axes.grid": False}):
        figure = Figure(figsize=(9.2, 0.3 * len(rows) + 2.6), layout="constrained")
        axes = figure.subplots()
        for y, row in enumerate(rows.values()):
            x = [place[column] for column in row.items()]
            axes.plot(x, [y] * len(x), color=INK, linewidth=0.8, alpha=0.3)
            for at, colour in zip(x, itertools.cycle(SPARE), strict=False):
                axes.plot(at, y, "o", color=colour, markersize=6)
            axes.text(max(place.values()) + 1, y, notes[list(rows)[y]], va="center", fontsize=8, alpha=0.8)
        for group, choices in groups.items():
            middle = sum(place[group, choice] for choice in choices) / len(choices)
            axes.text(middle, len(rows) - 0.2, group, ha="center", va="top", weight="bold")
        axes.set_xticks(list(place.values()), [choice for _, choice in columns], rotation=55, ha="left", fontsize=9)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
        axes.set_ylim(len(rows) + 0.4, -0.7)
        return to_svg(figure, description)


def draw_attention(
    weights: Sequence[Sequence[Sequence[Sequence[float]]]],
    sources: Sequence[str],
    targets: Sequence[str],
    description: str,
) -> str:
    """Return weights of attention (layers, H, T, S) as one `<svg>`: a row of panels a layer, squares as their areas."""
    layers, heads = len(weights), len(weights[0])
    height = layers * max(1.6, 9.2 / heads * len(targets) / len(sources)) + 0.4
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": description, "axes.grid": False}):
        figure = Figure(figsize=(9.2, min(height, 12.0)), layout="constrained")
        panels = figure.subplots(layers, heads, squeeze=False)
        size = 9.2 / heads * 50 / max(len(sources), len(targets))  # points: a cell's width, but for the margins
        for i, j in itertools.product(range(layers), range(heads)):
            cells = [(s, t, w) for t, row in enumerate(weights[i][j]) for s, w in enumerate(row) if w >= LEAST_WEIGHT]
            x, y, areas = zip(*((s, t, size * size * w) for s, t, w in cells), strict=True) if cells else ((), (), ())
            axes = panels[i][j]
            axes.scatter(x, y, s=areas, marker="s", color=INK, linewidths=0)
            axes.set(xlim=(-0.7, len(sources) - 0.3), ylim=(len(targets) - 0.3, -0.7))
            axes.set_title(f"layer {i + 1}, head {j + 1}", fontsize=8)
            axes.set_xticks(range(len(sources)), sources, fontsize=min(7, size), rotation=90)
            axes.set_yticks(range(len(targets)), targets if j == 0 else [""] * len(targets), fontsize=min(7, size))
            axes.tick_params(length=0, pad=1)
        return to_svg(figure, description)


def draw_maps(
    pictures: Sequence[Sequence[Sequence[float]]],
    maps: Sequence[Sequence[Sequence[float]]],
    titles: Sequence[str],
    description: str,
) -> str:
    """Return grey pictures (H, W) in a row, and a map below each (rows, columns), bright where it is large."""
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": description, "axes.grid": False}):
        figure = Figure(figsize=(9.2, 2.2), layout="constrained")
        panels = figure.subplots(2, len(pictures), squeeze=False)
        for i, (picture, of_picture, title) in enumerate(zip(pictures, maps, titles, strict=True)):
            panels[0][i].imshow(picture, cmap="gray", interpolation="nearest")
            panels[0][i].set_title(title, fontsize=8)
            panels[1][i].imshow(of_picture, cmap="viridis", vmin=0, interpolation="nearest")
        for axes in panels.flat:
            axes.set_axis_off()
        return to_svg(figure, description)


def draw_similarities(
    pictures: Sequence[np.ndarray], captions: Sequence[str], cosines: Sequence[Sequence[float]], description: str
) -> str:
    """Return a matrix of cosines as one `<svg>`: a column a picture (H, W, 3), which is above it, a row a caption."""
    count = len(pictures)
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": description, "axes.grid": False}):
        figure = Figure(figsize=(9.2, 0.58 * (len(captions) + 1)), layout="constrained")
        axes = figure.subplots()
        axes.imshow(
            np.transpose(cosines), cmap="viridis", vmin=-1, vmax=1, extent=(0, count, len(captions), 0), aspect="auto"
        )
        for column, picture in enumerate(pictures):
            axes.imshow(picture, extent=(column + 0.04, column + 0.96, -0.08, -1), aspect="auto")
            for row in range(len(captions)):
                cosine = cosines[column][row]
                style: dict[str, Any] = {
                    "color": "white" if cosine < 0.5 else "black",
                    "weight": "bold" if column == row else "normal",
                }
                axes.text(column + 0.5, row + 0.5, f"{cosine:.2f}", ha="center", va="center", fontsize=7, **style)
        axes.set(xlim=(0, count), ylim=(len(captions), -1.05), xticks=[])
        axes.set_yticks([row + 0.5 for row in range(len(captions))], captions, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return to_svg(figure, description)


def to_svg(figure: Figure, description: str) -> str:
    """Return a figure as one `<svg>` element that a screen reader calls `description`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    return _for_a_page(buffer.getvalue(), description)


def _styles(names: Sequence[str]) -> dict[str, dict[str, str]]:
    spare = itertools.cycle(SPARE)
    styles = {name: STYLES.get(name) or (next(spare), "", PLAIN) for name in dict.fromkeys(names)}
    return {name: dict(zip(("color", "marker", "linestyle"), style, strict=True)) for name, style in styles.items()}


def _for_a_page(svg: str, description: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")  # HTML knows both by itself
    svg = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", svg)  # keep only the ids that are referenced
    svg = svg.replace(INK, "currentColor")
    return svg.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)

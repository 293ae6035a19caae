"""Figures of pictures under masks, as inline SVG: a pixel stays a square, and outlines are drawn along its sides."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from models.study.figures import SETTINGS, to_svg

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2")  # of masks, in turn (Okabe & Ito)
PROMPT, OPACITY = "#f0e442", 0.45
WIDTH, TITLE, FEWEST = 9.2, 0.22, 4  # inches, of a line of a title too; columns, so that few are not too large


@dataclass(frozen=True)
class Masked:
    """A picture (H, W, 3) under masks (H, W), the outline of one, a point (x, y) and a box (x₀, y₀, x₁, y₁)."""

    picture: np.ndarray
    title: str = ""
    masks: Sequence[np.ndarray] = ()
    outline: np.ndarray | None = None
    point: Sequence[float] = ()
    box: Sequence[float] = ()


def draw_masks(rows: Mapping[str, Sequence[Masked]], description: str) -> str:
    """Return named rows of pictures under their masks as one `<svg>`: pixels stay squares, and outlines follow them."""
    columns = max(map(len, rows.values()))
    lines = sum(max(cell.title.count("\n") + 1 for cell in cells) for cells in rows.values())
    height = len(rows) * WIDTH / max(columns, FEWEST) + TITLE * lines
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": description, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        panels = figure.subplots(len(rows), columns, squeeze=False)
        for axes in panels.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for row, (name, cells) in zip(panels, rows.items(), strict=True):
            row[0].set_ylabel(name)
            for axes, cell in zip(row, cells, strict=False):
                _draw_masked(axes, cell)
        return to_svg(figure, description)


def _draw_masked(axes: Axes, cell: Masked) -> None:
    axes.imshow(cell.picture, interpolation="none")
    axes.set_title(cell.title, fontsize=8, pad=3)
    for mask, colour in zip(cell.masks, itertools.cycle(COLOURS), strict=False):
        axes.imshow(np.where(mask[..., None], to_rgba(colour, OPACITY), 0.0), interpolation="none")
        _draw_outline(axes, mask, colour, 1.4)
    if cell.outline is not None:
        _draw_outline(axes, cell.outline, "black", 2.4)
        _draw_outline(axes, cell.outline, "white", 1.0)
    if len(cell.box):
        x, y, right, bottom = cell.box
        corner, sides = (x - 0.5, y - 0.5), (right - x + 1, bottom - y + 1)
        axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=PROMPT, linewidth=1.6))
    if len(cell.point):
        axes.plot(*cell.point, "o", color=PROMPT, markersize=6, markeredgecolor="black", markeredgewidth=0.8)


def _draw_outline(axes: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    sides = edges(mask)
    if len(sides):
        path = Path(sides.reshape(-1, 2), [Path.MOVETO, Path.LINETO] * len(sides))
        axes.add_patch(PathPatch(path, fill=False, edgecolor=colour, linewidth=width, capstyle="round"))


def edges(mask: np.ndarray) -> np.ndarray:
    """Return the sides (count, 2, 2), from (x, y) to (x, y), between the pixels of a mask (H, W) and all others."""
    padded = np.pad(mask, 1)
    (y, x), (v, u) = np.nonzero(padded[1:] != padded[:-1]), np.nonzero(padded[:, 1:] != padded[:, :-1])
    level = np.stack([np.stack([x - 1.5, y - 0.5], axis=-1), np.stack([x - 0.5, y - 0.5], axis=-1)], axis=1)
    upright = np.stack([np.stack([u - 0.5, v - 1.5], axis=-1), np.stack([u - 0.5, v - 0.5], axis=-1)], axis=1)
    return np.concatenate([level, upright])

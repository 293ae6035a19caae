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
PROMPT, OPACITY, FADED = "#f0e442", 0.5, 90  # FADED: the grey of black below masks
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
    axes.imshow(_faded(cell.picture) if len(cell.masks) else cell.picture, interpolation="none")
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


def _faded(picture: np.ndarray) -> np.ndarray:
    """Return the picture (H, W, 3) in light grey, on which the colours of masks tell."""
    grey = FADED + (1 - FADED / 255) * picture.mean(axis=-1, keepdims=True)
    return np.broadcast_to(grey.astype(np.uint8), picture.shape)


def _draw_outline(axes: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    sides = edges(mask)
    if len(sides):
        path = Path(sides.reshape(-1, 2), [Path.MOVETO, Path.LINETO] * len(sides))
        axes.add_patch(PathPatch(path, fill=False, edgecolor=colour, linewidth=width, capstyle="round"))


def edges(mask: np.ndarray) -> np.ndarray:
    """Return the lines (count, 2, 2), from (x, y) to (x, y), between the pixels of a mask (H, W) and all others."""
    return np.concatenate([_level_edges(mask), _level_edges(mask.T)[..., ::-1]])


def _level_edges(mask: np.ndarray) -> np.ndarray:
    sides = np.diff(np.pad(mask, 1), axis=0)  # (H + 1, W + 2)
    turns = np.diff(np.pad(sides, ((0, 0), (1, 0))).astype(int), axis=1)
    (y, first), (_, last) = np.nonzero(turns == 1), np.nonzero(turns == -1)
    return np.stack([np.stack([x - 1.5, y - 0.5], axis=-1) for x in (first, last)], axis=1)

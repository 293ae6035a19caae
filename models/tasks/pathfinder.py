"""Pathfinder, pixel by pixel: are the two marked points the ends of one dashed curve?

    p₁ p₂ … p_T        answer at the last pixel: 17 + 1 for one curve, 17 + 0 for two          row by row, each 0 … 16

Linsley et al. 2018 ("Learning Long-Range Spatial Dependencies with Horizontal Gated Recurrent Units"), which Tay et al.
2021 (section 2.2.5) read as a sequence of pixels. A curve is a walk of steps of one pixel, in the larger of both
coordinates, whose direction turns smoothly; of three pixels it leaves out one. Within a curve at most one dark pixel
lies between two bright ones, and between curves at least two do: who jumps over single pixels finds the answer.

Two curves of one length are drawn, and shorter distractors. The marks are both ends of one of the two, or, in half of
the pictures, an end of each. As in the publication, the distance of the marks tells part of the answer, since the ends
of one curve are rarely very near or very far; brightness, and the place of either mark alone, tell nothing.

Deviations: curves have smooth edges in Linsley et al., and 32 × 32 pixels in Tay et al., here 16 × 16 too; a mark is
one pixel of the brightest shade, where theirs is a circle; pictures are drawn afresh for every batch.
"""

from dataclasses import dataclass

import numpy as np

from models.errors import UserError
from models.tasks.recall import IGNORE, Batch

SHADES, CLASSES = 17, 2
MARK, DASHES = SHADES - 1, (8, 13)  # shades of a mark, and the range of those of dashes
SIZES = {16: (11, 1), 32: (20, 3)}  # pixels a side: pixels of a curve, and distractors
DASH, PERIOD = 2, 3  # bright pixels, of how many of a curve
SHORT = 5  # pixels of a distractor
TURN, WOBBLE = 0.2, 0.05  # deviations of a curve's mean turn a step, and of each step's, in radians
APART = 3  # pixels from one curve to another, in the larger coordinate
TRIES = 6  # places that are tried for a curve before a picture is given up


@dataclass(frozen=True)
class Pathfinder:
    """The task: pictures of as many pixels as `length`, half of them with both marks on one curve.

    Raises: UserError for a number of pixels that is of no size that can be drawn.
    """

    length: int = 256
    vocabulary: int = SHADES + CLASSES
    digest: str = ""  # nothing to read: every picture is drawn

    def __post_init__(self) -> None:
        if self.length not in (sizes := [side * side for side in SIZES]):
            pictures = " or ".join(f"{side} × {side}" for side in SIZES)
            raise UserError(
                f"length: expected {' or '.join(map(str, sizes))}, the pixels of {pictures}, got {self.length}"
            )

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (tokens, targets), each `(batch, length)`; targets are `IGNORE` except at the last pixel."""
        pictures, connected = draw(rng, batch, round(self.length**0.5))
        tokens = pictures.reshape(batch, self.length)
        targets = np.full_like(tokens, IGNORE)
        targets[:, -1] = SHADES + connected
        return tokens, targets

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return 512 fresh pictures."""
        return {"pathfinder": self.batch(rng, 512)}


def draw(rng: np.random.Generator, count: int, side: int) -> Batch:
    """Return pictures `(count, side, side)` and, for each, whether its marks are the ends of one curve."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    while sum(len(pictures) for pictures, _ in found) < count:
        found.append(_draw_some(rng, 2 * count, side))
    pictures, connected = (np.concatenate(parts)[:count] for parts in zip(*found, strict=True))
    return pictures, connected


def _draw_some(rng: np.random.Generator, count: int, side: int) -> Batch:
    """Return what `draw` does, for as many of `count` attempts as succeed."""
    curves = _placed(rng, count, side)
    count, rows = len(curves[0]), np.arange(len(curves[0]))
    pictures = np.zeros((count, side, side), np.int64)
    for curve in curves:
        pixels = np.arange(curve.shape[1])
        shades = rng.integers(*DASHES, size=(count, -(-len(pixels) // PERIOD)))
        for i in pixels[pixels % PERIOD < DASH]:
            pictures[rows, curve[:, i, 0], curve[:, i, 1]] = shades[:, i // PERIOD]
    ends = np.stack(curves[:2])[:, :, [0, -1]]  # (2, count, 2, 2): curve, picture, end, coordinate
    connected, marked, end, other_end = rng.integers(0, 2, size=(4, count))
    first = ends[marked, rows, end]
    second = np.where(connected[:, None], ends[marked, rows, 1 - end], ends[1 - marked, rows, other_end])
    for mark in (first, second):
        pictures[rows, mark[:, 0], mark[:, 1]] = MARK
    return pictures, connected


def _placed(rng: np.random.Generator, count: int, side: int) -> list[np.ndarray]:
    """Return the curves of some of `count` pictures, the two long ones first, each `(pictures, pixels, 2)`."""
    pixels, distractors = SIZES[side]
    taken = np.zeros((count, side, side), bool)
    curves: list[np.ndarray] = []
    for length in (pixels, pixels, *[SHORT] * distractors):
        curve = np.zeros((len(taken), length, 2), np.int64)
        missing = np.arange(len(taken))
        for _ in range(TRIES):
            if not len(missing):
                break
            tried = _walks(rng, len(missing), length, side)
            covered = _covered(tried, side)
            fits = ~(covered & taken[missing]).any(axis=(1, 2))
            curve[missing[fits]] = tried[fits]
            taken[missing[fits]] |= _widened(covered[fits])
            missing = missing[~fits]
        kept = np.delete(np.arange(len(taken)), missing)
        taken, curves = taken[kept], [each[kept] for each in [*curves, curve]]
    return curves


def _walks(rng: np.random.Generator, count: int, length: int, side: int) -> np.ndarray:
    """Return walks `(count, length, 2)` over pixels, inside the border and none twice in a walk."""
    walks: list[np.ndarray] = []
    while sum(map(len, walks)) < count:
        turns = TURN * rng.standard_normal((4 * count, 1)) + WOBBLE * rng.standard_normal((4 * count, length - 1))
        angles = 2 * np.pi * rng.uniform(size=(4 * count, 1)) + np.cumsum(turns, axis=1)
        steps = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        steps /= np.abs(steps).max(axis=-1, keepdims=True)
        begin = rng.uniform(1, side - 2, size=(4 * count, 1, 2))
        walk = np.rint(np.concatenate([begin, begin + np.cumsum(steps, axis=1)], axis=1)).astype(np.int64)
        inside = ((walk >= 1) & (walk <= side - 2)).all(axis=(1, 2))
        crosses = (np.diff(np.sort(side * walk[..., 0] + walk[..., 1], axis=1), axis=1) == 0).any(axis=1)
        walks.append(walk[inside & ~crosses])
    return np.concatenate(walks)[:count]


def _covered(walks: np.ndarray, side: int) -> np.ndarray:
    """Return `(count, side, side)`: the pixels of each walk, bright or not."""
    covered = np.zeros((len(walks), side, side), bool)
    covered[np.arange(len(walks))[:, None], walks[..., 0], walks[..., 1]] = True
    return covered


def _widened(pixels: np.ndarray) -> np.ndarray:
    """Return all that is nearer than `APART` to one of the pixels, `(count, side, side)` as they are."""
    for axis in (1, 2):
        pixels = np.moveaxis(pixels, axis, 1)
        widened = pixels.copy()
        for shift in range(1, APART):
            widened[:, shift:] |= pixels[:, :-shift]
            widened[:, :-shift] |= pixels[:, shift:]
        pixels = np.moveaxis(widened, 1, axis)
    return pixels

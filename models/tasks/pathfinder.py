"""Pathfinder, pixel by pixel: are the two marked points the ends of one dashed curve?

    p₁ p₂ … p_T        answer at the last pixel: 17 + 1 for one curve, 17 + 0 for two          row by row, each 0 … 16

Linsley et al. 2018 ("Learning Long-Range Spatial Dependencies with Horizontal Gated Recurrent Units"), which Tay et al.
2021 (section 2.2.5) read as a sequence of pixels. A curve is a walk of steps of one pixel, in the larger of both
coordinates, whose direction turns smoothly; of three pixels it leaves out one. Within a curve at most one dark pixel
lies between two bright ones, and between curves at least two do: who jumps over single pixels finds the answer.

Two curves of one length are drawn, of one of which an inner dash is left out, so that it is two curves; and shorter
distractors. Both ends of one of the two are marked: of the whole one or of the broken one. Which curve is broken and
which is marked are fair draws, independent of each other and of the rest, so that neither the brightness of a picture
nor the places of the marks nor their distance tells anything.

Deviations: in Linsley et al. the marks of a negative picture are on two unrelated curves, whose distance may tell;
curves are drawn with smooth edges, and with 32 × 32 pixels in Tay et al., here 16 × 16 too; a mark is one pixel of the
brightest shade, where theirs is a circle; pictures are drawn afresh for every batch.
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
        found.append(_draw_some(rng, 3 * count, side))
    pictures, connected = (np.concatenate(parts)[:count] for parts in zip(*found, strict=True))
    return pictures, connected


def _draw_some(rng: np.random.Generator, count: int, side: int) -> Batch:
    """Return what `draw` does, for as many of `count` attempts as succeed."""
    curves = _placed(rng, count, side)
    count, rows = len(curves[0]), np.arange(len(curves[0]))
    long = np.stack(curves[:2])
    marked, broken = rng.integers(0, 2, size=(2, count))
    cut = rng.integers(1, _dashes(long.shape[2]) - 1, size=count)
    pictures = np.zeros((count, side, side), np.int64)
    for number, curve in enumerate(curves):
        pixels = np.arange(curve.shape[1])
        shades = rng.integers(*DASHES, size=(count, _dashes(len(pixels))))
        if number < 2:
            shades[rows[broken == number], cut[broken == number]] = 0
        for i in pixels[pixels % PERIOD < DASH]:
            bright = shades[:, i // PERIOD] > 0  # where a walk crosses itself, the other dash stays
            pictures[rows[bright], curve[bright, i, 0], curve[bright, i, 1]] = shades[bright, i // PERIOD]
    ends = long[marked, rows][:, [0, -1]]
    pictures[rows[:, None], ends[..., 0], ends[..., 1]] = MARK
    fits = _separable(long[broken, rows], cut) & _separable(long[1 - broken, rows], cut)
    return pictures[fits], (marked != broken)[fits].astype(np.int64)


def _dashes(pixels: int) -> int:
    return -(-pixels // PERIOD)


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
    """Return walks `(count, length, 2)` over pixels, inside the border."""
    walks: list[np.ndarray] = []
    while sum(map(len, walks)) < count:
        turns = TURN * rng.standard_normal((4 * count, 1)) + WOBBLE * rng.standard_normal((4 * count, length - 1))
        angles = 2 * np.pi * rng.uniform(size=(4 * count, 1)) + np.cumsum(turns, axis=1)
        steps = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        steps /= np.abs(steps).max(axis=-1, keepdims=True)
        begin = rng.uniform(1, side - 2, size=(4 * count, 1, 2))
        walk = np.rint(np.concatenate([begin, begin + np.cumsum(steps, axis=1)], axis=1)).astype(np.int64)
        walks.append(walk[((walk >= 1) & (walk <= side - 2)).all(axis=(1, 2))])
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


def _separable(walks: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Return whether the parts of each walk before and after a dash are as far apart as two curves."""
    between = np.abs(walks[:, :, None] - walks[:, None]).max(axis=-1)
    pixels, begin = np.arange(walks.shape[1]), PERIOD * cut[:, None]
    before, after = pixels < begin, pixels >= begin + DASH
    return ((between >= APART) | ~(before[:, :, None] & after[:, None])).all(axis=(1, 2))

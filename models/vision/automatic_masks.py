"""Automatic mask generation: a prompt for each point of a grid, filters, and non-maximum suppression.

    points     ((j + ½)/n, (i + ½)/n) of the picture's sides, n × n of them          Kirillov et al. 2023, appendix B
    kept       predicted IoU > 0.88, and stability ≥ 0.95
    stability  the IoU of the masks {z > 1} and {z < −1}ᶜ of its logits z: #(z > 1) / #(z > −1)
    last       of masks whose boxes overlap with an IoU of more than 0.7, those of the highest predicted IoU

    logits     (count, H, W), and scores (count,) for them, the predicted IoUs
    boxes      (count, 4): the first and the last column and row of a mask, x₀, y₀, x₁, y₁

Logits are kept as small as the model makes them. Only those of masks that are predicted well enough are enlarged to the
picture, some at a time, and those of the last masks once more at the end.

The authors' code does the same once more in crops of the picture, by default in none, and there is none here. It
decodes 64 points at a time; the result is the same for any number, and 64 take 2 GiB here and no less time.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

SIDE, BATCH = 32, 16
LOGITS = 2**24  # of masks at the size of the picture at a time, which are 64 MiB
LEAST_IOU, LEAST_STABILITY, OFFSET, OVERLAP = 0.88, 0.95, 1.0, 0.7

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""A function from points (N, 2) to logits of masks (N, M, h, w), at any resolution, and scores (N, M)."""
Enlarge = Callable[[np.ndarray], np.ndarray]
"""A function from logits (count, h, w) to those of the picture's pixels (count, H, W)."""


class Masks(NamedTuple):
    """Masks (count, H, W), boolean, the best first, with their scores, stabilities and boxes."""

    masks: np.ndarray
    scores: np.ndarray
    stability: np.ndarray
    boxes: np.ndarray


def everything(
    predict: Predict,
    enlarge: Enlarge,
    height: int,
    width: int,
    *,
    side: int = SIDE,
    batch: int = BATCH,
    least_iou: float = LEAST_IOU,
    least_stability: float = LEAST_STABILITY,
    offset: float = OFFSET,
    overlap: float = OVERLAP,
    track: Callable[[list[np.ndarray]], Iterable[np.ndarray]] = iter,
) -> Masks:
    """Return the masks of a picture of height × width pixels, from `side` × `side` points, `batch` at a time.

    `predict` gets points (x, y) in pixels of the picture. `track` gets the batches of points and yields them one by
    one, as they are worked on: a progress bar. Raises ValueError for counts below 1 and shapes that do not fit.
    """
    if batch < 1:
        raise ValueError(f"automatic_masks.everything: batch is {batch}, expected at least 1")
    points = grid(side) * [width, height]
    small, parts = [], []
    for places in track([points[start : start + batch] for start in range(0, len(points), batch)]):
        logits, scores = predict(places)
        if logits.ndim != 4 or logits.shape[:2] != scores.shape:
            expected = "logits (N, M, h, w) and scores (N, M)"
            raise ValueError(f"automatic_masks.everything: expected {expected}, got {logits.shape} and {scores.shape}")
        logits, scores = logits[scores > least_iou], scores[scores > least_iou]
        for some in _chunks(len(logits), height * width):
            large = _enlarged(enlarge, logits[some], height, width)
            stable, masks = stability(large, offset), large > 0
            good = (stable >= least_stability) & masks.any(axis=(-2, -1))
            small.append(logits[some][good])
            parts.append((scores[some][good], stable[good], boxes_of(masks[good])))
    if not parts:
        return Masks(np.zeros((0, height, width), bool), np.zeros(0), np.zeros(0), np.zeros((0, 4), int))
    scores, stable, boxes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    best = suppressed(boxes, scores, overlap)
    masks, logits = np.zeros((len(best), height, width), bool), np.concatenate(small)[best]
    for some in _chunks(len(best), height * width):
        masks[some] = _enlarged(enlarge, logits[some], height, width) > 0
    return Masks(masks, scores[best], stable[best], boxes[best])


def grid(side: int) -> np.ndarray:
    """Return the points (side², 2) of a grid, row by row, as shares of the picture's width and height."""
    if side < 1:
        raise ValueError(f"automatic_masks.grid: side is {side}, expected at least 1")
    places = (np.arange(side) + 0.5) / side
    return np.stack([np.tile(places, side), np.repeat(places, side)], axis=-1)


def _chunks(count: int, pixels: int) -> Iterator[slice]:
    """Yield slices of `count` masks, of so many that they have at most LOGITS pixels."""
    size = max(1, LOGITS // pixels)
    for start in range(0, count, size):
        yield slice(start, start + size)


def _enlarged(enlarge: Enlarge, logits: np.ndarray, height: int, width: int) -> np.ndarray:
    large = enlarge(logits)
    if large.shape != (len(logits), height, width):
        expected = f"enlarged logits of shape {(len(logits), height, width)}"
        raise ValueError(f"automatic_masks.everything: expected {expected}, got {large.shape}")
    return large


def stability(logits: np.ndarray, offset: float = OFFSET) -> np.ndarray:
    """Return #(z > offset) / #(z > −offset), (…), of logits (…, H, W); 0 where no pixel is above −offset."""
    inner, outer = ((logits > bound).sum(axis=(-2, -1)) for bound in (offset, -offset))
    return inner / np.maximum(outer, 1)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Return (x₀, y₀, x₁, y₁), (…, 4), of boolean masks (…, H, W): their first and last columns and rows, inclusive.

    Those of an empty mask are zeros.
    """
    columns, rows = (np.asarray(masks.any(axis=axis)) for axis in (-2, -1))
    first = [seen.argmax(axis=-1) for seen in (columns, rows)]
    last = [seen.shape[-1] - 1 - seen[..., ::-1].argmax(axis=-1) for seen in (columns, rows)]
    filled = np.asarray(masks.any(axis=(-2, -1)))
    return np.where(filled[..., None], np.stack([*first, *last], axis=-1), 0)


def suppressed(boxes: np.ndarray, scores: np.ndarray, overlap: float = OVERLAP) -> np.ndarray:
    """Return the indices of boxes (count, 4) that no better one overlaps by an IoU above `overlap`, the best first.

    Greedily: what is dropped suppresses nothing. Equal scores keep their order.
    """
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        order = rest[box_iou(boxes[best], boxes[rest]) <= overlap]
    return np.array(kept, dtype=int)


def box_iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU (count,) of a box (4,) with others (count, 4); 0 of two without area.

    As in the libraries, x₁ and y₁ are where a box ends, though those of masks are their last column and row.
    """
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = np.maximum(sides, 0).prod(axis=-1)
    areas = [np.prod(b[..., 2:] - b[..., :2], axis=-1) for b in (box, others)]
    either = areas[0] + areas[1] - both
    return both / np.where(either == 0, 1, either)


def predictor(model: Any, embedding: np.ndarray, scale: Any = 1.0) -> Predict:
    """Return what predicts masks of one picture by a SAM, of which the embedding (H, W, D) is given.

    `scale` (2,) takes points of the picture to those of the model's.
    """

    def predict(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, scores = model.decode(embedding, points=(points * scale)[:, None, :])
        return logits[:, 1:], scores[:, 1:]

    return predict

"""Evaluation of a trained Segment Anything on held-out scenes: IoUs, ranking by score, and masks to draw.

    iou         of clicks and boxes (`training.reached`): the means over all objects, over wholes, and over parts
    ranking     whether scores order masks as their IoUs do: Spearman's coefficient, and for every tenth of the scores
                how many masks have one, the mean of these scores, and the mean IoU of the masks
    ambiguity   clicks on parts whose wholes are seen too, and whether the three masks have both
    everything  masks from a grid of points, by `models.vision.automatic_masks`, and how many objects they find
    examples    an object of each of the first scenes, with what a click and a box give; and their "pictures"

Pictures, and masks with a bit a pixel, are base64 of their bytes: `pack` and `unpack`.
"""

import base64
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from models.tasks import overlapping_shapes
from models.tasks.overlapping_shapes import DEVIATION, MEAN, SHAPES, Scenes
from models.vision import automatic_masks
from models.vision.sam import clicks, losses
from models.vision.sam.model import SAM
from models.vision.sam.training import Rows, reached

LIKE = 0.75  # the IoU from which a mask counts as that of an object
SHOWN = 6  # examples, clicks on parts and scenes with everything: always the first ones
TENTHS = 10


class Prompted(NamedTuple):
    """M masks of a prompt to each of the N objects of a scene: masks (N, M, H, W), scores (N, M), and IoUs (N, M)."""

    prompts: np.ndarray
    masks: np.ndarray
    scores: np.ndarray
    iou: np.ndarray


class Scene(NamedTuple):
    """A scene's objects (N, H, W), of which `part` (N,) are parts, and what clicks and boxes of each give."""

    objects: np.ndarray
    part: np.ndarray
    clicked: Prompted
    boxed: Prompted


def scenes(seed: int, count: int, side: int) -> Scenes:
    """Return scenes that no training with this seed has seen."""
    return overlapping_shapes.draw(np.random.default_rng([seed, 2]), count, side)


def measured(model: SAM, drawn: Scenes, *, searched: int, grid: dict[str, Any]) -> dict[str, Any]:
    """Return what the module says; in the first `searched` scenes everything is looked for, with options `grid`."""
    prompted = [_prompted(model, *each) for each in zip(*drawn, strict=True)]
    iou, part = reached(model, drawn), np.concatenate([scene.part for scene in prompted])
    kinds = {"all": part | True, "wholes": ~part, "parts": part}
    found = [_found(model, pixels, grid) for pixels in drawn.pixels[:searched]]
    on_parts = [click for i in range(len(prompted)) for click in _clicks_on_parts(prompted[i], drawn.seen[i], i)]
    shown = {*range(min(SHOWN, len(prompted))), *(click["scene"] for click in on_parts[:SHOWN])}
    return {
        "parameters": sum(array.size for array in model.named_parameters().values()),
        "scenes": len(prompted),
        "objects": {kind: int(which.sum()) for kind, which in kinds.items()},
        "iou": {kind: {name: _mean(each[which]) for name, each in iou.items()} for kind, which in kinds.items()},
        "ranking": {
            "click": ranking([scene.clicked for scene in prompted]),
            "box": ranking([scene.boxed for scene in prompted]),
        },
        "ambiguity": _ambiguity(on_parts),
        "everything": _coverage(found, prompted),
        "pictures": {str(i): pack(picture(drawn.pixels[i])) for i in sorted(shown)},
        "examples": [_example(scene, i) for i, scene in enumerate(prompted[:SHOWN])],
        "clicks on parts": on_parts[:SHOWN],
        "found": [[pack(mask) for mask in masks] for masks in found[:SHOWN]],
    }


def _prompted(model: SAM, pixels: np.ndarray, masks: np.ndarray, seen: np.ndarray) -> Scene:
    mask, embedding = masks[seen], model.encode(pixels)
    points, boxes = clicks.centre(mask), automatic_masks.boxes_of(mask).astype(float)

    def by(prompts: np.ndarray, rows: Rows, which: slice) -> Prompted:
        logits, scores = (each[:, which] for each in rows.decode(model, embedding))
        return Prompted(prompts, logits > 0, scores, _iou(logits > 0, mask[:, None]))

    clicked = by(points, Rows.of_points(mask, points), slice(1, None))
    boxed = by(boxes, Rows.of_boxes(mask, boxes), slice(0, 1))
    return Scene(mask, np.flatnonzero(seen) >= SHAPES, clicked, boxed)


def ranking(prompted: list[Prompted]) -> dict[str, Any]:
    """Return how scores order masks: "spearman", and "tenths", each [masks, mean score, mean IoU]."""
    scores, iou = (np.concatenate([np.ravel(getattr(each, name)) for each in prompted]) for name in ("scores", "iou"))
    tenth = np.clip(np.floor(scores * TENTHS), 0, TENTHS - 1)
    groups = [tenth == i for i in range(TENTHS) if (tenth == i).any()]
    return {
        "spearman": float(np.corrcoef(rankdata(scores), rankdata(iou))[0, 1]),
        "tenths": [[int(which.sum()), _mean(scores[which]), _mean(iou[which])] for which in groups],
    }


def _clicks_on_parts(scene: Scene, seen: np.ndarray, index: int) -> list[dict[str, Any]]:
    """Return what a click on each part of a whole that is seen gives: three masks, scores, and IoUs with both."""
    number, result = np.cumsum(seen) - 1, []
    for whole in np.flatnonzero(seen[:SHAPES] & seen[SHAPES:]):
        i, part = number[whole], number[whole + SHAPES]
        masks = scene.clicked.masks[part]
        result.append(
            {
                "scene": index,
                "point": scene.clicked.prompts[part].tolist(),
                "masks": [pack(mask) for mask in masks],
                "scores": scene.clicked.scores[part].tolist(),
                "part": scene.clicked.iou[part].tolist(),
                "whole": _iou(masks, scene.objects[i]).tolist(),
            }
        )
    return result


def _ambiguity(on_parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many clicks there are, the mean best IoU with the part and with the whole, and shares of clicks.

    "both" have a mask of each (IoU of at least LIKE); in "part first" the mask of the highest score is nearer the part.
    """
    if not on_parts:
        return {"clicks": 0}
    part, whole, scores = (np.array([click[name] for click in on_parts]) for name in ("part", "whole", "scores"))
    first = scores.argmax(axis=-1)[:, None]
    nearer = np.take_along_axis(part > whole, first, axis=-1)
    return {
        "clicks": len(on_parts),
        "part": _mean(part.max(axis=-1)),
        "whole": _mean(whole.max(axis=-1)),
        "both": _mean((part.max(axis=-1) >= LIKE) & (whole.max(axis=-1) >= LIKE)),
        "part first": _mean(nearer),
    }


def _found(model: SAM, pixels: np.ndarray, grid: dict[str, Any]) -> np.ndarray:
    """Return the masks (count, H, W) of everything in a picture, the best first."""
    predict = automatic_masks.predictor(model, model.encode(pixels))
    return automatic_masks.everything(predict, lambda logits: logits, *pixels.shape[-2:], **grid).masks


def _coverage(found: list[np.ndarray], prompted: list[Scene]) -> dict[str, Any]:
    """Return how many masks were found, and the shares of these, of wholes and of parts that are like one another."""
    like = [
        _iou(a[None], b.objects[:, None]) >= LIKE for a, b in zip(found, prompted, strict=False)
    ]  # (objects, masks)
    part = np.concatenate([scene.part for scene in prompted[: len(found)]])
    objects, masks = (np.concatenate([each.any(axis=axis) for each in like]) for axis in (1, 0))
    return {
        "scenes": len(found),
        "masks": len(masks),
        "like an object": _mean(masks),
        "wholes": _mean(objects[~part]),
        "parts": _mean(objects[part]),
    }


def _example(scene: Scene, index: int) -> dict[str, Any]:
    """Return the masks of the highest score of a click on an object and of its box, with scores and true IoUs.

    In turn it is the first object, a whole, and the last, a part where there is one.
    """
    i = index % 2 * (len(scene.objects) - 1)

    def best(prompted: Prompted) -> dict[str, Any]:
        j = int(prompted.scores[i].argmax())
        return {
            "prompt": prompted.prompts[i].tolist(),
            "mask": pack(prompted.masks[i, j]),
            "score": float(prompted.scores[i, j]),
            "iou": float(prompted.iou[i, j]),
        }

    return {
        "scene": index,
        "part": bool(scene.part[i]),
        "object": pack(scene.objects[i]),
        "click": best(scene.clicked),
        "box": best(scene.boxed),
    }


def picture(pixels: np.ndarray) -> np.ndarray:
    """Return the pixels (3, H, W) of a scene as bytes (H, W, 3)."""
    return np.moveaxis(np.round(255 * np.clip(pixels * DEVIATION + MEAN, 0, 1)), 0, -1).astype(np.uint8)


def pack(array: np.ndarray) -> str:
    """Return bytes (side, side, 3), or a boolean mask (side, side), as text."""
    packed = np.packbits(array) if array.dtype == bool else array
    return base64.b64encode(packed.tobytes()).decode()


def unpack(text: str, *, channels: int = 0) -> np.ndarray:
    """Return what `pack` made a text of: a square mask, or with 3 channels a square picture."""
    data = np.frombuffer(base64.b64decode(text), np.uint8)
    if not channels:
        data = np.unpackbits(data).astype(bool)
    side = round((data.size / max(1, channels)) ** 0.5)
    return data.reshape((side, side, channels) if channels else (side, side))


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return losses.iou(a.astype(float), b.astype(float))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else float("nan")

"""Automatic masks: grid, thresholds, stability, boxes and suppression, each against its definition."""

import re

import numpy as np
import pytest

from minigrad.pytree import unchanged
from models.vision import automatic_masks
from models.vision.sam import SAM, ImageEncoderConfig, MaskDecoderConfig, PromptEncoderConfig, SAMConfig


def squares(*corners, side=20, inside=5.0, outside=-5.0):
    """Return logits (count, side, side) of squares from (x, y) to (x + size, y + size)."""
    logits = np.full((len(corners), side, side), outside)
    for each, (x, y, size) in zip(logits, corners, strict=True):
        each[y : y + size, x : x + size] = inside
    return logits


def test_the_grid():
    np.testing.assert_allclose(
        automatic_masks.grid(2), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]], rtol=1e-15
    )
    assert automatic_masks.grid(32).shape == (1024, 2)


def test_stability():
    logits = np.array([[[2.0, 0.5, -0.5, -2.0]], [[2, 2, 2, -2]], [[-2, -2, -2, -2]]])
    for offset, expected in ((1.0, [1 / 3, 1, 0]), (0.4, [1, 1, 0]), (0.5, [1 / 2, 1, 0]), (3.0, [0, 0, 0])):
        np.testing.assert_allclose(automatic_masks.stability(logits, offset), expected)


def test_boxes():
    masks = squares((3, 5, 4), (0, 0, 20), (19, 19, 1)) > 0
    assert automatic_masks.boxes_of(masks).tolist() == [[3, 5, 6, 8], [0, 0, 19, 19], [19, 19, 19, 19]]
    assert automatic_masks.boxes_of(np.zeros((1, 4, 4), bool)).tolist() == [[0, 0, 0, 0]]


def suppressed_by_definition(boxes, scores, overlap):
    """Return what is kept: a box is, unless one that is kept and better overlaps it."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        for j in kept:
            width = min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0])
            height = min(boxes[i][3], boxes[j][3]) - max(boxes[i][1], boxes[j][1])
            both = max(width, 0) * max(height, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[j])]
            if both and both / (areas[0] + areas[1] - both) > overlap:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(20))
def test_suppression(seed):
    rng = np.random.default_rng(seed)
    boxes = np.sort(rng.integers(0, 6, (40, 2, 2)), axis=1).reshape(40, 4).astype(float)
    scores, overlap = rng.integers(0, 10, 40) / 10, (0.3, 0.7)[seed % 2]
    kept = automatic_masks.suppressed(boxes, scores, overlap)
    assert kept.tolist() == suppressed_by_definition(boxes, scores, overlap) and 0 < len(kept) < 40


def test_what_is_dropped_suppresses_nothing():
    boxes = np.array(
        [[0.0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10]]
    )  # each overlaps the next by 2/3, 0 and 2 by 3/7
    assert automatic_masks.suppressed(boxes, np.array([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]


def test_everything():
    """A mask of low score, one that is not stable, an empty one and a duplicate are dropped; the best comes first."""
    good, better = squares((1, 1, 8)), squares((10, 10, 8))
    blurred = squares((10, 0, 6))
    blurred[0, 6, 10:16] = 0.5
    candidates = np.concatenate([good, better, squares((1, 2, 8)), blurred, squares((0, 12, 6)), squares((0, 0, 0))])
    scores = np.array([0.9, 0.95, 0.89, 0.99, 0.88, 0.97])
    asked = []

    def predict(points):
        asked.append(points)
        return np.repeat(candidates[None], len(points), axis=0), np.repeat(scores[None], len(points), axis=0)

    found = automatic_masks.everything(predict, unchanged, 20, 20, side=3, batch=4)
    assert [len(points) for points in asked] == [4, 4, 1]
    np.testing.assert_allclose(np.concatenate(asked), 20 * automatic_masks.grid(3))
    np.testing.assert_array_equal(found.masks, np.concatenate([better, good]) > 0)
    assert found.scores.tolist() == [0.95, 0.9] and found.stability.tolist() == [1, 1]
    assert found.boxes.tolist() == [[10, 10, 17, 17], [1, 1, 8, 8]]
    assert len(automatic_masks.everything(predict, unchanged, 20, 20, side=1, least_iou=1.0).masks) == 0
    loose = automatic_masks.everything(
        predict, unchanged, 20, 20, side=1, least_iou=0.0, least_stability=0.0, overlap=1.0
    )
    assert len(loose.masks) == 5 and loose.masks.any(axis=(-2, -1)).all(), "all but the empty one"


def test_points_are_of_the_picture_s_sides():
    asked = []

    def predict(points):
        asked.append(points)
        return np.zeros((len(points), 1, 4, 8)), np.zeros((len(points), 1))

    automatic_masks.everything(predict, unchanged, 4, 8, side=2)
    assert asked[0].tolist() == [[2, 1], [6, 1], [2, 3], [6, 3]]


def test_a_model_predicts():
    config = SAMConfig(
        ImageEncoderConfig(image=16, patch=8, width=8, layers=1, heads=2, hidden=8, window=0, output=16),
        PromptEncoderConfig(channels=4),
        MaskDecoderConfig(layers=1, heads=2, hidden=8, iou_hidden=8),
    )
    model = SAM(config, np.random.default_rng(0))
    embedding = model.encode(np.random.default_rng(1).standard_normal((3, 16, 16)).astype(np.float32))
    predict = automatic_masks.predictor(model, embedding, 0.5)
    logits, scores = predict(np.array([[30.0, 2.0], [6.0, 8.0]]))
    expected, theirs = model.decode(embedding, points=np.array([[[15.0, 1.0]], [[3.0, 4.0]]]))
    np.testing.assert_array_equal(logits, expected[:, 1:])
    np.testing.assert_array_equal(scores, theirs[:, 1:])
    enlarge = lambda z: np.repeat(z, 4, axis=-1).repeat(4, axis=-2)  # noqa: E731
    found = automatic_masks.everything(predict, enlarge, 32, 32, side=2, least_iou=-9.0, least_stability=0.0)
    assert found.masks.shape[1:] == (32, 32) and len(found.masks) == len(found.scores) > 0


def test_only_masks_of_high_scores_are_enlarged(monkeypatch):
    """Some at a time, and those that are kept once more; the batches of points are those that are tracked."""
    monkeypatch.setattr(automatic_masks, "LOGITS", 2 * 40 * 40)
    logits = squares((1, 1, 8), (10, 10, 8), (1, 1, 8), (12, 1, 6), (2, 12, 5))
    scores, enlarged, tracked = np.array([0.9, 0.95, 0.1, 0.91, 0.92]), [], []

    def enlarge(z):
        enlarged.append(len(z))
        return z.repeat(2, axis=-1).repeat(2, axis=-2)

    def track(batches):
        tracked.extend(map(len, batches))
        return batches

    predict = lambda points: (np.repeat(logits[None], len(points), 0), np.repeat(scores[None], len(points), 0))  # noqa: E731
    found = automatic_masks.everything(predict, enlarge, 40, 40, side=2, batch=3, track=track)
    assert tracked == [3, 1] and sum(enlarged) == 4 * 4 + 4 and max(enlarged) == 2
    expected = (logits > 0).repeat(2, axis=-1).repeat(2, axis=-2)
    np.testing.assert_array_equal(found.masks, expected[[1, 4, 3, 0]])


def test_what_does_not_fit():
    flat = lambda points: (np.full((len(points), 3, 4, 4), 2.0), np.ones((len(points), 3)))  # noqa: E731
    wrong = lambda points: (np.ones((len(points), 4, 4)), np.ones((len(points), 3)))  # noqa: E731
    for predict, options, message in (
        (flat, {"side": 0}, "automatic_masks.grid: side is 0, expected at least 1"),
        (flat, {"batch": 0}, "automatic_masks.everything: batch is 0, expected at least 1"),
        (wrong, {"batch": 5}, "expected logits (N, M, h, w) and scores (N, M), got (5, 4, 4) and (5, 3)"),
        (flat, {"batch": 5}, "expected enlarged logits of shape (15, 5, 4), got (15, 4, 4)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            automatic_masks.everything(predict, unchanged, 5, 4, **options)

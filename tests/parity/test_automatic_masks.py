"""Automatic masks beside the processor of transformers: its grid, its stability, its boxes and what it filters."""

import numpy as np
import pytest

from minigrad.pytree import unchanged
from models.vision import automatic_masks
from tests.parity.conftest import oracle


@pytest.fixture(scope="module")
def theirs():
    return oracle("transformers.models.sam.image_processing_pil_sam")


def drawn(seed, count=30):
    """Return logits of blobs, some of them empty, and scores."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:24, :30]
    cx, cy, r = rng.uniform(0, 30, (count, 1, 1)), rng.uniform(0, 24, (count, 1, 1)), rng.uniform(-1, 12, (count, 1, 1))
    distance = np.hypot(x - cx, y - cy)
    return rng.uniform(0.2, 9, (count, 1, 1)) * (r - distance), rng.uniform(0.8, 1, count)


@pytest.mark.parametrize("side", [1, 4, 32])
def test_grid(side, theirs, close):
    close("points", automatic_masks.grid(side), np.asarray(theirs._build_point_grid(side)), 1e-12)


@pytest.mark.parametrize("offset", [1, 2])
def test_stability(offset, torch, theirs, close):
    logits = drawn(0)[0]
    logits = logits[(logits > -offset).any(axis=(-2, -1))]  # where theirs is no number
    expected = theirs._compute_stability_score(torch.tensor(logits), 0.0, offset).numpy()
    close("stability", automatic_masks.stability(logits, offset), expected, 1e-6)


def test_boxes(torch, theirs):
    masks = drawn(1)[0] > 0
    assert not masks.any(axis=(-2, -1)).all()
    expected = theirs._batched_mask_to_box(torch.tensor(masks)).numpy()
    np.testing.assert_array_equal(automatic_masks.boxes_of(masks), expected)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept(seed, torch, theirs):
    """Compare masks before suppression, for which transformers needs torchvision; the whole picture is the one crop."""
    logits, scores = drawn(seed)
    processor = theirs.SamImageProcessorPil()
    masks, kept_scores, boxes = processor.filter_masks(
        torch.tensor(logits[:, None]), torch.tensor(scores[:, None]), (24, 30), [0, 0, 30, 24]
    )
    expected = np.array([theirs._rle_to_mask(mask) for mask in masks]).reshape(-1, 24, 30)
    found = automatic_masks.everything(
        lambda points: (logits[None], scores[None]), unchanged, 24, 30, side=1, overlap=1.0
    )
    order = np.argsort(-kept_scores.numpy(), kind="stable")
    filled = expected[order].any(axis=(-2, -1))  # theirs may be empty
    assert 0 < filled.sum() < len(logits)
    np.testing.assert_array_equal(found.masks, expected[order][filled])
    np.testing.assert_array_equal(found.scores, kept_scores.numpy()[order][filled])
    np.testing.assert_array_equal(found.boxes, boxes.numpy()[order][filled])

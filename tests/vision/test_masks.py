"""Prompts and masks between a picture and its resized, padded copy."""

import numpy as np

from models.vision.masks import to_original, to_resized


def test_corners_of_the_picture_are_corners_of_the_resized_one():
    points = np.array([[[0, 0], [7, 5]], [[3.5, 2.5], [7, 0]]])
    moved = to_resized(points, (5, 7), (10, 21))
    np.testing.assert_allclose(moved, [[[0, 0], [21, 10]], [[10.5, 5], [21, 0]]])


def test_a_mask_that_is_linear_in_place_stays_so_and_padding_is_cut_off():
    """The picture of 4 × 12 is resized to 8 × 24 and padded to 24 × 24; the mask has 12 × 12 pixels."""
    y, x = (np.arange(12) + 0.5)[:, None] / 12, (np.arange(12) + 0.5)[None] / 12
    masks = np.stack([x - y, 3 * y + 0 * x])
    found = to_original(masks, (4, 12), (8, 24), (24, 24))
    assert found.shape == (2, 4, 12)
    y, x = (np.arange(4) + 0.5)[:, None] / 4 / 3, (np.arange(12) + 0.5)[None] / 12  # a third of the padded height
    inside = (slice(None), slice(1, None), slice(1, -1))  # clamped at the ends
    np.testing.assert_allclose(found[inside], np.stack([x - y, 3 * y + 0 * x])[inside], atol=1e-12)


def test_padding_has_no_part_in_the_mask():
    masks = np.zeros((6, 6))
    masks[:, 4:] = 1e9  # beyond what the seven columns of the resized picture are interpolated from
    assert not to_original(masks, (9, 5), (12, 7), (12, 12)).any()
    masks[:, 3:] = 1e9
    assert to_original(masks, (9, 5), (12, 7), (12, 12)).any()


def test_precision_is_kept():
    assert to_original(np.zeros((2, 6, 6), np.float32), (9, 5), (12, 7), (12, 12)).dtype == np.float32

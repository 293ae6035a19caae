"""Pixels of translucent masks, their outlines, points and a box, drawn over a picture."""

import numpy as np

from models.vision.overlay import BACKGROUND, COLOURS, OBJECT, draw_masks, draw_prompts

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def square(top, left, side):
    mask = np.zeros((12, 16), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_a_mask_lets_the_picture_through_and_has_an_outline():
    mask, inside = square(2, 3, 6), square(3, 4, 4)
    before = PICTURE.copy()
    drawn = draw_masks(PICTURE, mask[None])
    np.testing.assert_array_equal(drawn[~mask], PICTURE[~mask])
    np.testing.assert_array_equal(drawn[mask & ~inside], np.broadcast_to(COLOURS[0], (20, 3)))
    np.testing.assert_allclose(drawn[inside], PICTURE[inside] / 2 + COLOURS[0] / 2, atol=0.51)
    np.testing.assert_array_equal(PICTURE, before)


def test_the_picture_s_edge_is_no_outline():
    drawn = draw_masks(PICTURE, np.ones((1, 12, 16), bool))
    np.testing.assert_allclose(drawn, PICTURE / 2 + COLOURS[0] / 2, atol=0.51)


def test_masks_have_colours_of_their_own_and_later_ones_are_on_top():
    masks = np.stack([square(0, 0, 9), square(1, 1, 3)])
    drawn = draw_masks(PICTURE, masks)
    np.testing.assert_array_equal(drawn[1, 1], COLOURS[1])
    np.testing.assert_allclose(drawn[2, 2], PICTURE[2, 2] / 2 + COLOURS[1] / 2, atol=0.51)
    np.testing.assert_allclose(drawn[6, 6], PICTURE[6, 6] / 2 + COLOURS[0] / 2, atol=0.51)
    assert draw_masks(PICTURE, np.repeat(masks, 9, axis=0)).shape == PICTURE.shape  # more than there are colours


def test_no_mask_and_no_prompt_leave_the_picture():
    np.testing.assert_array_equal(draw_masks(PICTURE, np.zeros((0, 12, 16), bool)), PICTURE)
    np.testing.assert_array_equal(draw_prompts(PICTURE, [], None), PICTURE)


def test_prompts_are_drawn_where_they_are():
    drawn = draw_prompts(PICTURE, [(3, 4, 1), (10, 7, 0)], (1, 2, 14, 10))
    assert tuple(drawn[4, 3]) == OBJECT and tuple(drawn[7, 10]) == BACKGROUND
    for row, column in ((2, 1), (2, 14), (10, 1), (10, 14), (6, 1), (2, 8)):
        assert tuple(drawn[row, column]) == OBJECT
    np.testing.assert_array_equal(drawn[11], PICTURE[11])

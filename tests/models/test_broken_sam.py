"""The chapters on Segment Anything can fail: copies with one thing wrong, and every one of them is caught."""

import pytest

from proofs.identities import sam as chapter
from proofs.identities import sam_losses
from tests.copies import copy_of, statement_fails

ITSELF, OVER, DICE, DICE_LIMITS = (
    "a_mask_is_itself",
    "iou_is_intersection_over_union",
    "dice_is_a_function_of_iou",
    "limits_of_the_dice_loss",
)
UNFOCUSED, FOCAL, PERFECT, LEAST = (
    "focal_without_focus_is_cross_entropy",
    "the_focal_loss_is_the_paper_s",
    "a_perfect_prediction_costs_nothing",
    "the_least_loss_counts",
)
JOINED, ONE, APART, TABLE, DOT = (
    "windows_are_joined_again",
    "one_window_is_global",
    "windows_are_apart",
    "decomposed_positions_are_a_table",
    "positions_are_a_dot_product",
)
KERNEL, ORDER, EMBEDDED, ONCE = (
    "encodings_make_a_stationary_kernel",
    "points_have_no_order",
    "boxes_and_masks_are_embedded",
    "one_encoding_serves_all_prompts",
)
BROKEN = [
    # module, text, what stands there instead, the statement that fails, what is wrong
    ("losses", "a + b - a * b", "a + b", ITSELF, "the sum of both sizes"),
    ("losses", "a + b - a * b", "a + 0 * b", OVER, "the size of one"),
    ("losses", "(2 * both + smooth)", "(both + smooth)", DICE, "half the overlap"),
    ("losses", "sizes + smooth)", "sizes)", DICE_LIMITS, "ε above the line only"),
    ("losses", "* mg.sigmoid(-signed) ** gamma", "* mg.sigmoid(-signed) ** 1", UNFOCUSED, "γ not read"),
    ("losses", "(1 - alpha) * (1 - mask)", "alpha * (1 - mask)", UNFOCUSED, "α beside the mask too"),
    ("losses", "mg.sigmoid(-signed)", "mg.sigmoid(signed)", FOCAL, "focused on what is right"),
    (
        "losses",
        "FOCAL, ALPHA, GAMMA, SMOOTH = 20, 0.25, 2, 1",
        "FOCAL, ALPHA, GAMMA, SMOOTH = 20, 0.25, 1, 1",
        FOCAL,
        "γ = 1",
    ),
    ("losses", "(2 * mask - 1) * logits", "(1 - 2 * mask) * logits", PERFECT, "the wrong sign"),
    ("losses", "FOCAL, ALPHA, GAMMA, SMOOTH = 20,", "FOCAL, ALPHA, GAMMA, SMOOTH = 10,", LEAST, "10 : 1"),
    ("losses", "xp.min(loss[..., 1:], axis=-1)", "xp.mean(loss[..., 1:], axis=-1)", LEAST, "the mean of masks"),
    ("losses", "xp.min(loss[..., 1:], axis=-1)", "xp.min(loss, axis=-1)", LEAST, "the single mask among them"),
    ("losses", "unwrap(logits) > 0", "unwrap(logits) > 1", LEAST, "another threshold"),
    (
        "losses",
        "signed = namespace(logits), (2 * mask - 1) * logits",
        "signed = namespace(logits), logits",
        FOCAL,
        "no labels",
    ),
    ("windows", "xp.moveaxis(x, -3, -4)", "x", JOINED, "rows of windows side by side"),
    ("windows", "x[..., :height, :width, :]", "x[..., -height:, -width:, :]", JOINED, "the padding kept"),
    ("windows", "((0, below), (0, right), (0, 0))", "((below, 0), (right, 0), (0, 0))", JOINED, "padded above"),
    (
        "windows",
        "(*batch, rows * size, columns * size, C))",
        "(*batch, rows * size, columns * size, C))[..., ::-1, :]",
        ONE,
        "turned",
    ),
    ("windows", "places[:, None] - places[None, :]", "places[None, :] - places[:, None]", TABLE, "k − i"),
    ("windows", "+ size - 1\n", "+ size - 2\n", DOT, "one difference off"),
    (
        "windows",
        "by_difference(rows), by_difference(columns)",
        "by_difference(rows), 0 * by_difference(columns)",
        TABLE,
        "rows alone",
    ),
    (
        "windows",
        "np.repeat(np.eye(H, dtype=int), W, axis=0)",
        "np.tile(np.eye(H, dtype=int), (W, 1))",
        DOT,
        "columns for rows",
    ),
    ("windows", "[q * scale, *biased]", "[q * scale, *(scale * E for E in biased)]", DOT, "scaled queries"),
    ("windows", "E_h = grid @ R_h.mT", "E_h = grid @ R_h", DOT, "transposed"),
    (
        "image_encoder",
        "return windows.join(self.attention(windows.split(x, self.window)), x.shape[-3], x.shape[-2])",
        "return windows.join(windows.split(self.attention(x), self.window), x.shape[-3], x.shape[-2])",
        APART,
        "global",
    ),
    ("prompt_encoder", "2 * places - 1", "places", KERNEL, "places from 0 to 1"),
    ("prompt_encoder", "[xp.sin(angles), xp.cos(angles)]", "[xp.sin(angles), xp.sin(angles)]", KERNEL, "sines alone"),
    ("prompt_encoder", "(points + 0.5) / self.side", "points / self.side", EMBEDDED, "the corner of a pixel"),
    ("prompt_encoder", "labels - NO_POINT)", "labels)", EMBEDDED, "another label's vector"),
    (
        "prompt_encoder",
        "return encoded + xp.reshape",
        "return encoded * np.arange(1, 1 + len(labels[0, 0]))[:, None] + xp.reshape",
        ORDER,
        "an order of points",
    ),
    (
        "mask_decoder",
        "self.own(t + t_positions, t + t_positions, t)",
        "self.own(t + t_positions, t + t_positions, t[..., ::-1, :])",
        ORDER,
        "values of other tokens",
    ),
    ("model", "self.prompt_encoder.map_of(masks)", "0 * self.prompt_encoder.map_of(masks)", EMBEDDED, "masks not read"),
    ("model", "[TOP_LEFT, BOTTOM_RIGHT]", "[BOTTOM_RIGHT, TOP_LEFT]", EMBEDDED, "corners the wrong way round"),
    (
        "mask_decoder",
        "own = xp.broadcast_to(",
        "prompt = prompt + 0.1 * xp.mean(prompt, axis=-3, keepdims=True)\n        own = xp.broadcast_to(",
        ONCE,
        "prompts that see each other",
    ),
]
PATHS = {"losses", "windows", "image_encoder", "prompt_encoder", "mask_decoder", "model"}


@pytest.fixture
def fails(monkeypatch):
    """Return whether a statement of the chapters fails with a copy, in one number system of NumPy alone."""

    def fails(module, copy, name):
        import models.vision.sam as package
        from models.vision.sam import image_encoder, model

        users = {
            "windows": [(image_encoder, "windows"), (chapter, "windows")],
            "losses": [(chapter, "losses"), (sam_losses, "losses")],
            "image_encoder": [(chapter, "image_encoder")],
            "prompt_encoder": [(model, "PromptEncoder")],
            "mask_decoder": [(model, "MaskDecoder")],
            "model": [(chapter, "SAM"), (package, "SAM")],
        }
        for user, attribute in users[module]:
            monkeypatch.setattr(user, attribute, getattr(copy, attribute, copy))
        chapter.cached_model.cache_clear()
        return statement_fails(f"{'sam_losses' if module == 'losses' else 'sam'}.{name}")

    yield fails
    chapter.cached_model.cache_clear()


@pytest.mark.parametrize(
    ("module", "text", "instead", "statement", "wrong"), BROKEN, ids=lambda x: x.partition("\n")[0]
)
def test_a_broken_copy_is_caught(module, text, instead, statement, wrong, fails):
    assert fails(module, copy_of(f"vision.sam.{module}", text, instead), statement), wrong


@pytest.mark.parametrize("module", sorted(PATHS))
def test_a_faithful_copy_passes(module, fails):
    for statement in {case[3] for case in BROKEN if case[0] == module}:
        assert not fails(module, copy_of(f"vision.sam.{module}"), statement)

"""Segment Anything: its parts, what it refuses, its losses and clicks, and a few steps of its training."""

import re

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import map_arrays
from models.errors import UserError
from models.tasks import overlapping_shapes
from models.vision.automatic_masks import boxes_of
from models.vision.sam import SAM, ImageEncoderConfig, MaskDecoderConfig, PromptEncoderConfig, SAMConfig, clicks, losses
from models.vision.sam.training import Options, Rows, Training, evaluate, rollout_loss, targets

SIDE, GRID = 24, 3
IMAGE = {"image": SIDE, "patch": 8, "width": 8, "layers": 2, "heads": 2, "hidden": 12, "window": 2, "output": 16}
SMALL = SAMConfig(
    ImageEncoderConfig(**IMAGE, global_layers=(1,)),
    PromptEncoderConfig(channels=4),
    MaskDecoderConfig(layers=1, heads=2, hidden=12, iou_hidden=8),
)
RNG = np.random.default_rng(0)
PIXELS = RNG.standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
POINTS, LABELS = np.array([[[[3.0, 4.0], [20, 7]]] * 3] * 2), np.array([[[1, 0]] * 3] * 2)
BOXES, MASKS = np.array([[[2.0, 3, 9, 20]] * 3] * 2), np.zeros((2, 3, 4 * GRID, 4 * GRID), np.float32)


@pytest.fixture(scope="module")
def model():
    return SAM(SMALL, np.random.default_rng(0))


@pytest.mark.parametrize("ambiguous, count", [(True, 3), (False, 1)])
def test_shapes(ambiguous, count, model):
    masks, scores = model(PIXELS, points=POINTS, labels=LABELS, ambiguous=ambiguous)
    assert masks.shape == (2, 3, count, 4 * GRID, 4 * GRID) and scores.shape == (2, 3, count)
    assert masks.dtype == scores.dtype == np.float32
    alone, _ = model(PIXELS[0], points=POINTS[0], labels=LABELS[0], ambiguous=ambiguous)
    np.testing.assert_allclose(alone, masks[0], rtol=1e-4, atol=1e-5)


def test_masks_alone_are_a_prompt(model):
    masks, scores = model(PIXELS, masks=MASKS)
    assert masks.shape[:3] == (2, 3, 3) and scores.shape == (2, 3, 3)


def test_a_prompt_of_several_kinds_is_not_one_of_them(model):
    given = [
        {"points": POINTS},
        {"boxes": BOXES},
        {"points": POINTS, "boxes": BOXES},
        {"points": POINTS, "masks": MASKS},
    ]
    results = [model(PIXELS, **prompt)[1] for prompt in given]
    assert all(np.abs(a - b).max() > 1e-6 for i, a in enumerate(results) for b in results[:i])


def test_forms_of_attention_agree():
    """Compare forms with padded windows and relative positions."""
    results = []
    for form in ("quadratic", "lazy", "fused"):
        config = SAMConfig(ImageEncoderConfig(**IMAGE, global_layers=(1,), form=form), SMALL.prompt, SMALL.decoder)
        model = map_arrays(lambda x: x.astype(np.float64), SAM(config, np.random.default_rng(0)))
        rng = np.random.default_rng(1)
        for layer in model.image_encoder.layers:
            layer.attention.rows = rng.standard_normal(layer.attention.rows.shape)
            layer.attention.columns = rng.standard_normal(layer.attention.columns.shape)
        loss = lambda m: mg.sum(m.encode(PIXELS.astype(float)) ** 2)  # noqa: E731
        value, gradients = mg.value_and_grad(loss)(model)
        results.append((value, gradients.image_encoder.named_parameters()))
    for value, gradients in results[1:]:
        np.testing.assert_allclose(value, results[0][0], rtol=1e-12)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, results[0][1][name], rtol=1e-8, atol=1e-9, err_msg=name)


WRONG = [
    ({}, "SAM: expected points, boxes or masks, got no prompt"),
    ({"labels": LABELS}, "SAM: labels: expected points with them, got none"),
    ({"points": POINTS[0]}, "SAM: points has shape (3, 2, 2), expected (2, N, P, 2)"),
    ({"points": POINTS[..., :1]}, "SAM: points has shape (2, 3, 2, 1), expected (2, N, P, 2)"),
    ({"points": POINTS[:, :, :0]}, "SAM: points: expected at least one, got an array of shape (2, 3, 0, 2)"),
    (
        {"points": POINTS, "labels": LABELS[:, 0]},
        "SAM: labels has shape (2, 2), expected (2, 3, 2), one for each point",
    ),
    (
        {"points": POINTS, "labels": 2 * LABELS},
        "SAM: labels: expected 1 for the object and 0 for the background, got 2",
    ),
    ({"points": POINTS, "labels": -LABELS}, "SAM: labels: expected 1 for the object and 0 for the background, got -1"),
    (
        {"points": POINTS + 10},
        "SAM: points: expected places within 0 … 24, got (30.0, 17.0), which is outside the picture",
    ),
    (
        {"points": POINTS - 4},
        "SAM: points: expected places within 0 … 24, got (-1.0, 0.0), which is outside the picture",
    ),
    ({"points": POINTS * np.nan}, "SAM: points: expected places within 0 … 24, got (nan, nan), which is outside"),
    ({"boxes": BOXES + 5}, "SAM: boxes: expected places within 0 … 24, got (14.0, 25.0), which is outside the picture"),
    ({"boxes": BOXES[..., ::-1]}, "SAM: boxes: expected x₀ ≤ x₁ and y₀ ≤ y₁, got [20.0, 9.0, 3.0, 2.0]"),
    ({"boxes": BOXES[..., :3]}, "SAM: boxes has shape (2, 3, 3), expected (2, N, 4)"),
    ({"points": POINTS, "boxes": BOXES[:, :2]}, "SAM: boxes: expected 3, as many as prompts of points, got 2"),
    (
        {"masks": MASKS[..., 1:]},
        "SAM: masks has shape (2, 3, 12, 11), expected (2, N, 12, 12), as the logits that come",
    ),
    ({"points": POINTS, "masks": MASKS[:, :2]}, "SAM: masks has shape (2, 2, 12, 12), expected (2, 3, 12, 12), as the"),
]


@pytest.mark.parametrize("prompt, message", WRONG)
def test_wrong_prompts(prompt, message, model):
    with pytest.raises(ValueError, match=re.escape(message)):
        model(PIXELS, **prompt)


@pytest.mark.parametrize("shape", [(2, 3, SIDE, SIDE + 8), (2, 1, SIDE, SIDE), (SIDE, SIDE)])
def test_pictures_of_another_size(shape, model):
    message = f"ImageEncoder: pixels has shape {shape}, expected (*batch, 3, 24, 24)"
    with pytest.raises(ValueError, match=re.escape(message)):
        model.encode(np.zeros(shape, np.float32))


UNFIT = [
    (lambda: ImageEncoderConfig(image=30, patch=8), "patch: expected a divisor of image 30, got 8"),
    (lambda: ImageEncoderConfig(width=10, heads=4), "heads: expected a divisor of width 10, got 4"),
    (lambda: ImageEncoderConfig(window=-1), "window: expected at least 0, got -1"),
    (lambda: ImageEncoderConfig(layers=0), "layers: expected at least 1, got 0"),
    (lambda: ImageEncoderConfig(form="flash"), "form: expected one of quadratic, lazy, fused, got 'flash'"),
    (lambda: PromptEncoderConfig(channels=6), "channels: expected a multiple of 4, got 6"),
    (lambda: MaskDecoderConfig(iou_layers=1), "iou_layers: expected at least 2, got 1"),
    (lambda: MaskDecoderConfig(activation="elu"), "activation: expected one of"),
    (lambda: SAMConfig(ImageEncoderConfig(output=20)), "output: expected a multiple of 8, got 20"),
    (
        lambda: SAMConfig(decoder=MaskDecoderConfig(heads=3)),
        "heads: expected a divisor of output / downsample 128, got 3",
    ),
]


@pytest.mark.parametrize("make, message", UNFIT)
def test_sizes_that_do_not_fit(make, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make()


def test_only_the_best_mask_has_a_gradient():
    rng = np.random.default_rng(0)
    logits, scores = rng.standard_normal((5, 4, 6, 6)), rng.standard_normal((5, 4))
    mask, ambiguous = (rng.random((5, 6, 6)) < 0.5) * 1.0, np.array([True, True, True, False, False])
    loss = lambda z, s: mg.sum(losses.prompt_loss(z, s, mask, ambiguous))  # noqa: E731
    of_logits, of_scores = mg.grad(loss, (0, 1))(logits, scores)
    trained = np.abs(of_logits).max(axis=(-2, -1)) > 0
    best = 1 + losses.mask_loss(logits, mask[:, None])[:, 1:].argmin(axis=-1)
    np.testing.assert_array_equal(trained, np.arange(4) == np.where(ambiguous, best, 0)[:, None])
    np.testing.assert_array_equal(of_scores != 0, np.where(ambiguous[:, None], np.arange(4) > 0, np.arange(4) == 0))


def test_two_empty_masks_are_alike():
    empty = np.zeros((3, 3))
    assert losses.iou(empty, empty) == 1 and losses.iou(empty, empty + 1) == 0


def test_clicks_are_where_a_prediction_is_wrong():
    scenes = overlapping_shapes.draw(np.random.default_rng(0), 6)
    rng = np.random.default_rng(1)
    mask = targets(rng, scenes, 4)
    prediction = np.roll(mask, 3, axis=-1)
    for place in (clicks.drawn(rng, clicks.wrong(mask, prediction)), clicks.centre(clicks.wrong(mask, prediction))):
        label = clicks.label_at(mask, place)
        for i, j in np.ndindex(label.shape):
            x, y = place[i, j].astype(int)
            assert mask[i, j, y, x] == label[i, j] and prediction[i, j, y, x] != mask[i, j, y, x]
    np.testing.assert_array_equal(clicks.wrong(mask, prediction), mask ^ prediction)
    right = clicks.drawn(rng, clicks.wrong(mask, mask))
    assert (clicks.label_at(mask, right) == 1).all()


def test_a_centre_is_far_from_all_edges():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 4:] = True
    assert clicks.centre(mask).tolist() == [6.0, 4.0]
    assert clicks.centre(np.ones((5, 5), bool)).tolist() == [2.0, 2.0]


def test_points_are_drawn_uniformly():
    region = np.zeros((4000, 3, 3), bool)
    region[:, [0, 1, 2], [2, 0, 1]] = True
    places, counts = np.unique(clicks.drawn(np.random.default_rng(0), region), axis=0, return_counts=True)
    assert places.tolist() == [[0.0, 1.0], [1.0, 2.0], [2.0, 0.0]]
    assert (abs(counts / 4000 - 1 / 3) < 0.04).all()


def test_noise_of_boxes():
    mask = np.zeros((20000, 64, 64), bool)
    mask[:, 20:40, 10:50] = True
    moved = clicks.noisy_box(np.random.default_rng(0), mask) - boxes_of(mask)
    np.testing.assert_allclose(moved.std(axis=0), [4, 2, 4, 2], rtol=0.03)
    corner = np.zeros((1000, 64, 64), bool)
    corner[:, :30, :30] = True
    boxes = clicks.noisy_box(np.random.default_rng(0), corner)
    assert boxes.min() == 0 and boxes.max() <= 63 and (boxes[:, :2] <= boxes[:, 2:]).all()


def test_scenes():
    scenes = overlapping_shapes.draw(np.random.default_rng(3), 200)
    whole, part = scenes.masks[:, :3], scenes.masks[:, 3:]
    assert scenes.pixels.shape == (200, 3, 32, 32) and scenes.pixels.dtype == np.float32
    assert abs(scenes.pixels.mean()) < 0.1 and 0.8 < scenes.pixels.std() < 1.2
    assert (whole.sum(axis=1) <= 1).all(), "two shapes at one pixel"
    assert (part <= whole).all(), "a part beside its shape"
    assert (scenes.masks[scenes.seen].sum(axis=(-2, -1)) >= 40).all() and scenes.seen.any(axis=1).all()
    both = scenes.seen[:, :3] & scenes.seen[:, 3:]
    assert both.mean() > 0.15 and (part.sum(axis=(-2, -1)) < whole.sum(axis=(-2, -1)))[both].all()
    assert abs(part[:, -1].any(axis=(-2, -1)).mean() - overlapping_shapes.WITH_PART) < 0.1
    again = overlapping_shapes.draw(np.random.default_rng(3), 200)
    np.testing.assert_array_equal(scenes.pixels, again.pixels)


def test_targets_are_what_is_seen():
    scenes = overlapping_shapes.draw(np.random.default_rng(0), 40)
    mask = targets(np.random.default_rng(1), scenes, 5)
    for each, masks, seen in zip(mask, scenes.masks, scenes.seen, strict=True):
        assert all(any((m == other).all() for other in masks[seen]) for m in each)


def test_a_rollout_asks_as_people_do():
    """The first prompt is a point or a box; then each round adds one point, and is not ambiguous."""
    mask = targets(np.random.default_rng(0), overlapping_shapes.draw(np.random.default_rng(0), 3, SIDE), 4)
    rows = Rows.of_points(mask, clicks.drawn(np.random.default_rng(0), mask))
    assert rows.labels[0, 0].tolist() == [1, -1] and rows.ambiguous.all()
    boxes = Rows.of_boxes(mask, boxes_of(mask).astype(float))
    assert boxes.labels[0, 0].tolist() == [2, 3] and not boxes.ambiguous.any()
    which = np.arange(12).reshape(3, 4) % 2 == 0
    chosen = rows.choose(boxes, which)
    np.testing.assert_array_equal(chosen.ambiguous, which)
    rows.click(clicks.drawn(np.random.default_rng(1), ~mask))
    assert rows.labels[0, 0].tolist() == [1, -1, 0] and not rows.ambiguous.any()


def test_the_chosen_mask_is_that_of_the_highest_score(model):
    mask = np.zeros((2, 3, SIDE, SIDE), bool)
    mask[..., 4:9, 4:9] = True
    rows = Rows.of_points(mask, clicks.drawn(np.random.default_rng(0), mask))
    logits, scores = rows.decode(model, model.encode(PIXELS))
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(rows.logits[i, j], logits[i, j, 1 + scores[i, j, 1:].argmax()])


def test_training():
    """The loss of given prompts falls, G stays, and what is measured lies between 0 and 1."""
    config = SAMConfig(
        ImageEncoderConfig(image=16, patch=4, width=16, layers=1, heads=2, hidden=16, window=0, output=16),
        PromptEncoderConfig(channels=4),
        MaskDecoderConfig(layers=1, heads=2, hidden=16, iou_hidden=8),
    )
    scenes = overlapping_shapes.draw(np.random.default_rng(9), 16, 16)
    mask = scenes.masks[:, 2:3]
    measured = []
    training = Training(Options(steps=40, batch=8, prompts=2, rounds=2, rate=1e-2, warmup=5), config)
    model = training.model
    for step, loss in training.run():
        assert np.isfinite(loss)
        if step in (1, 40):
            measured.append(float(rollout_loss(model, scenes.pixels, mask, np.random.default_rng(0), 2)))
    assert measured[1] < 0.9 * measured[0], measured
    fresh = SAM(config, np.random.default_rng([0, 1]))
    np.testing.assert_array_equal(model.prompt_encoder.frequencies, fresh.prompt_encoder.frequencies)
    results = evaluate(model, scenes, rounds=2)
    assert list(results) == ["best of 3", "1", "2", "box"] and all(0 <= share <= 1 for share in results.values())
    assert results["best of 3"] >= results["1"]

"""CLIP: what its encoders see, zero-shot classification and retrieval, scenes, and one line for what does not fit."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.optim import AdamW
from minigrad.pytree import map_arrays
from models.errors import UserError
from models.tasks import scenes
from models.tasks.scenes import SCENES, Scenes
from models.vision import clip_scenes, contrastive
from models.vision.clip import Clip, ClipConfig, recall
from models.vision.encoder import EncoderConfig

END = 2
IMAGE = EncoderConfig(8, 1, 2, activation="quick_gelu", eps=1e-5)
TEXT = EncoderConfig(12, 2, 3, activation="quick_gelu", eps=1e-5, causal=True)
SIZES = {"image_size": 8, "patch_size": 4, "vocab": 9, "context": 6, "end": END, "features": 5}
RNG = np.random.default_rng(0)
PIXELS = RNG.standard_normal((3, 3, 8, 8))
TOKENS = np.array([[1, 5, 7, END, 0, 0], [1, 4, END, 0, 0, 0], [1, 3, 3, 8, 6, END]])


@pytest.fixture
def model():
    """Return a small model in float64, whose weights are far from 0."""
    small = map_arrays(lambda a: a.astype(np.float64), Clip(ClipConfig(IMAGE, TEXT, **SIZES), np.random.default_rng(1)))
    for array in small.named_parameters().values():
        array += 0.2 * RNG.standard_normal(array.shape)
    return small


def test_logits_are_scaled_cosines(model):
    I, T = model.encode_image(PIXELS), model.encode_text(TOKENS)
    lengths = np.linalg.norm(I, axis=1)[:, None] * np.linalg.norm(T, axis=1)
    np.testing.assert_allclose(model(PIXELS, TOKENS), np.exp(model.log_scale) * (I @ T.T) / lengths, rtol=1e-12)


def test_padding_does_not_change_a_text(model):
    """Whatever it is of, and how much of it there is."""
    expected = model.encode_text(TOKENS[1:2, :3])
    for padding in ([], [END], [0, 0, 0], [7, END, 5]):
        np.testing.assert_allclose(model.encode_text(np.array([[1, 4, END, *padding]])), expected, rtol=1e-12)
    np.testing.assert_allclose(model.encode_text(TOKENS)[1:2], expected, rtol=1e-12)


def test_a_text_is_read_up_to_its_end_and_as_a_whole(model):
    expected = model.encode_text(TOKENS[2])
    for place in range(5):
        changed = TOKENS[2].copy()
        changed[place] = 7
        assert np.abs(model.encode_text(changed) - expected).max() > 1e-3


def test_the_largest_token_may_be_the_one_that_is_read():
    both = [
        Clip(ClipConfig(IMAGE, TEXT, **SIZES, pooling=pooling), np.random.default_rng(1))
        for pooling in ("end", "largest")
    ]
    assert both[0].text.ends(TOKENS).tolist() == [3, 2, 5]
    assert both[1].text.ends(TOKENS).tolist() == [2, 1, 3]
    ended = np.array([[1, 5, 8, END]])
    np.testing.assert_array_equal(both[1].encode_text(ended), both[1].encode_text(ended[:, :3]))


def test_every_patch_counts_and_so_does_its_place(model):
    expected = model.encode_image(PIXELS[0])
    for row, column in np.ndindex(2, 2):
        changed = PIXELS[0].copy()
        changed[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1
        assert np.abs(model.encode_image(changed) - expected).max() > 1e-3
    assert np.abs(model.encode_image(PIXELS[0][:, ::-1]) - expected).max() > 1e-3


def test_pictures_of_another_size_are_interpolated_where_that_is_asked_for(model):
    assert model.encode_image(np.ones((2, 3, 12, 8)), interpolate=True).shape == (2, 5)
    line = "^pixels: expected pictures of 8 × 8, as in training, or interpolate=True, got 12 × 8$"
    with pytest.raises(ValueError, match=line):
        model.encode_image(np.ones((2, 3, 12, 8)))


def test_a_step_of_training_lowers_the_loss_and_limits_the_scale(model):
    optimizer, losses = AdamW(1e-2), []
    model.log_scale[...] = np.log(99.9)
    for _ in range(20):
        loss, gradients = mg.value_and_grad(lambda m: m.loss(PIXELS, TOKENS))(model)
        assert gradients.log_scale.shape == ()
        losses.append(float(loss))
        optimizer.step(model, gradients)
        model.log_scale += 0.1
        model.clamp()
        assert np.exp(model.log_scale) <= 100 + 1e-9
    assert losses[-1] < losses[0] / 2


def test_classes_of_several_prompts(model):
    prompts = np.stack([TOKENS, TOKENS[::-1]], axis=1)  # (3, 2, 6)
    weights = model.classifier(prompts)
    T = model.encode_text(prompts)
    T /= np.linalg.norm(T, axis=-1, keepdims=True)
    mean = T.mean(axis=1)
    np.testing.assert_allclose(weights, mean / np.linalg.norm(mean, axis=-1, keepdims=True), rtol=1e-12)
    p = model.classify(PIXELS, weights)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    single = model.classifier(prompts[:, :1])
    np.testing.assert_allclose(np.log(model.classify(PIXELS, single)), mg.log_softmax(model(PIXELS, TOKENS)), rtol=1e-9)


def test_recall_counts_pairs_among_the_most_similar():
    logits = np.array([[3.0, 2, 1], [5, 4, 0], [2, 1, 0]])
    assert recall(logits) == pytest.approx((1 / 3, 1 / 3))
    assert recall(logits, 2) == pytest.approx((2 / 3, 2 / 3))
    assert recall(logits, 3) == (1.0, 1.0)
    assert recall(np.zeros((2, 2))) == (0.0, 0.0)  # ties are misses
    one_sided = np.array([[0.0, -1], [1, 0]])
    assert recall(one_sided) == (0.5, 0.5) and recall(np.array([[1.0, 0], [2, 3]])) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda m: m.encode_text(np.zeros((0, 3), int)), r"tokens: expected at least one text .* got shape \(0, 3\)"),
        (lambda m: m.encode_text(np.zeros((1, 0), int)), r"tokens: expected at least one text .* got shape \(1, 0\)"),
        (lambda m: m.encode_text(np.full((1, 7), END)), "tokens: expected at most 6 tokens, the context, got 7"),
        (lambda m: m.encode_text(np.array([[1, 3]])), "tokens: expected the end token 2 in each text, got one without"),
        (lambda m: m.classifier(TOKENS), r"prompts: expected tokens \(classes, prompts, T\), .* got shape \(3, 6\)"),
        (lambda m: m.encode_image(np.ones((1, 8, 8))), r"PatchEmbedding: pixels has shape \(1, 8, 8\)"),
        (lambda m: m.encode_image(np.ones(8)), "pixels: expected pictures of 8 × 8, as in training, .* got 0 × 0"),
        (lambda m: m.loss(PIXELS[:2], TOKENS), r"directions: logits have shape \(2, 3\), expected \(n, n\), n ≥ 1"),
        (lambda m: contrastive.similarities(np.ones(3), np.ones((2, 3)), 0.0), r"I_f and T_f have shapes \(3,\) and"),
        (lambda m: contrastive.ensemble(np.ones((2, 0, 3))), r"ensemble: T_f has shape \(2, 0, 3\), expected"),
        (lambda m: recall(np.ones((2, 3))), r"logits: expected shape \(n, n\), n ≥ 1, got \(2, 3\)"),
        (lambda m: recall(np.eye(2), 3), "k: expected 1 … 2, got 3"),
    ],
)
def test_one_line_for_what_does_not_fit(model, call, line):
    with pytest.raises(ValueError, match=line):
        call(model)


def test_a_token_outside_the_vocabulary(model):
    with pytest.raises(IndexError, match="^Embedding: tokens.* is 9, expected a token from 0 to 8"):
        model.encode_text(np.array([[9, END]]))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"patch_size": 3}, "patch_size: expected a divisor of image_size 8, got 3"),
        ({"end": 9}, "end: expected a token below vocab 9, got 9"),
        ({"features": 0}, "features: expected at least 1, got 0"),
        ({"pooling": "first"}, "pooling: expected one of end, largest, got 'first'"),
        ({"text": IMAGE}, "causal: expected a causal text encoder and an image encoder that is not"),
    ],
)
def test_sizes_that_do_not_fit(changes, line):
    with pytest.raises(UserError, match=f"^{line}"):
        ClipConfig(**{"image": IMAGE, "text": TEXT} | SIZES | changes)


# Scenes


def test_training_never_shows_what_is_held_out_and_shows_each_of_its_parts():
    held_out = {scene for scene in SCENES if scene.held_out}
    assert (len(SCENES), len(held_out)) == (300, 60)
    data = Scenes(3000)
    assert not held_out & set(data.scenes)
    for a, b in np.ndindex(4, 4):  # every pair of values of two attributes occurs in training
        assert {(s[a], s[b]) for s in SCENES} == {(s[a], s[b]) for s in data.scenes}
    pixels, numbers = scenes.held_out_pictures(np.random.default_rng(0), 2, seen=False)
    assert len(pixels) == 120 and {SCENES[i] for i in numbers} == held_out
    assert not held_out & {SCENES[i] for i in scenes.held_out_pictures(np.random.default_rng(0), 1, seen=True)[1]}


def test_captions_name_what_a_picture_shows():
    data = Scenes(200, 3)
    for scene, tokens in zip(data.scenes, data.captions, strict=True):
        words = " ".join(scenes.VOCABULARY[token] for token in tokens).split()
        assert {scene.shape, scene.colour, scene.size, *scene.position.split()} <= set(words)
        assert words[0] == scenes.START and words[-1] == scenes.END
    shuffled = Scenes(200, 3, shuffled=True)
    np.testing.assert_array_equal(shuffled.pictures, data.pictures)
    assert sorted(map(tuple, shuffled.captions)) == sorted(map(tuple, data.captions))
    assert (shuffled.captions != data.captions).any(axis=1).mean() > 0.9


def coloured(scene):
    """Return where the mean of some pictures of a scene has nearly its colour, as rows and columns."""
    picture = np.mean([scenes.draw(scene, np.random.default_rng(i)) for i in range(8)], axis=0)
    distance = np.linalg.norm(picture - np.array(scenes.COLOURS[scene.colour])[:, None, None], axis=0)
    return np.nonzero(distance < 60)


@pytest.mark.parametrize("scene", SCENES[::7], ids=str)
def test_a_picture_shows_its_scene(scene):
    """Find the pixels of a scene's colour: their centre is its position, and their number its size."""
    places = coloured(scene)
    centre = np.mean(places, axis=1) + 0.5
    assert np.linalg.norm(centre - scenes.POSITIONS[scene.position]) < 2
    if scene.position != "centre":
        assert [centre[0] < 16, centre[1] < 16] == ["top" in scene.position, "left" in scene.position]
    other = coloured(scene._replace(size="small" if scene.size == "large" else "large"))
    assert (len(places[0]) > len(other[0])) == (scene.size == "large")


@pytest.mark.parametrize(
    ("captions", "line"),
    [
        ([], r"captions: expected a list of at least one, got \[\]"),
        ("a red circle", "captions: expected a list of at least one, got 'a red circle'"),
        (["a red circle", "  "], "caption '  ': expected 1 to 14 words, got 0"),
        (["a red hexagon"], "caption 'a red hexagon': expected words of ,, a, and, .* got 'hexagon'"),
        (["a " * 15], "caption .*: expected 1 to 14 words, got 15"),
    ],
)
def test_captions_that_cannot_be_read(captions, line):
    with pytest.raises(UserError, match=f"^{line}"):
        scenes.encode(captions)


# Training on them


@pytest.fixture(scope="module")
def trained():
    """Return a short training, after which colours are known and shapes are not."""
    settings = clip_scenes.Settings(pairs=600, steps=150, batch=64, width=16, layers=(1, 1), evaluate_every=75)
    training = clip_scenes.Training(settings)
    return training, list(training.run())


def test_a_short_training_learns_something(trained):
    training, records = trained
    assert [r["step"] for r in records] == list(range(1, 151))
    assert [r["step"] for r in records if "held_out_accuracy" in r] == [75, 150]
    first, last = (np.mean([r["loss"] for r in part]) for part in (records[:5], records[-5:]))
    assert last < first - 1.5 and abs(first - np.log(64)) < 1
    assert training.result()["attributes"]["colour"] > 0.5  # chance is 1 in 6


def test_what_is_measured(trained):
    training, records = trained
    result = training.result()
    assert result["zero_shot"] == records[-1]["held_out_accuracy"]
    assert result["zero_shot"]["unseen"] <= min(result["attributes"].values())  # which are all right where it is
    assert len(result["phrasings"]) == len(scenes.PHRASINGS)
    assert all(0 <= share <= 1 for share in [*result["attributes"].values(), *sum(result["retrieval"].values(), [])])
    assert all(at_1 <= at_5 for at_1, at_5 in result["retrieval"].values())
    matrix = np.array(result["similarities"])
    assert matrix.shape == (clip_scenes.SHOWN,) * 2 and np.abs(matrix).max() <= 1
    pictures, captions = clip_scenes.shown(0)
    logits = training.model(scenes.pixels(pictures), scenes.encode(captions))
    np.testing.assert_allclose(matrix, logits / result["scale"], atol=6e-4)


def test_two_trainings_of_one_seed_are_the_same(trained):
    again = clip_scenes.Training(trained[0].settings)
    assert [r["loss"] for r, _ in zip(again.run(), range(5), strict=False)] == [r["loss"] for r in trained[1][:5]]


def test_training_limits_the_scale(trained):
    again = clip_scenes.Training(trained[0].settings)
    again.model.log_scale[...] = np.log(200)
    next(again.run())
    assert np.exp(again.model.log_scale) < 100 + 1e-3

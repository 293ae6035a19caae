"""ViT and CNN on digits: the same pictures for both, as many parameters, what few steps teach, and stopping."""

import numpy as np
import pytest

from models.study import plans
from models.study.vision_transformer import _on_ink as on_ink
from models.study.vision_transformer import _sentence as sentence
from models.vision.digit_classifiers import CNN, Sizes, attention_maps, count, make, measured, pictures, train

SMALL = Sizes(width=16, layers=1, heads=2, channels=(4, 8), steps=150, batch=32)


def test_pictures_are_the_digits():
    pixels, labels = pictures("train")
    assert pixels.shape == (1437, 1, 8, 8) and pixels.dtype == np.float32 and labels.shape == (1437,)
    assert pixels.min() == -1 and pixels.max() == 1
    large, _ = pictures("train", 32)
    assert large.shape == (1437, 1, 32, 32)
    np.testing.assert_allclose(large.mean(axis=(1, 2, 3)), pixels.mean(axis=(1, 2, 3)), atol=0.05)  # no shift, no scale


def test_shares_are_counted():
    assert [count(share) for share in (1 / 16, 1 / 4, 1)] == [90, 359, 1437]


def test_networks_of_the_study_have_as_many_parameters():
    of = plans.DEFAULT["shares of digits"]
    sizes, rng = Sizes(**of["sizes"], **of["training"]), np.random.default_rng(0)
    vit, cnn = (
        sum(array.size for array in make(network, sizes, rng).named_parameters().values()) for network in ("vit", "cnn")
    )
    assert abs(vit - cnn) < 0.01 * vit


@pytest.mark.parametrize("side", [1, 7, 8, 32])
def test_a_cnn_of_any_side(side):
    model = CNN(side, (2, 3, 4), np.random.default_rng(0))
    assert model(np.ones((5, 1, side, side), np.float32)).shape == (5, 10)


@pytest.mark.parametrize("network, least", [("vit", 0.3), ("cnn", 0.5)])
def test_training_learns_and_repeats(network, least):
    models = [train(network, 1.0, SMALL, seed=0) for _ in range(2)]
    results = [measured(model, network, 1.0, SMALL) for model in models]
    assert results[0] == results[1]
    assert results[0].images == 1437
    assert results[0].accuracy > least  # chance is 0.1


def test_a_share_is_all_that_is_seen(monkeypatch):
    seen = set()
    of_part = pictures("train")
    monkeypatch.setattr(
        "models.vision.digit_classifiers.mg.cross_entropy", lambda logits, y: seen.update(y.tolist()) or logits.sum()
    )
    monkeypatch.setattr(
        "models.vision.digit_classifiers.pictures", lambda part, side=8: (of_part[0], np.arange(len(of_part[0])))
    )
    train("cnn", 1 / 16, SMALL, seed=0)
    assert 60 < len(seen) <= 90


def test_a_stopped_training_has_no_result():
    assert train("cnn", 1.0, SMALL, seed=0, stopped=lambda: True) is None


def test_maps_of_each_digit():
    maps = attention_maps(make("vit", SMALL, np.random.default_rng(0)), SMALL)
    assert [shown["digit"] for shown in maps] == list(range(10))
    assert np.shape(maps[3]["pixels"]) == (8, 8) and np.shape(maps[3]["map"]) == (4, 4)
    np.testing.assert_allclose(np.sum(maps[3]["map"]), 1, atol=1e-3)


def test_the_share_of_rollout_on_ink():
    pixels = -np.ones((4, 4))
    pixels[:2, 2:] = 1  # a patch of ink, of four
    pixels[2, :2] = -0.9
    maps = [{"pixels": pixels.tolist(), "map": [[0.1, 0.6], [0.2, 0.1]]}]
    np.testing.assert_allclose(on_ink(maps), (0.6, 0.25))
    np.testing.assert_allclose(on_ink([*maps, {**maps[0], "map": [[0.3, 0.4], [0.2, 0.1]]}]), (0.5, 0.25))


@pytest.mark.parametrize(
    "means, words",
    [
        ((0.7, 0.9, 0.97, 0.98), "The CNN's lead shrinks with the data, as in the paper; these are too few"),
        ((0.7, 0.9, 0.98, 0.97), "With all of them ViT is ahead, as the paper finds of much data."),
        ((0.9, 0.91, 0.95, 0.98), "The CNN's lead does not shrink with the data, unlike in the paper."),
        ((0.9, 0.91, 0.97, 0.97), "With 1,437 digits ranges over seeds overlap, so that no order is shown."),
    ],
)
def test_the_sentence_says_what_was_measured(means, words):
    keys = [("ViT", 90), ("CNN", 90), ("ViT", 1437), ("CNN", 1437)]
    rows = [{"network": name, "images": n, "accuracies": [mean]} for (name, n), mean in zip(keys, means, strict=True)]
    text = sentence(rows)
    assert words in text
    assert f"with 90 digits ViT has {means[0]:.1%} and the CNN {means[1]:.1%} and with 1,437 digits" in text

"""Test-time training on turned digits: the turn's loss falls, labels are not looked at, shifts are what they say."""

import numpy as np
import pytest

from models.vision import rotation_ttt
from models.vision.rotation_ttt import SHIFTS, accuracy_online, accuracy_reset, adapted, dataset, rotations, turn_loss


@pytest.fixture(scope="module")
def weights():
    return rotation_ttt.train(np.random.default_rng(0), steps=300)


@pytest.fixture(scope="module")
def images():
    return dataset("held_out")


def test_four_turns_come_back_to_the_first(images):
    image = images[0][0]
    turns = rotations(image)
    np.testing.assert_array_equal(turns[0], image)
    np.testing.assert_array_equal(rotations(turns[1])[3], image)
    np.testing.assert_array_equal(rotations(turns[2])[2], image)


def test_it_learns_both_tasks(weights, images):
    x, labels = images
    assert accuracy_reset(weights, x, labels, 0, 0.01) > 0.93
    assert float(turn_loss(weights.W, weights.b, x)) / x.shape[0] / 4 < 0.3 < np.log(4)


def test_the_loss_of_an_image_falls_with_the_steps_on_it(weights, images):
    x = SHIFTS["blur"](images[0][:50], np.random.default_rng(0))
    losses = []
    for steps in (0, 1, 4, 16):
        W, b = adapted(weights, x, steps, 0.003)
        losses.append(float(turn_loss(W, b, x)))
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] / 2


def test_images_that_learn_beside_each_other_learn_alone(weights, images):
    x = images[0][:3]
    together, _ = adapted(weights, x, 2, 0.01)
    single, _ = adapted(weights, x[1:2], 2, 0.01)
    np.testing.assert_allclose(together["1"][1], single["1"][0], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(together["d"][1], weights.W["d"])  # the heads stay as they are


def test_without_steps_online_is_reset(weights, images):
    x, labels = images
    assert accuracy_online(weights, x, labels, 0, 0.01) == accuracy_reset(weights, x, labels, 0, 0.01)


def test_low_contrast_is_learnt_online(weights, images):
    x, labels = images
    low = SHIFTS["contrast"](x, np.random.default_rng(0))
    before, after = (accuracy_online(weights, low, labels, steps, 0.01) for steps in (0, 4))
    assert after > before + 0.2


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_leaves_the_original_alone(name, images):
    x = images[0][:5].copy()
    shifted = SHIFTS[name](x, np.random.default_rng(0))
    np.testing.assert_array_equal(x, images[0][:5])
    assert shifted.shape == x.shape and shifted.dtype == x.dtype
    assert (name == "none") == np.array_equal(shifted, x)

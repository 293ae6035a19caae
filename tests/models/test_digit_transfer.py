"""Transfer among digits: what each network is trained on, where fine-tuning starts, what is measured, and stopping."""

from dataclasses import replace

import numpy as np
import pytest

from models.vision import digit_transfer
from models.vision.digit_classifiers import Sizes, make, pictures

SMALL = Sizes(patch=4, width=16, layers=1, heads=2, steps=150, batch=32)


def test_pretraining_sees_the_first_digits_and_fine_tuning_as_many_of_the_others_as_it_is_given(monkeypatch):
    """Both fine-tunings have the same examples, a head of zeros, and start from the trained and the first weights."""
    seen = []

    def recorded(model, pixels, labels, chosen, sizes, rng, stopped):
        model.tokens.class_token += 1
        seen.append((sorted(labels[chosen].tolist()), chosen.tolist(), model, sizes.steps, rng.random()))
        return model

    monkeypatch.setattr(digit_transfer, "fitted", recorded)
    rows = list(digit_transfer.transfer(SMALL, [1, 3], 7, seed=0))
    assert [row.shots for row in rows] == [1, 3]
    labels = pictures("train")[1]
    assert seen[0][0] == sorted(labels[labels < 5].tolist()) and seen[0][3] == 150
    start = make("vit", SMALL, np.random.default_rng(0)).tokens.class_token
    for n, (first, second) in zip((1, 3), (seen[1:3], seen[3:5]), strict=True):
        assert first[0] == np.repeat(np.arange(5, 10), n).tolist()
        assert (first[1], first[3], first[4]) == (second[1], second[3], second[4]) and first[3] == 7
        for (_, _, model, *_), steps in ((first, 2), (second, 1)):
            assert not model.head.weight.any() and not model.head.bias.any()
            np.testing.assert_allclose(model.tokens.class_token, start + steps, rtol=1e-6)


def test_accuracy_is_that_on_held_out_new_digits():
    model = make("vit", SMALL, np.random.default_rng(0))
    constant = digit_transfer.with_new_head(model)
    assert model.head.weight.any()
    constant.head.bias[7] = 1
    labels = pictures("held_out")[1]
    assert digit_transfer.accuracy(constant, SMALL) == pytest.approx((labels == 7).sum() / (labels >= 5).sum())


def test_training_learns_and_repeats():
    rows = [list(digit_transfer.transfer(SMALL, [20], 100, seed=0)) for _ in range(2)]
    assert rows[0] == rows[1] and rows[0][0].scratch > 0.4  # chance is 0.2


def test_a_stopped_transfer_yields_nothing():
    assert list(digit_transfer.transfer(replace(SMALL, steps=2), [1], 2, 0, stopped=lambda: True)) == []

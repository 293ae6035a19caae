"""The tasks of the state-space papers, by hand-made examples: what they ask, who scores 1, and who does not."""

import sys

import numpy as np
import pytest

from models.errors import UserError
from models.progress import in_words
from models.tasks import induction, load_digits
from models.tasks.induction import SPECIAL, Induction
from models.tasks.recall import IGNORE, accuracy
from models.tasks.selective_copying import BLANK, QUESTION, SelectiveCopying


def certain(answers: np.ndarray, vocabulary: int = 16) -> np.ndarray:
    """Return logits that put all weight on the answers; other positions are arbitrary."""
    return np.eye(vocabulary)[np.where(answers == IGNORE, 3, answers)]


def test_selective_copying_asks_for_the_data_in_order():
    tokens, targets = SelectiveCopying(20, 5).batch(np.random.default_rng(0), 300)
    assert tokens.shape == targets.shape == (300, 25)
    assert (tokens[:, 20:] == QUESTION).all() and (targets[:, :20] == IGNORE).all()
    for row, asked in zip(tokens, targets, strict=True):
        assert [token for token in row[:20] if token != BLANK] == list(asked[20:])
    assert set(tokens[:, :20].ravel()) == set(range(15))  # blanks and all 14 data
    assert ((tokens[:, :20] != BLANK).sum(axis=0) > 0).all()  # data stand at every place


def test_selective_copying_has_the_published_size():
    task = SelectiveCopying()
    tokens, targets = task.eval_batches(np.random.default_rng(0))["copying"]
    assert tokens.shape == (256, 272) and (targets != IGNORE).sum() == 4096
    assert task.vocabulary == 16 and tokens.max() == 15


@pytest.mark.parametrize("task", [SelectiveCopying(64), Induction(32)], ids=["selective copying", "induction"])
def test_who_knows_the_answers_scores_one_and_who_does_not_scores_chance(task):
    for tokens, targets in task.eval_batches(np.random.default_rng(0)).values():
        assert accuracy(certain(targets), targets) == 1
        wrong = np.where(targets == IGNORE, IGNORE, targets % 14 + 1)
        assert accuracy(certain(wrong), targets) < 0.1
        assert accuracy(np.random.default_rng(1).normal(size=(*tokens.shape, 16)), targets) < 0.15


def test_induction_asks_for_what_followed_the_special_token():
    tokens, targets = Induction(12).batch(np.random.default_rng(0), 500)
    assert tokens.shape == targets.shape == (500, 12)
    assert (targets[:, :-1] == IGNORE).all()
    for row, answer in zip(tokens, targets[:, -1], strict=True):
        first, last = np.flatnonzero(row == SPECIAL)
        assert last == 11 and row[first + 1] == answer
    assert set(np.argmax(tokens == SPECIAL, axis=1)) == set(range(10))
    assert set(tokens.ravel()) == set(range(16)) and set(targets[:, -1]) == set(range(15))


def test_a_long_sequence_comes_in_pieces_that_are_one_sequence():
    pieces, answers = induction.pieces_of(np.random.default_rng(0), 40, 103, piece=10)
    sizes, tokens = [], []
    for piece in pieces:
        sizes.append(piece.shape[1])
        tokens.append(piece)
    assert sizes == [10] * 10 + [3]
    for row, answer in zip(np.concatenate(tokens, axis=1), answers, strict=True):
        first, last = np.flatnonzero(row == SPECIAL)
        assert last == 102 and row[first + 1] == answer


class Remembers:
    """The procedure itself: a state of one token, and how much of it to get wrong."""

    def __init__(self, mistakes: int = 0) -> None:
        self.mistakes, self.seen = mistakes, []

    def __call__(self, tokens, state):
        self.seen.append(tokens.shape)
        held, after_special = (np.zeros(len(tokens), int), np.zeros(len(tokens), bool)) if state is None else state
        for token in tokens.T:
            held = np.where(after_special, token, held)
            after_special = token == SPECIAL
        logits = certain((held + (np.arange(len(tokens)) < self.mistakes)) % 15)
        return np.repeat(logits[:, None], tokens.shape[1], axis=1), (held, after_special)


@pytest.mark.parametrize("length", [3, 64, 65, 300])
def test_recall_over_pieces_is_right_when_the_model_is(length):
    model = Remembers()
    assert induction.recalled(model, np.random.default_rng(1), batch=8, length=length, piece=32) == 1
    assert max(shape[1] for shape in model.seen) <= 32 and sum(shape[1] for shape in model.seen) == length
    assert induction.recalled(Remembers(2), np.random.default_rng(1), batch=8, length=length, piece=32) == 0.75


def test_digits_are_asked_for_at_the_last_pixel():
    task = load_digits()
    tokens, targets = task.eval_batches(np.random.default_rng(0))["digits"]
    assert tokens.shape == targets.shape == (360, 64) and len(task.train[0]) == 1797 - 360
    assert (targets[:, :-1] == IGNORE).all() and set(targets[:, -1]) == set(range(17, 27))
    assert accuracy(certain(targets, task.vocabulary), targets) == 1
    assert tokens.min() == 0 and tokens.max() == 16 and task.vocabulary == 27


def test_a_digit_looks_like_itself():
    """A zero is dark in its middle and bright around it, a one the other way round."""
    task = load_digits()
    tokens, targets = task.batch(np.random.default_rng(0), 1000)
    middle = tokens.reshape(-1, 8, 8)[:, 3:5, 3:5].mean(axis=(1, 2))
    assert middle[targets[:, -1] == 17].mean() < 2 < 10 < middle[targets[:, -1] == 18].mean()


def test_no_digit_is_on_both_sides_and_the_split_is_always_the_same():
    one, two = load_digits(), load_digits()
    np.testing.assert_array_equal(one.held_out[0], two.held_out[0])
    assert one.digest == two.digest
    sides = [{tuple(image) for image in images} for images, _ in (one.train, one.held_out)]
    assert not sides[0] & sides[1]
    sample = one.batch(np.random.default_rng(3), 500)[0]
    assert {tuple(image) for image in sample} <= sides[0]


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError) as excinfo:
        load_digits()
    assert str(excinfo.value) == (
        "task digits: expected scikit-learn, which the extra 'study' installs: pip install -e '.[study]'"
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SelectiveCopying(15), "length: expected at least 16, one place for each datum, got 15"),
        (lambda: SelectiveCopying(15, 0), "data: expected at least 1, got 0"),
        (lambda: Induction(2), "length: expected at least 3, got 2"),
    ],
)
def test_sizes_that_ask_for_nothing(make, message):
    with pytest.raises(UserError) as excinfo:
        make()
    assert str(excinfo.value) == message


def test_progress_says_how_many_answers_were_right():
    record = {"step": 3, "held_out_loss": {"64": 1.0, "256": 2.0}, "held_out_accuracy": {"64": 0.5, "256": 0.25}}
    assert in_words(record) == "64: 50% 256: 25%"
    assert in_words({"step": 3, "held_out_accuracy": {"1024": 1.0}}) == "1024: 100%"
    assert in_words({"step": 3, "held_out_loss": {"text": 1.5}, "held_out_accuracy": {"text": 0.5}}) == (
        "held-out loss 1.500"
    )
    assert in_words({"step": 3, "loss": 1.0}) == ""

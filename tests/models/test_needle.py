"""Needles in a haystack: what is asked, that a long sequence in pieces is one sequence, and who is right."""

import numpy as np
import pytest

from models.errors import UserError
from models.tasks import needle
from models.tasks.needle import KEYS, NEEDLES, TOKENS, Needle
from models.tasks.recall import IGNORE, accuracy


def certain(tokens: np.ndarray) -> np.ndarray:
    """Return logits that put all weight on the answers; other positions are arbitrary."""
    return np.eye(TOKENS)[np.where(tokens == IGNORE, 0, tokens)]


@pytest.mark.parametrize("length", [24, 32, 200])
def test_the_value_beside_each_key_is_asked_for_at_the_end(length):
    tokens, targets = needle.sequences(np.random.default_rng(0), 200, length)
    assert tokens.shape == targets.shape == (200, length)
    assert (targets[:, :-NEEDLES] == IGNORE).all()
    for row, asked in zip(tokens, targets[:, -NEEDLES:], strict=True):
        hay, questions = row[:-NEEDLES], row[-NEEDLES:]
        positions = np.flatnonzero(hay < KEYS)
        held = dict(zip(hay[positions], hay[positions + 1], strict=True))
        assert len(held) == len(positions) == NEEDLES and sorted(held) == sorted(questions)
        assert [held[key] for key in questions] == list(asked)


def test_needles_lie_at_every_depth_and_values_are_like_hay():
    tokens, targets = needle.sequences(np.random.default_rng(0), 2000, 64)
    planted = (tokens[:, : 64 - NEEDLES] < KEYS).mean(axis=0)
    assert planted[-1] == 0 and planted[:-1].min() > 0.05  # a key is followed by its value
    assert set(np.unique(tokens[tokens >= KEYS])) == set(np.unique(targets[targets != IGNORE])) == set(range(16, 32))


class Remembers:
    """The procedure itself: a value for each key, and nothing else goes from piece to piece."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, tokens, state):
        self.sizes.append(tokens.shape[1])
        values, last = (np.zeros((len(tokens), KEYS), int), np.full(len(tokens), KEYS)) if state is None else state
        answers = np.zeros_like(tokens)
        for t, token in enumerate(tokens.T):
            write = (last < KEYS) & (token >= KEYS)
            values[np.flatnonzero(write), last[write]] = token[write]
            answers[:, t] = values[np.arange(len(tokens)), token % KEYS]
            last = token
        return certain(answers), (values, last)


@pytest.mark.parametrize("length", [24, 65, 300])
def test_a_long_sequence_comes_in_pieces_that_are_one_sequence(length):
    model = Remembers()
    assert needle.recalled(model, np.random.default_rng(1), batch=8, length=length, piece=32) == 1
    assert max(model.sizes) <= 32 and sum(model.sizes) == length and model.sizes[-1] == NEEDLES


def test_who_does_not_know_scores_chance():
    tokens, targets = needle.sequences(np.random.default_rng(0), 500, 64)
    assert accuracy(np.random.default_rng(1).normal(size=(*tokens.shape, TOKENS)), targets) == pytest.approx(
        1 / 32, abs=0.01
    )
    assert accuracy(certain(targets), targets) == 1


def test_batches_come_in_three_lengths():
    task, rng = Needle(128), np.random.default_rng(0)
    assert {task.batch(rng, 2)[0].shape[1] for _ in range(30)} == {32, 64, 128}
    assert {name: tokens.shape for name, (tokens, _) in task.eval_batches(rng).items()} == {
        "32": (128, 32),
        "64": (128, 64),
        "128": (128, 128),
    }


def test_a_haystack_too_small():
    with pytest.raises(UserError) as excinfo:
        Needle(95)
    assert str(excinfo.value) == "length: expected at least 96, a fourth of which has room, got 95"

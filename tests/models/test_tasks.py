"""The tasks ask what they say: recall by hand, text split so that nothing held out is trained on."""

import numpy as np
import pytest

from models.errors import UserError
from models.tasks.recall import IGNORE, Recall, accuracy
from models.tasks.text import decode, encode, load


@pytest.mark.parametrize("overwritten", [False, True])
def test_recall_asks_for_the_last_value_of_every_key_once(overwritten):
    task = Recall((5,), overwritten, keys=7, values=9)
    tokens, targets = task.batch(np.random.default_rng(0), 50)
    assert tokens.shape == targets.shape == (50, 25 if overwritten else 15)
    for row, asked in zip(tokens, targets, strict=True):
        memory: dict[int, list[int]] = {}
        writes, queries = row[:-5], row[-5:]
        for key, value in zip(writes[::2], writes[1::2], strict=True):
            assert 0 <= key < 7 <= value < 16
            memory.setdefault(key, []).append(value)
        assert sorted(queries) == sorted(memory) and len(memory) == 5
        assert all(len(values) == 1 + overwritten and len(set(values)) == len(values) for values in memory.values())
        assert (asked[:-5] == IGNORE).all()
        assert [memory[q][-1] for q in queries] == list(asked[-5:])


def test_recall_writes_in_random_order():
    tokens, _ = Recall((2,), True).batch(np.random.default_rng(0), 400)
    patterns = {tuple((row[:8:2] == row[0]).tolist()) for row in tokens}
    assert len(patterns) == 3  # AABB, ABAB, ABBA


def test_recall_is_drawn_from_the_generator_it_is_given():
    task = Recall()
    one, two = (task.batch(np.random.default_rng(7), 4) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize("pairs", [0, 65])
def test_recall_cannot_have_more_pairs_than_keys(pairs):
    with pytest.raises(UserError, match=f"^pairs: expected 1 to 64, the number of keys, got {pairs}$"):
        Recall((4, pairs))


def test_accuracy_counts_queries_only():
    logits = np.eye(4)[[[0, 1, 2, 3]]]
    targets = np.array([[IGNORE, 1, 3, 3]])
    assert accuracy(logits, targets) == pytest.approx(2 / 3)


def test_text_is_split_by_position_into_blocks():
    text = load(length=16)
    again = load(length=16)
    np.testing.assert_array_equal(text.held_out, again.held_out)
    assert text.digest == again.digest
    share = len(text.held_out) / (len(text.held_out) + len(text.train))
    assert 0.08 < share < 0.12


def test_no_paragraph_is_on_both_sides():
    text = load(length=16)
    sides = [set(decode(side).split("\n\n")[1:-1]) for side in (text.train, text.held_out)]
    assert {p for p in sides[0] & sides[1] if len(p) > 80} == set()


def test_targets_are_the_tokens_one_later():
    text = load(length=16)
    tokens, targets = text.batch(np.random.default_rng(0), 3)
    np.testing.assert_array_equal(tokens[:, 1:], targets[:, :-1])
    assert text.eval_batches(np.random.default_rng(0))["text"][0].shape == (64, 16)


def test_a_file_of_the_readers_own(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("0123456789" * 30)
    text = load(path, length=20)
    assert (len(text.train), len(text.held_out)) == (270, 30)


def message(path, length=20) -> str:
    with pytest.raises(UserError) as excinfo:
        load(path, length=length)
    return str(excinfo.value)


def test_texts_that_cannot_be_used(tmp_path):
    path = tmp_path / "t"
    assert message(path) == f"text {path}: expected a readable file, got: No such file or directory"
    assert message(tmp_path) == f"text {tmp_path}: expected a readable file, got: Is a directory"
    path.write_bytes(b"")
    assert message(path) == f"text {path}: expected at least 10 × (length + 1) = 210 bytes, got 0"
    path.write_bytes(b"a" * 209)
    assert message(path) == f"text {path}: expected at least 10 × (length + 1) = 210 bytes, got 209"
    path.write_bytes(b"abc\xff" * 100)
    assert message(path) == f"text {path}: expected UTF-8, got byte 0xff at 3"


def test_bytes_and_text():
    assert decode(encode("naïve – ok")) == "naïve – ok"
    assert decode(np.array([0xE2, 65])) == "\ufffdA"

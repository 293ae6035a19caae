"""Class targets and token ids outside their range are named: the argument, the place, the value, what is allowed."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn

LOGITS = np.zeros((2, 3, 4))


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (np.array([[0, 1, 2], [0, 4, 3]]), IndexError, "targets[1, 1] is 4, expected a class from 0 to 3"),
        (np.array([[0, 1, -1], [0, 4, 3]]), IndexError, "targets[0, 2] is -1, expected a class from 0 to 3"),
        (
            np.array([[0, 1, 2], [0, 255, 3]], np.uint8),
            IndexError,
            "targets[1, 1] is 255, expected a class from 0 to 3",
        ),
        (np.zeros((2, 3)), TypeError, "targets are float64, expected integers"),
        (np.zeros((2, 3), bool), TypeError, "targets are bool, expected integers"),
        (np.zeros(3, int), ValueError, "targets have shape (3,), expected (2, 3)"),
        (np.zeros((2, 3, 1), int), ValueError, "targets have shape (2, 3, 1), expected (2, 3)"),
    ],
)
def test_targets_that_do_not_fit(targets, error, message):
    for logits, classes in ((LOGITS, targets), (mg.Tensor(LOGITS), targets), (LOGITS, mg.Tensor(targets))):
        with pytest.raises(error) as excinfo:
            mg.cross_entropy(logits, classes)
        assert str(excinfo.value) == f"cross_entropy: {message}"


def test_one_target():
    with pytest.raises(IndexError, match="^cross_entropy: targets is 4, expected a class from 0 to 3$"):
        mg.cross_entropy(np.zeros(4), 4)
    assert mg.cross_entropy(np.zeros(4), 3) == np.log(4)
    assert mg.cross_entropy(np.zeros((2, 4)), [3, 0]) == np.log(4)


@pytest.mark.parametrize(("tokens", "place"), [([[0, 7]], "tokens[0, 1] is 7"), ([[-1, 7]], "tokens[0, 0] is -1")])
def test_tokens_outside_the_vocabulary(tokens, place):
    layer = nn.Embedding(7, 4, rng=np.random.default_rng(0))
    with pytest.raises(IndexError) as excinfo:
        layer(np.array(tokens))
    assert str(excinfo.value) == f"Embedding: {place}, expected a token from 0 to 6"
    with pytest.raises(TypeError, match="^Embedding: tokens are float64, expected integers$"):
        layer(np.array(tokens, float))

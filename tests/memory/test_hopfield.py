"""The Hopfield network: two patterns by hand, noise that a retrieval takes away, and mistakes in one line."""

import math

import numpy as np
import pytest

from models.memory import hopfield

PATTERNS = np.array([[1.0, 0.0], [0.0, 1.0]])


def test_two_patterns_by_hand():
    # β ξ Xᵀ = (log 3, 0): weights ¾ and ¼
    query = np.array([[1.0, 0.0]])
    np.testing.assert_allclose(hopfield.retrieve(query, PATTERNS, beta=math.log(3)), [[0.75, 0.25]])
    # and once more: (¾ log 3, ¼ log 3), whose exponentials are √3 to 1
    again = hopfield.retrieve(query, PATTERNS, beta=math.log(3), steps=2)
    np.testing.assert_allclose(again, np.array([[math.sqrt(3), 1]]) / (1 + math.sqrt(3)))
    # ½ − log(3 + 1) / log 3 + log 2 / log 3 + ½
    np.testing.assert_allclose(hopfield.energy(query, PATTERNS, beta=math.log(3)), 1 - math.log(2, 3))


def test_a_noisy_pattern_is_restored():
    rng = np.random.default_rng(0)
    patterns = rng.choice([-1.0, 1.0], (20, 256))
    noisy = patterns * np.where(rng.random(patterns.shape) < 0.2, -1, 1)
    np.testing.assert_allclose(hopfield.retrieve(noisy, patterns, beta=1.0, steps=2), patterns, atol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: hopfield.retrieve(PATTERNS, np.ones((3, 4)), beta=1.0),
            "hopfield.retrieve: patterns has 4 features, expected 2 as query has (shape (3, 4))",
        ),
        (
            lambda: hopfield.retrieve(PATTERNS, PATTERNS[0], beta=1.0),
            "hopfield.retrieve: patterns has shape (2,), expected (*batch, N, K)",
        ),
        (
            lambda: hopfield.energy([[1.0, 0.0]], PATTERNS, beta=1.0),
            "hopfield.energy: query is of type list, expected an array (*batch, T, K)",
        ),
        (
            lambda: hopfield.energy(PATTERNS, PATTERNS, beta=0.0),
            "hopfield.energy: beta is 0.0, expected a number above 0",
        ),
        (
            lambda: hopfield.retrieve(PATTERNS, PATTERNS, beta=1.0, steps=0),
            "hopfield.retrieve: steps is 0, expected an integer of at least 1",
        ),
    ],
)
def test_a_mistake_is_one_line(call, message):
    with pytest.raises((TypeError, ValueError)) as excinfo:
        call()
    assert str(excinfo.value) == message

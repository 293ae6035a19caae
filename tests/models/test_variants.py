"""Variants of blocks: what depends on the input in Mamba, what TTT's memory learns to return, repeated retrieval."""

import numpy as np
import pytest

from models.attention.multihead import split_heads
from models.blocks import MIXERS
from models.blocks.ttt import random_projection
from models.language.config import Config
from models.memory import hopfield

X = np.random.default_rng(1).standard_normal((2, 9, 16)).astype(np.float32)


def inputs_of(mixer: str, variant: str, monkeypatch) -> list[tuple]:
    """Return the inputs and the output of every run of the mechanism in a block."""
    block = MIXERS[mixer](Config(mixer=mixer, variant=variant, width=16, heads=2), np.random.default_rng(0))
    calls, run = [], type(block).run

    def recorded(self, *inputs, **options):
        y, state = run(self, *inputs, **options)
        calls.append((*inputs, y))
        return y, state

    monkeypatch.setattr(type(block), "run", recorded)
    block(X)
    return calls


@pytest.mark.parametrize(
    ("variant", "depend"), [("all", {"delta", "B", "C"}), ("delta", {"delta"}), ("BC", {"B", "C"}), ("none", set())]
)
def test_what_of_mamba_depends_on_the_input(variant, depend, monkeypatch):
    ((_, delta, _, B, C, *_),) = inputs_of("mamba", variant, monkeypatch)
    varies = {name for name, x in (("delta", delta), ("B", B), ("C", C)) if np.ptp(x, axis=-2).max() > 1e-4}
    assert varies == depend


def test_what_the_memory_of_ttt_learns_to_return(monkeypatch):
    (default,), (learned,), (itself,), (random,) = (
        [call[2] for call in inputs_of("ttt_linear", variant, monkeypatch)]
        for variant in ("", "learned", "input", "random")
    )
    np.testing.assert_array_equal(default, learned)
    np.testing.assert_array_equal(itself, split_heads(X, 2))
    np.testing.assert_allclose(random, split_heads(X @ random_projection(16), 2), rtol=1e-6)
    assert np.abs(learned - itself).max() > 0.1


@pytest.mark.parametrize("retrievals", [1, 2, 4])
def test_attention_retrieves_as_often_as_a_hopfield_network(retrievals, monkeypatch):
    calls = inputs_of("softmax", str(retrievals), monkeypatch)
    (query, keys, *_), (*_, values, y) = calls[0], calls[-1]
    assert len(calls) == retrievals
    query, beta = query[..., -1:, :], 8**-0.5  # the last token's, which sees every key
    settled = hopfield.retrieve(query, keys, beta=beta, steps=retrievals - 1) if retrievals > 1 else query
    expected = hopfield.weights(settled, keys, beta=beta) @ values
    np.testing.assert_allclose(y[..., -1:, :], expected, rtol=1e-4, atol=1e-5)

"""The chapter on the Transformer can fail: copies with one thing wrong, and every one of them is caught.

A copy is the module's own source with one piece of text replaced, put where the chapter looks for the module. The copy
with nothing replaced passes.
"""

import pytest

from proofs.identities import transformer as chapter
from tests.copies import copy_of, statement_fails

AHEAD, PADDED, CACHED, PLACES, WIDE, SCORED, GREEDY = (
    "the_decoder_cannot_see_ahead",
    "padding_changes_nothing",
    "a_cached_decoder_is_the_uncached_one",
    "tokens_continue_at_their_places",
    "a_wide_beam_finds_the_best_text",
    "scores_are_those_of_whole_texts",
    "a_beam_of_one_is_greedy",
)
MIXED, CROSS, EMBEDDED, NORMED, MOVED = (
    "label_smoothing_is_a_mixed_target",
    "cross_attention_is_the_paper_s",
    "one_matrix_embeds_and_reads",
    "layers_are_post_norm",
    "the_encoder_is_permutation_equivariant",
)
BROKEN = [
    # module, text, what stands there instead, the statement that fails, what is wrong
    ("transformer", "(y), state=state", "(y), state=state, causal=False", AHEAD, "no causal mask"),
    ("transformer", "*pairs, mask=mask)\n        return self", "*pairs)\n        return self", PADDED, "no mask"),
    ("transformer", "self.cross(y, state.source, mask)", "self.cross(y, state.source)", PADDED, "none in the decoder"),
    ("transformer", "keys_and_values(x), mask)", "keys_and_values(x))", PADDED, "none in the encoder"),
    ("transformer", "(y), state=state", "(y)", CACHED, "cache not read"),
    ("transformer", "LayerState(state.source, target)\n\n", "state\n\n", CACHED, "cache not kept"),
    ("transformer", "(x + self.dropout(self.attention(", "(self.dropout(self.attention(", NORMED, "no residual"),
    ("transformer", "self.norms[1](x + self.dropout", "self.norms[0](x) + (self.dropout", NORMED, "pre-norm"),
    ("transformer", "* weight.shape[-1] ** 0.5", "* 1.0", EMBEDDED, "embeddings not scaled"),
    ("transformer", "y @ self.embedding.weight.T", "y @ -self.embedding.weight.T", EMBEDDED, "another head"),
    ("transformer", "at = start + np.arange", "at = np.arange", PLACES, "positions from 0"),
    ("transformer", "else target[0].shape[-2]", "else target[0].shape[-2] + 1", PLACES, "a position skipped"),
    (
        "transformer",
        "x = encoding(x, mask, rng)",
        "x = encoding(x + positions.sinusoidal(x, np.arange(x.shape[-2])), mask, rng)",
        MOVED,
        "positions in each layer",
    ),
    ("transformer", "(1 - smoothing) * mg.cross", "mg.cross", MIXED, "weights that sum to 1 + ε"),
    ("transformer", "+ smoothing * uniform", "+ smoothing * uniform * 5 / 4", MIXED, "ε over C − 1 tokens"),
    ("softmax", "causal=False, mask=mask", "causal=True, mask=mask", CROSS, "causal"),
    ("softmax", "k, v, causal=False", "k, k[..., :1] + 0 * v, causal=False", CROSS, "keys read as values"),
    ("decoding", "(5 + length) / 6) ** alpha", "(5 + length) / 6) ** -alpha", WIDE, "multiplied by lp"),
    ("decoding", "((5 + length) / 6) ** alpha", "length**alpha", WIDE, "the penalty of other code"),
    ("decoding", "rows_of(state, rows[alive])", "rows_of(state, 0 * rows[alive])", SCORED, "the cache of another text"),
    ("decoding", "totals[:, None] + log", "log", WIDE, "the last token alone"),
    ("decoding", "alive = words != end", "alive = words != start", GREEDY, "an end at the start token"),
    ("decoding", "np.argsort(-scores", "np.argsort(scores", GREEDY, "the least likely"),
]
NAMES = {"transformer": "language.transformer", "softmax": "attention.softmax", "decoding": "language.decoding"}


@pytest.fixture
def fails(monkeypatch):
    """Return whether a statement of the chapter fails with a copy, in one number system of NumPy alone."""

    def fails(module, copy, name):
        monkeypatch.setattr(chapter, module, copy)
        chapter.cached_model.cache_clear()
        return statement_fails(f"transformer.{name}")

    yield fails
    chapter.cached_model.cache_clear()


@pytest.mark.parametrize(
    ("module", "text", "instead", "statement", "wrong"), BROKEN, ids=lambda x: x.partition("\n")[0]
)
def test_a_broken_copy_is_caught(module, text, instead, statement, wrong, fails):
    assert fails(module, copy_of(NAMES[module], text, instead), statement), wrong


@pytest.mark.parametrize("module", NAMES)
def test_a_faithful_copy_passes(module, fails):
    for statement in {case[3] for case in BROKEN if case[0] == module}:
        assert not fails(module, copy_of(NAMES[module]), statement)

"""The chapter on the language model can fail: copies with one thing wrong, and every one of them is caught."""

import pytest

from proofs.identities import language_model as chapter
from tests.copies import copy_of, statement_fails

SINUSOIDAL, LEARNED = (
    f"language_model.positions_enter_with_the_embeddings[{scheme}]" for scheme in ("sinusoidal", "learned")
)
COUNTED = "tokens_before(None if state is None else state[0])"
BROKEN = [
    # text, what stands there instead, the statement that fails, what is wrong
    (f"now = {COUNTED} +", "now = 0 +", SINUSOIDAL, "positions from 0 in every part"),
    (f"now = {COUNTED} +", "now = 0 +", LEARNED, "rows from 0 in every part"),
    (f"now = {COUNTED} +", f"now = 1 + {COUNTED} +", SINUSOIDAL, "positions from 1"),
    ("x.shape[-1] ** 0.5 * x +", "x +", SINUSOIDAL, "embeddings that are not scaled"),
    ("x + positions.learned", "x.shape[-1] ** 0.5 * x + positions.learned", LEARNED, "embeddings that are scaled"),
]


@pytest.mark.parametrize(("text", "instead", "statement", "wrong"), BROKEN, ids=[broken[3] for broken in BROKEN])
def test_a_broken_copy_is_caught(text, instead, statement, wrong, monkeypatch):
    monkeypatch.setattr(chapter, "lm", copy_of("language.lm", text, instead))
    assert statement_fails(statement), wrong


@pytest.mark.parametrize("statement", [SINUSOIDAL, LEARNED])
def test_a_faithful_copy_passes(statement, monkeypatch):
    monkeypatch.setattr(chapter, "lm", copy_of("language.lm"))
    assert not statement_fails(statement)

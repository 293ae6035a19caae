"""The chapter on lazy softmax can fail: with one thing wrong in the form or in the merge, a statement does."""

import types

import pytest

from models.attention import softmax
from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.checker.systems import SYSTEMS
from proofs.identities import lazy_softmax as chapter
from tests.copies import copy_of

FORM = [
    # text, what stands there instead, the statement that fails, what is wrong
    ("max(size, math.isqrt(k.shape[-2]))", "k.shape[-2]", "memory_of_a_chunk_of_queries", "all keys at once"),
    (
        "max(size, math.isqrt(k.shape[-2]))",
        "8 * size",
        "memory_of_a_chunk_of_queries",
        "chunks of as many keys at any T",
    ),
]


def wrong_merge(change):
    """Return the merge with one of its numbers changed."""

    def merge(first, second):
        (m_1, s_1, v_1), (m_2, s_2, v_2) = first, second
        xp = chapter.namespace(m_1, s_1, v_1)
        m = xp.maximum(m_1, m_2)
        return change(xp, m, (xp.exp(m_1 - m), s_1, v_1), (xp.exp(m_2 - m), s_2, v_2))

    return merge


MERGES = {
    "the first values not rescaled": lambda xp, m, a, b: (m, a[0] * a[1] + b[0] * b[1], a[2] + b[0] * b[2]),
    "the sums not rescaled": lambda xp, m, a, b: (m, a[1] + b[1], a[0] * a[2] + b[0] * b[2]),
    "the second part twice": lambda xp, m, a, b: (m, a[0] * a[1] + 2 * b[0] * b[1], a[0] * a[2] + 2 * b[0] * b[2]),
}
IDENTITIES = ("keys_one_by_one", "merge_is_associative", "nothing_is_the_identity_of_merge")


def verdict(name):
    """Return the verdict on a statement in the number systems of NumPy alone, up to a failure."""
    statement = STATEMENTS[f"lazy_softmax.{name}"]
    for system in systems_of(statement):
        measured = statement.kind == "grows"  # in no system of numbers
        if (measured or not SYSTEMS[system].library) and check_system(statement, system).status == "failed":
            return "failed"
    return "holds"


def put_in_place(monkeypatch, copy):
    """Let the functions of a copy replace those that the chapter calls."""
    for attribute, value in vars(copy).items():
        if isinstance(value, types.FunctionType) and value.__module__ == copy.__name__:
            monkeypatch.setattr(softmax, attribute, value)


@pytest.mark.parametrize(("text", "instead", "statement", "wrong"), FORM, ids=[row[3] for row in FORM])
def test_a_broken_form_is_caught(text, instead, statement, wrong, monkeypatch):
    put_in_place(monkeypatch, copy_of("attention.softmax", text, instead))
    assert verdict(statement) == "failed", wrong


@pytest.mark.parametrize("wrong", MERGES)
def test_a_broken_merge_is_caught(wrong, monkeypatch):
    monkeypatch.setattr(chapter, "merge", wrong_merge(MERGES[wrong]))
    assert "failed" in [verdict(name) for name in IDENTITIES]


def test_sums_that_share_a_maximum_may_be_added(monkeypatch):
    monkeypatch.setattr(chapter, "merge", wrong_merge(MERGES["the sums not rescaled"]))
    assert verdict("sums_without_their_maxima") == "failed"


def test_a_query_that_keeps_its_scores_needs_more_than_constant_memory(monkeypatch):
    monkeypatch.setattr(chapter, "one_query", lambda q, k, v: chapter.namespace(q).exp(q @ k.mT) @ v)
    assert verdict("memory_of_one_query") == "failed"


def test_memory_of_queries_that_keep_one_triple_is_constant(monkeypatch):
    monkeypatch.setattr(chapter, "LENGTHS", (256, 512, 1024))
    monkeypatch.setattr(chapter, "attend_chunk", chapter.one_query)
    assert verdict("memory_is_at_worst_logarithmic") == "failed"


def test_a_faithful_copy_passes(monkeypatch):
    put_in_place(monkeypatch, copy_of("attention.softmax"))
    assert [verdict(name) for name in ("memory_of_a_chunk_of_queries", "memory_is_at_worst_logarithmic")] == [
        "holds"
    ] * 2

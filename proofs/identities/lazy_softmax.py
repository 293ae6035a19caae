"""Softmax attention without its matrix of weights: what is merged, and how much memory that takes.

A query needs of the keys it has read a maximum m, a sum s and a weighted sum v (Rabe and Staats 2021, section 2); two
such triples merge into one. Read key by key, that is a constant number of numbers a query, and for all queries one
after the other a counter besides, log₂ T bits: the paper's O(1) and O(log n). Its practical algorithm reads chunks of
√T keys for a constant number of queries and keeps a triple a chunk: O(√T). Inputs and outputs, of size T, are not
counted, as in the paper.
"""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from minigrad import namespace
from models.attention import softmax
from models.sequences import tokens
from proofs.checker.counting import counted
from proofs.checker.statements import grows, identity, refuted
from proofs.checker.strategies import LARGE, POSITIVE, Cut, Keys, Queries, Strategy, Values

CHAPTER = 1

RABE = "rabe2021"
TALK = "talk-papers, Self-Attention Does Not Need O(n^2) Memory"
FEATURES, QUERIES = 16, 16  # of the arrays whose memory is measured, and of a chunk of theirs
LENGTHS = (16384, 32768, 65536)

Triple = tuple[Any, Any, Any]  # m (*batch, 1, 1), s (*batch, 1, 1), v (*batch, 1, V)
Maxima = Annotated[Any, Strategy("*batch 3 1", LARGE)]
Sums = Annotated[Any, Strategy("*batch 3 1", POSITIVE)]
WeightedSums = Annotated[Any, Strategy("*batch 3 V", LARGE)]
Weights = Annotated[Any, Strategy("*batch T 1", POSITIVE)]


def merge(first: Triple, second: Triple) -> Triple:
    """Return the triple of all the keys that two triples have read."""
    (m_1, s_1, v_1), (m_2, s_2, v_2) = first, second
    xp = namespace(m_1, s_1, v_1)
    m = xp.maximum(m_1, m_2)
    e_1, e_2 = xp.exp(m_1 - m), xp.exp(m_2 - m)
    return m, e_1 * s_1 + e_2 * s_2, e_1 * v_1 + e_2 * v_2


def result(triple: Triple) -> tuple[Any, Any]:
    """Return the output v / s and the log of the sum of exponentials, m + log s."""
    m, s, v = triple
    return v / s, m + namespace(m, s).log(s)


def one_query(q: Any, k: Any, v: Any) -> Any:
    """Return the output (*batch, 1, V) of one query (*batch, 1, K), which reads the keys one by one."""
    triple = None
    for k_t, v_t in tokens(k, v):
        score = q @ k_t.mT * q.shape[-1] ** -0.5
        of_one_key = (score, namespace(score).ones_like(score), v_t)
        triple = of_one_key if triple is None else merge(triple, of_one_key)
    assert triple is not None
    _, s, v = triple
    return v / s


@identity(
    "A query that reads the keys one by one, with a running maximum and two sums, has softmax attention's output",
    source=f"{RABE}, section 2 and eq. 2",
)
def keys_one_by_one(q: Queries, k: Keys, v: Values):
    y, _ = softmax.quadratic(q, k, v, causal=False)
    return one_query(q[..., :1, :], k, v), y[..., :1, :]


@identity("The merge of partial results is associative", source=f"{RABE}, section 2, made precise")
def merge_is_associative(m: Maxima, s: Sums, v: WeightedSums):
    first, middle, last = tokens(m, s, v)
    return result(merge(merge(first, middle), last)), result(merge(first, merge(middle, last)))


@identity("The partial result of no keys, (−∞, 0, 0), is its identity", source=f"{RABE}, section 2, made precise")
def nothing_is_the_identity_of_merge(m: Maxima, s: Sums, v: WeightedSums):
    nothing = (m * 0 - math.inf, 0 * s, 0 * v)
    return (merge((m, s, v), nothing), merge(nothing, (m, s, v))), ((m, s, v), (m, s, v))


@refuted(
    "Sums of exponentials can be added as they are (they belong to different maxima)",
    source=f"{RABE}, section 3: numerical stability",
    instead="lazy_softmax.merge_is_associative",
)
def sums_without_their_maxima(m: Maxima, s: Sums, v: WeightedSums):
    first, second, _ = tokens(m, s, v)
    return merge(first, second)[1], first[1] + second[1]


@identity(
    "What is put off is the division: Σ (wⱼ / Σ w) vⱼ is Σ wⱼ vⱼ / Σ w, both of whose sums are formed key by key",
    source=f"{RABE}, section 2; {TALK}: 'the sum of exponentials is put off'",
    exact=True,
)
def the_division_is_put_off(w: Weights, v: Values):
    xp = namespace(w, v)
    total, weighted = 0 * w[..., :1, :], 0 * v[..., :1, :]
    for w_t, v_t in tokens(w, v):
        total, weighted = total + w_t, weighted + w_t * v_t
    divided_first = xp.sum(w / xp.sum(w, axis=-2, keepdims=True) * v, axis=-2, keepdims=True)
    return weighted / total, divided_first


@refuted(
    "Each chunk of keys may be divided by its own sum, and the results be averaged",
    source=f"{RABE}, section 2: the division comes last",
    exact=True,
    instead="lazy_softmax.the_division_is_put_off",
)
def chunks_are_divided_apart(w: Weights, v: Values, cut: Cut):
    xp = namespace(w, v)

    def mean(w: Any, v: Any) -> Any:
        return xp.sum(w * v, axis=-2) / xp.sum(w, axis=-2)

    return (mean(w[..., :cut, :], v[..., :cut, :]) + mean(w[..., cut:, :], v[..., cut:, :])) / 2, mean(w, v)


def count_operations(form: Callable[..., Any], length: int) -> int:
    """Count the operations of a form of bidirectional attention, in chunks of 8 queries and keys where it has some."""
    tally = [0]
    q, k, v = (counted(x, tally) for x in arrays(length, length))
    form(q, k, v, causal=False, **({"chunk_size": 8} if form is softmax.lazy else {}))
    return tally[0]


@grows(
    "The division at the end saves memory, not work: all T² scores are computed, as before",
    source=f"{RABE}, abstract: time O(n²); talk-meeting, (5): the softmax last",
    order=2,
    lengths=(8, 16, 32),
)
def operations_of_lazy_attention(length: int):
    return count_operations(softmax.lazy, length)


@refuted(
    "The softmax last takes fewer operations (it takes a few more, for the maxima of chunks and their merging)",
    source=f"talk-meeting, (5): less computation; {RABE}, abstract: time O(n²)",
    relation="≤",
    instead="lazy_softmax.operations_of_lazy_attention",
)
def lazy_attention_computes_less():
    return [np.array([float(count_operations(form, 16))]) for form in (softmax.lazy, softmax.quadratic)]


@grows(
    "One query that reads key by key takes constant memory",
    source=f"{RABE}, section 2",
    order=0,
    lengths=(256, 512, 1024),
)
def memory_of_one_query(length: int):
    return workspace(one_query, *arrays(1, length))


@grows(
    "The practical algorithm takes √T memory for a chunk of queries, beside inputs and outputs",
    source=f"{RABE}, section 3: chunks of √n keys",
    order=0.5,
    lengths=LENGTHS,
)
def memory_of_a_chunk_of_queries(length: int):
    return workspace(attend_chunk, *arrays(QUERIES, length))


@refuted(
    "The practical algorithm needs constant, or at worst logarithmic memory (that of one query read key by key is)",
    source=f"{TALK}; {RABE}, sections 2 and 3",
    relation="≤",
    instead="lazy_softmax.memory_of_a_chunk_of_queries",
)
def memory_is_at_worst_logarithmic():
    short, long = LENGTHS[0], LENGTHS[-1]
    measured = [np.array([float(workspace(attend_chunk, *arrays(QUERIES, T)))]) for T in (short, long)]
    return measured[1], measured[0] * math.log(long) / math.log(short)


@grows(
    "The weights of a chunk of queries, all at once, take T memory",
    source=f"{RABE}, section 1",
    order=1,
    lengths=LENGTHS,
)
def memory_of_all_weights(length: int):
    return workspace(lambda q, k, v: attend_chunk(q, k, v, softmax.quadratic), *arrays(QUERIES, length))


def attend_chunk(q: Any, k: Any, v: Any, form: Any = None) -> Any:
    """Attend from queries at the end of a sequence to all of it; return the outputs and the state, all keys."""
    new, before = slice(-len(q), None), slice(None, -len(q))
    if form is None:
        return softmax.lazy(q, k[new], v[new], state=(k[before], v[before]), chunk_size=len(q))
    return form(q, k[new], v[new], state=(k[before], v[before]))


def arrays(queries: int, length: int) -> list[np.ndarray]:
    """Draw q (queries, K), k and v (T, K)."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((rows, FEATURES)) for rows in (queries, length, length)]


def workspace(run: Callable[..., Any], *inputs: np.ndarray) -> int:
    """Return the bytes that a call takes at its peak beside its inputs and what it returns, of its second call."""
    run(*inputs)
    tracemalloc.start()
    try:
        results = run(*inputs)
        left, peak = tracemalloc.get_traced_memory()
        del results
        return peak - left
    finally:
        tracemalloc.stop()

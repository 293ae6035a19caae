"""Linear attention is an RNN: the derivation of the talk on Titans, 05:41 to 26:00.

Without the softmax, attention is a matrix that is written to and read from. Each claim of the talk is a statement;
where it is imprecise, the plausible version is refuted and a precise one follows.
"""

from __future__ import annotations

import numpy as np

import minigrad as mg
from minigrad import namespace
from models.attention import softmax
from models.memory import linear_attention
from proofs.checker.ranks import rank
from proofs.checker.statements import EXACT, bounded, identity, refuted
from proofs.checker.strategies import (
    Cut,
    Key,
    Keys,
    Length,
    OrthonormalKeys,
    Queries,
    SmallIntegers,
    State,
    UnitKey,
    UnitKeys,
    Value,
    Values,
)

CHAPTER = 2

KATHAROPOULOS = "katharopoulos2020"

# From attention to a recurrence


@identity(
    "Without the softmax the order of multiplication does not matter: (QKᵀ)V = Q(KᵀV)",
    source=f"talk-titans, 10:25; {KATHAROPOULOS}, eq. 6",
    exact=True,
)
def order_of_multiplication(q: Queries, k: Keys, v: Values):
    return (q @ k.mT) @ v, q @ (k.mT @ v)


@refuted(
    "So causal attention without the softmax is Q(KᵀV) too (it is not: the mask stands between the products)",
    source="minigrad, T queries at once; talk-titans, 10:25, where it is right: one query and the keys up to it",
    exact=True,
    instead="linear_attention.order_of_multiplication",
)
def order_of_multiplication_under_the_mask(q: Queries, k: Keys, v: Values):
    return namespace(q).tril(q @ k.mT) @ v, q @ (k.mT @ v)


@identity("KᵀV is a sum of outer products kₜᵀvₜ, one for each token", source="talk-titans, 11:09", exact=True)
def sheets(k: Keys, v: Values):
    return k.mT @ v, sum(k[..., t, :, None] * v[..., t, None, :] for t in range(k.shape[-2]))


@identity(
    "Causal attention without softmax is an RNN whose state is the sum of all kᵀv",
    source=f"talk-titans, 11:40, 12:17; {KATHAROPOULOS}, eq. 9–12 and 18–20",
    exact=True,
)
def attention_is_an_rnn(q: Queries, k: Keys, v: Values):
    return (namespace(q).tril(q @ k.mT) @ v, k.mT @ v), linear_attention.recurrent(q, k, v)


# What a fixed size costs


@bounded(
    "Attention of later queries to earlier keys has rank at most K: it passes through a state of K rows",
    source="talk-titans, 13:07, made precise",
    exact=True,
    only=EXACT,
)
def rank_of_linear_attention(q: Queries, k: Keys, cut: Cut):
    scores = q[..., cut:, :] @ k[..., :cut, :].mT
    return rank(scores), 0 * rank(scores) + q.shape[-1]


@refuted(
    "With the softmax too: its weights have rank at most K (normalising only scales rows; base 2 for exactness)",
    source="talk-titans, 13:07: 'no essential difference'",
    exact=True,
    relation="≤",
    instead="linear_attention.rank_of_linear_attention",
)
def rank_of_softmax_attention(q: SmallIntegers, k: SmallIntegers):
    weights = 2 ** (q @ k.mT)
    return rank(weights), 0 * rank(weights) + q.shape[-1]


@identity(
    "No fixed size of a state that is read linearly suffices for softmax attention: with one feature, T keys and T "
    "queries give weights of rank T",
    source="talk-titans, 13:07, made precise (2^(ij) is a Vandermonde matrix)",
    exact=True,
    only=EXACT,
)
def rank_of_softmax_grows(length: Length):
    position = np.arange(length).astype(object)
    return rank(2 ** (position[:, None] * position)), np.array(length)


# The state as a model that is trained


@identity(
    "Writing kᵀv is one step of gradient descent, rate 1, on −⟨kS, v⟩", source="talk-titans, 14:50–15:26", exact=True
)
def write_is_a_gradient_step(k: Key, v: Value, state: State):
    def loss(S):
        return -mg.sum((k[..., None, :] @ S)[..., 0, :] * v)

    _, new_state = linear_attention.recurrent(k[..., None, :], k[..., None, :], v[..., None, :], state=state)
    return new_state, state - mg.grad(loss)(state)


@refuted(
    "The memory learns to return v for k: a pair written twice is still returned as v",
    source="talk-titans, 16:11: 'so that the value comes out'",
    exact=True,
    instead="linear_attention.written_n_times",
)
def writing_again_changes_nothing(k: UnitKey, v: Value):
    k, v = namespace(k).stack([k, k], axis=-2), namespace(v).stack([v, v], axis=-2)
    _, state = linear_attention.recurrent(k, k, v)
    return k @ state, v


@identity(
    "The loss −⟨kS, v⟩ has no minimum: after n writes of a pair, reading a unit key gives n v",
    source="talk-titans, 16:11, made precise",
    exact=True,
)
def written_n_times(k: UnitKey, v: Value, length: Length):
    k, n_times_v = k[..., None, :], [v[..., None, :]] * length
    _, state = linear_attention.recurrent(*(namespace(v).concat([x] * length, axis=-2) for x in (k, k, n_times_v[0])))
    return k @ state, sum(n_times_v)


# Reading back


@identity("Orthonormal keys are read back exactly: the query kᵢ returns vᵢ", source="talk-titans, 17:48", exact=True)
def retrieval(k: OrthonormalKeys, v: Values):
    _, state = linear_attention.recurrent(k, k, v)
    return k @ state, v


@refuted(
    "Keys of length 1 are read back exactly, whatever the angles between them",
    source="talk-titans, 17:48, 19:48",
    exact=True,
    instead="linear_attention.cross_talk",
)
def retrieval_of_unit_keys(k: UnitKeys, v: Values):
    _, state = linear_attention.recurrent(k, k, v)
    return k @ state, v


@identity(
    "For unit keys the error of reading kᵢ is the cross-talk Σ ⟨kᵢ, kⱼ⟩ vⱼ over j ≠ i, exactly",
    source="talk-titans, 17:48, made precise",
    exact=True,
)
def cross_talk(k: UnitKeys, v: Values):
    xp = namespace(k)
    _, state = linear_attention.recurrent(k, k, v)
    overlaps = k @ k.mT
    return k @ state - v, (xp.tril(overlaps, k=-1) + xp.triu(overlaps, k=1)) @ v


@refuted(
    "In softmax attention a query equal to a key has weight 1 on it and 0 on the rest, when keys are orthonormal",
    source="talk-titans, 17:48",
    instead="linear_attention.softmax_retrieval_weights",
)
def softmax_retrieval(k: OrthonormalKeys, v: Values):
    y, _ = softmax.quadratic(k, k, v, causal=False)
    return y, v


@identity(
    "Its weights there are e/(e + T − 1) on its own key and 1/(e + T − 1) on the others, at scale 1",
    source="talk-titans, 17:48, made precise",
)
def softmax_retrieval_weights(k: OrthonormalKeys, v: Values):
    xp, other_count = namespace(k, v), k.shape[-2] - 1
    y, _ = softmax.quadratic(k, k, v, causal=False, scale=1.0)
    e = xp.exp(xp.sum(k * k, axis=-1, keepdims=True))
    return y, (xp.sum(v, axis=-2, keepdims=True) + (e - 1) * v) / (e + other_count)

"""Information that softmax attention keeps and a state of fixed size loses. Talk on Titans, 07:11–09:40 and 19:14.

Neither state depends on later queries. That of softmax attention holds every key and value; that of linear attention
is a matrix of K rows, which different values leave alike. A query weighs keys by its scores, which are distances where
all keys are of one length.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from minigrad import namespace
from models.attention import softmax
from models.memory import linear_attention
from proofs.checker.statements import bounded, converges, identity, refuted
from proofs.checker.strategies import LARGE, SMALL, Keys, Queries, Strategy, UnitKeys, Value, Values

CHAPTER = 2

Combination = Annotated[Any, Strategy("*batch 1 T", SMALL)]
OneQuery = Annotated[Any, Strategy("1 K", LARGE)]
TwoKeys = Annotated[Any, Strategy("2 K", LARGE)]

# Compression before the query is known


@identity(
    "Neither state depends on the queries, so that what it keeps is settled before they come",
    source="talk-titans, 07:11–07:56, made precise: attention's state is settled too, but keeps everything",
    derivatives=False,
)
def states_ignore_queries(q: Queries, other: Queries, k: Keys, v: Values):
    return [(linear_attention.recurrent(x, k, v)[1], softmax.quadratic(x, k, v)[1]) for x in (q, other)]


@identity(
    "Where keys are dependent, as any K + 1 are, nK = 0, the values V and V + nᵀw leave the same state: it is lossy",
    source="talk-titans, 07:11–07:56, made precise",
    exact=True,
)
def values_with_one_state(k: Keys, c: Combination, v: Values, last: Value, w: Value):
    k, v, changed = dependent_keys(k, c, v, last, w)
    return linear_attention.recurrent(k, k, v)[1], linear_attention.recurrent(k, k, changed)[1]


@refuted(
    "Softmax attention does not tell such values apart either",
    source="talk-titans, 13:07: 'no essential difference'",
    instead="fixed_size_state.values_with_one_state",
)
def values_with_one_output(q: Queries, k: Keys, c: Combination, v: Values, last: Value, w: Value):
    k, v, changed = dependent_keys(k, c, v, last, w)
    return softmax.cross(q, k, v)[0], softmax.cross(q, k, changed)[0]


def dependent_keys(k: Any, c: Any, v: Any, last: Any, w: Any) -> tuple[Any, Any, Any]:
    """Return K with the row cK appended, V with a last row, and V + nᵀw with n = (c, −1), for which nK = 0."""
    xp = namespace(k, c, v, last, w)
    n = xp.concat([c, 0 * c[..., :1] - 1], axis=-1)
    values = xp.concat([v, last[..., None, :]], axis=-2)
    return xp.concat([k, c @ k], axis=-2), values, values + n.mT @ w[..., None, :]


# What is lost with the softmax


@refuted(
    "Without the softmax outputs are still means of the values (its weights are not positive and do not sum to one)",
    source="talk-titans, 08:43–09:40: 'attention's nature stays' (with the softmax: multihead.outputs_are_means)",
    exact=True,
    relation="≤",
    instead="multihead.outputs_are_means",
)
def outputs_are_means(q: Queries, k: Keys, v: Values):
    y, _ = linear_attention.parallel(q, k, v)
    return y, namespace(v).max(v, axis=-2, keepdims=True) + 0 * y


# Near keys


@identity(
    "A softmax weight is a Gaussian of the distance times exp(½‖k‖²): e^(q·k) ∝ exp(−½‖q − k‖²) exp(½‖k‖²)",
    source="talk-titans, 19:14, made precise",
)
def weights_by_distance(q: Queries, k: Keys, v: Values):
    length = namespace(k).sum(k * k, axis=-1)[..., None, :]
    return softmax.cross(q, k, v, scale=1.0)[0], weighted_mean(-squared_distances(q, k) / 2 + length / 2, v)


@identity(
    "Where all keys have one length the weights fall with the distance alone: near keys win",
    source="talk-titans, 19:14, made precise",
)
def weights_of_unit_keys_by_distance(q: Queries, k: UnitKeys, v: Values):
    return softmax.cross(q, k, v, scale=1.0)[0], weighted_mean(-squared_distances(q, k) / 2, v)


@refuted(
    "The key nearest to the query has the greatest score (a longer one farther away can have a greater one)",
    source="talk-titans, 19:14: 'mainly the values of keys near the query'",
    exact=True,
    relation="≤",
    instead="fixed_size_state.nearest_unit_key_wins",
)
def nearest_key_wins(q: OneQuery, k: TwoKeys):
    return largest_and_nearest(q, k)


@bounded(
    "Among keys of one length it has",
    source="talk-titans, 19:14, made precise",
    exact=True,
    only=("fractions",),
)
def nearest_unit_key_wins(q: Queries, k: UnitKeys):
    return largest_and_nearest(q, k)


@converges(
    "As the scale grows the output is the value of the largest score, within 2(T − 1) max|v| exp(−scale · gap)",
    source="talk-titans, 19:14, made precise: 'the rest must be ignored'",
)
def largest_score_wins(q: Queries, k: Keys, v: Values):
    xp, scores = namespace(q, k, v), q @ k.mT
    best = xp.max(scores, axis=-1, keepdims=True)
    is_best = scores == best
    gap = best - xp.max(xp.where(is_best, best - 1, scores), axis=-1, keepdims=True)  # to the next other score
    chosen = xp.where(is_best, 1 + 0 * scores, 0 * scores)
    winner = chosen @ v / xp.sum(chosen, axis=-1, keepdims=True)  # equal scores share
    scales = [2.0**n for n in range(6)]
    errors = [abs(softmax.cross(q * (scale / gap), k, v, scale=1.0)[0] - winner) for scale in scales]
    others = 2 * (k.shape[-2] - 1) * xp.max(abs(v))
    limits = [others * math.exp(-scale) + 0 * errors[0] for scale in scales]
    return xp.stack(errors, axis=-1), xp.stack(limits, axis=-1)


def squared_distances(q: Any, k: Any) -> Any:
    """Return ‖q − k‖² of all pairs, (*batch, T, T)."""
    difference = q[..., :, None, :] - k[..., None, :, :]
    return namespace(q, k).sum(difference * difference, axis=-1)


def weighted_mean(exponents: Any, v: Any) -> Any:
    """Return the mean of the values v with weights e^exponents (*batch, T, T)."""
    weights = namespace(exponents).exp(exponents)
    return weights @ v / namespace(weights).sum(weights, axis=-1, keepdims=True)


def largest_and_nearest(q: Any, k: Any) -> tuple[Any, Any]:
    """Return the largest score of each query, and that of the nearest key, the larger one of equally near keys."""
    xp, scores, distances = namespace(q, k), q @ k.mT, squared_distances(q, k)
    nearest = distances == xp.min(distances, axis=-1, keepdims=True)
    least = xp.min(scores, axis=-1, keepdims=True)
    return xp.max(scores, axis=-1), xp.max(xp.where(nearest, scores, least), axis=-1)

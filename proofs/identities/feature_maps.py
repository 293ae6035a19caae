"""Linear attention with a feature map: weights that sum to one, and features in which softmax attention is linear."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad import namespace
from models.attention import softmax
from models.attention.feature_maps import elu_plus_one, normalised, positive_random, taylor
from models.memory import linear_attention
from proofs.checker.ranks import rank
from proofs.checker.statements import EXACT, FLOATS, bounded, converges, grows, identity
from proofs.checker.strategies import Keys, PositiveFeatures, Queries, Values, Vector, Vectors

CHAPTER = 3

KATHAROPOULOS = "katharopoulos2020"
CHOROMANSKI = "choromanski2021"

# Weights that sum to one


@identity(
    "Normalised linear attention is Σ φ(q)·φ(kₛ) vₛ / Σ φ(q)·φ(kₛ), read from the recurrent state",
    source=f"{KATHAROPOULOS}, eq. 4, 12 and 18–20",
    exact=True,
)
def normalised_recurrence(q: PositiveFeatures, k: PositiveFeatures, v: Values):
    xp = namespace(q)
    weights = xp.tril(q @ k.mT)
    y, _ = normalised(linear_attention.recurrent, q, k, v)
    return y, (weights @ v) / xp.sum(weights, axis=-1, keepdims=True)


@identity("Its weights sum to one: where all values are 1, so is the output", source=f"{KATHAROPOULOS}, eq. 4 and 7")
def normalised_weights_sum_to_one(q: Queries, k: Keys, v: Values):
    ones = namespace(v).ones_like(v)
    y, _ = normalised(linear_attention.recurrent, elu_plus_one(q), elu_plus_one(k), ones)
    return y, ones


@bounded("With φ = elu + 1 no weight is negative", source=f"{KATHAROPOULOS}, eq. 7")
def elu_plus_one_is_positive(q: Queries, k: Keys):
    weights = elu_plus_one(q) @ elu_plus_one(k).mT
    return namespace(q).zeros_like(weights), weights


@bounded(
    "m features give weights of rank at most m, also normalised: no map of fixed size has all weights of a softmax, "
    "whose rank is T (linear_attention.rank_of_softmax_grows)",
    source="talk-titans, 1:21:15: 'a kernel as expressive as the softmax', made precise",
    exact=True,
    only=EXACT,
)
def rank_of_normalised_weights(q: PositiveFeatures, k: PositiveFeatures):
    xp, length = namespace(q, k), k.shape[-2]
    one_value_each = xp.broadcast_to(xp.eye(length, dtype=k.dtype), (*k.shape[:-1], length))
    _, state = normalised(linear_attention.recurrent, q, k, one_value_each)
    read = q @ state  # of all keys, by queries that come after them
    ranks = rank(read[..., :-1] / read[..., -1:])
    return ranks, 0 * ranks + q.shape[-1]


# Softmax attention is linear attention with infinitely many features

ORDERS = (0, 2, 4, 6, 8)


@converges(
    "Taylor features of order p: φ(q)·φ(k) → exp(q·k), within the polynomial's remainder",
    source="arora2024based, section 4.1, eq. 4, with Taylor's theorem",
)
def taylor_features(q: Vector, k: Vector):
    xp, score = namespace(q), dot(q, k)
    errors = [abs(dot(taylor(q, order=p), taylor(k, order=p)) - xp.exp(score)) for p in ORDERS]
    return xp.stack(errors, axis=-1), xp.stack([remainder(abs(score), p) for p in ORDERS], axis=-1)


@grows(
    "Their number, 1 + K + … + Kᵖ, grows as Kᵖ: what the softmax needs is not a fixed size of state",
    source="arora2024based, section 4.1; talk-titans, 1:21:15, made precise",
    order=3,
    lengths=(8, 16, 32),
)
def number_of_taylor_features(length: int):
    return taylor(np.ones((1, length)), order=3).shape[-1]


@converges(
    "Softmax attention is the limit of linear attention as the number of features grows",
    source="talk-titans, 1:21:15, made precise",
)
def softmax_is_the_limit(q: Vectors, k: Vectors, v: Values):
    xp, orders = namespace(q), ORDERS[1:]
    q = q / 4  # scores of at most a half, so that the first of these orders has a bound already
    limit, _ = softmax.quadratic(q, k, v, scale=1.0)
    reads = [normalised(linear_attention.recurrent, taylor(q, order=p), taylor(k, order=p), v)[0] for p in orders]
    # A weight off by the factor 1 ± ε moves a mean of values by at most 2 max|v| ε / (1 − ε).
    remainders = [remainder(0.5, p) * math.exp(0.5) for p in orders]
    largest = xp.max(abs(v))
    limits = [2 * largest * (r / (1 - r)) + xp.zeros_like(limit) for r in remainders]
    return xp.stack([abs(y - limit) for y in reads], axis=-1), xp.stack(limits, axis=-1)


def remainder(size: Any, order: int) -> Any:
    """Return |x|^(p+1) e^|x| / (p+1)!: at least what Taylor's polynomial of order p leaves of eˣ."""
    return size ** (order + 1) * namespace(size).exp(size) / math.factorial(order + 1)


@identity(
    "Positive random features are unbiased: the mean of φ(q)·φ(k) over ω ~ N(0, I) is exp(q·k)",
    source=f"{CHOROMANSKI}, lemma 1 (the mean by Gauss–Hermite quadrature)",
    only=FLOATS,
)
def random_features_are_unbiased(q: Vector, k: Vector):
    directions, weights = normal_quadrature(q)
    return dot(one_feature_each(q, k, directions), weights), namespace(q).exp(dot(q, k))


@identity(
    "One random feature has the variance exp(2q·k) (exp(‖q + k‖²) − 1)",
    source=f"{CHOROMANSKI}, lemma 2 (the mean by Gauss–Hermite quadrature)",
    only=FLOATS,
)
def variance_of_a_random_feature(q: Vector, k: Vector):
    xp = namespace(q)
    q, k = q / 2, k / 2  # the square has twice the exponent: keep it where the nodes are exact
    directions, weights = normal_quadrature(q)
    each, mean = one_feature_each(q, k, directions), xp.exp(dot(q, k))
    return dot(each * each, weights) - mean * mean, mean * mean * (xp.exp(dot(q + k, q + k)) - 1)


@bounded(
    "The variance of m random features is 1/m of that of one: within five standard errors of 20 000 trials, m = 1 … 64",
    source=f"{CHOROMANSKI}, lemma 2",
    only=("float64",),
)
def variance_falls_as_one_over_m():
    rng, trials = np.random.default_rng(0), 20_000
    q, k = np.array([[0.3, -0.2]]), np.array([[0.1, 0.4]])
    variance = np.exp(2 * q @ k.T).item() * np.expm1(np.sum((q + k) ** 2))
    errors, limits = [], []
    for m in (1, 4, 16, 64):
        estimates = np.array(
            [(positive_random(q, w) @ positive_random(k, w).T).item() for w in rng.standard_normal((trials, m, 2))]
        )
        squares = (estimates - np.exp(q @ k.T).item()) ** 2 * m / variance  # of mean 1 if the variance is variance / m
        errors.append(abs(squares.mean() - 1))
        limits.append(5 * squares.std() / math.sqrt(trials))
    return np.array(errors), np.array(limits)


def dot(x: Any, y: Any) -> Any:
    """Return the scalar product along the last axis, (*batch, 1)."""
    return namespace(x, y).sum(x * y, axis=-1, keepdims=True)


def one_feature_each(q: Any, k: Any, directions: Any) -> Any:
    """Return φ(q)·φ(k) with each of the n directions as the only one: (*batch, n)."""
    return positive_random(q, directions) * positive_random(k, directions) * directions.shape[0]


def normal_quadrature(like: Any) -> tuple[Any, Any]:
    """Return nodes (n, D) and weights (n,) that integrate against N(0, I), of the dtype of `like` (*batch, D).

    With 20 nodes an axis, the error for e^{aω} is below a⁴⁰ 20! / 40! times the largest e^{aω}: under 10⁻¹⁶ for a ≤ 2.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    axes = [nodes] * like.shape[-1], [weights / weights.sum()] * like.shape[-1]
    points, masses = (np.stack([x.ravel() for x in np.meshgrid(*each, indexing="ij")], axis=-1) for each in axes)
    return points.astype(like.dtype), masses.prod(axis=-1).astype(like.dtype)

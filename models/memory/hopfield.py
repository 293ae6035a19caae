"""The modern Hopfield network: patterns are minima of an energy, and softmax attention is one step of its descent.

    E(ξ) = −β⁻¹ log Σⱼ exp(β ξ xⱼᵀ) + ½ ‖ξ‖² + c        the energy        Ramsauer et al. 2021, eq. 2
    ξ ← softmax(β ξ Xᵀ) X                              a retrieval       eq. 3
    c = β⁻¹ log N + ½ max ‖xⱼ‖²                        so that E ≥ 0

    query      ξ, where retrieval starts, as a row: (*batch, T, K), each on its own.
    patterns   X, what is stored, (*batch, N, K).
    beta       β > 0, the inverse temperature: small values give means of many patterns, large ones single patterns.

A retrieval is one step of descent on E with rate 1, and it is softmax attention: with β = 1/√K, queries ξ, and X as
keys and as values. The energy falls by at least ½ ‖step‖² (section 2), so that retrievals settle. There is no state and
no order of time: this is a memory that was filled before. For real numbers. Raises TypeError for what is no array, and
ValueError for fewer than two axes, for patterns of another width than the query, for β ≤ 0 and for fewer than one step.
"""

import minigrad as mg
from minigrad import namespace
from models.forms import Array
from models.precision import number
from models.sequences import check_positive_int


def retrieve(query: Array, patterns: Array, *, beta: float, steps: int = 1) -> Array:
    """Return ξ after this many retrievals, (*batch, T, K)."""
    _check("retrieve", query, patterns, beta)
    check_positive_int("hopfield.retrieve: steps", steps)
    for _ in range(steps):
        query = weights(query, patterns, beta=beta) @ patterns
    return query


def weights(query: Array, patterns: Array, *, beta: float) -> Array:
    """Return the softmax weights of the patterns in a retrieval, (*batch, T, N)."""
    return mg.softmax(number("hopfield.weights: beta", beta) * (query @ patterns.mT), axis=-1)


def energy(query: Array, patterns: Array, *, beta: float) -> Array:
    """Return E of every query, (*batch, T)."""
    _check("energy", query, patterns, beta)
    xp, beta = namespace(query, patterns), number("hopfield.energy: beta", beta)
    scores = beta * (query @ patterns.mT)
    largest = xp.max(xp.sum(patterns * patterns, axis=-1), axis=-1, keepdims=True)
    constant = mg.logsumexp(0 * scores, axis=-1) / beta + largest / 2  # log N, in the arrays' own numbers
    return xp.sum(query * query, axis=-1) / 2 - mg.logsumexp(scores, axis=-1) / beta + constant


def separation(patterns: Array) -> Array:
    """Return the separation Δⱼ = ‖xⱼ‖² − max xⱼxᵢᵀ over the other patterns i, (*batch, N)."""
    xp = namespace(patterns)
    products, N = patterns @ patterns.mT, patterns.shape[-2]
    diagonal = xp.eye(N, dtype=bool)
    off_diagonal = xp.where(diagonal, -xp.max(abs(products)) - 1, products)
    return xp.sum(patterns * patterns, axis=-1) - xp.max(off_diagonal, axis=-1)


def _check(function: str, query: Array, patterns: Array, beta: float) -> None:
    for name, x, axes in (("query", query, "(*batch, T, K)"), ("patterns", patterns, "(*batch, N, K)")):
        if not hasattr(x, "shape"):
            raise TypeError(f"hopfield.{function}: {name} is of type {type(x).__name__}, expected an array {axes}")
        if len(x.shape) < 2:
            raise ValueError(f"hopfield.{function}: {name} has shape {tuple(x.shape)}, expected {axes}")
    if query.shape[-1] != patterns.shape[-1]:
        came = f"patterns has {patterns.shape[-1]} features, expected {query.shape[-1]} as query has"
        raise ValueError(f"hopfield.{function}: {came} (shape {tuple(patterns.shape)})")
    if not number(f"hopfield.{function}: beta", beta) > 0:
        raise ValueError(f"hopfield.{function}: beta is {beta}, expected a number above 0")

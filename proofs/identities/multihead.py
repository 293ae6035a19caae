"""Softmax attention as a whole, and its heads: invariances, masks, the scale of the scores, grouped queries."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from minigrad.conversion import to_library_of
from models.attention import multihead, softmax
from models.memory import linear_attention
from proofs.checker.statements import Instance, bounded, converges, grows, identity, refuted
from proofs.checker.strategies import LARGE, SMALL, Keys, Queries, Strategy, Values

CHAPTER = 1

VASWANI = "vaswani2017"
HEADS, GROUPS = 4, 2

Order = Annotated[Any, Strategy(number=lambda draw, sizes: draw(st.permutations(range(sizes["T"]))))]
Window = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, sizes["T"] + 1)))]
Shifts = Annotated[Any, Strategy("*batch T", LARGE)]
WideQueries = Annotated[Any, Strategy("*batch T 8", LARGE)]
WideKeys = Annotated[Any, Strategy("*batch T 8", SMALL)]
WideValues = Annotated[Any, Strategy("*batch T 4", LARGE)]
GroupedKeys = Annotated[Any, Strategy("*batch T 4", SMALL)]
GroupedValues = Annotated[Any, Strategy("*batch T 2", LARGE)]

ScoresOfOne = Annotated[Any, Strategy("*batch 1 T", LARGE)]
ValueOfOne = Annotated[Any, Strategy("*batch 1 V", LARGE)]

# Linear attention is rational, so that over it exact numbers decide what heads do.
OVER_HEADS = [
    Instance("softmax.quadratic", {"form": softmax.quadratic}, {}, exact=False),
    Instance("linear_attention.parallel", {"form": linear_attention.parallel}, {}),
]

# The softmax


@identity("A number added to all scores of a query changes nothing", source=f"{VASWANI}, eq. 1")
def softmax_is_invariant_to_a_shift(q: Queries, k: Keys, v: Values, shifts: Shifts):
    shifted, _ = softmax.quadratic(q, k, v, bias=shifts[..., None])
    return shifted, softmax.quadratic(q, k, v)[0]


@identity("The weights sum to one: where all values are 1, so is the output", source=f"{VASWANI}, section 3.2")
def weights_sum_to_one(q: Queries, k: Keys, v: Values):
    ones = namespace(v).ones_like(v)
    return softmax.quadratic(q, k, ones)[0], ones


@bounded("A mean of the values with positive weights: no output exceeds the largest value", source=f"{VASWANI}, eq. 1")
def outputs_are_means(q: Queries, k: Keys, v: Values):
    xp = namespace(v)
    y, _ = softmax.quadratic(q, k, v, causal=False)
    return y, xp.max(v, axis=-2, keepdims=True) + xp.zeros_like(y)


@identity(
    "Its gradient is dV = PᵀdO, dS = P ⊙ (dO Vᵀ − rowsum(dO ⊙ O)), dQ = dS K/√K, dK = dSᵀQ/√K, with P the weights",
    source="dao2022, algorithm 4",
)
def gradient_of_attention(q: Queries, k: Keys, v: Values, dy: Values):
    def loss(q: Any, k: Any, v: Any) -> Any:
        return mg.sum(dy * softmax.quadratic(q, k, v, causal=False)[0])

    xp, scale = namespace(q, k, v, dy), q.shape[-1] ** -0.5
    weights = xp.exp(q @ k.mT * scale)
    P = weights / xp.sum(weights, axis=-1, keepdims=True)
    dS = P * (dy @ v.mT - xp.sum(dy * (P @ v), axis=-1, keepdims=True))
    return mg.grad(loss, argnums=(0, 1, 2))(q, k, v), (dS @ k * scale, dS.mT @ q * scale, P.mT @ dy)


@identity(
    "Without positions and without a mask attention is equivariant to permutations of the tokens",
    source=f"{VASWANI}, section 3.5: no recurrence, hence no order of the sequence",
)
def attention_is_permutation_equivariant(q: Queries, k: Keys, v: Values, order: Order):
    attended, _ = softmax.quadratic(*(reorder(x, order) for x in (q, k, v)), causal=False)
    return attended, reorder(softmax.quadratic(q, k, v, causal=False)[0], order)


@refuted(
    "So is causal attention (it is not: the mask knows the order)",
    source=f"{VASWANI}, section 3.2.3",
    instead="multihead.attention_is_permutation_equivariant",
)
def causal_attention_is_permutation_equivariant(q: Queries, k: Keys, v: Values, order: Order):
    attended, _ = softmax.quadratic(*(reorder(x, order) for x in (q, k, v)))
    return attended, reorder(softmax.quadratic(q, k, v)[0], order)


@identity(
    "A sliding window of W tokens is the mask t − s < W",
    source="beltagy2020, section 3.1; behrouz2025titans, eq. 27",
)
def a_window_is_a_mask(q: Queries, k: Keys, v: Values, window: Window):
    xp, T = namespace(q, k, v), q.shape[-2]
    ones = np.ones((T, T), dtype=bool)
    masked, _ = softmax.quadratic(q, k, v, mask=to_library_of(q, ones & ~np.tri(T, k=-window, dtype=bool)))
    outputs = []
    for t in range(T):
        seen = slice(max(t - window + 1, 0), t + 1)
        weights = xp.exp(q[..., t : t + 1, :] @ k[..., seen, :].mT * q.shape[-1] ** -0.5)
        outputs.append(weights @ v[..., seen, :] / xp.sum(weights, axis=-1, keepdims=True))
    return masked, xp.concat(outputs, axis=-2)


# The scale


@identity(
    "The sum of (q·k)² over all T² pairs is tr(QᵀQ KᵀK): T² K, and K a pair, where QᵀQ/T and KᵀK/T are I",
    source=f"{VASWANI}, footnote 4, made precise",
    exact=True,
)
def second_moment_of_the_scores(q: Queries, k: Keys):
    xp, scores = namespace(q, k), q @ k.mT
    return xp.sum(scores * scores, axis=(-2, -1)), xp.sum((q.mT @ q) * (k.mT @ k), axis=(-2, -1))


@identity(
    "For queries and keys of mean 0 and covariance I, q·k/√K has mean 0 and variance 1",
    source=f"{VASWANI}, footnote 4 (all 2^K vectors of signs)",
    only=("float64",),
)
def scores_have_unit_variance():
    means, variances = [], []
    for K in range(1, 7):
        signs = np.array(list(itertools.product([-1.0, 1.0], repeat=K)))
        scores = signs @ signs.T  # integers, so that nothing is rounded
        means.append(scores.mean())
        variances.append((scores * scores).mean() / K)
    return (np.array(means), np.array(variances)), (np.zeros(6), np.ones(6))


@identity("The scale is 1/√K unless another is asked for", source=f"{VASWANI}, eq. 1")
def default_scale(q: Queries, k: Keys, v: Values):
    xp = namespace(q, k, v)
    weights = xp.exp(q @ k.mT * q.shape[-1] ** -0.5)
    expected = weights @ v / xp.sum(weights, axis=-1, keepdims=True)
    return softmax.quadratic(q, k, v, causal=False)[0], expected


def mean_slope(K: int, scale: float) -> float:
    """Return the mean of ∂p/∂(score) for two keys, query and keys drawn from all vectors of K signs.

    The scores differ by a sum of 2K signs, 2(i − K) with the chance C(2K, i)/4ᴷ.
    """
    differences = 2.0 * (np.arange(2 * K + 1) - K)
    q = scale * differences[:, None, None]
    k = v = np.broadcast_to(np.array([[1.0], [0.0]]), (2 * K + 1, 2, 1))  # whose scores are the difference and 0
    slopes = mg.grad(lambda q: mg.sum(softmax.cross(q, k, v, scale=1.0)[0]))(q)[:, 0, 0]
    return float(sum(math.comb(2 * K, i) / 4**K * x for i, x in enumerate(slopes.tolist())))


@grows(
    "Without the scale the softmax's mean slope falls as 1/√K: two keys, query and keys vectors of K random signs",
    source=f"{VASWANI}, section 3.2.1, made precise; talk-papers, Attention is all you need: the scale stabilises",
    order=0.5,
)
def unscaled_slopes_fall(length: int):
    return 1 / mean_slope(length, 1.0)


@bounded(
    "With 1/√K it is at least 1/6 for any K, two thirds of its greatest value",
    source=f"{VASWANI}, section 3.2.1, made precise; talk-papers, Attention is all you need",
    only=("float64",),
)
def scaled_slopes_stay():
    return np.full(64, 1 / 6), np.array([mean_slope(K, K**-0.5) for K in range(1, 65)])


@converges(
    "As scores grow the gradient vanishes: where the greatest of T + 1 leads by s, it is at most T e⁻ˢ times the "
    "range of the values",
    source=f"{VASWANI}, section 3.2.1, made precise",
)
def gradients_vanish_as_scores_grow(scores: ScoresOfOne, v: Values, other: ValueOfOne):
    xp, T = namespace(scores, v), v.shape[-2]
    s = xp.concat([scores, 1 + xp.max(scores, axis=-1, keepdims=True)], axis=-1)
    v = xp.concat([v, other], axis=-2)
    k = 0 * v[..., :1]
    spread = (xp.max(v, axis=-2) - xp.min(v, axis=-2))[..., 0]

    def largest(scale: int) -> Any:
        def attended(bias: Any) -> Any:
            return mg.sum(softmax.cross(k[..., :1, :], k, v, bias=bias)[0][..., 0])

        return xp.max(abs(mg.grad(attended)(scale * s))[..., 0, :], axis=-1)

    scales = (1, 2, 4, 8)
    bounds = [spread * (T * math.exp(-scale)) for scale in scales]
    return xp.stack([largest(scale) for scale in scales], axis=-1), xp.stack(bounds, axis=-1)


# Heads


@identity(
    "All channels of one head weight the tokens alike: where two channels have equal values, their outputs are equal",
    source=f"{VASWANI}, section 3.2.2; talk-papers, Attention is all you need: several heads",
    exact=True,
    over=OVER_HEADS,
)
def a_head_has_one_weighting(q: WideQueries, k: WideKeys, v: Values, form: Any):
    xp, width = namespace(v), v.shape[-1]
    y, _ = multihead.attend(form, q, k, xp.concat([v, v], axis=-1), heads=1)
    return y[..., :width], y[..., width:]


@refuted(
    "Two heads do so too, and one head of the same width could take their place",
    source=f"{VASWANI}, section 3.2.2; talk-papers, Attention is all you need: several heads",
    instead="multihead.a_head_has_one_weighting",
)
def two_heads_have_one_weighting(q: WideQueries, k: WideKeys, v: Values):
    xp, width = namespace(v), v.shape[-1]
    y, _ = multihead.attend(softmax.quadratic, q, k, xp.concat([v, v], axis=-1), heads=2)
    return y[..., :width], y[..., width:]


@identity(
    "A multi-head layer is the concatenation of its heads",
    source=f"{VASWANI}, section 3.2.2",
    exact=True,
    over=OVER_HEADS,
)
def a_layer_is_its_heads(q: WideQueries, k: WideKeys, v: WideValues, form: Any):
    y, _ = multihead.attend(form, q, k, v, heads=HEADS)
    channels = [tuple(channels_of(x, h, HEADS) for x in (q, k, v)) for h in range(HEADS)]
    return y, namespace(q).concat([form(*head)[0] for head in channels], axis=-1)


@identity(
    "Grouped queries are multi-head attention with each key/value head repeated for the H/G queries of its group",
    source="ainslie2023, section 2.2",
    exact=True,
    over=OVER_HEADS,
)
def grouped_queries_repeat_keys(q: WideQueries, k: GroupedKeys, v: GroupedValues, form: Any):
    y, state = multihead.attend(form, q, k, v, heads=HEADS, key_value_heads=GROUPS)
    repeated = [repeat_heads(x) for x in (k, v)]
    expected, _ = multihead.attend(form, q, *repeated, heads=HEADS)
    return (y, state), (expected, tuple(multihead.split_heads(x, GROUPS) for x in (k, v)))


@identity(
    "Grouped queries attend to a state of G heads as to tokens before",
    source="ainslie2023, section 2.2: the cache shrinks by G/H",
)
def grouped_queries_continue(q: WideQueries, k: GroupedKeys, v: GroupedValues):
    options, half = {"heads": HEADS, "key_value_heads": GROUPS}, (q.shape[-2] + 1) // 2
    whole, state = multihead.attend(softmax.quadratic, q, k, v, **options)
    first, cached = multihead.attend(softmax.quadratic, *(x[..., :half, :] for x in (q, k, v)), **options)
    rest, last = multihead.attend(softmax.quadratic, *(x[..., half:, :] for x in (q, k, v)), state=cached, **options)
    return (namespace(q).concat([first, rest], axis=-2), last), (whole, state)


@identity("One key/value head for all is multi-query attention", source="ainslie2023, section 2.2: GQA-1", exact=True)
def one_group_is_multi_query(q: WideQueries, k: Annotated[Any, Strategy("*batch T 2", SMALL)], v: Values):
    y, _ = multihead.attend(linear_attention.parallel, q, k, v, heads=HEADS, key_value_heads=1)
    heads = [linear_attention.parallel(channels_of(q, h, HEADS), k, v)[0] for h in range(HEADS)]
    return y, namespace(q).concat(heads, axis=-1)


def reorder(x: Any, order: list[int]) -> Any:
    """Return the tokens of x (*batch, T, K) in another order."""
    return namespace(x).stack([x[..., t, :] for t in order], axis=-2)


def channels_of(x: Any, head: int, heads: int) -> Any:
    """Return the channels of one head, (*batch, T, K) of (*batch, T, H·K)."""
    width = x.shape[-1] // heads
    return x[..., head * width : (head + 1) * width]


def repeat_heads(x: Any) -> Any:
    """Return (*batch, T, H·K) from x (*batch, T, G·K): head h is head ⌊h G/H⌋ of x."""
    return namespace(x).concat([channels_of(x, h * GROUPS // HEADS, GROUPS) for h in range(HEADS)], axis=-1)

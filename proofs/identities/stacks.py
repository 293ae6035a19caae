"""Stacks of attention layers: averaging, residual paths and norms, and what they know of the order of tokens.

Attention without residual path and MLP averages: the range max − min of a channel over the tokens shrinks by
1 − Σⱼ minᵢ Aᵢⱼ at least (Dobrushin's coefficient of ergodicity bounds it), and repeated averaging makes all tokens
alike. Where |scores| ≤ b all weights are at least e^(−2b)/T, so that the range shrinks by 1 − e^(−2b).
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from minigrad.nn import Embedding
from minigrad.pytree import arrays_of, map_arrays
from models.attention import softmax
from models.language.transformer import EncoderLayer, TransformerConfig
from models.memory import gated_linear_attention, linear_attention
from models.vision.encoder import Encoder, EncoderConfig
from proofs.checker.statements import bounded, converges, identity, refuted
from proofs.checker.strategies import LARGE, MILD, SEVERAL, SMALL, Keys, Queries, Strategy, Values
from proofs.identities.discretize import OURS
from proofs.identities.multihead import reorder
from proofs.identities.transformer import in_float64

CHAPTER = 1

VASWANI, VIT = "vaswani2017", "dosovitskiy2021"
TALK = "talk-papers, Attention is all you need"
MEETING = "talk-meeting, (1)"
WIDTH = 4

Tokens = Annotated[Any, Strategy("*batch T K", SMALL)]
Wide = Annotated[Any, Strategy(f"*batch T {WIDTH}", SMALL)]
Order = Annotated[  # of the tokens before the last
    Any,
    Strategy(number=lambda draw, sizes: [*draw(st.permutations(range(sizes["T"] - 1))), sizes["T"] - 1]),
]
Decays = Annotated[Any, Strategy("T", MILD, logarithm=True, sizes={"T": SEVERAL})]
SeveralTokens = Annotated[Any, Strategy("T K", LARGE, sizes={"T": SEVERAL})]
Table = Annotated[Any, Strategy("5 K", LARGE)]
Words = Annotated[Any, Strategy(number=lambda draw, sizes: draw(st.lists(st.integers(0, 4), min_size=1, max_size=6)))]
Cotangents = Annotated[Any, Strategy("6 K", LARGE)]

# "Made of attention alone"


def spread(x: Any) -> Any:
    """Return max − min of each channel over the tokens, (*batch, V)."""
    xp = namespace(x)
    return xp.max(x, axis=-2) - xp.min(x, axis=-2)


def self_attention(x: Any) -> Any:
    """Attend from all tokens to all, with x as queries, keys and values, and scores of at most ½ where |x| ≤ 1."""
    return softmax.quadratic(x, x, x, causal=False, scale=0.5 / x.shape[-1])[0]


@bounded(
    "Attention shrinks the range of every channel over the tokens to 1 − Σⱼ minᵢ Aᵢⱼ of it, or less",
    source=f"dong2021, abstract, made precise; {MEETING}: attention alone",
)
def attention_shrinks_the_range(q: Queries, k: Keys, v: Values):
    xp = namespace(q, k, v)
    y, _ = softmax.quadratic(q, k, v, causal=False)
    weights = xp.exp(q @ k.mT * q.shape[-1] ** -0.5)
    weights = weights / xp.sum(weights, axis=-1, keepdims=True)
    common = xp.sum(xp.min(weights, axis=-2, keepdims=True), axis=-1)
    return spread(y), (1 - common) * spread(v)


@converges(
    "Layers of attention alone, at scores of at most b, make all tokens alike: L of them leave (1 − e^(−2b))ᴸ of the "
    "range, and one row times a column of ones",
    source=f"dong2021, abstract: rank one, even doubly exponentially; {MEETING}: attention alone",
)
def attention_alone_loses_rank(x: Tokens):
    xp, first, errors, shrinking = namespace(x), spread(x), [], 1 - math.exp(-1)
    bounds = []
    for layer in range(12):
        errors.append(spread(x))
        bounds.append(first * shrinking**layer)
        x = self_attention(x)
    return xp.stack(errors, axis=-1), xp.stack(bounds, axis=-1)


@refuted(
    "So do layers with a residual path, x + attention(x)",
    source=f"dong2021, abstract: skip connections prevent it; {MEETING}",
    relation="≤",
    instead="stacks.attention_alone_loses_rank",
)
def residual_layers_lose_rank(x: Tokens):
    return spread(x + self_attention(x)), spread(x)


@identity(
    "A layer's feed-forward network has two thirds of its weights: 8 d² beside 4 d² of attention, at a width of 4 d",
    source=f"{VASWANI}, section 3.3; {MEETING}: attention alone",
    derivatives=False,
    only=("float64",),
)
def the_feed_forward_has_most_weights():
    sizes = []
    for d in (4, 8, 64):
        layer = EncoderLayer(TransformerConfig(7, width=d, heads=2), np.random.default_rng(0))
        matrices = [x.size for x in arrays_of(layer.feed_forward) if x.ndim == 2]
        sizes.append((sum(matrices), sum(x.size for x in arrays_of(layer.attention))))
    return np.array(sizes), np.array([(8 * d * d, 4 * d * d) for d in (4, 8, 64)])


# Pre-norm and post-norm


@bounded(
    "Pre-norm leaves a path from the input to the output: z_L = z₀ + the outputs of all sub-layers",
    source=f"{VIT}, eq. 2 and 3; talk-meeting, (2): the norm before attention",
    only=("float64",),
)
def pre_norm_is_a_sum(z: Wide):
    z = np.asarray(z, dtype=np.float64)
    outputs: list[Any] = []
    model, now = pre_norm(), z
    for layer in model.layers:
        attended = layer.attention(layer.attention_norm(now))
        fed = layer.mlp_out(layer.activation(layer.mlp_in(layer.mlp_norm(now + attended))))
        now, outputs = layer(now), [*outputs, attended, fed]
    return abs(model(z) - (z + sum(outputs))), np.full(z.shape, 2.0**-40)


@refuted(
    "So does post-norm: x_L = x₀ + the outputs of all sub-layers",
    source=f"{VASWANI}, section 3.1; talk-meeting, (2)",
    relation="≤",
    instead="stacks.pre_norm_is_a_sum",
)
def post_norm_is_a_sum(z: Wide):
    z = np.asarray(z, dtype=np.float64)
    layer = in_float64(EncoderLayer(TransformerConfig(7, width=WIDTH, heads=2, hidden=6), np.random.default_rng(0)))
    attended = layer.attention(z, layer.attention.keys_and_values(z))
    fed = layer.feed_forward(layer.norms[0](z + attended))
    return abs(layer(z) - (z + attended + fed)), np.full(z.shape, 0.01)


@bounded(
    "Where all sub-layers return 0 a pre-norm stack returns its input; a post-norm stack its norm, twice a layer",
    source=f"{VIT}, eq. 2 and 3; {VASWANI}, section 3.1; talk-meeting, (2)",
    only=("float64",),
)
def silent_stacks(z: Wide):
    z = np.asarray(z, dtype=np.float64)
    layer = EncoderLayer(TransformerConfig(7, width=WIDTH, heads=2, hidden=6), np.random.default_rng(0))
    pre, post = (map_arrays(lambda x: 0.0 * x, part) for part in (pre_norm(), layer))
    post.norms = in_float64(layer.norms)
    norm = z
    for _ in range(2):
        centred = norm - norm.mean(axis=-1, keepdims=True)
        norm = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return (abs(pre(z) - z), abs(post(z) - norm)), (0 * z, np.full(z.shape, 2.0**-40))


# The order of tokens


@identity(
    "Without positions one causal layer gives the last token an output that the order of the others does not change",
    source=f"haviv2022, abstract; {TALK}: no order without positions",
    only=OURS,
)
def one_layer_ignores_the_order(q: SeveralTokens, k: SeveralTokens, v: SeveralTokens, order: Order):
    moved = (reorder(x, order) for x in (q, k, v))
    return softmax.quadratic(*moved)[0][..., -1:, :], softmax.quadratic(q, k, v)[0][..., -1:, :]


@refuted(
    "So do two: positions are essential (each earlier token has seen those before it, and the last one sees that)",
    source=f"haviv2022, abstract: causal models learn positions; {TALK}: essential",
    instead="stacks.one_layer_ignores_the_order",
)
def two_layers_ignore_the_order(x: SeveralTokens, order: Order):
    def twice(x: Any) -> Any:
        y, _ = softmax.quadratic(x, x, x)
        return softmax.quadratic(y, y, y)[0][..., -1:, :]

    return twice(reorder(x, order)), twice(x)


@identity(
    "Nor does every recurrent network know the order: the state of linear attention is a sum, whatever the order",
    source=f"katharopoulos2020, eq. 18; {TALK}: unlike an RNN",
    exact=True,
)
def a_sum_has_no_order(q: SeveralTokens, k: SeveralTokens, v: SeveralTokens, order: Order):
    _, moved = linear_attention.recurrent(*(reorder(x, order) for x in (q, k, v)))
    return moved, linear_attention.recurrent(q, k, v)[1]


@refuted(
    "Nor does one with decays (the later of two tokens has decayed less)",
    source=f"yang2024gla, section 4.1; {TALK}: unlike an RNN",
    exact=True,
    instead="stacks.a_sum_has_no_order",
)
def a_decayed_sum_has_no_order(q: SeveralTokens, k: SeveralTokens, v: SeveralTokens, gate: Decays, order: Order):
    q_, k_, v_ = (reorder(x, order) for x in (q, k, v))
    _, moved = gated_linear_attention.recurrent(q_, k_, v_, gate)
    return moved, gated_linear_attention.recurrent(q, k, v, gate)[1]


# Embedding and encoding


@identity(
    "An embedding is a linear layer on the one-hot encoding, x = one-hot · E, of any width",
    source=f"{VASWANI}, section 3.4; {TALK}, question 1",
    exact=True,
)
def an_embedding_reads_one_hot(table: Table, words: Words):
    return embed(table, words), one_hot(table, words) @ table


@identity(
    "The one-hot encoding is itself an embedding, with E = I: as wide as the vocabulary, and nothing is learned",
    source=f"{TALK}, question 1, made precise",
    exact=True,
)
def one_hot_is_an_embedding(table: Table, words: Words):
    eye = namespace(table).eye(5, dtype=table.dtype)
    return embed(eye + 0 * table[:, :1], words), one_hot(table, words)


@refuted(
    "An embedding has fewer dimensions than what it embeds (a wider one, such as [I ‖ E], is an embedding too)",
    source=f"{TALK}, question 1: 'in few dimensions'",
    exact=True,
    relation="≤",
    instead="stacks.one_hot_is_an_embedding",
)
def an_embedding_is_narrow(table: Table, words: Words):
    wide = namespace(table).concat([namespace(table).eye(5, dtype=table.dtype), table], axis=-1)
    return np.array([embed(wide, words).shape[-1]], dtype=object), np.array([5], dtype=object)


@identity(
    "What is learned is a row at a time: the gradient of E is one-hotᵀ dx, 0 for words that did not occur",
    source=f"{TALK}, question 1, made precise",
    exact=True,
)
def an_embedding_learns_by_rows(table: Table, words: Words, dx: Cotangents):
    dx = dx[: len(words)]
    gradient = mg.grad(lambda table: mg.sum(dx * embed(table, words)))(table)
    return gradient, one_hot(table, words).mT @ dx


def embed(table: Any, words: list[int]) -> Any:
    """Return the rows of a table, by the layer."""
    layer = Embedding(1, 1, rng=np.random.default_rng(0))
    layer.weight = table
    return layer(np.array(words))


def one_hot(table: Any, words: list[int]) -> Any:
    """Return the unit vectors of words, as numbers like those of the table."""
    xp = namespace(table)
    return xp.stack([xp.eye(5, dtype=table.dtype)[w] for w in words], axis=0)


def pre_norm() -> Encoder:
    """Return a stack of two layers with fixed weights."""
    return in_float64(Encoder(EncoderConfig(width=WIDTH, layers=2, heads=2, hidden=6), np.random.default_rng(0)))

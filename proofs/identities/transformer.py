"""The Transformer: what its encoder and its decoder may see, its cached state, its loss, its rate, and its decoding.

Models have fixed weights; what is drawn are the embeddings that go in, or the tokens. What may be seen is stated of
layers without their norms, whose rounding has no useful bound in several layers: a norm acts on each token by itself.
"""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

from minigrad import namespace, optim
from minigrad.conversion import to_library_of
from minigrad.pytree import map_arrays, unchanged
from models.attention import softmax
from models.attention.multihead import merge_heads
from models.language import decoding, transformer
from models.language.transformer import TransformerConfig
from proofs.checker.statements import bounded, identity, refuted
from proofs.checker.strategies import LARGE, SMALL, Cut, Keys, Queries, Strategy, Values

CHAPTER = 1

VASWANI = "vaswani2017"
WIDTH, VOCAB = 4, 7
PAD, START, END = 0, 1, 2
UNIT = 2.0**-53
NUMPY = ("float64", "float32", "gradient")  # the weights are NumPy arrays of float32

Source = Annotated[Any, Strategy(f"*batch S {WIDTH}", SMALL)]
Target = Annotated[Any, Strategy(f"*batch T {WIDTH}", SMALL)]
Padding = Annotated[Any, Strategy(f"*batch P {WIDTH}", SMALL)]
OtherKeys = Annotated[Any, Strategy("*batch S K", SMALL)]
OtherValues = Annotated[Any, Strategy("*batch S V", LARGE)]
Order = Annotated[Any, Strategy(number=lambda draw, sizes: draw(st.permutations(range(sizes["S"]))))]
Logits = Annotated[Any, Strategy("T 5", LARGE)]
Classes = Annotated[Any, Strategy(number=lambda draw, sizes: [draw(st.integers(0, 4)) for _ in range(sizes["T"])])]
Smoothing = Annotated[float, Strategy(number=lambda draw, sizes: draw(st.sampled_from([0.125, 0.0, 0.5, 1.0])))]
Seed = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 999)))]
Words = Annotated[
    Any, Strategy(number=lambda draw, sizes: draw(st.lists(st.integers(3, VOCAB - 1), min_size=1, max_size=6)))
]


def make_model(layers: int = 1) -> Any:
    """Return a small model with fixed weights, whose layers have no norms."""
    config = TransformerConfig(VOCAB, width=WIDTH, layers=layers, heads=2, hidden=6)
    model = transformer.Transformer(config, np.random.default_rng(0))
    both_stacks: list[Any] = [*model.encoder, *model.decoder]
    for layer in both_stacks:
        layer.norms = [unchanged] * len(layer.norms)
    return model


def first_visible(x: Any, count: int) -> Any:
    """Return the mask (1, 1, S) that shows the first `count` tokens of x (*batch, S, width)."""
    return to_library_of(x, (np.arange(x.shape[-2]) < count)[None, None, :])


# Cross-attention


@identity(
    "In cross-attention T queries attend to all S keys of another sequence: softmax(Q Kᵀ/√K) V",
    source=f"{VASWANI}, section 3.2.3",
)
def cross_attention_is_the_paper_s(q: Queries, k: OtherKeys, v: OtherValues):
    xp = namespace(q, k, v)
    rows = []
    for t in range(q.shape[-2]):
        weights = xp.exp(xp.sum(q[..., t : t + 1, :] * k, axis=-1, keepdims=True) * q.shape[-1] ** -0.5)
        total = xp.sum(weights, axis=-2, keepdims=True)
        rows.append(xp.sum(weights * v, axis=-2, keepdims=True) / total)
    return softmax.cross(q, k, v)[0], xp.concat(rows, axis=-2)


@identity(
    "Attention to the tokens themselves is cross-attention to them",
    source=f"{VASWANI}, section 3.2.3",
)
def self_attention_is_cross_attention(q: Queries, k: Keys, v: Values):
    return softmax.cross(q, k, v)[0], softmax.quadratic(q, k, v, causal=False)[0]


# What may be seen


@identity("The decoder cannot see ahead", source=f"{VASWANI}, section 3.2.3", only=NUMPY)
def the_decoder_cannot_see_ahead(x: Source, y: Target, other: Target, cut: Cut):
    model = make_model()
    changed = namespace(y).concat([y[..., :cut, :], other[..., cut:, :]], axis=-2)
    state = model.read(x)
    return model.write(y, state)[0][..., :cut, :], model.write(changed, state)[0][..., :cut, :]


@refuted("Nor can the encoder (it can: a source is read as a whole)", source=f"{VASWANI}, section 3.2.3")
def the_encoder_cannot_see_ahead(x: Source, other: Source):
    model = make_model()
    changed = namespace(x).concat([x[..., :1, :], other[..., 1:, :]], axis=-2)
    return keys_of(model.read(x))[..., :1, :], keys_of(model.read(changed))[..., :1, :]


@identity(
    "Padding of a source changes nothing: neither the keys of its tokens nor what the decoder writes",
    source=f"{VASWANI}, section 3.2.3",
    only=NUMPY,
)
def padding_changes_nothing(x: Source, padding: Padding, y: Target):
    model, size = make_model(), x.shape[-2]
    padded = namespace(x).concat([x, padding], axis=-2)
    state = model.read(padded, first_visible(padded, size))
    alone = model.read(x)
    return (keys_of(state)[..., :size, :], model.write(y, state)[0]), (keys_of(alone), model.write(y, alone)[0])


@identity(
    "Without positions the encoder is equivariant to permutations of the source, and the decoder does not see them",
    source=f"{VASWANI}, section 3.5",
    only=NUMPY,
)
def the_encoder_is_permutation_equivariant(x: Source, y: Target, order: Order):
    model = make_model()
    state, moved = model.read(x), model.read(reorder(x, order))
    return (keys_of(moved), model.write(y, moved)[0]), (reorder(keys_of(state), order), model.write(y, state)[0])


@identity(
    "A decoder with a cache is the one without: a target may be cut anywhere, and continued from the state",
    source="minigrad, the contract of a form",
    only=NUMPY,
)
def a_cached_decoder_is_the_uncached_one(x: Source, y: Target, cut: Cut):
    model = make_model()
    whole, _ = model.write(y, model.read(x))
    first, state = model.write(y[..., :cut, :], model.read(x))
    rest, _ = model.write(y[..., cut:, :], state)
    return whole, namespace(y).concat([first, rest], axis=-2)


@identity(
    "What is decoded from a state has the positions after it",
    source="minigrad, the contract of a form",
    derivatives=False,
    only=("float64",),
)
def tokens_continue_at_their_places(seed: Seed, source: Words, target: Words):
    model, target = cached_model(seed), np.array([*target, 3])
    seen: list[Any] = []

    def write(y: Any, state: Any, rng: Any = None) -> Any:
        seen.append(y)
        return type(model).write(model, y, state)

    model.write = write
    state = model.encode(np.array(source), pad=PAD)
    _, state = model.decode(target[:-1], state)
    model.decode(target[-1:], state)
    del model.write
    return np.concatenate(seen), model.embed(target, 0, "target")


# Layers, loss and learning rate


@identity(
    "Each sub-layer is LayerNorm(x + sub-layer(x))",
    source=f"{VASWANI}, section 3.1",
    only=("float64", "gradient"),  # in float32 their rounding has no bound
)
def layers_are_post_norm(x: Source):
    layer = transformer.EncoderLayer(TransformerConfig(VOCAB, WIDTH, heads=2, hidden=6), np.random.default_rng(0))
    xp = namespace(x)
    attended = x + layer.attention(x, layer.attention.keys_and_values(x))
    x1 = layer_norm(xp, attended)
    x2 = layer_norm(xp, x1 + layer.feed_forward(x1))
    return layer(x), x2


@identity(
    "Embeddings are √d rows of the one matrix that is the head as well",
    source=f"{VASWANI}, section 3.4",
    derivatives=False,
    only=("float64",),
)
def one_matrix_embeds_and_reads(source: Words, target: Words):
    model = in_float64(make_model())
    weight, state = model.embedding.weight, model.encode(np.array(source), pad=PAD)
    sinusoids = np.array([[math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100)] for t in range(len(target))])
    y, _ = model.write(2 * weight[np.array(target)] + sinusoids, state)
    return model.decode(np.array(target), state)[0], y @ weight.T


@identity(
    "Label smoothing is the cross entropy with the mixed target (1 − ε) [i = target] + ε/C",
    source=f"{VASWANI}, section 5.4; szegedy2016, section 7",
)
def label_smoothing_is_a_mixed_target(logits: Logits, classes: Classes, smoothing: Smoothing):
    xp = namespace(logits)
    mixed = (1 - smoothing) * np.eye(5)[classes] + smoothing / 5
    q = xp.astype(to_library_of(logits, mixed), logits.dtype)
    log_p = logits - xp.log(xp.sum(xp.exp(logits), axis=-1, keepdims=True))
    expected = -xp.mean(xp.sum(q * log_p, axis=-1))
    return transformer.smoothed_cross_entropy(logits, to_library_of(logits, np.array(classes)), smoothing), expected


@bounded(
    "The rate is s/warmup of its peak (d · warmup)^−½ up to s = warmup, then √(warmup/s) of it",
    source=f"{VASWANI}, eq. 3",
    only=("float64",),
)
def the_rate_is_the_paper_s():
    errors, limits = [], []
    for width, warmup in ((512, 4000), (64, 400), (1, 1)):
        peak = 1 / math.sqrt(width * warmup)
        for s in (1, 2, warmup // 2 + 1, warmup, warmup + 1, 10 * warmup, 100_000):
            expected = peak * (s / warmup if s < warmup else math.sqrt(warmup / s))
            errors.append(abs(optim.inverse_sqrt(s - 1, warmup=warmup, width=width) - expected))
            limits.append(16 * UNIT * expected)
    return np.array(errors), np.array(limits)


# Decoding


@identity("A beam of 1 is the greedy decoding", source="wu2016, section 7", derivatives=False, only=("float64",))
def a_beam_of_one_is_greedy(seed: Seed, source: Words):
    model = cached_model(seed)
    options: Any = {"pad": PAD, "start": START, "end": END, "tokens": 8}
    text, _ = decoding.beam_search(model, np.array(source), beam=1, **options)
    return np.array(text), decoding.greedy(model, np.array([source]), **options)[0]


@identity(
    "A beam as wide as there are texts finds the one of highest Σ log p / lp, lp = ((5 + |Y|)/(5 + 1))^α",
    source=f"wu2016, eq. 14; {VASWANI}, section 6.1",
    derivatives=False,
    only=("float64",),
)
def a_wide_beam_finds_the_best_text(seed: Seed, source: Words):
    model, longest = cached_model(seed), 3
    texts = np.array(list(itertools.product(range(VOCAB), repeat=longest)))
    read = np.concatenate([np.full((len(texts), 1), START), texts[:, :-1]], axis=1)
    logits = model(np.broadcast_to(source, (len(texts), len(source))), read, pad=PAD)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_p, texts[..., None], axis=-1)[..., 0]
    best: tuple[float, list[int]] = (-math.inf, [])
    for text, each in zip(texts.tolist(), chosen, strict=True):
        length = text.index(END) + 1 if END in text else longest
        best = max(best, (each[:length].sum() / ((5 + length) / (5 + 1)) ** 0.6, text[:length]))
    options: Any = {"pad": PAD, "start": START, "end": END, "tokens": longest}
    found, _ = decoding.beam_search(model, np.array(source), beam=VOCAB**longest, **options)
    return np.array(found), np.array(best[1])


@bounded(
    "The score that a beam search gives its text is Σ log p / lp of that text, read at once",
    source="wu2016, eq. 14",
    only=("float64",),
)
def scores_are_those_of_whole_texts(seed: Seed, source: Words):
    model = cached_model(seed)
    options: Any = {"pad": PAD, "start": START, "end": END, "tokens": 6}
    text, score = decoding.beam_search(model, np.array(source), beam=3, **options)
    logits = model(np.array(source), np.array([START, *text[:-1]]), pad=PAD)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = log_p[np.arange(len(text)), text].sum() / ((5 + len(text)) / (5 + 1)) ** 0.6
    return np.array([abs(score - expected)]), np.array([2**12 * UNIT * (1 + abs(expected))])


@refuted("So does a beam of 1", source="wu2016, section 7")
def greedy_finds_the_best_text(seed: Seed, source: Words):
    model = cached_model(seed)
    options: Any = {"pad": PAD, "start": START, "end": END, "tokens": 3}
    scores = [decoding.beam_search(model, np.array(source), beam=beam, **options)[1] for beam in (1, VOCAB**3)]
    return np.array(scores[0]), np.array(scores[1])


@cache
def cached_model(seed: int) -> Any:
    """Return a model of one small layer in float64, whose logits are far enough apart to decide."""
    config = TransformerConfig(VOCAB, width=WIDTH, layers=1, heads=2, hidden=6)
    return in_float64(transformer.Transformer(config, np.random.default_rng(seed % 50)))


def in_float64(model: Any) -> Any:
    """Return the model with its weights in float64."""
    return map_arrays(lambda array: array.astype(np.float64), model)


def keys_of(state: Any) -> Any:
    """Return the encoder's output as the last layer's keys, heads joined: (*batch, S, width)."""
    return merge_heads(state.layers[-1].source[0])


def layer_norm(xp: Any, x: Any) -> Any:
    """Return (x − mean x)/√(var x + ε)."""
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    return centred / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + 1e-5)


def reorder(x: Any, order: list[int]) -> Any:
    """Return the tokens of x (*batch, S, K) in another order."""
    return namespace(x).stack([x[..., s, :] for s in order], axis=-2)

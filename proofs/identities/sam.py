"""Segment Anything: windows, relative positions, prompts, and one encoding for many prompts.

Models have fixed weights; what is drawn are maps, prompts and logits of masks. The rounding of several layers
has no useful bound, so what is stated of whole models is in float64, within a limit.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

from minigrad import namespace
from minigrad.conversion import to_library_of
from minigrad.engine import unwrap
from minigrad.pytree import map_arrays, unchanged
from models.attention import softmax
from models.vision.sam import (
    SAM,
    ImageEncoderConfig,
    MaskDecoderConfig,
    PromptEncoderConfig,
    SAMConfig,
    image_encoder,
    losses,
    prompt_encoder,
    windows,
)
from proofs.checker.statements import bounded, identity, refuted
from proofs.checker.strategies import LARGE, SMALL, Strategy
from proofs.identities.sam_losses import zeros_and_ones

CHAPTER = 25

SA, VITDET, MVIT = "kirillov2023", "li2022vitdet", "li2022mvit"
NUMPY = ("float64", "float32", "gradient")  # the weights are NumPy arrays of float32
UNIT = 2.0**-53
PATCH, GRID, WIDTH = 2, 3, 8
SQUARE = 4  # patches a side of the map of a layer alone
SIDE = PATCH * GRID


SIDES = {"H": st.integers(2, 4), "W": st.integers(2, 4)}
MAP = {"H": st.integers(1, 3), "W": st.integers(1, 3)}
Maps = Annotated[Any, Strategy("*batch H W D", LARGE, sizes=SIDES)]
Window = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, 5)))]
MapQueries = Annotated[Any, Strategy("*batch H W K", LARGE, sizes=MAP)]
MapKeys = Annotated[Any, Strategy("*batch H W K", SMALL, sizes=MAP)]
MapValues = Annotated[Any, Strategy("*batch H W V", LARGE, sizes=MAP)]
Table = Annotated[Any, Strategy("5 K", SMALL)]  # of differences up to 2, as many as the largest map has
Square = Annotated[Any, Strategy(f"*batch {SQUARE} {SQUARE} 4", SMALL)]
Biases = Annotated[Any, Strategy("12", SMALL)]
Embedding = Annotated[Any, Strategy(f"*batch {GRID} {GRID} {WIDTH}", SMALL)]
Places = Annotated[Any, Strategy(number=lambda draw, sizes: draw(st.lists(POINT, min_size=2, max_size=4)))]
Seed = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 999)))]
POINT = st.tuples(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1), st.integers(0, 1))  # x, y and label

# Windows and relative positions


@identity("Windows, joined again, are the map", source=f"{VITDET}, section 3", exact=True)
def windows_are_joined_again(x: Maps, window: Window):
    return windows.join(windows.split(x, window), *x.shape[-3:-1]), x


@identity(
    "Windowed attention with one window is global attention",
    source=f"{VITDET}, section 3",
    only=NUMPY,
)
def one_window_is_global(x: Square):
    layers = [image_layer(window) for window in (SQUARE, 0)]
    return tuple(layer.attend(x) for layer in layers)


@identity("Patches in other windows change nothing", source=f"{VITDET}, section 3", only=NUMPY)
def windows_are_apart(x: Square, other: Square):
    layer, size = image_layer(2), 2
    xp = namespace(x, other)
    inside = np.zeros((SQUARE, SQUARE, 1), bool)
    inside[:size, :size] = True
    changed = xp.where(to_library_of(x, inside), x, other)
    return layer.attend(x)[..., :size, :size, :], layer.attend(changed)[..., :size, :size, :]


@refuted(
    "Zeros that fill up a window change nothing (their keys are the biases, and they are attended to)",
    source=f"{VITDET}, section 3, padding",
)
def padding_of_windows_changes_nothing(x: Square, bias: Biases):
    layers = [image_layer(window) for window in (3, 1)]  # the last patch with eight zeros, or alone
    for layer in layers:
        layer.attention.qkv.bias = bias
    return tuple(layer.attend(x)[..., -1:, -1:, :] for layer in layers)


@identity(
    "Decomposed relative positions are the table q[i, j] · (R_h[i − k] + R_w[j − l]) of all pairs of patches",
    source=f"{MVIT}, eq. 3 and 4",
)
def decomposed_positions_are_a_table(q: MapQueries, k: MapKeys, v: MapValues, R_h: Table, R_w: Table):
    scale = q.shape[-1] ** -0.5
    R_h, R_w = of_differences(R_h, q.shape[-3]), of_differences(R_w, q.shape[-2])
    q_, k_, v_ = (rows_of(x) for x in (q, k, v))
    y, _ = softmax.quadratic(*windows.with_positions(q_, k_, R_h, R_w, scale=scale), v_, causal=False, scale=1.0)
    return y, softmax.quadratic(q_, k_, v_, causal=False, bias=position_table(q, R_h, R_w))[0]


@identity(
    "They are a dot product: q′ · k′ = q · k · scale + q · (R_h[i − k] + R_w[j − l])",
    source=f"{MVIT}, eq. 3 and 4",
    exact=True,
)
def positions_are_a_dot_product(q: MapQueries, k: MapKeys, R_h: Table, R_w: Table):
    R_h, R_w = of_differences(R_h, q.shape[-3]), of_differences(R_w, q.shape[-2])
    q_, k_ = windows.with_positions(rows_of(q), rows_of(k), R_h, R_w, scale=3)
    return q_ @ k_.mT, 3 * (rows_of(q) @ rows_of(k).mT) + position_table(q, R_h, R_w)


# Prompts


@bounded(
    "γ(p) · γ(p′) depends on p − p′ alone: it is Σ cos(2π gᵢ · 2(p − p′)), a stationary kernel",
    source="tancik2020, eq. 6 and 7",
    only=("float64",),
)
def encodings_make_a_stationary_kernel(places: Places):
    encoder = in_float64(small_model()).prompt_encoder
    p = np.array([place[:2] for place in places]) / SIDE
    difference = 2 * (p[:, None] - p[None, :])
    expected = np.cos(2 * np.pi * difference @ encoder.frequencies).sum(axis=-1)
    encoded = encoder.encoded(p)
    largest = 2 * np.pi * abs(encoder.frequencies).sum()  # of an angle, each of which is rounded
    return abs(encoded @ encoded.T - expected), np.full_like(expected, 32 * UNIT * WIDTH * largest)


@bounded(
    "The order of a prompt's points changes nothing",
    source=f"{SA}, appendix A, prompt encoder",
    only=("float64",),
)
def points_have_no_order(seed: Seed, places: Places):
    model = in_float64(small_model())
    x = np.random.default_rng(seed).standard_normal((2, GRID, GRID, WIDTH))
    return close(*(model.decode(x, **prompts(x, [order])) for order in (places, places[::-1])))


@refuted(
    "Nor does how often a prompt is filled up to a common length (every token is attended to)",
    source=f"{SA}, appendix A, prompt encoder",
)
def padding_of_prompts_changes_nothing(x: Embedding, places: Places):
    model = without_norms(in_float64(small_model()))
    rows = np.array([[place[:2] for place in places]], float), np.array([[place[2] for place in places]])
    no_point = np.concatenate([rows[1], [[prompt_encoder.NO_POINT]]], axis=-1)
    tokens = (
        model.prompt_encoder.tokens(*rows),
        model.prompt_encoder.tokens(np.concatenate([rows[0], np.zeros((1, 1, 2))], axis=-2), no_point),
    )
    batch = x.shape[:-3]
    return tuple(model.decode_tokens(x, np.broadcast_to(t, (*batch, *t.shape)))[0] for t in tokens)


@identity(
    "A box is its two corners, a mask a map that is added to the picture's embedding",
    source=f"{SA}, section 3, prompt encoder, and appendix A",
    only=("float64", "gradient"),
)
def boxes_and_masks_are_embedded(
    x: Embedding, logits: Annotated[Any, Strategy(f"*batch 1 {4 * GRID} {4 * GRID}", LARGE)]
):
    model = without_norms(in_float64(small_model()))
    encoder, batch = model.prompt_encoder, x.shape[:-3]
    model.mask_decoder = lambda x, positions, tokens: (x, tokens)
    box = np.broadcast_to([1.0, 0.0, 3.0, 2.0], (*batch, 1, 4))
    gamma = encoder.encoded((np.array([[1.0, 0.0], [3.0, 2.0]]) + 0.5) / SIDE)
    tokens = np.broadcast_to(gamma + encoder.labels[-2:], (*batch, 1, 2, WIDTH))
    added = x + encoder.map_of(logits)[..., 0, :, :, :] - encoder.no_mask
    return model.decode(x, boxes=box, masks=logits), model.decode_tokens(added, to_library_of(x, tokens))


@refuted(
    "The score of a mask is its IoU (it is what the model predicts of it, and can be wrong)",
    source=f"{SA}, section 3; talk-meeting, (4)",
    instead="sam_losses.iou_is_intersection_over_union",
)
def a_score_is_the_iou(x: Embedding, mask: Annotated[Any, Strategy(f"*batch {4 * GRID} {4 * GRID}", zeros_and_ones)]):
    logits, scores = without_norms(in_float64(small_model())).decode(x, **prompts(x, [[(1, 2, 1)]]))
    return scores, losses.iou((logits > 0) * 1.0, mask[..., None, None, :, :])


# One encoding, many prompts


@bounded(
    "The embedding of a picture is independent of prompts: one encoding and n decodings are n whole runs",
    source=f"{SA}, section 3; talk-papers, Segment Anything",
    only=("float64",),
)
def one_encoding_serves_all_prompts(seed: Seed, places: Places):
    model = in_float64(small_model())
    pixels = np.random.default_rng(seed).standard_normal((2, 1, SIDE, SIDE))
    together = model(pixels, **prompts(pixels, [[place] for place in places]))
    alone = [model(pixels, **prompts(pixels, [[place]])) for place in places]
    return close(together, tuple(np.concatenate(parts, axis=1) for parts in zip(*alone, strict=True)))


@cache
def cached_model() -> SAM:
    """Return a small model with fixed weights, whose layers are of both kinds."""
    config = SAMConfig(
        ImageEncoderConfig(
            image=SIDE,
            patch=PATCH,
            channels=1,
            width=4,
            layers=2,
            heads=2,
            hidden=6,
            window=2,
            global_layers=(1,),
            output=WIDTH,
        ),
        PromptEncoderConfig(channels=4),
        MaskDecoderConfig(layers=2, heads=2, hidden=6, iou_hidden=6),
    )
    model: Any = SAM(config, np.random.default_rng(0))
    for layer in model.image_encoder.layers:
        spread_positions(layer.attention)
    return model


def small_model() -> Any:
    """Return a copy of the small model."""
    return map_arrays(lambda array: array, cached_model())


def without_norms(model: Any) -> Any:
    """Return the model with one layer of its decoder, and without norms and activations in all that reads a prompt."""
    model.mask_decoder.layers = model.mask_decoder.layers[:1]
    model.prompt_encoder.norms, model.prompt_encoder.activation = [unchanged] * 2, unchanged
    for layer in model.mask_decoder.layers:
        layer.norms, layer.activation = [unchanged] * 4, unchanged
    model.mask_decoder.final_norm = model.mask_decoder.upscale_norm = unchanged
    model.mask_decoder.upscale_activation = unchanged
    return model


def close(left: Any, right: Any) -> tuple[Any, Any]:
    """Return how far two pairs of arrays are apart, and how far the rounding of a small model may put them."""
    pairs = list(zip(left, right, strict=True))
    limits = tuple(np.full_like(b, 2**12 * UNIT * (1 + abs(b).max())) for _, b in pairs)
    return tuple(abs(a - b) for a, b in pairs), limits


def in_float64(model: Any) -> Any:
    """Return the model with its weights in float64."""
    return map_arrays(lambda array: array.astype(np.float64), model)


def spread_positions(attention: Any) -> None:
    """Give a layer relative positions that are not all 0."""
    rng = np.random.default_rng(1)
    attention.rows, attention.columns = (
        rng.standard_normal(R.shape).astype(np.float32) for R in (attention.rows, attention.columns)
    )


def image_layer(window: int) -> Any:
    """Return a layer of the image encoder, with fixed weights, for maps of SQUARE × SQUARE patches."""
    config = ImageEncoderConfig(image=PATCH * SQUARE, patch=PATCH, width=4, heads=2, hidden=6)
    layer = image_encoder.ImageLayer(config, window, np.random.default_rng(0))
    spread_positions(layer.attention)
    return layer


def prompts(x: Any, rows: list[Any]) -> dict[str, np.ndarray]:
    """Return points and labels of N prompts, each a list of (x, y, label), for pictures or embeddings x (*batch, …)."""
    array, batch = np.array(rows), unwrap(x).shape[:-3]
    array = np.broadcast_to(array, (*batch, *array.shape))
    return {"points": array[..., :2].astype(float), "labels": array[..., 2]}


def rows_of(x: Any) -> Any:
    """Return the patches of a map (*batch, H, W, K), row by row: (*batch, H W, K)."""
    return namespace(x).reshape(x, (*x.shape[:-3], x.shape[-3] * x.shape[-2], x.shape[-1]))


def of_differences(table: Any, size: int) -> Any:
    """Return the middle 2 size − 1 rows of a table (5, K)."""
    return table[3 - size : 2 + size]


def position_table(q: Any, R_h: Any, R_w: Any) -> Any:
    """Return E (*batch, H W, H W) of queries (*batch, H, W, K), entry by entry."""
    xp, (H, W) = namespace(q), q.shape[-3:-1]
    rows = []
    for i in range(H):
        for j in range(W):
            entries = []
            for k in range(H):
                for l in range(W):
                    entries.append(xp.sum(q[..., i, j, :] * (R_h[i - k + H - 1] + R_w[j - l + W - 1]), axis=-1))
            rows.append(xp.stack(entries, axis=-1))
    return xp.stack(rows, axis=-2)

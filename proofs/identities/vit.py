"""Whole Vision Transformers: what the head reads and what comes out, and how many parameters a size has."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.vision import vit
from models.vision.encoder import EncoderConfig
from proofs.checker.statements import bounded, identity, refuted
from proofs.checker.strategies import Strategy
from proofs.identities.vision import (
    COLUMNS,
    CONFIG,
    PATCH,
    ROWS,
    UNIT,
    VIT,
    Others,
    Sequence,
    Tokens,
    in_float64,
    layer_norm,
    small_model,
)

CHAPTER = 23

CLASSES, POOLED = 3, 2
PUBLISHED = {  # layers, width D, heads and patch, and millions of parameters: Dosovitskiy et al. 2021, table 1
    "Base": (12, 768, 12, 16, 86),
    "Large": (24, 1024, 16, 16, 307),
    "Huge": (32, 1280, 16, 14, 632),
}
Published = Annotated[str, Strategy(number=lambda draw, sizes: draw(st.sampled_from(sorted(PUBLISHED))))]
Seed = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 999)))]
Count = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, 3)))]


# The head


@identity(
    "Logits are a linear map of the class token, y W + b with y = LN(z_L⁰); in pre-training there is a hidden layer, "
    "tanh(y P + p), between",
    source=f"{VIT}, eq. 4 and section 3.1; talk-meeting, (2)",
    only=("float64", "gradient"),
)
def the_head_reads_the_class_token(z: Sequence):
    model = with_heads()
    model.encoder = lambda tokens: z  # whatever its layers return
    xp, picture = namespace(z), np.zeros((*z.shape[:-2], 1, PATCH * ROWS, PATCH * COLUMNS))
    y = layer_norm(xp, z[..., 0, :])
    logits = y @ model.head.weight.T + model.head.bias
    return (model(picture), model.pooled(picture)), (logits, mg.tanh(y @ model.pooler.weight.T + model.pooler.bias))


@refuted(
    "Nor is there a hidden layer in pre-training (its outputs are no linear map of y)",
    source=f"{VIT}, section 3.1; talk-meeting, (2)",
    instead="vit.the_head_reads_the_class_token",
)
def the_hidden_layer_is_linear(z: Sequence):
    model = with_heads()
    y = layer_norm(namespace(z), z[..., 0, :])
    both = [mg.tanh(sign * y @ model.pooler.weight.T + model.pooler.bias) for sign in (1, -1)]
    return both[0] + both[1], 2 * mg.tanh(model.pooler.bias) + 0 * both[0]


@bounded(
    "Of a picture of any size comes a distribution over the classes, numbers of at least 0 whose sum is 1; no picture",
    source=f"{VIT}, section 3.1; talk-meeting, (2)",
    only=("float64",),
)
def the_output_is_a_distribution(seed: Seed, rows: Count, columns: Count):
    pixels = np.random.default_rng(seed).standard_normal((2, 1, PATCH * rows, PATCH * columns))
    probabilities = mg.softmax(with_heads()(pixels), axis=-1)
    count = np.array(abs(probabilities.shape[-1] - CLASSES))
    errors = (abs(probabilities.sum(axis=-1) - 1), -probabilities, count)
    return errors, (np.full(2, 4 * CLASSES * UNIT), np.zeros_like(probabilities), np.zeros(()))


# Norms


@refuted(
    "A norm over the batch does as a layer norm does (another picture changes its mean; neither Transformer has it)",
    source="ba2016, section 2; talk-meeting, (2)",
    instead="vision.norms_are_per_token",
)
def a_norm_over_the_batch_is_per_token(z: Tokens, others: Others):
    xp = namespace(z)

    def batch_norm(x: Any) -> Any:
        centred = x - xp.mean(x, axis=-2, keepdims=True)  # a channel's, over all tokens
        return centred / xp.sqrt(xp.mean(centred * centred, axis=-2, keepdims=True) + CONFIG.eps)

    return batch_norm(xp.concat([z, others], axis=-2))[..., : z.shape[-2], :], batch_norm(z)


# Sizes


@identity(
    "With L layers of width D and MLPs of 4D, patches of P × P × C numbers, N of them, and K classes there are "
    "L(12D² + 13D) + (P²C + 1)D + (N + 2)D + 2D + (D + 1)K parameters",
    source=f"{VIT}, section 3.1 and table 1",
    derivatives=False,
    only=("float64",),
)
def parameters_are_counted(layers: Count, halves: Count, patch: Count, rows: Count, columns: Count, classes: Count):
    sizes = {"height": patch * rows, "width": patch * columns, "patch": patch, "channels": 2, "classes": classes}
    config = vit.ViTConfig(**sizes, encoder=EncoderConfig(width=2 * halves, layers=layers, heads=2))
    arrays = vit.ViT(config, np.random.default_rng(0)).named_parameters()
    return float(sum(array.size for array in arrays.values())), float(parameters(config))


@bounded(
    "ViT-Base, -Large and -Huge have 86, 307 and 632 million parameters, within one in a hundred; Huge has the most "
    "layers, but also the widest, and the smallest patches",
    source=f"{VIT}, table 1; talk-meeting, (2)",
    only=("float64",),
)
def published_sizes_have_so_many_parameters(size: Published):
    layers, width, heads, patch, millions = PUBLISHED[size]
    encoder = EncoderConfig(width=width, layers=layers, heads=heads)
    config = vit.ViTConfig(224, 224, patch, channels=3, classes=1000, encoder=encoder)
    return np.array(abs(parameters(config) / 1e6 - millions)), np.array(millions / 100)


def parameters(config: vit.ViTConfig) -> int:
    """Return how many parameters a model has, without making it."""
    L, D, P = config.encoder.layers, config.encoder.width, config.patch
    patches, classes = config.grid[0] * config.grid[1], config.classes
    return L * (12 * D**2 + 13 * D) + (P * P * config.channels + 1) * D + (patches + 2) * D + 2 * D + (D + 1) * classes


def with_heads() -> Any:
    """Return the small model in float64 with the heads of pre-training and fine-tuning."""
    model, rng, width = in_float64(small_model()), np.random.default_rng(2), CONFIG.width
    model.head, model.pooler = (vit.Linear(width, outputs, rng=rng, dtype=np.float64) for outputs in (CLASSES, POOLED))
    return model

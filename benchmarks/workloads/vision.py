"""Vision models in float32: ViT's patch embedding and whole, and windowed attention of Segment Anything's encoder.

The sizes are those of the published ViT-B. Pixels have a gradient too, which a model whose pixels are data does not ask
for. ViT is without biases of queries, keys and values: those of keys have no gradient but rounding to compare.
"""

from __future__ import annotations

import numpy as np

from benchmarks.functions import InputsAndWeights, Side, forward_and_backward, minigrad, pytorch, single_precision

TORCH = "benchmarks.peers.torch_vision"
PATCHES = {"batch": 8, "side": 224, "patch": 16, "channels": 3, "width": 768}
WINDOWS = {"batch": 1, "grid": 64, "window": 14, "width": 768, "heads": 12}
VIT = {"batch": 2, "side": 224, "patch": 16, "channels": 3, "width": 768, "layers": 12, "heads": 12, "classes": 1000}


def pictures(batch: int, side: int, patch: int, channels: int, width: int) -> InputsAndWeights:
    """Draw pixels (B, C, H, W), w (D, C, P, P) and b (D,); the weights are those of (B, rows, columns, D)."""
    rng = np.random.default_rng(0)
    kernel = (width, channels, patch, patch)
    return single_precision(
        rng.normal(size=(batch, side // patch, side // patch, width)),
        pixels=rng.normal(size=(batch, channels, side, side)),
        w=rng.normal(size=kernel) * (channels * patch * patch) ** -0.5,
        b=rng.normal(size=width),
    )


def product(*, backward: bool, batch: int, side: int, patch: int, channels: int, width: int) -> dict:
    """Return the least work: a product of patches and matrix, and two more backward; each array moved once a pass."""
    patches, inside = batch * (side // patch) ** 2, channels * patch * patch
    operations, moved = 2 * patches * inside * width, patches * inside + inside * width + patches * width
    return {"operations": operations * (3 if backward else 1), "bytes": 4 * moved * (2 if backward else 1)}


def maps(batch: int, grid: int, window: int, width: int, heads: int) -> InputsAndWeights:
    """Draw x (B, H, W, D), the weights and biases of both projections, and R_h and R_w (2 window − 1, D/heads)."""
    rng = np.random.default_rng(0)
    shape, table = (batch, grid, grid, width), (2 * window - 1, width // heads)
    return single_precision(
        rng.normal(size=shape),
        x=rng.normal(size=shape),
        qkv=rng.normal(size=(3 * width, width)) * width**-0.5,
        qkv_bias=rng.normal(size=3 * width),
        output=rng.normal(size=(width, width)) * width**-0.5,
        output_bias=rng.normal(size=width),
        rows=0.1 * rng.normal(size=table),
        columns=0.1 * rng.normal(size=table),
    )


def windows(*, backward: bool, batch: int, grid: int, window: int, width: int, heads: int) -> dict:
    """Return the least work: projections of the map, and of each window scores, their exponentials and values.

    Relative positions are two products of a head's queries with `window` vectors each.
    """
    count, places = batch * (-(-grid // window)) ** 2, window * window
    scores = count * heads * places**2
    products = 4 * batch * grid**2 * width**2 + 2 * scores * width // heads + 2 * count * places * window * width
    return {
        "exponentials": scores * (1 + backward),
        "operations": 2 * products * (3 if backward else 1),
        "bytes": 4 * (2 * batch * grid**2 * width + 4 * width**2) * (2 if backward else 1),
    }


def classified(
    batch: int, side: int, patch: int, channels: int, width: int, layers: int, heads: int, classes: int
) -> InputsAndWeights:
    """Draw pixels (B, C, H, W) and all weights, in the order of `models.vision.vit.ViT`; those of logits (B, classes).

    A layer has two norms, the projections q, k, v and output, the last one with a bias, and an MLP.
    """
    rng, inputs = np.random.default_rng(0), {}

    def draw(name: str, *shape: int, scale: float, mean: float = 0) -> None:
        inputs[name] = mean + scale * rng.standard_normal(shape, np.float32)

    def linear(name: str, of: int, to: int, *, bias: bool = True) -> None:
        draw(f"{name}.weight", to, of, scale=of**-0.5)
        if bias:
            draw(f"{name}.bias", to, scale=0.1)

    def norm(name: str) -> None:
        draw(f"{name}.weight", width, scale=0.1, mean=1)
        draw(f"{name}.bias", width, scale=0.1)

    draw("pixels", batch, channels, side, side, scale=1)
    draw("patch.weight", width, channels, patch, patch, scale=(channels * patch * patch) ** -0.5)
    draw("patch.bias", width, scale=0.1)
    draw("class_token", width, scale=1)
    draw("positions", 1 + (side // patch) ** 2, width, scale=1)
    for layer in range(layers):
        norm(f"{layer}.attention_norm")
        norm(f"{layer}.mlp_norm")
        for name in ("query", "key", "value"):
            linear(f"{layer}.{name}", width, width, bias=False)
        linear(f"{layer}.output", width, width)
        linear(f"{layer}.mlp_in", width, 4 * width)
        linear(f"{layer}.mlp_out", 4 * width, width)
    norm("norm")
    linear("head", width, classes)
    return inputs, rng.standard_normal((batch, classes), np.float32)


def encoder(
    *,
    backward: bool,
    batch: int,
    side: int,
    patch: int,
    channels: int,
    width: int,
    layers: int,
    heads: int,
    classes: int,
) -> dict:
    """Return the least work: the patch embedding, twelve matrices of D × D a token and layer, and attention."""
    patches = product(backward=backward, batch=batch, side=side, patch=patch, channels=channels, width=width)
    tokens = 1 + (side // patch) ** 2
    scores = layers * batch * heads * tokens**2
    products = layers * batch * tokens * 12 * width**2 + 2 * scores * width // heads + batch * width * classes
    return {
        "exponentials": scores * (1 + backward),
        "operations": patches["operations"] + 2 * products * (3 if backward else 1),
        "bytes": patches["bytes"] + 4 * (layers * 12 * width**2 + width * classes) * (3 if backward else 1),
    }


WORKLOADS = (
    *forward_and_backward(
        "patch_embedding",
        "The patch embedding of ViT-B/16: 8 pictures of 3 × 224 × 224, width 768",
        pictures,
        (
            Side("minigrad", minigrad, "models.vision.patches:embed"),
            Side("PyTorch", pytorch, f"{TORCH}:patch_embedding"),
        ),
        product,
        PATCHES,
    ),
    *forward_and_backward(
        "windowed_attention",
        "Windowed attention of Segment Anything's ViT-B: a map of 64 × 64, windows of 14 × 14, 12 heads of 64",
        maps,
        (
            Side("minigrad fused", minigrad, "benchmarks.ours:windowed_attention"),
            Side("PyTorch, scores of all pairs", pytorch, f"{TORCH}:windowed_attention"),
            Side("Hugging Face's attention, PyTorch", pytorch, f"{TORCH}:windowed_attention_hf", ("transformers",)),
        ),
        windows,
        WINDOWS,
        options=("window", "heads"),
    ),
    *forward_and_backward(
        "vit",
        "ViT-B/16, whole: 2 pictures of 3 × 224 × 224, 12 layers, width 768",
        classified,
        (
            Side("minigrad fused", minigrad, "benchmarks.ours:vit"),
            Side("PyTorch, scaled_dot_product_attention", pytorch, f"{TORCH}:vit"),
        ),
        encoder,
        VIT,
        options=("layers", "heads"),
    ),
)

"""The patch embedding of ViT-B/16: pictures of 3 × 224 × 224, patches of 16 × 16, width 768, float32.

In the backward pass pixels have a gradient too, which a model whose pixels are data does not ask for.
"""

from __future__ import annotations

import numpy as np

from benchmarks.functions import InputsAndWeights, Side, forward_and_backward, minigrad, pytorch, single_precision

SIZES = {"batch": 8, "side": 224, "patch": 16, "channels": 3, "width": 768}


def drawn(batch: int, side: int, patch: int, channels: int, width: int) -> InputsAndWeights:
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


WORKLOADS = forward_and_backward(
    "patch_embedding",
    "The patch embedding of ViT-B/16: 8 pictures of 3 × 224 × 224, width 768",
    drawn,
    (
        Side("minigrad", minigrad, "models.vision.patches:embed"),
        Side("PyTorch", pytorch, "benchmarks.peers.torch_vision:patch_embedding"),
    ),
    product,
    SIZES,
)

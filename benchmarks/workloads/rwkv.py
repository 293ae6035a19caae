"""RWKV-4's WKV, RWKV-7's memory and a layer of it beside what is public for a CPU (`benchmarks.peers.torch_rwkv`)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from benchmarks.functions import (
    InputsAndWeights,
    Side,
    forward_and_backward,
    minigrad,
    ours,
    pytorch,
    single_precision,
    workload,
)
from benchmarks.workloads.mechanisms import FLA

TORCH = "benchmarks.peers.torch_rwkv"
WKV_SIZES = {"batch": 4, "length": 1024, "channels": 512}
MEMORY_SIZES = {"heads": 8, "length": 2048, "width": 64}
HEADS, WIDTH, RANK = 8, 512, 64  # of a layer


def wkv(batch: int, length: int, channels: int) -> InputsAndWeights:
    """Draw k, v (B, L, D), w and u (D,)."""
    rng = np.random.default_rng(0)
    k, v, of_outputs = rng.standard_normal((3, batch, length, channels))
    return single_precision(of_outputs, k=k, v=v, w=rng.uniform(0.01, 2, channels), u=rng.standard_normal(channels))


def wkv_floor(*, backward: bool, batch: int, length: int, channels: int) -> dict:
    """Return the least work: four exponentials a token and channel; k and v are read, y is written."""
    numbers = batch * length * channels
    return {
        "exponentials": 4 * numbers * (1 + backward),
        "operations": 12 * numbers * (3 if backward else 1),
        "bytes": 4 * numbers * (3 + 4 * backward),
    }


def memory(heads: int, length: int, width: int) -> InputsAndWeights:
    """Draw r, k̃, v, −κ̂, κ̂ ∘ a and log α as the block of RWKV-7 makes them, (H, L, d)."""
    rng = np.random.default_rng(0)
    r, k, v, kappa, of_outputs = rng.standard_normal((5, heads, length, width))
    kappa /= np.linalg.norm(kappa, axis=-1, keepdims=True)
    sigma = 1 / (1 + np.exp(-rng.standard_normal((2, heads, length, width))))
    log_decay = -np.exp(-0.5) * sigma[1]
    return single_precision(of_outputs, r=r, k=k / width**0.5, v=v, a=-kappa, b=kappa * sigma[0], log_decay=log_decay)


def memory_floor(*, backward: bool, heads: int, length: int, width: int) -> dict:
    """Return the least work of a memory of d × d numbers: to decay, to write twice and to read twice, 9 d² a token."""
    tokens = heads * length
    return {
        "exponentials": tokens * width * (1 + backward),
        "operations": 9 * tokens * width**2 * (3 if backward else 1),
        "bytes": 4 * tokens * width * (7 + 14 * backward),
    }


@cache
def layer() -> Any:
    """Return time mixing of RWKV-7 with random weights, as a first layer has them."""
    from models.blocks.rwkv7 import RWKV7Config, TimeMix

    rng = np.random.default_rng(0)
    mix = TimeMix(RWKV7Config(WIDTH, HEADS, 4 * WIDTH, RANK, RANK, RANK), rng)
    mix.r_k = np.asarray(rng.standard_normal(mix.r_k.shape), np.float32)
    return mix


def time_mixing(x: Any) -> Any:
    """Return the outputs (L, D) of `layer` for x (L, D)."""
    return layer()(x)[0]


def tokens(length: int) -> InputsAndWeights:
    """Draw x (L, D)."""
    x, of_outputs = np.random.default_rng(1).standard_normal((2, length, WIDTH))
    return single_precision(of_outputs, x=x)


def layer_floor(*, backward: bool, length: int) -> dict:
    """Return the least work of a layer, forward: four projections, three low-rank maps, and the memory."""
    of_memory = memory_floor(backward=backward, heads=HEADS, length=length, width=WIDTH // HEADS)
    products = 2 * length * WIDTH * (4 * WIDTH + 6 * RANK)
    return {**of_memory, "operations": of_memory["operations"] + products}


WORKLOADS = (
    *forward_and_backward(
        "rwkv4",
        "RWKV-4's WKV: 4 sequences of 1024 tokens, 512 channels",
        wkv,
        (
            Side("minigrad chunkwise, NumPy", minigrad, "models.recurrent.rwkv4:chunkwise"),
            Side("Hugging Face's loop, PyTorch", pytorch, f"{TORCH}:rwkv4_hugging_face", ("transformers",)),
        ),
        wkv_floor,
        WKV_SIZES,
    ),
    *forward_and_backward(
        "rwkv7",
        "RWKV-7's memory: 8 heads of 64, length 2048",
        memory,
        (
            Side("minigrad fused", minigrad, "models.recurrent.rwkv7:fused"),
            Side("PyTorch, triangular solve", pytorch, f"{TORCH}:rwkv7"),
            Side("fla-core's chunks, PyTorch", pytorch, f"{TORCH}:rwkv7_fla", FLA),
            ours("minigrad chunkwise, NumPy", "models.recurrent.rwkv7:chunkwise"),
        ),
        memory_floor,
        MEMORY_SIZES,
    ),
    workload(
        "rwkv7_layer",
        "Time mixing of RWKV-7: 512 channels, 8 heads, 2048 tokens",
        tokens,
        (
            Side("minigrad fused", minigrad, "benchmarks.workloads.rwkv:time_mixing"),
            Side("the authors' package, PyTorch", pytorch, f"{TORCH}:time_mixing", ("rwkv",)),
        ),
        layer_floor,
        {"length": 2048},
        backward=False,
    ),
)

"""Mechanisms of queries, keys and values on a CPU in float32: forward alone, and forward and backward for every input.

Ours is the `fused` form. The others are what is strong in PyTorch and JAX (`benchmarks.peers`), and our own readable
form, which says what compiling gained. At 8192 tokens JAX's softmax is left out: it makes all the scores, two GiB of
them, and more to differentiate. fla-core's loop of gated linear attention is not differentiated: it writes its outputs
into one array, whose gradient is copied whole for each of them, and would take minutes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.functions import (
    InputsAndWeights,
    Side,
    forward_and_backward,
    jax,
    minigrad,
    ours,
    pytorch,
    single_precision,
    workload,
)

FLA = ("fla", "einops")
TORCH, JAX = "benchmarks.peers.torch_mechanisms", "benchmarks.peers.jax_mechanisms"
SIZES = {"heads": 8, "length": 2048, "width": 64}


def queries(heads: int, length: int, width: int) -> dict[str, np.ndarray]:
    """Return q, k and v, (H, L, d), the keys of length 1."""
    q, k, v = np.random.default_rng(0).normal(size=(3, heads, length, width))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    return {"q": q, "k": k, "v": v}


def plain(**sizes: int) -> InputsAndWeights:
    """Draw q, k, v."""
    inputs = queries(**sizes)
    return single_precision(np.random.default_rng(2).normal(size=inputs["v"].shape), **inputs)


def correcting(**sizes: int) -> InputsAndWeights:
    """Draw q, k, v and the writing strengths, (H, L)."""
    inputs, weights = plain(**sizes)
    return single_precision(weights, **inputs, beta=np.random.default_rng(1).uniform(size=weights.shape[:-1]))


def fading(**sizes: int) -> InputsAndWeights:
    """Draw q, k, v and what a key channel keeps of its row, as the block of GLA begins: log σ(x) / 16, (H, L, d)."""
    inputs, weights = plain(**sizes)
    return single_precision(weights, **inputs, log_decay=_log_sigmoid(weights.shape) / 16)


def fading_correcting(**sizes: int) -> InputsAndWeights:
    """Draw q, k, v, the writing strengths and what a token keeps of the memory, both (H, L)."""
    inputs, weights = correcting(**sizes)
    return single_precision(weights, **inputs, log_decay=_log_sigmoid(weights.shape[:-1]) / 16)


def fading_channels_correcting(**sizes: int) -> InputsAndWeights:
    """Draw q, k, v, the writing strengths, (H, L), and what a key channel keeps of its row, (H, L, d)."""
    inputs, weights = correcting(**sizes)
    return single_precision(weights, **inputs, log_decay=_log_sigmoid(weights.shape) / 16)


def _log_sigmoid(shape: tuple[int, ...]) -> np.ndarray:
    return -np.log1p(np.exp(-np.random.default_rng(3).normal(size=shape)))


def memory(*, backward: bool, heads: int, length: int, width: int, asks: bool = False, fades: str = "") -> dict:
    """Return the least work of a memory of d × d numbers.

    To write kᵀv and to read qS are 2 d² operations a token each; to ask for kS what it knows, 2 d² more; to let it
    fade, d², and an exponential a token or a channel. Each product has two gradients. Inputs are read, y is written;
    back, all that is read again and the gradients are written.
    """
    tokens = heads * length
    gates = tokens * {"": 0, "token": 1, "channel": width}[fades]
    forward = tokens * width**2 * (4 + 2 * asks + (fades != ""))
    numbers = 3 * tokens * width + tokens * asks + gates  # q, k, v, β, log α
    moved_bytes = 4 * (numbers * (3 if backward else 1) + tokens * width * (2 if backward else 1))
    return {
        "exponentials": gates * (1 + backward),
        "operations": forward * (3 if backward else 1),
        "bytes": moved_bytes,
    }


def corrected(**sizes: Any) -> dict:
    """Return the floor of the delta rule."""
    return memory(asks=True, **sizes)


def gated(**sizes: Any) -> dict:
    """Return the floor of gated linear attention."""
    return memory(fades="channel", **sizes)


def gated_and_corrected(**sizes: Any) -> dict:
    """Return the floor of the gated delta rule."""
    return memory(asks=True, fades="token", **sizes)


def channels_gated_and_corrected(**sizes: Any) -> dict:
    """Return the floor of Kimi Delta Attention."""
    return memory(asks=True, fades="channel", **sizes)


def attention(*, backward: bool, heads: int, length: int, width: int) -> dict:
    """Return the least work of causal softmax: half of all scores, each an exponential and two products of 2 d.

    The backward pass recomputes scores and exponentials and has four more products.
    """
    scores = heads * length * (length + 1) / 2
    moved_bytes = 4 * heads * length * width * (8 if backward else 4)
    products = 7 if backward else 2
    return {"exponentials": scores * (1 + backward), "operations": scores * 2 * width * products, "bytes": moved_bytes}


SOFTMAX = (
    Side("minigrad fused", minigrad, "models.attention.softmax:fused"),
    Side("PyTorch, scaled_dot_product_attention", pytorch, f"{TORCH}:sdpa"),
    ours("minigrad lazy, NumPy", "models.attention.softmax:lazy"),
)
GATED = (
    Side("minigrad fused", minigrad, "models.memory.gated_linear_attention:fused"),
    Side("PyTorch, chunks", pytorch, f"{TORCH}:gated_linear_attention"),
    Side("JAX, chunks", jax, f"{JAX}:gated_linear_attention"),
)
LOOP = Side("fla-core's recurrence, PyTorch", pytorch, f"{TORCH}:gated_linear_attention_fla", FLA)
KDA = (
    Side("minigrad fused", minigrad, "models.memory.gated_delta_rule:fused"),
    Side("PyTorch, WY and triangular solve", pytorch, f"{TORCH}:kda"),
    Side("fla-core's chunks, PyTorch", pytorch, f"{TORCH}:kda_fla", FLA),
)
# without JAX in the backward pass, where its process stopped answering in each of three runs on 2026-11-30
BY_JAX = Side("JAX, WY and triangular solve", jax, f"{JAX}:kda")
KDA_TITLE = "Kimi Delta Attention: 8 heads of 64, length 2048"
GATED_TITLE = "Gated linear attention, a gate a channel: 8 heads of 64, length 2048"
WORKLOADS = (
    *forward_and_backward(
        "linear_attention",
        "Linear attention: 8 heads of 64, length 2048",
        plain,
        (
            Side("minigrad fused", minigrad, "models.memory.linear_attention:fused"),
            Side("PyTorch, chunks", pytorch, f"{TORCH}:linear_attention"),
            Side("fla-core's chunks, PyTorch", pytorch, f"{TORCH}:linear_attention_fla", FLA),
            Side("JAX, chunks", jax, f"{JAX}:linear_attention"),
            ours("minigrad chunkwise, NumPy", "models.memory.linear_attention:chunkwise"),
        ),
        memory,
        SIZES,
    ),
    workload("gated_linear_attention", GATED_TITLE, fading, (*GATED, LOOP), gated, SIZES, backward=False),
    workload("gated_linear_attention", GATED_TITLE, fading, GATED, gated, SIZES, backward=True),
    *forward_and_backward(
        "delta_rule",
        "The delta rule: 8 heads of 64, length 2048",
        correcting,
        (
            Side("minigrad fused", minigrad, "models.memory.delta_rule:fused"),
            Side("PyTorch, WY and triangular solve", pytorch, f"{TORCH}:delta_rule"),
            Side("fla-core's chunks, PyTorch", pytorch, f"{TORCH}:delta_rule_fla", FLA),
            Side("JAX, WY and triangular solve", jax, f"{JAX}:delta_rule"),
            ours("minigrad chunkwise, NumPy", "models.memory.delta_rule:chunkwise"),
        ),
        corrected,
        SIZES,
    ),
    *forward_and_backward(
        "gated_delta_rule",
        "The gated delta rule: 8 heads of 64, length 2048",
        fading_correcting,
        (
            Side("minigrad fused", minigrad, "models.memory.gated_delta_rule:fused"),
            Side("PyTorch, WY and triangular solve", pytorch, f"{TORCH}:gated_delta_rule"),
            Side("fla-core's chunks, PyTorch", pytorch, f"{TORCH}:gated_delta_rule_fla", FLA),
            Side("JAX, WY and triangular solve", jax, f"{JAX}:gated_delta_rule"),
        ),
        gated_and_corrected,
        SIZES,
    ),
    workload(
        "kda",
        KDA_TITLE,
        fading_channels_correcting,
        (*KDA, BY_JAX),
        channels_gated_and_corrected,
        SIZES,
        backward=False,
    ),
    workload("kda", KDA_TITLE, fading_channels_correcting, KDA, channels_gated_and_corrected, SIZES, backward=True),
    *forward_and_backward(
        "softmax",
        "Causal softmax attention: 8 heads of 64, length 2048",
        plain,
        (
            *SOFTMAX,
            Side("JAX, dot_product_attention", jax, f"{JAX}:softmax"),
            ours("minigrad quadratic, NumPy", "models.attention.softmax:quadratic"),
        ),
        attention,
        SIZES,
    ),
    *forward_and_backward(
        "softmax_8192",
        "Causal softmax attention: 8 heads of 64, length 8192",
        plain,
        SOFTMAX,
        attention,
        {**SIZES, "length": 8192},
    ),
)

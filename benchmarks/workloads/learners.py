"""Memories trained at test time: TTT-Linear and Titans, in mini-batches of 16 tokens, 2048 of them.

Each stands beside the same closed form written plainly in PyTorch, and forward beside its own form a token at a time,
which shows the gain of the closed form. That one is not differentiated: a graph that holds the weights of every token
would say more about memory than about time.
"""

from __future__ import annotations

import numpy as np

from benchmarks.functions import InputsAndWeights, Side, jax, minigrad, ours, pytorch, single_precision, workload
from benchmarks.workloads.mechanisms import correcting, fading_correcting

OURS = "benchmarks.ours"
SIZES = {"heads": 8, "length": 2048, "width": 64, "batch_size": 16}
HIDDEN = 2  # times as wide inside as outside, as `models.blocks.titans` has it


def linear(batch_size: int, **sizes: int) -> InputsAndWeights:
    """Draw q, k, v, η below 1/d, and as the block of TTT-Linear begins W, b, γ and β."""
    inputs, weights = correcting(**sizes)
    heads, width = sizes["heads"], sizes["width"]
    norm = np.ones((heads, 1, width))
    eta = inputs.pop("beta") / width
    W = 0.02 * np.random.default_rng(4).normal(size=(heads, width, width))
    return single_precision(weights, **inputs, eta=eta, W=W, b=0 * norm, gamma=norm, beta=0 * norm)


def mlp(batch_size: int, **sizes: int) -> InputsAndWeights:
    """Draw q, k, v, θ below 1/b, log η, log(1 − α), and the two layers of a memory."""
    inputs, weights = fading_correcting(**sizes)
    heads, width, rng = sizes["heads"], sizes["width"], np.random.default_rng(4)
    theta, log_decay = inputs.pop("beta") / batch_size, inputs.pop("log_decay")
    layers = [rng.normal(size=(heads, a, b)) / a**0.5 for a, b in ((width, HIDDEN * width), (HIDDEN * width, width))]
    return single_precision(
        weights, **inputs, theta=theta, log_eta=16 * log_decay, log_decay=log_decay, W1=layers[0], W2=layers[1]
    )


def dual(*, backward: bool, heads: int, length: int, width: int, batch_size: int) -> dict:
    """Return the least work of a matrix memory: kW, qW and the write kᵀδ are 2 d² operations a token each.

    Each product has two gradients. q, k, v and η are read and y is written; back, read again, and g, and gradients out.
    """
    tokens = heads * length
    moved_bytes = 4 * (tokens * (3 * width + 1) * (3 if backward else 1) + tokens * width * (2 if backward else 1))
    return {"operations": 6 * tokens * width**2 * (3 if backward else 1), "bytes": moved_bytes}


def two_layers(*, backward: bool, heads: int, length: int, width: int, batch_size: int) -> dict:
    """Return the same for two layers of 2 d² weights: keys, queries and writes pass both, slopes the second again.

    A GELU takes two exponentials a hidden number, for its value and slope at the keys and its value at the queries.
    """
    tokens, weights, passes = heads * length, HIDDEN * width**2, 3 if backward else 1
    moved_bytes = 4 * (tokens * (3 * width + 3) * passes + tokens * width * (2 if backward else 1))
    return {
        "exponentials": 2 * tokens * HIDDEN * width * (1 + backward),
        "operations": 2 * weights * tokens * (2 + 2 + 2 + 1) * passes,
        "bytes": moved_bytes,
    }


LINEAR = (
    Side("minigrad fused", minigrad, f"{OURS}:ttt_linear"),
    Side("PyTorch, the same dual form", pytorch, "benchmarks.peers.torch_learners:ttt_linear"),
    Side("JAX, the same dual form", jax, "benchmarks.peers.jax_mechanisms:ttt_linear"),
)
TITANS = (
    Side("minigrad fused", minigrad, f"{OURS}:titans_mlp"),
    Side("PyTorch, the same closed form", pytorch, "benchmarks.peers.torch_learners:titans_mlp"),
)
DUAL, PRIMAL = (ours(f"minigrad {form}", f"{OURS}:ttt_linear_{form}") for form in ("dual", "primal"))
CHUNKWISE, RECURRENT = (ours(f"minigrad {form}", f"{OURS}:titans_mlp_{form}") for form in ("chunkwise", "recurrent"))
TTT_TITLE = "TTT-Linear, mini-batches of 16: 8 heads of 64, length 2048"
TITANS_TITLE = "Titans, a memory of two layers, batches of 16: 8 heads of 64, length 2048"
OPTIONS = ("batch_size",)
TITANS_ALL = (*TITANS, CHUNKWISE, RECURRENT)
WORKLOADS = (
    workload("ttt_linear", TTT_TITLE, linear, (*LINEAR, DUAL, PRIMAL), dual, SIZES, backward=False, options=OPTIONS),
    workload("ttt_linear", TTT_TITLE, linear, (*LINEAR, DUAL), dual, SIZES, backward=True, options=OPTIONS),
    workload("titans", TITANS_TITLE, mlp, TITANS_ALL, two_layers, SIZES, backward=False, options=OPTIONS),
    workload("titans", TITANS_TITLE, mlp, TITANS, two_layers, SIZES, backward=True, options=OPTIONS),
)

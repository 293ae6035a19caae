"""Blocks of inner models: test-time training and Titans' memory, alone and beside attention.

Each is written out token by token from its paper; inner gradients are those of the stated loss, by differentiation. The
block has the same weights, drawn for every parameter; the right side uses nothing of the block's or mechanism's file.

    f(x; W) = x + γ LN(g(x; W)) + β,  g(x) = x W + b, or gelu(x W₁ + b₁) W₂ + b₂;    ℓ(W) = ½ ‖f(k; W) − v‖²
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.conversion import to_library_of
from models.blocks import MIXERS, BlockConfig
from proofs.checker.statements import Instance, bounded, refuted
from proofs.identities.blocks import output, queries_keys_values, rotated, tokens
from proofs.layers import (
    PRECISIONS,
    TO_HALF_THE_DIGITS,
    Seed,
    Weights,
    compare,
    heads,
    layer_norm,
    linear,
    numbers,
    parts,
    rms_norm,
    rng,
    sigmoid,
    silu,
    softmax,
    unit,
    with_weights,
)

CHAPTER = 18

SUN, BEHROUZ = "sun2024ttt", "behrouz2025titans"
H, WIDTH, BATCH = 2, 6, 2  # a head of 2 channels would have norms of ±1
ROTATED = 4  # channels of a head, in two pairs
HEADS = [
    Instance(name, {"precision": name, "count": count}, {}) for name, count in (("float64", 2), ("float32", 1))
]  # of attention and of the memory beside it

Model = list[Any]  # W, b, W₂, b₂, …, or W₁, W₂ without biases


def make(mixer: str, width: int = WIDTH, heads: int = H, variant: str = "") -> Any:
    form = "dual" if mixer.startswith("ttt") else "chunkwise"
    config = BlockConfig(width=width, heads=heads, conv=2, form=form, chunk_size=BATCH, variant=variant)
    return MIXERS[mixer](config, rng())


# Inner models


def gelu_by_tanh(x: Any) -> Any:
    return x * (1 + mg.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))) / 2


def apply(model: Model, norm: tuple[Any, Any], x: Any, biased: bool) -> Any:
    """Return f(x; W), (*batch, K), for weights that have the same batch axes."""
    z, step = x[..., None, :], 2 if biased else 1
    for i in range(0, len(model), step):
        z = (gelu_by_tanh(z) if i else z) @ model[i] + (model[i + 1] if biased else 0)
    gamma, beta = norm
    return x + gamma * layer_norm(z[..., 0, :], 1e-6) + beta


def slope(model: Model, norm: tuple[Any, Any], k: Any, v: Any, biased: bool) -> Model:
    """Return the gradient of ½ ‖f(k; W) − v‖², summed over the batch axes, with respect to the weights."""
    return mg.grad(lambda W: mg.sum((apply(W, norm, k, biased) - v) ** 2) / 2)(model)


def of_head(w: Weights, h: int, x: Any, prefix: str = "") -> tuple[Model, tuple[Any, Any]]:
    """Return the initial weights of a head, broadcast to the batch axes of x, and its γ and β."""
    names = sorted(name for name in w if name.startswith(f"{prefix}inner."))
    model = [mg.broadcast_to(w[name][h], (*x.shape[:-2], *w[name].shape[1:])) for name in names]
    return model, (w[f"{prefix}gamma"][h, 0], w[f"{prefix}beta"][h, 0])


def count_of_heads(w: Weights, prefix: str = "") -> int:
    return w[f"{prefix}inner.0"].shape[0]


# Test-time training


def trained_at_test_time(
    w: Weights, x: Any, base_rate: float, shares: bool = False, target: Callable[[Any], Any] | None = None
) -> Any:
    """Write out W = W₀ − τ Σ η ∇ℓ(W₀) over a mini-batch so far, with τ = 1, or 1/i for the token at place i.

    The target is a view of the token, or the function of it that is given.
    """
    q, k, v = queries_keys_values(w, x)
    v = v if target is None else target(x)
    eta = base_rate * sigmoid(linear(w, "rate", x)) / (x.shape[-1] // H)
    y = []
    for h, (q_h, k_h, v_h, eta_h) in enumerate(zip(*(heads(row, H) for row in (q, k, v, eta)), strict=True)):
        W, norm = of_head(w, h, x)
        y_h: list[Any] = []
        for q_t, k_t, v_t, eta_t in tokens(q_h, k_h, v_h, eta_h):
            place = len(y_h) % BATCH
            if place == 0:
                W_0, total = W, [0 * a for a in W]
            gradient = slope(W_0, norm, k_t, v_t, biased=True)
            total = [a + eta_t[..., None] * g for a, g in zip(total, gradient, strict=True)]
            W = [a - (1 / (place + 1) if shares else 1) * b for a, b in zip(W_0, total, strict=True)]
            y_h.append(apply(W, norm, q_t, biased=True))
        y.append(mg.stack(y_h, axis=-2))
    return output(w, y, x)


@bounded(
    "TTT-Linear: W ← W − η ∇ℓ(W₀), gradients at the mini-batch's first weights, y = f(q; W); η = σ(x w + b)/K"
    + TO_HALF_THE_DIGITS,
    source=f"{SUN}, eq. 4–6, sections 2.4 and 2.7; ttt-code, modeling_ttt.py, for the division by K",
    over=PRECISIONS,
    only=("float64",),
)
def ttt_linear(seed: Seed, precision: str):
    return compare(make("ttt_linear"), lambda w, x: trained_at_test_time(w, x, base_rate=1.0), seed, precision, WIDTH)


@bounded(
    "TTT-MLP: the same with an MLP of two layers, four times as wide inside, GELU by tanh; η = 0.1 σ(x w + b)/K"
    + TO_HALF_THE_DIGITS,
    source=f"{SUN}, eq. 4–6, sections 2.4 and 2.7; ttt-code, modeling_ttt.py, for the division by K",
    over=PRECISIONS,
    only=("float64",),
)
def ttt_mlp(seed: Seed, precision: str):
    return compare(make("ttt_mlp"), lambda w, x: trained_at_test_time(w, x, base_rate=0.1), seed, precision, WIDTH)


@bounded(
    "Instead of a view that is learned, the target of a token may be the token, v = x, or v = x R/√width for an R of "
    "standard normal numbers, those of NumPy's generator with the seed 0, that is not trained" + TO_HALF_THE_DIGITS,
    source="minigrad, models/blocks/ttt.py",
    over=[Instance(variant, {"variant": variant}, {}) for variant in ("input", "random")],
    only=("float64",),
)
def ttt_target(seed: Seed, variant: str):
    R = (np.random.default_rng(0).standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)

    def target(x: Any) -> Any:
        return x if variant == "input" else x @ mg.astype(to_library_of(x, R), x.dtype)

    block = make("ttt_linear", variant=variant)
    return compare(block, lambda w, x: trained_at_test_time(w, x, 1.0, target=target), seed, "float64", WIDTH)


@refuted(
    "TTT's block has the published code's factor 1/i of the sum of gradients, for the token at place i of a mini-batch",
    source="ttt-code, modeling_ttt.py: the paper has no such factor",
)
def ttt_with_shares(seed: Seed):
    block = make("ttt_linear")
    w, x, _ = numbers(block, seed, "float64", WIDTH)
    return with_weights(block, w)(x)[0], trained_at_test_time(w, x, base_rate=1.0, shares=True)


# Titans


def long_term_memory(w: Weights, x: Any, prefix: str = "") -> tuple[Any, list[Model]]:
    """Return the outputs of the long-term memory module, (*batch, T, width), and its heads' weights at the end.

    θ = σ(x w + b) (1 − η)/K, η = σ(x w + b) and α = σ(x w + b), each with w and b of its own.
    """
    H = count_of_heads(w, prefix)
    w = {name.removeprefix(prefix): array for name, array in w.items() if name.startswith(prefix)}
    q, k, v = (silu(row) for row in queries_keys_values(w, x))
    K = x.shape[-1] // H
    eta, alpha = sigmoid(linear(w, "momentum", x)), sigmoid(linear(w, "forget", x))
    theta = sigmoid(linear(w, "rate", x)) * (1 - eta) / K
    y, last = [], []
    for h, (q_h, k_h, v_h, *gates) in enumerate(zip(*(heads(z, H) for z in (q, k, v, theta, eta, alpha)), strict=True)):
        M, norm = of_head(w, h, x)
        S, y_h = [0 * W for W in M], list[Any]()
        for q_t, k_t, v_t, *gates_t in tokens(*(unit(row, 1e-6) for row in (q_h, k_h, v_h)), *gates):
            theta_t, eta_t, alpha_t = (gate[..., None] for gate in gates_t)
            if len(y_h) % BATCH == 0:
                M_0 = M  # gradients are taken at the memory before the batch
            gradient = slope(M_0, norm, k_t, K**0.5 * v_t, biased=False)
            S = [eta_t * s - theta_t * g for s, g in zip(S, gradient, strict=True)]
            M = [(1 - alpha_t) * m + s for m, s in zip(M, S, strict=True)]
            y_h.append(apply(M, norm, q_t, biased=False))
        y.append(mg.stack(y_h, axis=-2))
        last.append(M)
    return output(w, y, x), last


@bounded(
    "LMM: S ← η S − θ ∇ℓ(M₀), M ← (1 − α) M + S, y = M(q), an MLP of two layers, twice as wide inside; q, k and v pass "
    "SiLU and have length 1, v √K; θ, η and α are functions of the token, θ with the factor (1 − η)/K"
    + TO_HALF_THE_DIGITS,
    source=f"{BEHROUZ}, eq. 10 and 12–15, sections 3.2, 4.3 and 4.4; minigrad, models/blocks/titans.py, for θ; "
    "talk-titans, 53:08, 53:47 and 56:35",
    over=PRECISIONS,
    only=("float64",),
)
def titans(seed: Seed, precision: str):
    return compare(make("titans"), lambda w, x: long_term_memory(w, x)[0], seed, precision, WIDTH)


# Titans' attention and its three blocks


def attention(w: Weights, x: Any, first: Any, recalled: Any = None) -> Any:
    """Return attention to persistent tokens, to tokens `first(t)` … t and to what was recalled at these.

    Persistent tokens pass no convolution and no rotation, recalled ones no convolution.
    """
    width, H = x.shape[-1], count_of_heads(w, "memory.")
    w = {name.removeprefix("attention."): array for name, array in w.items()}
    rows = [queries_keys_values(w, x), parts(linear(w, "qkv", w["persistent"]), width, width, width)]
    if recalled is not None:
        rows.append(parts(linear(w, "qkv", recalled), width, width, width))
    y = [attention_of_head([[heads(part, H)[h] for part in row] for row in rows], first) for h in range(H)]
    return linear(w, "output", mg.concat(y, axis=-1))


def attention_of_head(rows: list[list[Any]], first: Any) -> Any:
    """Return the outputs of a head, given q, k and v of the tokens, the persistent tokens and what was recalled."""
    (q, k, v), (_, always_k, always_v), *recalled = rows
    sources, y = [(k, v), *((k, v) for _, k, v in recalled)], []
    for t in range(q.shape[-2]):
        q_t, seen = q[..., t, :], range(first(t), t + 1)
        keys = [rotated(k[..., s, :], s) for k, _ in sources for s in seen]
        scores = [mg.sum(q_t * p, axis=-1) for p in always_k] + [mg.sum(rotated(q_t, t) * key, axis=-1) for key in keys]
        weights = softmax(mg.stack(scores, axis=-1) / math.sqrt(q.shape[-1]))
        values = [*always_v, *(v[..., s, :] for _, v in sources for s in seen)]
        y.append(sum(weights[..., i : i + 1] * value for i, value in enumerate(values)))
    return mg.stack(y, axis=-2)


def gated(w: Weights, y: Any, m: Any) -> Any:
    """Return y ⊗ m = RMSNorm(y) ∘ σ(RMSNorm(m))."""
    attended, remembered = (
        rms_norm(y, 1e-6) * w["gate.attended.weight"],
        rms_norm(m, 1e-6) * w["gate.remembered.weight"],
    )
    return attended * sigmoid(remembered)


def window(t: int) -> int:
    return max(0, t - BATCH + 1)


def segment(t: int) -> int:
    return t - t % BATCH


@bounded(
    "MAG: y = SW-Attn(x) over persistent tokens and the last C, o = y ⊗ M(x)" + TO_HALF_THE_DIGITS,
    source=f"{BEHROUZ}, eq. 26–28; su2021, eq. 15",
    over=HEADS,
    only=("float64",),
)
def titans_as_gate(seed: Seed, precision: str, count: int):
    def written_out(w: Weights, x: Any) -> Any:
        return gated(w, attention(w, x, window), long_term_memory(w, x, "memory.")[0])

    return compare(make("titans_mag", ROTATED * count, count), written_out, seed, precision, ROTATED * count)


@bounded(
    "MAL: o = SW-Attn(x + M(x))" + TO_HALF_THE_DIGITS,
    source=f"{BEHROUZ}, eq. 29–31 and section 4.4; su2021, eq. 15",
    over=HEADS,
    only=("float64",),
)
def titans_as_layer(seed: Seed, precision: str, count: int):
    def written_out(w: Weights, x: Any) -> Any:
        return attention(w, x + long_term_memory(w, x, "memory.")[0], window)

    return compare(make("titans_mal", ROTATED * count, count), written_out, seed, precision, ROTATED * count)


@bounded(
    "MAC: in segments of C, h = M*(x W_q) with the memory before the segment, y = Attn([p ‖ h ‖ x]), the memory learns "
    "y, o = y ⊗ M(y)" + TO_HALF_THE_DIGITS,
    source=f"{BEHROUZ}, eq. 21–25; su2021, eq. 15",
    over=HEADS,
    only=("float64",),
)
def titans_as_context(seed: Seed, precision: str, count: int):
    return compare(make("titans_mac", ROTATED * count, count), memory_as_context, seed, precision, ROTATED * count)


def memory_as_context(w: Weights, x: Any) -> Any:
    H, h, y = count_of_heads(w, "memory."), list[Any](), list[Any]()
    of_heads = [of_head(w, i, x, "memory.") for i in range(H)]
    models, norms = [model for model, _ in of_heads], [norm for _, norm in of_heads]
    for start in range(0, x.shape[-2], BATCH):
        if y:
            models = long_term_memory(w, mg.concat(y, axis=-2), "memory.")[1]
        q = silu(linear(w, "query", x[..., start : start + BATCH, :]))
        for q_t in tokens(*(unit(q_h, 1e-6) for q_h in heads(q, H))):
            read = [apply(M, norm, q_h, biased=False) for M, norm, q_h in zip(models, norms, q_t, strict=True)]
            h.append(mg.concat([rms_norm(read_h, 1e-6) * w["memory.norm.weight"] for read_h in read], axis=-1))
        seen = x[..., : start + BATCH, :]
        y.append(attention(w, seen, segment, mg.stack(h, axis=-2))[..., start:, :])
    attended = mg.concat(y, axis=-2)
    return gated(w, attended, long_term_memory(w, attended, "memory.")[0])

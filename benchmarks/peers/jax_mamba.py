"""The Mamba language model of `models/language/mamba.py` in JAX, as a JAX user would write it, to be compiled whole.

Same formulas, same parameter names and shapes, so that weights and gradients can be held to ours one by one. The scan
keeps its states every 64 tokens only, which is faster here than keeping all.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jax import Array
from jax import numpy as jnp

from benchmarks.peers.jax_state_spaces import selective_scan_remat

EPSILON = 1e-5
Parameters = Mapping[str, Array]


def loss(p: Parameters, tokens: Array, targets: Array, *, layers: int) -> Array:
    """Return the mean cross-entropy of targets (B, T) after tokens (B, T)."""
    x = p["embeddings.weight"][tokens]
    for i in range(layers):
        weights = {name.removeprefix(f"layers.{i}."): w for name, w in p.items() if name.startswith(f"layers.{i}.")}
        x = x + block(weights, _norm(x, weights["norm.weight"]))
    logits = _norm(x, p["norm_f.weight"]) @ p["embeddings.weight"].T
    target_log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)
    return -jnp.mean(target_log_probs)


def block(p: Parameters, x: Array) -> Array:
    """Return the output of a Mamba block for x (B, T, width)."""
    states, rank = p["mixer.A_log"].shape[1], p["mixer.dt_proj.weight"].shape[1]
    x, z = jnp.split(x @ p["mixer.in_proj.weight"].T, 2, -1)
    u = jax.nn.silu(convolve(x, p["mixer.conv1d.weight"], p["mixer.conv1d.bias"]))
    low, B, C = jnp.split(u @ p["mixer.x_proj.weight"].T, (rank, rank + states), -1)
    delta = jax.nn.softplus(low @ p["mixer.dt_proj.weight"].T + p["mixer.dt_proj.bias"])
    y = selective_scan_remat(u, delta, -jnp.exp(p["mixer.A_log"]), B, C, p["mixer.D"])
    return (y * jax.nn.silu(z)) @ p["mixer.out_proj.weight"].T


def convolve(x: Array, weight: Array, bias: Array) -> Array:
    """Return the causal convolution of x (B, T, D) with one filter a channel, (D, width); the first entry is now."""
    T, before = x.shape[1], weight.shape[1] - 1
    padded = jnp.pad(x, ((0, 0), (before, 0), (0, 0)))
    return sum(padded[:, before - j : before - j + T] * weight[:, j] for j in range(before + 1)) + bias


def updated(
    p: Parameters,
    m: Parameters,
    v: Parameters,
    count: Array,
    gradients: Parameters,
    *,
    rate: float,
    betas: tuple[float, float],
    decay: float,
    clip: float,
) -> tuple[Parameters, Parameters, Parameters]:
    """Return parameters and moments after a step of AdamW, gradients clipped to a joint norm; vectors do not decay."""
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in gradients.values()))
    g = {name: x * jnp.minimum(1, clip / norm) for name, x in gradients.items()}
    m = {name: betas[0] * m[name] + (1 - betas[0]) * g[name] for name in p}
    v = {name: betas[1] * v[name] + (1 - betas[1]) * g[name] ** 2 for name in p}
    first, second = 1 - betas[0] ** count, 1 - betas[1] ** count
    change = {name: (m[name] / first) / (jnp.sqrt(v[name] / second) + 1e-8) for name in p}
    decay_factors = {name: 1 - rate * decay * (p[name].ndim > 1) for name in p}
    return {name: decay_factors[name] * p[name] - rate * change[name] for name in p}, m, v


def _norm(x: Array, weight: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + EPSILON) * weight

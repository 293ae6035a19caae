"""Mechanisms in JAX, as a JAX user would write them for speed on a CPU, to be compiled whole; heads are (H, L, d)."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array
from jax import numpy as jnp


def linear_attention(q: Array, k: Array, v: Array, size: int = 64) -> Array:
    """Return the outputs of linear attention in chunks, all at once but for the sum of the states before each."""
    q, k, v = (_chunks(x, size) for x in (q, k, v))
    states = jnp.cumsum(k.mT @ v, 1) - k.mT @ v
    return _unchunk(q @ states + jnp.tril(q @ k.mT) @ v)


def delta_rule(q: Array, k: Array, v: Array, beta: Array, size: int = 64) -> Array:
    """Return the outputs of the delta rule in chunks: WY representation by a triangular solve, then a scan."""
    q, k, v, beta = (_chunks(x, size) for x in (q, k, v, beta[..., None]))
    system = jnp.tril(beta * (k @ k.mT), -1) + jnp.eye(size)
    rhs = beta * jnp.concatenate([v, k], -1)
    corrections = jax.scipy.linalg.solve_triangular(system, rhs, lower=True, unit_diagonal=True)
    u, w = jnp.split(corrections, 2, -1)

    def step(S: Array, chunk: Any) -> tuple[Array, Array]:
        q, k, scores, u, w = chunk
        new_values = u - w @ S
        return S + k.mT @ new_values, q @ S + scores @ new_values

    chunks = tuple(jnp.moveaxis(x, 1, 0) for x in (q, k, jnp.tril(q @ k.mT), u, w))
    _, y = jax.lax.scan(step, jnp.zeros((len(q), k.shape[-1], v.shape[-1])), chunks)
    return _unchunk(jnp.moveaxis(y, 0, 1))


def gated_linear_attention(q: Array, k: Array, v: Array, log_decay: Array, size: int = 16) -> Array:
    """Return the outputs of gated linear attention in chunks, decays at most 1, their states by a scan."""
    q, k, v, g = (_chunks(x, size) for x in (q, k, v, log_decay))
    g_sum = jnp.cumsum(g, -2)  # from the chunk's start
    causal = jnp.tril(jnp.ones((size, size), bool))[..., None]
    decays = jnp.exp(jnp.where(causal, g_sum[..., :, None, :] - g_sum[..., None, :, :], -jnp.inf))
    intra = jnp.einsum("hctk,hcsk,hctsk->hcts", q, k, decays) @ v
    writes = (k * jnp.exp(g_sum[..., -1:, :] - g_sum)).mT @ v

    def step(S: Array, chunk: Any) -> tuple[Array, Array]:
        decay, write = chunk
        return decay[..., None] * S + write, S

    chunks = tuple(jnp.moveaxis(x, 1, 0) for x in (jnp.exp(g_sum[..., -1, :]), writes))
    _, states = jax.lax.scan(step, jnp.zeros_like(writes[:, 0]), chunks)
    return _unchunk(intra + (q * jnp.exp(g_sum)) @ jnp.moveaxis(states, 0, 1))


def gated_delta_rule(q: Array, k: Array, v: Array, beta: Array, log_decay: Array, size: int = 64) -> Array:
    """Return the outputs of the gated delta rule in chunks, as `delta_rule` with decays."""
    q, k, v, beta, g = (_chunks(x, size) for x in (q, k, v, beta[..., None], log_decay[..., None]))
    g_sum = jnp.cumsum(g, -2)
    decays = jnp.exp(jnp.tril(g_sum - g_sum.mT))
    system = jnp.tril(beta * (k @ k.mT) * decays, -1) + jnp.eye(size)
    rhs = beta * jnp.concatenate([v, jnp.exp(g_sum) * k], -1)
    corrections = jax.scipy.linalg.solve_triangular(system, rhs, lower=True, unit_diagonal=True)
    decayed_k, decay = k * jnp.exp(g_sum[..., -1:, :] - g_sum), jnp.exp(g_sum[..., -1:, :])
    return _corrected(q * jnp.exp(g_sum), decayed_k, decay, jnp.tril(q @ k.mT * decays), corrections)


def kda(q: Array, k: Array, v: Array, beta: Array, log_decay: Array, size: int = 16) -> Array:
    """Return the outputs of Kimi Delta Attention in chunks, as `gated_delta_rule` with a decay per channel."""
    q, k, v, beta, g = (_chunks(x, size) for x in (q, k, v, beta[..., None], log_decay))
    g_sum = jnp.cumsum(g, -2)
    causal = jnp.tril(jnp.ones((size, size), bool))[..., None]
    decays = jnp.exp(jnp.where(causal, g_sum[..., :, None, :] - g_sum[..., None, :, :], -jnp.inf))
    scores, products = (jnp.einsum("hctk,hcsk,hctsk->hcts", x, k, decays) for x in (q, k))
    system = jnp.tril(beta * products, -1) + jnp.eye(size)
    corrections = jax.scipy.linalg.solve_triangular(
        system, beta * jnp.concatenate([v, jnp.exp(g_sum) * k], -1), lower=True, unit_diagonal=True
    )
    decayed_k, decay = k * jnp.exp(g_sum[..., -1:, :] - g_sum), jnp.exp(g_sum[..., -1, :, None])
    return _corrected(q * jnp.exp(g_sum), decayed_k, decay, scores, corrections)


def _corrected(reads: Array, k: Array, decay: Array, scores: Array, corrections: Array) -> Array:
    """Return the outputs of a gated delta rule from decayed queries and keys, decays and the corrections of chunks."""
    u, w = jnp.split(corrections, 2, -1)

    def step(S: Array, chunk: Any) -> tuple[Array, Array]:
        reads, decayed_k, decay, scores, u, w = chunk
        new_values = u - w @ S
        return decay * S + decayed_k.mT @ new_values, reads @ S + scores @ new_values

    chunks = tuple(jnp.moveaxis(x, 1, 0) for x in (reads, k, decay, scores, u, w))
    _, y = jax.lax.scan(step, jnp.zeros((len(k), k.shape[-1], u.shape[-1])), chunks)
    return _unchunk(jnp.moveaxis(y, 0, 1))


def ttt_linear(
    q: Array, k: Array, v: Array, eta: Array, W: Array, b: Array, gamma: Array, beta: Array, *, batch_size: int
) -> Array:
    """Return the outputs of TTT-Linear by its dual form, a scan over mini-batches."""

    def step(weights: Any, batch: Any) -> tuple[Any, Array]:
        (W, b), (Q, K, V, rate) = weights, batch
        unit, deviation = _standardised(K @ W + b)
        g = gamma * (K + gamma * unit + beta - V)
        slope = (g - g.mean(-1, keepdims=True) - unit * (g * unit).mean(-1, keepdims=True)) / deviation
        mix = jnp.tril(rate.mT * (Q @ K.mT + 1))
        y = Q + gamma * _standardised(Q @ W + b - mix @ slope)[0] + beta
        return (W - (rate * K).mT @ slope, b - rate.mT @ slope), y

    batches = tuple(jnp.moveaxis(_chunks(x, batch_size), 1, 0) for x in (q, k, v, eta[..., None]))
    return _unchunk(jnp.moveaxis(jax.lax.scan(step, (W, b), batches)[1], 0, 1))


def _standardised(z: Array) -> tuple[Array, Array]:
    deviation = jnp.sqrt(z.var(-1, keepdims=True) + 1e-6)
    return (z - z.mean(-1, keepdims=True)) / deviation, deviation


def softmax(q: Array, k: Array, v: Array) -> Array:
    """Return causal softmax attention by `jax.nn.dot_product_attention`, whose heads are (L, H, d)."""
    q, k, v = (jnp.swapaxes(x, 0, 1) for x in (q, k, v))
    return jnp.swapaxes(jax.nn.dot_product_attention(q, k, v, is_causal=True), 0, 1)


def _chunks(x: Array, size: int) -> Array:
    return x.reshape(x.shape[0], -1, size, x.shape[-1])


def _unchunk(x: Array) -> Array:
    return x.reshape(x.shape[0], -1, x.shape[-1])

"""State spaces in JAX, as a JAX user would write them for speed on a CPU, to be compiled whole.

The selective scan: `lax.scan` over tokens, which XLA compiles to one loop; the same with the state kept every 64 tokens
only; `lax.associative_scan`. States are (B, N, D), channels last: forward twice as fast here as (B, D, N).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax import numpy as jnp


def selective_scan(u: Array, delta: Array, A: Array, B: Array, C: Array, D: Array) -> Array:
    """Return y (B, L, D), a token at a time."""
    start, tokens, walk = _walk(u, delta, A, B, C, D)
    return jnp.moveaxis(walk(start, tokens)[1], 0, 1)


def selective_scan_remat(u: Array, delta: Array, A: Array, B: Array, C: Array, D: Array, size: int = 64) -> Array:
    """Return the same; the backward pass recomputes the states inside chunks."""
    start, tokens, walk = _walk(u, delta, A, B, C, D)
    chunks = tuple(x.reshape(-1, size, *x.shape[1:]) for x in tokens)
    y = jax.lax.scan(jax.checkpoint(walk), start, chunks)[1]
    return jnp.moveaxis(y.reshape(-1, *y.shape[2:]), 0, 1)


def _walk(
    u: Array, delta: Array, A: Array, B: Array, C: Array, D: Array
) -> tuple[Array, tuple[Array, ...], Callable[[Array, Any], tuple[Array, Array]]]:
    """Return the initial state, the tokens, and the body of the loop over them."""

    def step(h: Array, token: Any) -> tuple[Array, Array]:
        u, delta, B, C = token
        h = jnp.exp(delta[:, None] * rates) * h + (delta * u)[:, None] * B[..., None]
        return h, jnp.einsum("bnd,bn->bd", h, C) + D * u

    rates, tokens = A.T, tuple(jnp.moveaxis(x, 1, 0) for x in (u, delta, B, C))
    return jnp.zeros((u.shape[0], *rates.shape), u.dtype), tokens, lambda h, tokens: jax.lax.scan(step, h, tokens)


def selective_scan_associative(u: Array, delta: Array, A: Array, B: Array, C: Array, D: Array) -> Array:
    """Return the same by `lax.associative_scan`: all tokens at once, in log₂ L rounds."""
    a, b = jnp.exp(delta[..., None] * A), (delta * u)[..., None] * B[..., None, :]
    _, h = jax.lax.associative_scan(lambda x, y: (x[0] * y[0], y[0] * x[1] + y[1]), (a, b), axis=1)
    return jnp.einsum("bldn,bln->bld", h, C) + D * u


def ssd(x: Array, delta: Array, A: Array, B: Array, C: Array, size: int = 64) -> Array:
    """Return y (H, L, P) by chunks, and a scan over the states between them (Dao and Gu 2024, section 6)."""
    v, B, C = (z.reshape(z.shape[0], -1, size, z.shape[-1]) for z in (delta[..., None] * x, B, C))
    a_sum = jnp.cumsum((delta * A[:, None]).reshape(len(delta), -1, size), -1)
    causal = jnp.tril(jnp.ones((size, size), bool))
    decays = jnp.exp(jnp.where(causal, a_sum[..., :, None] - a_sum[..., None, :], -jnp.inf))
    chunk_states = (jnp.exp(a_sum[..., -1:] - a_sum)[..., None] * B).mT @ v  # (H, chunks, N, P)

    def step(S: Array, chunk: Any) -> tuple[Array, Array]:
        decay, chunk_state = chunk
        return decay[:, None, None] * S + chunk_state, S

    chunks = tuple(jnp.moveaxis(z, 1, 0) for z in (jnp.exp(a_sum[..., -1]), chunk_states))
    _, states = jax.lax.scan(step, jnp.zeros_like(chunk_states[:, 0]), chunks)
    y = (decays * (C @ B.mT)) @ v + jnp.exp(a_sum)[..., None] * (C @ jnp.moveaxis(states, 0, 1))
    return y.reshape(y.shape[0], -1, y.shape[-1])


def s4d_kernel(log_rate: Array, frequency: Array, C: Array, log_delta: Array, *, length: int) -> Array:
    """Return K (D, L) by all D·N·L powers; C (2, D, N) holds real and imaginary parts."""
    Lambda, delta = 1j * frequency - jnp.exp(log_rate), jnp.exp(log_delta)[:, None]
    weights = (C[0] + 1j * C[1]) * (jnp.exp(Lambda * delta) - 1) / Lambda
    powers = jnp.exp((Lambda * delta)[..., None] * jnp.arange(length))
    return 2 * jnp.einsum("dn,dnl->dl", weights, powers).real


def s4_kernel(
    log_rate: Array, frequency: Array, P: Array, B: Array, C: Array, log_delta: Array, *, length: int
) -> Array:
    """Return K (D, L) from C̃ by Cauchy sums at every root of unity; P, B and C (2, D, N) hold two parts."""
    Lambda, half = 1j * frequency - jnp.exp(log_rate), jnp.exp(log_delta)[:, None] / 2
    P, B, C = (x[0] + 1j * x[1] for x in (P, B, C))
    angles = jnp.pi * jnp.arange(length // 2 + 1) / length
    s, c, poles = jnp.sin(angles), jnp.cos(angles), (half * Lambda)[..., None]
    weights = half[..., None] * jnp.stack([C * B, C * P, P.conj() * B, P.conj() * P], 1)
    sums = weights @ (1 / (1j * s - c * poles)) + weights.conj() @ (1 / (1j * s - c * poles.conj()))
    cb, cp, pb, pp = jnp.moveaxis(sums, 1, 0)
    return jnp.fft.irfft((c + 1j * s) * (cb - c * cp * pb / (1 + c * pp)), length)


def convolution(u: Array, K: Array) -> Array:
    """Return K ∗ u for u (B, D, L) by Fourier transforms of twice the length."""
    length = u.shape[-1]
    spectrum = jnp.fft.rfft(u, 2 * length) * jnp.fft.rfft(K, 2 * length)
    return jnp.fft.irfft(spectrum, 2 * length)[..., :length]


def s4d(u: Array, log_rate: Array, frequency: Array, C: Array, D: Array, log_delta: Array) -> Array:
    """Return y (B, L, D): the kernel, the convolution and the skip."""
    K = s4d_kernel(log_rate, frequency, C, log_delta, length=u.shape[1])
    return convolution(u.mT, K).mT + D * u

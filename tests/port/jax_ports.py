"""Ports in JAX, compiled once for each shape."""

import functools

import jax
import jax.numpy as jnp


def memory(k, v, state):
    """Return the initial state, [..., K, V], of zeros where none is given."""
    return jnp.zeros((*k.shape[:-2], k.shape[-1], v.shape[-1]), v.dtype) if state is None else state


def time_first(x, axis=-2):
    """Return an array with time as its first axis, as lax.scan takes it."""
    return jnp.moveaxis(x, axis, 0)


def segment_sums(x):
    """Return the sums x[j + 1] + ... + x[i] as a lower triangular matrix, with -inf above the diagonal."""
    T = x.shape[-1]
    row, column = jnp.arange(T)[:, None], jnp.arange(T)
    sums = jnp.cumsum(jnp.where(column < row, x[..., None], 0), axis=-2)
    return jnp.where(column <= row, sums, -jnp.inf)


@jax.jit
def linear_attention(q, k, v, state=None):
    """Recurrent, [..., T, K]."""

    def step(S, x):
        q_t, k_t, v_t = x
        S = S + k_t[..., :, None] * v_t[..., None, :]
        return S, jnp.einsum("...k,...kv->...v", q_t, S)

    S, y = jax.lax.scan(step, memory(k, v, state), tuple(map(time_first, (q, k, v))))
    return jnp.moveaxis(y, 0, -2), S


@functools.partial(jax.jit, static_argnames="chunk_size")
def gated_linear_attention(q, k, v, g, state=None, chunk_size=64):
    """Chunkwise, with a gate for each token."""
    S, o = memory(k, v, state), []
    for start in range(0, q.shape[-2], chunk_size):
        Q, K, V = (x[..., start : start + chunk_size, :] for x in (q, k, v))
        G = g[..., start : start + chunk_size]
        L = jnp.exp(segment_sums(G))
        gamma = jnp.exp(jnp.cumsum(G, axis=-1))[..., None]
        o.append(gamma * (Q @ S) + (L * (Q @ K.mT)) @ V)
        S = gamma[..., -1:, :] * S + (L[..., -1, :, None] * K).mT @ V
    return jnp.concatenate(o, axis=-2), S


@jax.jit
def delta_rule(q, k, v, beta, state=None):
    """Recurrent, [..., T, K]."""

    def step(S, x):
        q_t, k_t, v_t, beta_t = x
        error = v_t - jnp.einsum("...k,...kv->...v", k_t, S)
        S = S + beta_t[..., None, None] * k_t[..., :, None] * error[..., None, :]
        return S, jnp.einsum("...k,...kv->...v", q_t, S)

    tokens = (*map(time_first, (q, k, v)), time_first(beta, -1))
    S, y = jax.lax.scan(step, memory(k, v, state), tokens)
    return jnp.moveaxis(y, 0, -2), S


@functools.partial(jax.jit, static_argnames="chunk_size")
def chunk_gated_delta_rule(q, k, v, beta, g, state=None, chunk_size=64):
    """Chunkwise: the values written in a chunk solve a unit lower triangular system."""
    S, o = memory(k, v, state), []
    for start in range(0, q.shape[-2], chunk_size):
        Q, K, V = (x[..., start : start + chunk_size, :] for x in (q, k, v))
        b, G = beta[..., start : start + chunk_size, None], g[..., start : start + chunk_size]
        L = jnp.exp(segment_sums(G))
        gamma = jnp.exp(jnp.cumsum(G, axis=-1))[..., None]
        A = jnp.tril(b * L * (K @ K.mT), -1)
        u = jax.scipy.linalg.solve_triangular(A, b * (V - gamma * (K @ S)), lower=True, unit_diagonal=True)
        o.append(gamma * (Q @ S) + (L * (Q @ K.mT)) @ u)
        S = gamma[..., -1:, :] * S + (L[..., -1, :, None] * K).mT @ u
    return jnp.concatenate(o, axis=-2), S


@jax.jit
def selective_scan(u, delta, A, B, C, D, state=None):
    """Associative scan over pairs of a factor and a term, u [..., T, D]."""
    a = jnp.exp(delta[..., None] * A)
    x = delta[..., None] * u[..., None] * B[..., None, :]
    h0 = jnp.zeros_like(x[..., 0, :, :]) if state is None else state
    x = x.at[..., 0, :, :].add(a[..., 0, :, :] * h0)

    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    h = jax.lax.associative_scan(combine, (a, x), axis=a.ndim - 3)[1]
    return jnp.einsum("...tn,...tdn->...td", C, h) + D * u, h[..., -1, :, :]


@functools.partial(jax.jit, static_argnames="chunk_size")
def ssd(x, dt, A, B, C, state=None, chunk_size=64):
    """Chunkwise, with a state [..., N, P]."""
    S, y = memory(B, x, state), []
    for start in range(0, x.shape[-2], chunk_size):
        X, b, c = (z[..., start : start + chunk_size, :] for z in (x * dt[..., None], B, C))
        dA = A * dt[..., start : start + chunk_size]
        L = jnp.exp(segment_sums(dA))
        gamma = jnp.exp(jnp.cumsum(dA, axis=-1))[..., None]
        y.append(gamma * (c @ S) + (L * (c @ b.mT)) @ X)
        S = gamma[..., -1:, :] * S + (L[..., -1, :, None] * b).mT @ X
    return jnp.concatenate(y, axis=-2), S


@jax.jit
def attention(q, k, v, past=None):
    """Causal softmax attention after cached keys and values."""
    if past is not None:
        k, v = jnp.concatenate([past[0], k], axis=-2), jnp.concatenate([past[1], v], axis=-2)
    T, S = q.shape[-2], k.shape[-2]
    scores = jnp.einsum("...tk,...sk->...ts", q, k) / q.shape[-1] ** 0.5
    visible = jnp.tril(jnp.ones((T, S), bool), S - T)
    weights = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    return weights @ v, (k, v)


@jax.jit
def s4d(u, Lambda, B, C, D, delta, state=None):
    """Recurrent, by zero-order hold, one of each conjugate pair."""
    A_bar = jnp.exp(delta[:, None] * Lambda)
    B_bar = (A_bar - 1) / Lambda * B

    def step(h, u_t):
        h = A_bar * h + B_bar * u_t[..., None]
        return h, 2 * jnp.sum(C * h, axis=-1).real

    h0 = jnp.zeros((*u.shape[:-2], *B.shape), B.dtype) if state is None else state
    h, y = jax.lax.scan(step, h0, time_first(u))
    return jnp.moveaxis(y, 0, -2) + D * u, h

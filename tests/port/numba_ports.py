"""Ports in Numba with backward passes by hand, on arrays [B, T, K]."""

import numpy as np
from numba import njit


@njit
def linear_attention(q, k, v, state=None):
    """Compute linear attention token by token."""
    B, T, K = q.shape
    V = v.shape[2]
    S = np.zeros((B, K, V), q.dtype) if state is None else state.copy()
    y = np.zeros_like(v)
    for b in range(B):
        for t in range(T):
            for i in range(K):
                for j in range(V):
                    S[b, i, j] += k[b, t, i] * v[b, t, j]
                    y[b, t, j] += q[b, t, i] * S[b, i, j]
    return y, S


@njit
def linear_attention_backward(q, k, v, dy, dS, state=None):
    """Compute the gradients; that of the state is last."""
    B, T, K = q.shape
    V = v.shape[2]
    S = np.zeros((B, K, V), q.dtype) if state is None else state.copy()
    dq, dk, dv, dS = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v), dS.copy()
    for b in range(B):
        for t in range(T):
            for i in range(K):
                for j in range(V):
                    S[b, i, j] += k[b, t, i] * v[b, t, j]
                    dq[b, t, i] += S[b, i, j] * dy[b, t, j]
        for t in range(T - 1, -1, -1):
            for i in range(K):
                for j in range(V):
                    dS[b, i, j] += q[b, t, i] * dy[b, t, j]
                    dk[b, t, i] += dS[b, i, j] * v[b, t, j]
                    dv[b, t, j] += dS[b, i, j] * k[b, t, i]
    return dq, dk, dv, dS


def gated_linear_attention(q, k, v, g, state=None):
    """Compute gated linear attention token by token, with a gate for each channel of the keys."""
    S = np.zeros((*q.shape[::2], v.shape[2]), q.dtype) if state is None else state.copy()
    return gated_states(q, k, v, g, S)[:2]


@njit
def gated_states(q, k, v, g, S):
    """Return the results, and the state before each token."""
    before = np.zeros((*q.shape, v.shape[2]), q.dtype)
    y = np.zeros_like(v)
    for b, t in np.ndindex(q.shape[:2]):
        before[b, t] = S[b]
        for i in range(q.shape[2]):
            for j in range(v.shape[2]):
                S[b, i, j] = np.exp(g[b, t, i]) * S[b, i, j] + k[b, t, i] * v[b, t, j]
                y[b, t, j] += q[b, t, i] * S[b, i, j]
    return y, S, before


def gated_linear_attention_backward(q, k, v, g, dy, dS, state=None):
    """Compute the gradients; that of the state is last."""
    S = np.zeros_like(dS) if state is None else state.copy()
    return gated_gradients(q, k, v, g, dy, dS.copy(), gated_states(q, k, v, g, S)[2])


@njit
def gated_gradients(q, k, v, g, dy, dS, before):
    """Compute the gradients from the state before each token."""
    dq, dk, dv, dg = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v), np.zeros_like(g)
    for b in range(q.shape[0]):
        for t in range(q.shape[1] - 1, -1, -1):
            for i in range(q.shape[2]):
                decay = np.exp(g[b, t, i])
                for j in range(v.shape[2]):
                    kept = decay * before[b, t, i, j]
                    dq[b, t, i] += (kept + k[b, t, i] * v[b, t, j]) * dy[b, t, j]
                    dS[b, i, j] += q[b, t, i] * dy[b, t, j]
                    dk[b, t, i] += dS[b, i, j] * v[b, t, j]
                    dv[b, t, j] += dS[b, i, j] * k[b, t, i]
                    dg[b, t, i] += dS[b, i, j] * kept
                    dS[b, i, j] *= decay
    return dq, dk, dv, dg, dS


def delta_rule(q, k, v, beta, state=None):
    """Compute the delta rule token by token."""
    S = np.zeros((*q.shape[::2], v.shape[2]), q.dtype) if state is None else state.copy()
    return delta_states(q, k, v, beta, S)[:2]


@njit
def delta_states(q, k, v, beta, S):
    """Return the results, the state before each token, and the error of its prediction."""
    before = np.zeros((*q.shape, v.shape[2]), q.dtype)
    y, error = np.zeros_like(v), v.copy()
    for b, t in np.ndindex(q.shape[:2]):
        before[b, t] = S[b]
        for j in range(v.shape[2]):
            for i in range(q.shape[2]):
                error[b, t, j] -= k[b, t, i] * S[b, i, j]
            for i in range(q.shape[2]):
                S[b, i, j] += k[b, t, i] * beta[b, t] * error[b, t, j]
                y[b, t, j] += q[b, t, i] * S[b, i, j]
    return y, S, before, error


def delta_rule_backward(q, k, v, beta, dy, dS, state=None):
    """Compute the gradients; that of the state is last."""
    S = np.zeros_like(dS) if state is None else state.copy()
    return delta_gradients(q, k, v, beta, dy, dS.copy(), *delta_states(q, k, v, beta, S)[2:])


@njit
def delta_gradients(q, k, v, beta, dy, dS, before, error):
    """Compute the gradients from the states and the errors."""
    dq, dk, dv, dbeta = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v), np.zeros_like(beta)
    for b in range(q.shape[0]):
        for t in range(q.shape[1] - 1, -1, -1):
            for j in range(v.shape[2]):
                u = beta[b, t] * error[b, t, j]
                du = 0.0
                for i in range(q.shape[2]):
                    dq[b, t, i] += (before[b, t, i, j] + k[b, t, i] * u) * dy[b, t, j]
                    dS[b, i, j] += q[b, t, i] * dy[b, t, j]
                    dk[b, t, i] += dS[b, i, j] * u
                    du += dS[b, i, j] * k[b, t, i]
                dbeta[b, t] += du * error[b, t, j]
                dv[b, t, j] = beta[b, t] * du
                for i in range(q.shape[2]):
                    dk[b, t, i] -= before[b, t, i, j] * dv[b, t, j]
                    dS[b, i, j] -= k[b, t, i] * dv[b, t, j]
    return dq, dk, dv, dbeta, dS


def lti(u, A, B, C, state=None):
    """Compute a linear time-invariant system token by token, u [B, T, D], a dense A, one state for each channel."""
    h = np.zeros((u.shape[0], u.shape[2], len(B)), u.dtype) if state is None else state.copy()
    return lti_states(u, A, B, C, h)[:2]


@njit
def lti_states(u, A, B, C, h):
    """Return the results, and the state before each token."""
    N = len(B)
    before = np.zeros((*u.shape, N), u.dtype)
    y = np.zeros_like(u)
    for z, t, d in np.ndindex(u.shape):
        before[z, t, d] = h[z, d]
        for n in range(N):
            h[z, d, n] = B[n] * u[z, t, d]
            for m in range(N):
                h[z, d, n] += A[n, m] * before[z, t, d, m]
            y[z, t, d] += C[n] * h[z, d, n]
    return y, h, before


def lti_backward(u, A, B, C, dy, dh, state=None):
    """Compute the gradients; that of the state is last."""
    h = np.zeros_like(dh) if state is None else state.copy()
    return lti_gradients(u, A, B, C, dy, dh.copy(), lti_states(u, A, B, C, h)[2])


@njit
def lti_gradients(u, A, B, C, dy, dh, before):
    """Compute the gradients from the state before each token; those of A, B and C are sums over the batch."""
    N = len(B)
    du, dA, dB, dC = np.zeros_like(u), np.zeros_like(A), np.zeros_like(B), np.zeros_like(C)
    for z in range(u.shape[0]):
        for t in range(u.shape[1] - 1, -1, -1):
            for d in range(u.shape[2]):
                incoming = dh[z, d].copy()
                dh[z, d] = 0
                for n in range(N):
                    h = B[n] * u[z, t, d]
                    for m in range(N):
                        h += A[n, m] * before[z, t, d, m]
                    dC[n] += dy[z, t, d] * h
                    grad = incoming[n] + dy[z, t, d] * C[n]
                    dB[n] += grad * u[z, t, d]
                    du[z, t, d] += grad * B[n]
                    for m in range(N):
                        dA[n, m] += grad * before[z, t, d, m]
                        dh[z, d, m] += grad * A[n, m]
    return du, dA, dB, dC, dh

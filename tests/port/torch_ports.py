"""Ports in PyTorch, with arrays laid out and arguments named as its libraries do."""

import torch


def memory(k, v, initial_state):
    """Return the initial state, [..., K, V], of zeros where none is given."""
    return k.new_zeros(*k.shape[:-2], k.shape[-1], v.shape[-1]) if initial_state is None else initial_state


def segment_sums(x):
    """Return the sums x[j + 1] + ... + x[i] as a lower triangular matrix, with -inf above the diagonal."""
    T = x.shape[-1]
    ones = torch.ones(T, T, dtype=torch.bool)
    sums = x[..., None].expand(*x.shape, T).masked_fill(~ones.tril(-1), 0).cumsum(-2)
    return sums.masked_fill(~ones.tril(), -torch.inf)


def solve(A, x):
    """Return u with (I + A) u = x, by forward substitution, for A strictly lower triangular."""
    rows = []
    for i in range(x.shape[-2]):
        row = x[..., i : i + 1, :]
        rows.append(row - A[..., i : i + 1, :i] @ torch.cat(rows, dim=-2) if rows else row)
    return torch.cat(rows, dim=-2)


def linear_attention(q, k, v, initial_state=None):
    """Recurrent, [..., T, K]."""
    S = memory(k, v, initial_state)
    o = []
    for q_t, k_t, v_t in zip(q.unbind(-2), k.unbind(-2), v.unbind(-2), strict=True):
        S = S + k_t[..., :, None] * v_t[..., None, :]
        o.append((q_t[..., :, None] * S).sum(-2))
    return torch.stack(o, dim=-2), S


def gated_linear_attention(q, k, v, gk, initial_state=None, chunk_size=64):
    """Chunkwise, [B, T, H, K], with a gate for each channel of the keys."""
    q, k, v, g = (x.transpose(1, 2) for x in (q, k, v, gk))
    S = memory(k, v, initial_state)
    o = []
    for start in range(0, q.shape[-2], chunk_size):
        Q, K, V, G = (x[:, :, start : start + chunk_size] for x in (q * q.shape[-1] ** -0.5, k, v, g))
        decay = segment_sums(G.mT).exp()  # [..., K, i, j]
        gamma = G.cumsum(-2).exp()
        A = torch.einsum("...ik,...jk,...kij->...ij", Q, K, decay)
        o.append((Q * gamma) @ S + A @ V)
        S = gamma[..., -1, :, None] * S + (K * decay[..., -1, :].mT).mT @ V
    return torch.cat(o, dim=-2).transpose(1, 2), S


def delta_rule(q, k, v, beta, initial_state=None):
    """Recurrent, [B, T, H, K], with the queries scaled."""
    q, k, v, beta = (x.transpose(1, 2) for x in (q, k, v, beta))
    S = memory(k, v, initial_state)
    o = []
    for t in range(q.shape[-2]):
        q_t, k_t, v_t, b_t = q[:, :, t] * q.shape[-1] ** -0.5, k[:, :, t], v[:, :, t], beta[:, :, t, None]
        error = v_t - (k_t[..., :, None] * S).sum(-2)
        S = S + k_t[..., :, None] * (b_t * error)[..., None, :]
        o.append((q_t[..., :, None] * S).sum(-2))
    return torch.stack(o, dim=1), S


def chunk_delta_rule(q, k, v, beta, initial_state=None, chunk_size=64):
    """Chunkwise in the WY representation, [..., T, K]."""
    S = memory(k, v, initial_state)
    o = []
    for start in range(0, q.shape[-2], chunk_size):
        Q, K, V = (x[..., start : start + chunk_size, :] for x in (q, k, v))
        b = beta[..., start : start + chunk_size, None]
        A = (b * K @ K.mT).tril(-1)
        W, U = solve(A, b * K), solve(A, b * V)
        u = U - W @ S
        o.append(Q @ S + (Q @ K.mT).tril() @ u)
        S = S + K.mT @ u
    return torch.cat(o, dim=-2), S


def chunk_gated_delta_rule(q, k, v, g, beta, initial_state=None, chunk_size=64):
    """Chunkwise, [B, T, H, K], with the queries scaled."""
    q, k, v, g, beta = (x.transpose(1, 2) for x in (q, k, v, g, beta))
    S = memory(k, v, initial_state)
    o = []
    for start in range(0, q.shape[-2], chunk_size):
        Q, K, V = (x[:, :, start : start + chunk_size] for x in (q * q.shape[-1] ** -0.5, k, v))
        G, b = g[:, :, start : start + chunk_size], beta[:, :, start : start + chunk_size, None]
        L = segment_sums(G).exp()
        gamma = G.cumsum(-1).exp()[..., None]
        u = solve((b * K @ K.mT * L).tril(-1), b * (V - gamma * (K @ S)))
        o.append(gamma * (Q @ S) + (Q @ K.mT * L) @ u)
        S = gamma[..., -1:, :] * S + (K * L[..., -1, :, None]).mT @ u
    return torch.cat(o, dim=-2).transpose(1, 2), S


def selective_scan(u, delta, A, B, C, D):
    """Token by token, u and delta [B, D, T], B and C [B, N, T], without an initial state."""
    h = u.new_zeros(u.shape[0], *A.shape)
    y = []
    for t in range(u.shape[-1]):
        step = delta[:, :, t, None]
        h = (step * A).exp() * h + step * B[:, None, :, t] * u[:, :, t, None]
        y.append((h * C[:, None, :, t]).sum(-1))
    return torch.stack(y, dim=-1) + D[:, None] * u, h


def ssd(x, dt, A, B, C, initial_states=None, chunk_size=64):
    """Chunkwise, x [B, T, H, P], dt [B, T, H], B and C [B, T, H, N], and a state [B, H, P, N]."""
    x, dt, B, C = (z.transpose(1, 2) for z in (x, dt, B, C))
    S = memory(x, B, initial_states)
    y = []
    for start in range(0, x.shape[-2], chunk_size):
        X, Bc, Cc = (z[:, :, start : start + chunk_size] for z in (x * dt[..., None], B, C))
        dA = dt[:, :, start : start + chunk_size] * A
        L = segment_sums(dA).exp()
        y_diagonal = (Cc @ Bc.mT * L) @ X
        y_off = dA.cumsum(-1).exp()[..., None] * (Cc @ S.mT)
        y.append(y_diagonal + y_off)
        S = dA.sum(-1).exp()[..., None, None] * S + (X * L[..., -1, :, None]).mT @ Bc
    return torch.cat(y, dim=-2).transpose(1, 2), S


def attention(q, k, v, past=None):
    """Causal softmax attention after cached keys and values."""
    if past is not None:
        k, v = torch.cat([past[0], k], dim=-2), torch.cat([past[1], v], dim=-2)
    T, S = q.shape[-2], k.shape[-2]
    scores = q @ k.mT * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~torch.ones(T, S, dtype=torch.bool).tril(S - T), -torch.inf)
    return scores.softmax(-1) @ v, (k, v)


def ttt_linear(XQ, XK, XV, eta, W1, b1, mini_batch_size=16):
    """The dual form of mini-batches, in the names of the published code, without its layer norm."""
    y = []
    for start in range(0, XQ.shape[-2], mini_batch_size):
        Q, K, V = (x[..., start : start + mini_batch_size, :] for x in (XQ, XK, XV))
        lr = eta[..., None, start : start + mini_batch_size]
        grad = K @ W1 + b1 - V
        Attn1 = (lr * (Q @ K.mT)).tril()
        b1_bar = b1 - lr.expand(*Attn1.shape).tril() @ grad
        y.append(Q @ W1 - Attn1 @ grad + b1_bar)
        W1 = W1 - (lr.mT * K).mT @ grad
        b1 = b1_bar[..., -1:, :]
    return torch.cat(y, dim=-2)


def s4d(u, Lambda, B, C, D, delta):
    """The convolution by FFT with the kernel of zero-order hold, one of each conjugate pair, u [..., T, D]."""
    T = u.shape[-2]
    step = delta[:, None] * Lambda
    weight = C * B * (step.exp() - 1) / Lambda
    powers = (step[..., None] * torch.arange(T)).exp()  # [D, N, T]
    kernel = 2 * (weight[..., None] * powers).sum(-2).real
    spectrum = torch.fft.rfft(u.mT, n=2 * T) * torch.fft.rfft(kernel, n=2 * T)
    y = torch.fft.irfft(spectrum, n=2 * T)[..., :T].mT
    return y + D * u

"""Ports in plain NumPy, as text, so that a slip is one replacement."""

import numpy as np

MEMORY = """
def port(q, k, v, {gates}state=None):
    S = np.zeros((*q.shape[:-2], k.shape[-1], v.shape[-1]), q.dtype) if state is None else state
    out = []
    for t in range(q.shape[-2]):
        q_t, k_t, v_t = q[..., t, None, :], k[..., t, None, :], v[..., t, None, :]
        {steps}
        out.append(q_t @ S)
    return np.concatenate(out, axis=-2), S
"""

PORTS = {
    "memory.linear_attention.recurrent": MEMORY.format(gates="", steps="S = S + k_t.mT @ v_t"),
    "memory.gated_linear_attention.recurrent": MEMORY.format(
        gates="log_decay, ",
        steps="""S = np.exp(log_decay[..., t, None, None]) * S
        S = S + k_t.mT @ v_t""",
    ),
    "memory.delta_rule.recurrent": MEMORY.format(
        gates="beta, ",
        steps="""u = beta[..., t, None, None] * (v_t - k_t @ S)
        S = S + k_t.mT @ u""",
    ),
    "memory.gated_delta_rule.recurrent": MEMORY.format(
        gates="beta, log_decay, ",
        steps="""S = np.exp(log_decay[..., t, None, None]) * S
        u = beta[..., t, None, None] * (v_t - k_t @ S)
        S = S + k_t.mT @ u""",
    ),
    "memory.linear_attention.chunkwise": """
def port(q, k, v, state=None, chunk_size=64):
    S = np.zeros((*q.shape[:-2], k.shape[-1], v.shape[-1]), q.dtype) if state is None else state
    out = []
    for t in range(0, q.shape[-2], chunk_size):
        Q, K, V = (x[..., t : t + chunk_size, :] for x in (q, k, v))
        out.append(Q @ S + np.tril(Q @ K.mT) @ V)
        S = S + K.mT @ V
    return np.concatenate(out, axis=-2), S
""",
    "memory.delta_rule.chunkwise": """
def port(q, k, v, beta, state=None, chunk_size=64):
    S = np.zeros((*q.shape[:-2], k.shape[-1], v.shape[-1]), q.dtype) if state is None else state
    out = []
    for t in range(0, q.shape[-2], chunk_size):
        Q, K, V = (x[..., t : t + chunk_size, :] for x in (q, k, v))
        B = beta[..., t : t + chunk_size, None]
        A = np.tril(B * (K @ K.mT), -1)
        U = np.linalg.solve(np.eye(A.shape[-1], dtype=A.dtype) + A, B * (V - K @ S))
        out.append(Q @ S + np.tril(Q @ K.mT) @ U)
        S = S + K.mT @ U
    return np.concatenate(out, axis=-2), S
""",
    "attention.softmax.quadratic": """
def port(q, k, v, state=None):
    if state is not None:
        k, v = (np.concatenate(pair, axis=-2) for pair in zip(state, (k, v)))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    mask = np.tril(np.ones(scores.shape[-2:], dtype=bool), k=k.shape[-2] - q.shape[-2])
    weights = np.where(mask, np.exp(scores - scores.max(axis=-1, keepdims=True)), 0)
    return weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-30) @ v, (k, v)
""",
    "ssm.selective_scan.recurrent": """
def port(u, delta, A, B, C, D, state=None):
    h = np.zeros((*u.shape[:-2], *A.shape), u.dtype) if state is None else state
    out = []
    for t in range(u.shape[-2]):
        d_t = delta[..., t, :, None]
        h = np.exp(d_t * A) * h + d_t * u[..., t, :, None] * B[..., t, None, :]
        out.append(np.sum(C[..., t, None, :] * h, axis=-1))
    return np.stack(out, axis=-2) + D * u, h
""",
    "ssm.ssd.recurrent": """
def port(x, delta, A, B, C, state=None):
    S = np.zeros((*x.shape[:-2], B.shape[-1], x.shape[-1]), x.dtype) if state is None else state
    out = []
    for t in range(x.shape[-2]):
        d_t = delta[..., t, None, None]
        S = np.exp(d_t * A) * S + d_t * B[..., t, :, None] * x[..., t, None, :]
        out.append(np.sum(C[..., t, :, None] * S, axis=-2))
    return np.stack(out, axis=-2), S
""",
    "ssm.s4d.recurrent": """
def port(u, Lambda, B, C, D, delta, state=None):
    A_bar = np.exp(delta[:, None] * Lambda)
    B_bar = (A_bar - 1) / Lambda * B
    h = np.zeros((*u.shape[:-2], *B.shape), B.dtype) if state is None else state
    out = []
    for t in range(u.shape[-2]):
        h = A_bar * h + B_bar * u[..., t, :, None]
        out.append(2 * np.sum(C * h, axis=-1).real)
    return np.stack(out, axis=-2) + D * u, h
""",
    "ssm.s4.recurrent": """
def port(u, Lambda, P, B, C, D, delta, state=None):
    pair = lambda x: np.concatenate([x, x.conj()], axis=-1)
    L, p, b, c = (pair(x) for x in (Lambda, P, B, C))  # both of each conjugate pair
    eye = np.eye(L.shape[-1], dtype=L.dtype)
    A = L[:, :, None] * eye - p[:, :, None] * p[:, None, :].conj()
    half = delta[:, None, None] / 2
    inverse = np.linalg.inv(eye - half * A)
    A_bar, B_bar = inverse @ (eye + half * A), inverse @ (2 * half * b[:, :, None])
    h = np.zeros((*u.shape[:-2], *L.shape, 1), L.dtype) if state is None else pair(state)[..., None]
    out = []
    for t in range(u.shape[-2]):
        h = A_bar @ h + B_bar * u[..., t, :, None, None]
        out.append((c[:, None, :] @ h)[..., 0, 0].real)
    return np.stack(out, axis=-2) + D * u, h[..., : B.shape[-1], 0]
""",
    "recurrent.rwkv7.recurrent": """
def port(r, k, v, a, b, log_decay, state=None):
    S = np.zeros((*r.shape[:-2], k.shape[-1], v.shape[-1]), r.dtype) if state is None else state
    out = []
    for t in range(r.shape[-2]):
        r_t, k_t, v_t, a_t, b_t, g_t = (x[..., t, None, :] for x in (r, k, v, a, b, log_decay))
        z = a_t @ S
        S = np.exp(g_t).mT * S
        S = S + b_t.mT @ z + k_t.mT @ v_t
        out.append(r_t @ S)
    return np.concatenate(out, axis=-2), S
""",
    "recurrent.rwkv4.recurrent": """
def port(k, v, w, u):
    num = den = np.zeros_like(k[..., 0, :])
    out = []
    for t in range(k.shape[-2]):
        now = np.exp(u + k[..., t, :])
        out.append((num + now * v[..., t, :]) / (den + now))
        num = np.exp(-w) * num + np.exp(k[..., t, :]) * v[..., t, :]
        den = np.exp(-w) * den + np.exp(k[..., t, :])
    return np.stack(out, axis=-2)
""",
    "recurrent.lstm.recurrent": """
def port(x, W, U, b, state=None):
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    h, c = (np.zeros((*x.shape[:-2], U.shape[1]), x.dtype),) * 2 if state is None else state
    out = []
    for t in range(x.shape[-2]):
        i, f, g, o = np.split(x[..., t, :] @ W.T + h @ U.T + b, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out, axis=-2), (h, c)
""",
    "memory.titans.recurrent": """
def port(q, k, v, theta, log_eta, log_decay, W1, batch_size=16):
    M = start = np.broadcast_to(W1, (*q.shape[:-2], *W1.shape))
    S = np.zeros_like(M)
    out = []
    for t in range(q.shape[-2]):
        q_t, k_t, v_t = (x[..., t, None, :] for x in (q, k, v))
        rate, eta, keep = (x[..., t, None, None] for x in (theta, np.exp(log_eta), np.exp(log_decay)))
        S = eta * S - rate * (k_t.mT @ (k_t @ start - v_t))
        M = keep * M
        M = M + S
        out.append(q_t @ M)
        if (t + 1) % batch_size == 0:
            start = M
    return np.concatenate(out, axis=-2)
""",
    "memory.ttt.primal": """
def port(q, k, v, eta, W1, b1, batch_size=16):
    W, b = np.broadcast_to(W1, (*q.shape[:-2], *W1.shape)), np.broadcast_to(b1, (*q.shape[:-2], *b1.shape))
    W0, b0, out = W, b, []
    for t in range(q.shape[-2]):
        q_t, k_t, v_t = (x[..., t, None, :] for x in (q, k, v))
        error = eta[..., t, None, None] * (k_t @ W0 + b0 - v_t)
        W, b = W - k_t.mT @ error, b - error
        out.append(q_t @ W + b)
        if (t + 1) % batch_size == 0:
            W0, b0 = W, b
    return np.concatenate(out, axis=-2)
""",
    "recurrent.rnn.recurrent": """
def port(x, W, state=None):
    h = np.zeros(x.shape[:-2] + x.shape[-1:], x.dtype) if state is None else state
    out = []
    for t in range(x.shape[-2]):
        h = np.tanh(h @ W.T + x[..., t, :])
        out.append(h)
    return np.stack(out, axis=-2), h
""",
    "ssm.lti.recurrent": """
def port(u, A, B, C, state=None):
    h = np.zeros((*u.shape, len(B)), u.dtype)[..., 0, :, :] if state is None else state
    out = []
    for t in range(u.shape[-2]):
        h = h @ A.T + u[..., t, :, None] * B
        out.append(h @ C)
    return np.stack(out, axis=-2), h
""",
}


def make(form, old="", new=""):
    """Return the port of a form, with a slip: `old` replaced by `new`."""
    text = PORTS[form]
    assert old in text, f"{form} has no {old}"
    scope = {"np": np}
    exec(text.replace(old, new, 1) if old else text, scope)
    return scope["port"]

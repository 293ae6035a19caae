"""Slips planted in the ports: framework, port, a text of its source, what replaces it, and the name of the slip.

The name is None where the catalogue has none: the port is then wrong, and the report says where.
"""

import pytest

RESET = "            if (first) EACH(n, N) EACH(p, P) S[z][n][p] = 0;\n"

C = [
    ("linear_attention", "S[b][i][j] = S0 ? S0[b][i][j] : 0", "S[b][i][j] = 0", "the initial state is ignored"),
    (
        "linear_attention",
        """            EACH(i, K) EACH(j, V) S[b][i][j] += k[b][t][i] * v[b][t][j];
            EACH(j, V) {
                REAL sum = 0;
                EACH(i, K) sum += q[b][t][i] * S[b][i][j];
                y[b][t][j] = sum;
            }
""",
        """            EACH(j, V) {
                REAL sum = 0;
                EACH(i, K) sum += q[b][t][i] * S[b][i][j];
                y[b][t][j] = sum;
            }
            EACH(i, K) EACH(j, V) S[b][i][j] += k[b][t][i] * v[b][t][j];
""",
        "read before the write",
    ),
    (
        "linear_attention",
        "y[b][t][j] = sum;",
        "y[b][t][j] = sum / sqrt((REAL)K);",
        "a scale of 1/√K too many",
    ),
    (
        "linear_attention",
        "void linear_attention(long B, long T, long K, long V, const REAL q[B][T][K], const REAL k[B][T][K],",
        "void linear_attention(long B, long T, long K, long V, const REAL k[B][T][K], const REAL q[B][T][K],",
        "q·kᵀ transposed: q and k are exchanged",
    ),
    (
        "linear_attention",
        "dS[i][j] = dS_last[b][i][j]",
        "dS[i][j] = 0",
        "the gradient is that of y alone: what comes from the final state is left out",
    ),
    ("linear_attention", "long t = T - 1; t >= 0", "long t = T - 1; t > 0", None),
    ("gated_linear_attention", "exp(sum) * score", "score", None),
    ("gated_linear_attention", "s >= first", "s > first", None),
    (
        "gated_linear_attention",
        "first + C : T;\n",
        "first + C : T;\n            if (first) EACH(i, K) EACH(j, V) S[b][i][j] = 0;\n",
        "the state is reset at each chunk",
    ),
    (
        "gated_linear_attention",
        "dg[b][t] = d_decay * decay",
        "dg[b][t] = d_decay",
        "the gradient of log_decay is with respect to exp(log_decay): the factor for the logarithm",
    ),
    (
        "gated_linear_attention",
        "dk[b][t][i] += dS[i][j]",
        "dk[b][t][i] -= dS[i][j]",
        "the gradient of k has the other sign",
    ),
    ("delta_rule", "(v[b][t][j] - prediction)", "v[b][t][j]", "the prediction is missing: β v is written"),
    (
        "delta_rule",
        "(v[b][t][j] - prediction)",
        "v[b][t][j] - prediction",
        "β weights the value alone: β v − k S",
    ),
    ("delta_rule", "(v[b][t][j] - prediction)", "(v[b][t][j] + prediction)", "the prediction is added: v + k S"),
    ("delta_rule", "REAL u = beta[b][t] *", "REAL u =", "beta is missing: taken as 1"),
    ("delta_rule", "dbeta[b][t] += du", "dbeta[b][t] = du", None),
    ("delta_rule", "                    dS[i][j] -= k[b][t][i] * dv[b][t][j];\n", "", None),
    (
        "gated_delta_rule",
        """            EACH(i, K) S[b][j][i] *= exp(g[b][t]);
            EACH(i, K) prediction += S[b][j][i] * k[b][t][i];
""",
        """            EACH(i, K) prediction += S[b][j][i] * k[b][t][i];
            EACH(i, K) S[b][j][i] *= exp(g[b][t]);
""",
        "the prediction is that of the state before its decay",
    ),
    (
        "gated_delta_rule",
        "sum += S[b][j][i] * q[b][t][i] * scale",
        "sum += S[b][j][i] * q[b][t][i]",
        "scale missing: q is to be multiplied by 1/√K",
    ),
    (
        "gated_delta_rule",
        "*= exp(g[b][t])",
        "*= g[b][t]",
        "the decay is not exponentiated: the logarithm for the factor",
    ),
    ("gated_delta_rule", "*= exp(g[b][t])", "*= 1", "log_decay is not applied: the gate is always open"),
    (
        "gated_delta_rule",
        "*= exp(g[b][t])",
        "/= 1 + exp(-g[b][t])",
        "log_decay is taken as the input of a sigmoid: log σ(log_decay)",
    ),
    ("gated_delta_rule", "dv[b][t][j] * decay * S[t][j][i]", "dv[b][t][j] * S[t][j][i]", None),
    ("attention", "L - T + t + 1", "L - T + t", "mask off by one: a query does not see its own key"),
    ("attention", "L - T + t + 1", "L", "the causal mask is missing"),
    (
        "attention",
        "L - T + t + 1",
        "t + 1",
        "the mask takes the first query for that of the first key of the state",
    ),
    ("attention", "        w[s] /= sqrt((REAL)K);\n", "", "scale missing: q is to be multiplied by 1/√K"),
    ("attention", "(dw[s] - mean)", "dw[s]", None),
    (
        "selective_scan",
        "step * B[z][t][n] * u[z][t][d];\n                sum",
        "B[z][t][n] * u[z][t][d];\n                sum",
        "Δ is missing in B̄ = ΔB",
    ),
    (
        "selective_scan",
        "step * B[z][t][n] * u[z][t][d];\n                sum",
        "(exp(step * A[d][n]) - 1) / A[d][n] * B[z][t][n] * u[z][t][d];\n                sum",
        "zero-order hold for B̄ = ΔB",
    ),
    ("selective_scan", "sum + skip[d] * u[z][t][d]", "sum", "the skip D u is missing"),
    (
        "selective_scan",
        "exp(step * A[d][n]) * h[z]",
        "exp(-step * exp(A[d][n])) * h[z]",
        "A is taken as its logarithm: −exp(A)",
    ),
    (
        "selective_scan",
        "dA[d][n] += dh[d][n] * step",
        "dA[d][n] += dh[d][n] / Z * step",
        "the gradient of A is a mean over the batch, a sum is right",
    ),
    ("selective_scan", "d_skip[d] += x", "d_skip[d] = x", None),
    ("ssd", "first + Q : T;\n", f"first + Q : T;\n{RESET}", "the state is reset at each chunk"),
    ("ssd", "sum += dt[z][s]", "sum += dt[z][t]", None),
    ("ssd", "A[0] + d_write", "A[0]", None),
    ("s4d", "2 * creal(", "creal(", "the conjugate of each pair is missing: y is 2 Re(C h)"),
    ("s4d", "b = (a - 1) / L[d][n] * B", "b = delta[d] * B", "B̄ = ΔB for zero-order hold"),
    ("s4d", "conj(h[t + 1])", "h[t + 1]", "conjugate missing in the gradient of C"),
    ("s4d", "dh *= conj(a)", "dh *= a", None),
]

NUMBA = [
    (
        "linear_attention",
        """                    S[b, i, j] += k[b, t, i] * v[b, t, j]
                    y[b, t, j] += q[b, t, i] * S[b, i, j]
""",
        """                    y[b, t, j] += q[b, t, i] * S[b, i, j]
                    S[b, i, j] += k[b, t, i] * v[b, t, j]
""",
        "read before the write",
    ),
    (
        "gated_linear_attention",
        "np.exp(g[b, t, i]) * S[b, i, j] + k[b, t, i] * v[b, t, j]",
        "np.exp(g[b, t, i]) * (S[b, i, j] + k[b, t, i] * v[b, t, j])",
        "decay after the write, before it is right",
    ),
    (
        "gated_linear_attention",
        "dg[b, t, i] += dS[b, i, j] * kept",
        "dg[b, t, i] += dS[b, i, j] * before[b, t, i, j]",
        "the gradient of log_decay is with respect to exp(log_decay): the factor for the logarithm",
    ),
    ("delta_rule", "error[b, t, j] -= k", "error[b, t, j] += k", "the prediction is added: v + k S"),
    ("delta_rule", "range(q.shape[1] - 1, -1, -1)", "range(q.shape[1] - 1, 0, -1)", None),
    ("lti", "h[z, d, n] += A[n, m]", "h[z, d, n] += A[m, n]", "A is transposed"),
    ("lti", "dB[n] += grad", "dB[n] = grad", None),
]

TORCH = [
    (
        "linear_attention",
        """        S = S + k_t[..., :, None] * v_t[..., None, :]
        o.append((q_t[..., :, None] * S).sum(-2))
""",
        """        o.append((q_t[..., :, None] * S).sum(-2))
        S = S + k_t[..., :, None] * v_t[..., None, :]
""",
        "read before the write",
    ),
    (
        "gated_linear_attention",
        "(q * q.shape[-1] ** -0.5, k",
        "(q, k",
        "scale missing: q is to be multiplied by 1/√K",
    ),
    (
        "gated_linear_attention",
        "masked_fill(~ones.tril(-1), 0)",
        "masked_fill(~ones.tril(), 0)",
        "decay after the write, before it is right",
    ),
    ("gated_linear_attention", "gamma = G.cumsum(-2).exp()", "gamma = (G.cumsum(-2) - G).exp()", None),
    ("gated_linear_attention", "S = gamma[..., -1, :, None] * S +", "S = S +", None),
    ("delta_rule", "q[:, :, t] * q.shape[-1] ** -0.5", "q[:, :, t]", "scale missing: q is to be multiplied by 1/√K"),
    ("delta_rule", "error = v_t - ", "error = v_t.detach() - ", "no gradient flows to v"),
    ("delta_rule", "b_t * error", "b_t.sigmoid() * error", "the sigmoid is applied to beta once more"),
    ("chunk_delta_rule", "(Q @ K.mT).tril() @ u", "(Q @ K.mT).tril(-1) @ u", "read before the write"),
    ("chunk_delta_rule", "append(row - A[", "append(row + A[", None),
    ("chunk_delta_rule", "u = U - W @ S", "u = U", None),
    ("chunk_delta_rule", "solve(A, b * K)", "solve(A, K)", None),
    ("chunk_gated_delta_rule", "beta[:, :, start : start + chunk_size, None]", "1", "beta is missing: taken as 1"),
    (
        "chunk_gated_delta_rule",
        "g[:, :, start : start + chunk_size], beta",
        "g.detach()[:, :, start : start + chunk_size], beta",
        "no gradient flows to log_decay",
    ),
    ("chunk_gated_delta_rule", "b * K @ K.mT * L", "b * K @ K.mT", None),
    (
        "selective_scan",
        "step * B[:, None, :, t]",
        "((step * A).exp() - 1) / A * B[:, None, :, t]",
        "zero-order hold for B̄ = ΔB",
    ),
    ("selective_scan", " + D[:, None] * u", "", "the skip D u is missing"),
    (
        "selective_scan",
        "step = delta[:, :, t, None]",
        "step = torch.nn.functional.softplus(delta[:, :, t, None])",
        "the softplus is applied to delta once more",
    ),
    ("ssd", "(x * dt[..., None], B, C)", "(x, B, C)", "Δ is missing in B̄ = ΔB"),
    (
        "ssd",
        "transpose(1, 2), S\n",
        "transpose(1, 2), S.mT\n",
        "state transposed: its last axes are N, P (declare them by state, 'n p')",
    ),
    ("attention", "tril(S - T)", "tril(S - T + 1)", "mask off by one: a query sees the next key"),
    ("attention", "softmax(-1)", "softmax(-2)", "the softmax is over the queries"),
    (
        "ttt_linear",
        "grad = K @ W1 + b1 - V",
        "grad = 2 * (K @ W1 + b1 - V) / V.shape[-1]",
        "mean for sum in the inner loss of the V squared errors",
    ),
    ("ttt_linear", "(lr * (Q @ K.mT)).tril()", "(lr * (Q @ K.mT)).tril(-1)", None),
    ("s4d", "kernel = 2 * ", "kernel = ", "the conjugate of each pair is missing: y is 2 Re(C h)"),
    ("s4d", "C * B *", "C * B.conj() *", "B is conjugated"),
]

JAX = [
    (
        "linear_attention",
        "S + k_t[..., :, None]",
        "S + jax.lax.stop_gradient(k_t)[..., :, None]",
        "no gradient flows to k",
    ),
    (
        "delta_rule",
        "beta_t[..., None, None] *",
        "jax.nn.sigmoid(beta_t)[..., None, None] *",
        "the sigmoid is applied to beta once more",
    ),
    ("gated_linear_attention", "(L * (Q @ K.mT)) @ V", "Q @ K.mT @ V", None),
    ("chunk_gated_delta_rule", "gamma * (K @ S)", "K @ S", None),
    ("ssd", "(x * dt[..., None], B, C)", "(x, B, C)", "Δ is missing in B̄ = ΔB"),
    ("selective_scan", "x = delta[..., None] * u", "x = u", "Δ is missing in B̄ = ΔB"),
    ("selective_scan", "right[0] * left[1] + right[1]", "left[0] * right[1] + left[1]", None),
    (
        "attention",
        "bool), S - T)",
        "bool), 0)",
        "the mask takes the first query for that of the first key of the state",
    ),
    ("s4d", "jnp.sum(C * h", "jnp.sum(C.conj() * h", "C is conjugated"),
]

PLANTED = {"c": C, "numba": NUMBA, "torch": TORCH, "jax": JAX}


def rows(*frameworks):
    """Return a parameter of a test for each slip planted in a port of these frameworks."""
    return [
        pytest.param(framework, *row, id=f"{framework}-{row[0]}-{row[-1] or row[2]}")
        for framework in frameworks
        for row in PLANTED[framework]
    ]

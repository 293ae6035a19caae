"""Mechanisms in PyTorch, as a PyTorch user would write them for speed on a CPU; heads are (H, L, d).

The strong ways, not loops over tokens: chunks with the delta rule's triangular system solved by LAPACK (WY). Loops over
chunks unbind them all at once, since the gradient of one slice of an array is as large as the array.
fla-core's own chunked forms are loaded from their files, for `import fla` wants Triton.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F


def linear_attention(q: Tensor, k: Tensor, v: Tensor, size: int = 64) -> Tensor:
    """Return the outputs of linear attention in chunks, all at once but for the sum of the states before each."""
    q, k, v = (x.unflatten(1, (-1, size)) for x in (q, k, v))
    chunk_states = k.mT @ v
    return (q @ (chunk_states.cumsum(1) - chunk_states) + torch.tril(q @ k.mT) @ v).flatten(1, 2)


def linear_attention_fla(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the outputs of fla-core's `naive_chunk_linear_attn`, whose heads are (B, L, H, d)."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return fla("linear_attn").naive_chunk_linear_attn(q, k, v, scale=1.0)[0].transpose(0, 1)


def delta_rule_fla(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """Return the outputs of fla-core's `delta_rule_chunkwise`, which scales q."""
    q, k, v, beta = (x[None] for x in (q * q.shape[-1] ** 0.5, k, v, beta))
    return fla("delta_rule").delta_rule_chunkwise(q, k, v, beta)[0][0]


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, size: int = 64) -> Tensor:
    """Return the outputs of the delta rule in chunks: WY representation by a triangular solve (Yang et al. 2024)."""
    q, k, v, beta = (x.unflatten(1, (-1, size)) for x in (q, k, v, beta[..., None]))
    system = torch.tril(beta * (k @ k.mT), -1) + torch.eye(size)
    corrections = torch.linalg.solve_triangular(system, beta * torch.cat([v, k], -1), upper=False, unitriangular=True)
    u, w = corrections.split(v.shape[-1], -1)
    scores, S, outputs = torch.tril(q @ k.mT), torch.zeros(len(q), k.shape[-1], v.shape[-1]), []
    for Q, K, P, U, W in zip(*(x.unbind(1) for x in (q, k, scores, u, w)), strict=True):
        new_values = U - W @ S
        outputs.append(Q @ S + P @ new_values)
        S = S + K.mT @ new_values
    return torch.cat(outputs, 1)


def gated_linear_attention(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, size: int = 16) -> Tensor:
    """Return the outputs of gated linear attention in chunks: scores of all chunks at once, then their states.

    Decays inside a chunk are exponentials of differences that are at most 0, whatever the gates; it takes an array of
    `size` × d numbers a token.
    """
    q, k, v, g = (x.unflatten(1, (-1, size)) for x in (q, k, v, log_decay))
    g_sum = g.cumsum(-2)  # from the chunk's start
    causal = torch.ones(size, size, dtype=torch.bool).tril()[..., None]
    decays = (g_sum[..., :, None, :] - g_sum[..., None, :, :]).masked_fill(~causal, float("-inf")).exp()
    intra = torch.einsum("hctk,hcsk,hctsk->hcts", q, k, decays) @ v
    writes = (k * torch.exp(g_sum[..., -1:, :] - g_sum)).mT @ v
    reads, decay = q * g_sum.exp(), g_sum[..., -1, :, None].exp()
    S, outputs = torch.zeros_like(writes[:, 0]), []
    for y, Q, a, write in zip(*(x.unbind(1) for x in (intra, reads, decay, writes)), strict=True):
        outputs.append(y + Q @ S)
        S = a * S + write
    return torch.cat(outputs, 1)


def gated_linear_attention_fla(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """Return the outputs of fla-core's `naive_recurrent_gla`, which scales q: its chunks know one gate a token only."""
    q, k, v, g = (x.transpose(0, 1)[None] for x in (q * q.shape[-1] ** 0.5, k, v, log_decay))
    return fla("gla").naive_recurrent_gla(q, k, v, g)[0][0].transpose(0, 1)


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, size: int = 64) -> Tensor:
    """Return the outputs of the gated delta rule in chunks, as `delta_rule` with decays (Yang et al. 2025)."""
    q, k, v, beta, g = (x.unflatten(1, (-1, size)) for x in (q, k, v, beta[..., None], log_decay[..., None]))
    g_sum = g.cumsum(-2)
    decays = (g_sum - g_sum.mT).tril().exp()
    system = torch.tril(beta * (k @ k.mT) * decays, -1) + torch.eye(size)
    rhs = beta * torch.cat([v, g_sum.exp() * k], -1)
    corrections = torch.linalg.solve_triangular(system, rhs, upper=False, unitriangular=True)
    scores, reads = torch.tril(q @ k.mT * decays), q * g_sum.exp()
    decayed_k, decay = k * torch.exp(g_sum[..., -1:, :] - g_sum), g_sum[..., -1:, :].exp()
    return _corrected(reads, decayed_k, decay, scores, *corrections.split(v.shape[-1], -1))


def kda(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, size: int = 16) -> Tensor:
    """Return the outputs of Kimi Delta Attention in chunks: `gated_delta_rule` with a decay per channel.

    The decays take an array of `size` × d numbers a token, as in `gated_linear_attention`.
    """
    q, k, v, beta, g = (x.unflatten(1, (-1, size)) for x in (q, k, v, beta[..., None], log_decay))
    g_sum = g.cumsum(-2)
    causal = torch.ones(size, size, dtype=torch.bool).tril()[..., None]
    decays = (g_sum[..., :, None, :] - g_sum[..., None, :, :]).masked_fill(~causal, float("-inf")).exp()
    scores, products = (torch.einsum("hctk,hcsk,hctsk->hcts", x, k, decays) for x in (q, k))
    system = torch.tril(beta * products, -1) + torch.eye(size)
    rhs = beta * torch.cat([v, g_sum.exp() * k], -1)
    corrections = torch.linalg.solve_triangular(system, rhs, upper=False, unitriangular=True)
    decayed_k, decay = k * torch.exp(g_sum[..., -1:, :] - g_sum), g_sum[..., -1, :, None].exp()
    return _corrected(q * g_sum.exp(), decayed_k, decay, scores, *corrections.split(v.shape[-1], -1))


def _corrected(reads: Tensor, k: Tensor, decay: Tensor, scores: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """Return the outputs of a gated delta rule from decayed queries and keys, decays and the corrections of chunks."""
    S, outputs = torch.zeros(len(k), k.shape[-1], u.shape[-1]), []
    for Q, K, a, P, U, W in zip(*(x.unbind(1) for x in (reads, k, decay, scores, u, w)), strict=True):
        new_values = U - W @ S
        outputs.append(Q @ S + P @ new_values)
        S = a * S + K.mT @ new_values
    return torch.cat(outputs, 1)


def kda_fla(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor) -> Tensor:
    """Return the outputs of fla-core's `naive_chunk_kda`, whose heads are (B, L, H, d)."""
    q, k, v, g, beta = (x.transpose(0, 1)[None] for x in (q, k, v, log_decay, beta))
    return fla("kda").naive_chunk_kda(q, k, v, g, beta, scale=1.0)[0][0].transpose(0, 1)


def gated_delta_rule_fla(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor) -> Tensor:
    """Return the outputs of fla-core's `naive_chunk_gated_delta_rule`, whose heads are (B, L, H, d)."""
    q, k, v, g, beta = (x.transpose(0, 1)[None] for x in (q, k, v, log_decay, beta))
    return fla("gated_delta_rule").naive_chunk_gated_delta_rule(q, k, v, g, beta, scale=1.0)[0][0].transpose(0, 1)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal softmax attention by PyTorch's fused kernel."""
    return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]


def fla(name: str) -> ModuleType:
    """Return fla-core's `ops/<name>/naive.py`, loaded once."""
    if name not in _loaded:
        package = importlib.util.find_spec("fla")
        assert package is not None and package.submodule_search_locations
        path = Path(package.submodule_search_locations[0]) / "ops" / name / "naive.py"
        spec = importlib.util.spec_from_file_location(f"fla_naive_{name}", path)
        assert spec is not None and spec.loader is not None
        _loaded[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(_loaded[name])
    return _loaded[name]


_loaded: dict[str, ModuleType] = {}

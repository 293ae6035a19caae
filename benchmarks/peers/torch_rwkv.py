"""RWKV's mechanisms in PyTorch: Hugging Face's loop, fla-core's chunks, and chunks with a triangular solve."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.peers.torch_mechanisms import fla


def rwkv4_hugging_face(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """Return the outputs of transformers' WKV for k, v (B, L, D), a loop over tokens; it takes log w."""
    from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

    return rwkv_linear_attention_cpu(w.log(), u, k, v)[0]


def rwkv7_fla(r: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, log_decay: Tensor) -> Tensor:
    """Return the outputs of fla-core's `dplr_chunkwise`, which scales r, for heads (H, L, d)."""
    inputs = (x[None] for x in (r * r.shape[-1] ** 0.5, k, v, a, b, log_decay))
    return fla("generalized_delta_rule/dplr").dplr_chunkwise(*inputs)[0][0]


def rwkv7(r: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, log_decay: Tensor, size: int = 16) -> Tensor:
    """Return the outputs of RWKV-7's memory in chunks: all reads by a triangular solve, then the states between.

    Decays inside a chunk are exponentials of differences that are at most 0; it takes an array of `size` × d numbers a
    token.
    """
    r, k, v, a, b, g = (x.unflatten(1, (-1, size)) for x in (r, k, v, a, b, log_decay))
    g_sum = g.cumsum(-2)
    causal = torch.ones(size, size, dtype=torch.bool).tril()[..., None]
    differences = g_sum[..., :, None, :] - g_sum[..., None, :, :]
    decays = differences.masked_fill(~causal, float("-inf")).exp()
    past = torch.cat([torch.zeros_like(decays[..., :1, :, :]), decays[..., :-1, :, :]], -3)  # to the token before
    bk = torch.cat([b, k], -2)
    of_a = torch.einsum("hctk,hcsk,hctsk->hcts", a, bk, torch.cat([past, past], -2))
    of_r = torch.einsum("hctk,hcsk,hctsk->hcts", r, bk, torch.cat([decays, decays], -2))
    system = torch.eye(size) - of_a[..., :size]
    rhs = torch.cat([of_a[..., size:] @ v, (g_sum - g).exp() * a], -1)
    z_v, z_S = torch.linalg.solve_triangular(system, rhs, upper=False, unitriangular=True).split(v.shape[-1], -1)
    to_end = (g_sum[..., -1:, :] - g_sum).exp()
    writes, decay = torch.cat([to_end * b, to_end * k], -2).mT, g_sum[..., -1, :, None].exp()
    S, outputs = torch.zeros(len(r), k.shape[-1], v.shape[-1]), []
    for V, Z, z, P, R, W, alpha in zip(
        *(x.unbind(1) for x in (v, z_v, z_S, of_r, r * g_sum.exp(), writes, decay)), strict=True
    ):
        written = torch.cat([Z + z @ S, V], -2)
        outputs.append(R @ S + P @ written)
        S = alpha * S + W @ written
    return torch.cat(outputs, 1)

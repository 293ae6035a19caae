"""RWKV in PyTorch: Hugging Face's loop, fla-core's chunks, chunks with a triangular solve, and the authors' layer."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import redirect_stdout
from functools import cache
from typing import Any

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


def time_mixing(x: Tensor) -> Tensor:
    """Return the outputs (L, D) of time mixing by the authors' package, with the weights of `workloads.rwkv.layer`."""
    layer, heads, parameters = _authors_layer()
    width = x.shape[-1]
    S = x.new_zeros(heads, width // heads, width // heads)
    return layer(0, heads, width // heads, x, x.new_zeros(width), torch.empty_like(x), S, *parameters)[0]


@cache
def _authors_layer() -> tuple[Any, int, list[Tensor]]:
    """Return the package's function of a layer, its heads, and its parameters: matrices are (inputs, outputs)."""
    from benchmarks.workloads.rwkv import layer

    os.environ["RWKV_V7_ON"] = "1"  # read when the package is imported, which prints its version
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit
        from rwkv.model import RWKV_x070_TMix_seq

    ours = layer()
    zero = torch.zeros(0)  # v0, v1 and v2, which a first layer has no use for
    vectors = [torch.tensor(getattr(ours, f"x_{name}")) for name in "rwkvag"]
    low_rank = [torch.tensor(getattr(ours, name)) for name in ("w0", "w1", "w2", "a0", "a1", "a2")]
    gates = [torch.tensor(x) for x in (ours.g1, ours.g2, ours.k_k, ours.k_a, ours.r_k.reshape(-1))]
    linear = [torch.tensor(x.weight).T for x in (ours.receptance, ours.key, ours.value, ours.output)]
    norm = [torch.tensor(ours.ln_x.weight), torch.tensor(ours.ln_x.bias)]
    return RWKV_x070_TMix_seq, ours.heads, [*vectors, *low_rank, zero, zero, zero, *gates, *linear, *norm]

"""Softmax attention in tiles, and its adjoint, by the kernels of `softmax.cu`."""

import math
from typing import Any, NamedTuple

from gpu.launch import check, empty, launch

THREADS, SIDE = 256, 32  # rows of a block


class Saved(NamedTuple):
    """What the backward pass needs: the inputs, the output, and the logarithm of every query's sum."""

    q: Any
    k: Any
    v: Any
    y: Any
    logs: Any  # (*batch, T)
    causal: bool
    scale: float


def forward(q: Any, k: Any, v: Any, *, causal: bool, scale: float) -> tuple[Any, Saved]:
    """Return (y, saved) for q (*batch, T, K), k (*batch, S, K), v (*batch, S, V): the queries are the last T of S ≥ T.

    Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("softmax", q=q, k=k, v=v)
    if causal and q.shape[-2] > k.shape[-2]:
        raise ValueError(
            f"softmax: k holds {k.shape[-2]} keys, expected at least one for each of {q.shape[-2]} queries"
        )
    y, logs = empty(v, (*q.shape[:-1], v.shape[-1])), empty(q, q.shape[:-1])
    saved = Saved(q, k, v, y, logs, causal, scale)
    _launch("softmax_forward", saved, (q, k, v, y, logs), q.shape[-2], v.shape[-1])
    return y, saved


def backward(saved: Saved, gy: Any) -> tuple[Any, Any, Any]:
    """Return the cotangents of q, k and v from that of y."""
    q, k, v, y, logs, *_ = saved
    check("softmax", q=q, gy=gy)
    means = (gy * y).sum(axis=-1)
    gq, gk, gv = (empty(x, x.shape) for x in (q, k, v))
    _launch("softmax_backward_queries", saved, (q, k, v, gy, logs, means, gq), q.shape[-2], q.shape[-1])
    _launch("softmax_backward_keys", saved, (q, k, v, gy, logs, means, gk, gv), k.shape[-2], q.shape[-1], v.shape[-1])
    return gq, gk, gv


def _launch(kernel: str, saved: Saved, arrays: tuple[Any, ...], rows: int, *widths: int) -> None:
    q, k, v, *_ = saved
    *batch, queries, width = q.shape
    shared = sum(-(-w // SIDE) * SIDE for w in widths) * SIDE * q.dtype.itemsize
    scale, causal = q.dtype.type(saved.scale), int(saved.causal)
    launch("softmax", kernel, q, (math.prod(batch) * -(-rows // SIDE),), THREADS,
           *arrays, scale, queries, k.shape[-2], width, v.shape[-1], causal,
           shared=shared, of=f"K = {width}, V = {v.shape[-1]}")  # fmt: skip

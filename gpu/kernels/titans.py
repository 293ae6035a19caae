"""Titans with a matrix as memory, and its adjoint, by the kernels of `titans.cu` and `titans_keys.cu`.

A memory with several layers or inside a norm is computed by `gpu.kernels.titans_layers`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpu.inner_model import WeightLayout
from gpu.kernels import titans_layers
from gpu.launch import check, check_same_shape, empty, launch, to_device_of, zeros

THREADS, SIDE = 256, 32  # of a block; columns or keys of a block, and tokens of a chunk at most
KEYS_SHARED = 8 * SIDE * (SIDE + 1) + 17 * SIDE  # numbers in the shared memory of a block of titans_keys: `Chunk`


class Saved(NamedTuple):
    """Residuals of the backward pass."""

    q: Any  # with a feature of ones appended where the memory has a bias; k alike
    k: Any
    theta: Any
    log_eta: Any
    log_decay: Any
    W: Any
    e: Any  # errors, (*batch, T, V)
    boundary_states: Any  # S and M at the start of every chunk, (*batch, chunks, 2, K, V)
    chunk_starts: Any  # first token of every chunk, and T: (chunks + 1,)
    batch_first_chunk: Any  # first chunk of the batch that a chunk belongs to, (chunks,); −1: before the first token
    ends_batch: bool  # whether the last token ends its batch: then W after it is M
    features: int  # of a key, without the appended one


def supports(*inputs: Any, layout: WeightLayout, batch_size: int, left: int, on_losses: Callable[[Any], None]) -> bool:
    """Return whether there are kernels for a memory of this layout and batches of this size."""
    return _is_matrix(layout) or titans_layers.supports(inputs[0].shape[-2], batch_size, left)


def forward(
    q: Any,
    k: Any,
    v: Any,
    theta: Any,
    log_eta: Any,
    log_decay: Any,
    *weights: Any,
    layout: WeightLayout,
    batch_size: int,
    left: int,
    on_losses: Callable[[Any], None],
) -> tuple[tuple[Any, ...], Saved | titans_layers.Saved]:
    """Return ((y, W, M, S), saved): q, k (*batch, T, K), v (*batch, T, V), gates (*batch, T), memories (*batch, K, V).

    W is the memory at the start of the current batch, which has `left` tokens to come. With a bias a memory has K + 1
    rows. Logarithms are at most 0 and may be −∞. `on_losses` is called with the squared errors (*batch, T). For other
    layouts see `titans_layers.forward`. Raises TypeError and ValueError, as `gpu.launch.check` does, and ValueError for
    weights of another layout.
    """
    if not _is_matrix(layout):
        return titans_layers.forward((q, k, v, theta, log_eta, log_decay), weights, layout, batch_size, left, on_losses)
    ((W,), (M,), (S,)), _ = layout.split("titans", weights, q.shape[-1], models=3)
    check("titans", q=q, k=k, v=v, theta=theta, log_eta=log_eta, log_decay=log_decay, W=W, M=M, S=S)
    check_same_shape("titans", theta=theta, log_eta=log_eta, log_decay=log_decay)
    *batch, length, features = q.shape
    if layout.bias[0]:
        q, k = _append_ones(q), _append_ones(k)
    chunk_starts, batch_first_chunk = (to_device_of(q, x) for x in _chunks(length, left, batch_size))
    chunks = batch_first_chunk.size
    y, e, states = empty(v, v.shape), empty(v, v.shape), empty(S, (*batch, chunks, 2, *S.shape[-2:]))
    W_last, M_last, S_last = (empty(x, x.shape) for x in (W, M, S))
    _launch(
        "titans_forward",
        q,
        v,
        chunks,
        q,
        k,
        v,
        theta,
        log_eta,
        log_decay,
        W,
        M,
        S,
        chunk_starts,
        batch_first_chunk,
        y,
        e,
        W_last,
        M_last,
        S_last,
        states,
    )
    on_losses((e * e).sum(axis=-1))
    ends_batch = length >= left and (length - left) % batch_size == 0
    saved = Saved(q, k, theta, log_eta, log_decay, W, e, states, chunk_starts, batch_first_chunk, ends_batch, features)
    return (y, M_last.copy() if ends_batch else W_last, M_last, S_last), saved


def backward(saved: Saved | titans_layers.Saved, cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cotangents of the inputs of `forward` from those of its outputs."""
    if isinstance(saved, titans_layers.Saved):
        return titans_layers.backward(saved, cotangents)
    q, k, theta, log_eta, log_decay, W, e, states, chunk_starts, batch_first_chunk, ends_batch, features = saved
    dy, dW, dM, dS = cotangents
    check("titans", q=q, dy=dy, dW=dW, dM=dM, dS=dS)
    dlast = (zeros(dW, dW.shape), dM + dW, dS) if ends_batch else (dW, dM, dS)
    du, dstates, dmemory = empty(e, e.shape), empty(states, states.shape), [empty(x, x.shape) for x in dlast]
    chunks, slices = batch_first_chunk.size, -(-q.shape[-1] // SIDE)
    _launch(
        "titans_backward",
        q,
        e,
        chunks,
        q,
        k,
        theta,
        log_eta,
        log_decay,
        dy,
        *dlast,
        chunk_starts,
        batch_first_chunk,
        du,
        *dmemory,
        dstates,
    )
    dv, u, (*batch, length, keys) = theta[..., None] * du, -theta[..., None] * e, q.shape
    dq, dk, dlog_eta, dlog_decay = (empty(q, shape) for shape in (q.shape, k.shape, *[(slices, *theta.shape)] * 2))
    launch(
        "titans_keys",
        "titans_keys",
        q,
        (math.prod(batch) * chunks * slices,),
        THREADS,
        q,
        k,
        u,
        log_eta,
        log_decay,
        W,
        states,
        dstates,
        dy,
        -dv,
        chunk_starts,
        batch_first_chunk,
        dq,
        dk,
        dlog_eta,
        dlog_decay,
        length,
        keys,
        e.shape[-1],
        chunks,
        shared=KEYS_SHARED * q.dtype.itemsize,
    )
    dq, dk = dq[..., :features], dk[..., :features]
    return dq, dk, dv, -(du * e).sum(axis=-1), dlog_eta.sum(axis=0), dlog_decay.sum(axis=0), *dmemory


def _is_matrix(layout: WeightLayout) -> bool:
    """Return whether a memory is one layer without a norm."""
    return layout.depth == 1 and not layout.norm


def _append_ones(x: Any) -> Any:
    """Return x with a feature of ones after the last, whose weights are a bias."""
    wider = empty(x, (*x.shape[:-1], x.shape[-1] + 1))
    wider[..., :-1], wider[..., -1] = x, 1
    return wider


def _chunks(length: int, left: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return chunk_starts and batch_first_chunk: batches split into chunks of at most 32 tokens."""
    chunk_starts: list[int] = []
    batch_first_chunk: list[int] = []
    bounds = [0, *range(left, length, batch_size), length]
    for i, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
        opening = len(chunk_starts) if i else -1
        for first in range(start, stop, SIDE):
            chunk_starts.append(first)
            batch_first_chunk.append(opening)
    return np.array([*chunk_starts, length], np.int32), np.array(batch_first_chunk, np.int32)


def _launch(kernel: str, q: Any, v: Any, chunks: int, *arrays: Any) -> None:
    """Launch a kernel of `titans.cu` with a block for every 32 columns of each sequence's memory."""
    *batch, length, keys = q.shape
    launch(
        "titans",
        kernel,
        q,
        (math.prod(batch) * -(-v.shape[-1] // SIDE),),
        THREADS,
        *arrays,
        length,
        keys,
        v.shape[-1],
        chunks,
        shared=3 * -(-keys // SIDE) * SIDE * SIDE * q.dtype.itemsize,
        of=f"K = {keys}, V = {v.shape[-1]}",
    )

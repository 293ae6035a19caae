"""Titans with a matrix as memory, and its adjoint, by the kernels of `titans.cu` and `titans_keys.cu`.

A memory of more layers, or in a norm, is handed on to `gpu.kernels.titans_layers`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpu.kernels import titans_layers
from gpu.launch import check, check_same_shape, empty, launch, to_device_of, zeros

THREADS, SIDE = 256, 32  # columns or keys of a block, tokens of a chunk at most
CHUNK = 8 * SIDE * (SIDE + 1) + 17 * SIDE  # numbers that a block of titans_keys shares


class Saved(NamedTuple):
    """What the backward pass needs: the inputs, the errors, the memory at the start of every chunk, and the chunks."""

    q: Any
    k: Any
    theta: Any
    log_eta: Any
    log_decay: Any
    W: Any
    e: Any  # (*batch, T, V)
    kept: Any  # (*batch, chunks, 2, K, V): S and M
    cuts: Any  # (chunks + 1,)
    begun: Any  # (chunks,): with which chunk its batch of tokens began
    over: bool  # the last token ends its batch: the W after it is M
    features: int  # of a key as it came, without the 1 that reads a bias


def takes(*inputs: Any, batch_size: int, left: int, on_losses: Callable[[Any], None]) -> bool:
    """Whether there are kernels for such a memory and such batches."""
    return len(inputs) == 9 or titans_layers.takes(inputs[0].shape[-2], batch_size, left)


def forward(
    q: Any, k: Any, v: Any, theta: Any, log_eta: Any, log_decay: Any, *layers: Any, batch_size: int, left: int,
    on_losses: Callable[[Any], None],
) -> tuple[tuple[Any, ...], Saved | titans_layers.Saved]:  # fmt: skip
    """Return ((y, W, M, S), saved): q, k (*batch, T, K), v (*batch, T, V), gates (*batch, T), memories (*batch, K, V).

    W is the memory before the batch under way, of which `left` tokens are to come. A row more than keys have features
    is a bias. Logarithms are at most 0 and may be −∞. `on_losses` is shown the squared errors (*batch, T). Where
    `layers` are more than W, M and S, see `titans_layers.forward`. Raises TypeError and ValueError, as
    `gpu.launch.check` does.
    """
    if len(layers) > 3:
        return titans_layers.forward(
            q, k, v, theta, log_eta, log_decay, *layers, batch_size=batch_size, left=left, on_losses=on_losses
        )
    W, M, S = layers
    check("titans", q=q, k=k, v=v, theta=theta, log_eta=log_eta, log_decay=log_decay, W=W, M=M, S=S)
    check_same_shape("titans", theta=theta, log_eta=log_eta, log_decay=log_decay)
    *batch, length, features = q.shape
    if W.shape[-2] > features:
        q, k = _with_one(q), _with_one(k)
    cuts, begun = (to_device_of(q, x) for x in _chunks(length, left, batch_size))
    y, e, kept = empty(v, v.shape), empty(v, v.shape), empty(S, (*batch, begun.size, 2, *S.shape[-2:]))
    W_last, M_last, S_last = (empty(x, x.shape) for x in (W, M, S))
    _by_values("titans_forward", q, v, begun.size,
               q, k, v, theta, log_eta, log_decay, W, M, S, cuts, begun,
               y, e, W_last, M_last, S_last, kept)  # fmt: skip
    on_losses((e * e).sum(axis=-1))
    over = length >= left and (length - left) % batch_size == 0
    made = y, M_last.copy() if over else W_last, M_last, S_last
    return made, Saved(q, k, theta, log_eta, log_decay, W, e, kept, cuts, begun, over, features)


def backward(saved: Saved | titans_layers.Saved, cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v, theta, log_eta, log_decay, W, M and S from those of what came out."""
    if isinstance(saved, titans_layers.Saved):
        return titans_layers.backward(saved, cotangents)
    q, k, theta, log_eta, log_decay, W, e, kept, cuts, begun, over, features = saved
    dy, dW, dM, dS = cotangents
    check("titans", q=q, dy=dy, dW=dW, dM=dM, dS=dS)
    dlast = (zeros(dW, dW.shape), dM + dW, dS) if over else (dW, dM, dS)
    du, dstates, dmemory = empty(e, e.shape), empty(kept, kept.shape), [empty(x, x.shape) for x in dlast]
    _by_values("titans_backward", q, e, begun.size,
               q, k, theta, log_eta, log_decay, dy, *dlast, cuts, begun, du, *dmemory, dstates)  # fmt: skip
    dv, u, (*batch, length, keys) = theta[..., None] * du, -theta[..., None] * e, q.shape
    slices = -(-keys // SIDE)
    dq, dk, dlog_eta, dlog_decay = (empty(q, shape) for shape in (q.shape, k.shape, *[(slices, *theta.shape)] * 2))
    launch("titans_keys", "titans_keys", q, (math.prod(batch) * begun.size * slices,), THREADS,
           q, k, u, log_eta, log_decay, W, kept, dstates, dy, -dv, cuts, begun, dq, dk, dlog_eta, dlog_decay,
           length, keys, e.shape[-1], begun.size, shared=CHUNK * q.dtype.itemsize)  # fmt: skip
    dq, dk = dq[..., :features], dk[..., :features]
    return dq, dk, dv, -(du * e).sum(axis=-1), dlog_eta.sum(axis=0), dlog_decay.sum(axis=0), *dmemory


def _with_one(x: Any) -> Any:
    made = empty(x, (*x.shape[:-1], x.shape[-1] + 1))
    made[..., :-1], made[..., -1] = x, 1
    return made


def _chunks(length: int, left: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The first token of every chunk, and the length; and with which chunk each one's batch began, −1 for none."""
    cuts: list[int] = []
    begun: list[int] = []
    starts = [0, *range(left, length, batch_size), length]
    for i, (start, stop) in enumerate(zip(starts, starts[1:], strict=False)):
        opens = len(cuts) if i else -1
        for first in range(start, stop, SIDE):
            cuts.append(first)
            begun.append(opens)
    return np.array([*cuts, length], np.int32), np.array(begun, np.int32)


def _by_values(kernel: str, q: Any, v: Any, chunks: int, *arrays: Any) -> None:
    *batch, length, keys = q.shape
    launch("titans", kernel, q, (math.prod(batch) * -(-v.shape[-1] // SIDE),), THREADS,
           *arrays, length, keys, v.shape[-1], chunks,
           shared=3 * -(-keys // SIDE) * SIDE * SIDE * q.dtype.itemsize,
           of=f"K = {keys}, V = {v.shape[-1]}")  # fmt: skip

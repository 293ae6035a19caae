"""Titans with a matrix as memory, and its adjoint, by the kernels of `titans.cu` and `titans_keys.cu`."""

import math
from typing import Any, NamedTuple

import numpy as np

from gpu.launch import alike, check, copied, empty, launch, zeros

THREADS, SIDE = 256, 32  # columns or keys of a block, tokens of a chunk at most
CHUNK = 8 * SIDE * (SIDE + 1) + 17 * SIDE  # numbers that a block of titans_keys shares

Memory = tuple[Any, Any, Any]  # W, S and M, each (*batch, K, V)


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


def forward(
    q: Any, k: Any, v: Any, theta: Any, log_eta: Any, log_decay: Any, W: Any, S: Any, M: Any, *, left: int,
    batch_size: int,
) -> tuple[tuple[Any, Any, Any, Any], Saved]:  # fmt: skip
    """Return ((y, W, S, M), saved): q, k (*batch, T, K), v (*batch, T, V), gates (*batch, T), memories (*batch, K, V).

    W is the memory before the batch under way, of which `left` tokens are to come. Logarithms are at
    most 0 and may be −∞. Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("titans", q=q, k=k, v=v, theta=theta, log_eta=log_eta, log_decay=log_decay, W=W, S=S, M=M)
    alike("titans", theta=theta, log_eta=log_eta, log_decay=log_decay)
    *batch, length, _ = q.shape
    cuts, begun = (copied(q, x) for x in _chunks(length, left, batch_size))
    y, e, kept = empty(v, v.shape), empty(v, v.shape), empty(S, (*batch, begun.size, 2, *S.shape[-2:]))
    last = [empty(x, x.shape) for x in (W, S, M)]
    _by_values("titans_forward", q, v, begun.size,
               q, k, v, theta, log_eta, log_decay, W, S, M, cuts, begun, y, e, *last, kept)  # fmt: skip
    over = length >= left and (length - left) % batch_size == 0
    W_last, S_last, M_last = last
    made = y, M_last.copy() if over else W_last, S_last, M_last
    return made, Saved(q, k, theta, log_eta, log_decay, W, e, kept, cuts, begun, over)


def backward(saved: Saved, cotangents: tuple[Any, Any, Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v, theta, log_eta, log_decay, W, S and M from those of what came out."""
    q, k, theta, log_eta, log_decay, W, e, kept, cuts, begun, over = saved
    gy, gW, gS, gM = cotangents
    check("titans", q=q, gy=gy, gW=gW, gS=gS, gM=gM)
    glast = (zeros(gW, gW.shape), gS, gM + gW) if over else (gW, gS, gM)
    gu, toward, gmemory = empty(e, e.shape), empty(kept, kept.shape), [empty(x, x.shape) for x in glast]
    _by_values("titans_backward", q, e, begun.size,
               q, k, theta, log_eta, log_decay, gy, *glast, cuts, begun, gu, *gmemory, toward)  # fmt: skip
    gv, u, (*batch, length, keys) = theta[..., None] * gu, -theta[..., None] * e, q.shape
    slices = -(-keys // SIDE)
    gq, gk, gh, gg = (empty(q, shape) for shape in (q.shape, k.shape, *[(slices, *theta.shape)] * 2))
    launch("titans_keys", "titans_keys", q, (math.prod(batch) * begun.size * slices,), THREADS,
           q, k, u, log_eta, log_decay, W, kept, toward, gy, -gv, cuts, begun, gq, gk, gh, gg,
           length, keys, e.shape[-1], begun.size, shared=CHUNK * q.dtype.itemsize)  # fmt: skip
    return gq, gk, gv, -(gu * e).sum(axis=-1), gh.sum(axis=0), gg.sum(axis=0), *gmemory


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
           shared=3 * -(-keys // SIDE) * SIDE * SIDE * q.dtype.itemsize)  # fmt: skip

"""Gated linear attention in chunks, and its adjoint, by the kernels of `gated_linear_attention.cu`."""

import math
from typing import Any, NamedTuple

from gpu.launch import check, empty, launch
from gpu.product import SIDE, THREADS, rounded, stack, version

TILES = 6  # that a block shares on the way back, beside those of its state


class Saved(NamedTuple):
    """What the backward pass needs: the inputs, the state at the start of every chunk of tokens."""

    q: Any
    k: Any
    v: Any
    log_decay: Any
    kept: Any  # (*batch, chunks, K, V)
    operand: str | None  # what factors are rounded to, on the way back: there are no products of tiles on the way there


def forward(q: Any, k: Any, v: Any, log_decay: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V) and S (*batch, K, V).

    `log_decay`, (*batch, T, K) or (*batch, T), is at most 0 and may be −∞. Raises TypeError and ValueError, as
    `gpu.launch.check` does.
    """
    check("gated_linear_attention", q=q, k=k, v=v, log_decay=log_decay, S=S)
    *batch, length, _ = q.shape
    kept = empty(S, (*batch, -(-length // SIDE), *S.shape[-2:]))
    saved = Saved(q, k, v, log_decay, kept, rounded(q, TILES, v.shape[-1]))
    return _attend(q, k, v, log_decay, S, kept), saved


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v, log_decay and S from those of y and of the last S."""
    q, k, v, log_decay, kept, operand = saved
    gy, glast = cotangents
    check("gated_linear_attention", q=q, gy=gy, gS=glast)
    gv, _ = _attend(k, q, gy, log_decay, glast, kept, back=True)
    gq, gk, gg, gS = (empty(x, x.shape) for x in (q, k, q, glast))
    _launch("gated_linear_attention_backward", operand, q, v, log_decay, q.shape[-1], v.shape[-1],
            q, k, v, log_decay, kept, gy, glast, gq, gk, gg, gS)  # fmt: skip
    return gq, gk, gv, gg if log_decay.ndim == q.ndim else gg.sum(axis=-1), gS


def _attend(q: Any, k: Any, v: Any, log_decay: Any, S: Any, kept: Any, *, back: bool = False) -> tuple[Any, Any]:
    y, last = empty(v, v.shape), empty(S, S.shape)
    _launch("gated_linear_attention", None, q, v, log_decay, v.shape[-1], q.shape[-1],
            q, k, v, log_decay, S, y, last, kept, back=back)  # fmt: skip
    return y, last


def _launch(
    kernel: str, operand: str | None, q: Any, v: Any, log_decay: Any, own: int, other: int, *arrays: Any, **flags: bool
) -> None:
    """A block for every 32 of K or V, whichever is its `own`, with 32 columns of the memory of the `other`."""
    *batch, length, keys = q.shape
    gates = keys if log_decay.ndim == q.ndim else 1  # one number for each key, or one for all
    launch("gated_linear_attention", kernel, q, (math.prod(batch) * -(-own // SIDE),), THREADS,
           *arrays, length, keys, v.shape[-1], gates, *map(int, flags.values()),
           defines=version(operand), shared=stack(q, other, operand), of=f"K = {keys}, V = {v.shape[-1]}")  # fmt: skip

"""Gated linear attention in chunks, and its adjoint, by the kernels of `gated_linear_attention.cu`.

Where `gpu.precision` allows rounding, forward is by `gated_linear_attention_forward_tensor_cores.cu`.
"""

import math
from typing import Any, NamedTuple

from gpu.kernels.product import SIDE, THREADS, choose_operand, defines, shared_bytes
from gpu.launch import check, empty, launch
from gpu.precision import accumulator_dtype

TILES = 6  # in shared memory beside those of the state
TENSOR_CORES = "gated_linear_attention_forward_tensor_cores", "gated_linear_attention_forward"  # source and kernel


class Saved(NamedTuple):
    """Residuals of the backward pass."""

    q: Any
    k: Any
    v: Any
    log_decay: Any
    boundary_states: Any  # S at the start of every chunk, (*batch, chunks, K, V)
    operand: str | None  # the type to which operands of products are rounded


def forward(q: Any, k: Any, v: Any, log_decay: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V) and S (*batch, K, V).

    `log_decay`, (*batch, T, K) or (*batch, T), is at most 0 and may be −∞. Where q, k, v and so y are bfloat16, it and
    S are float32. Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check(
        "gated_linear_attention", dtypes="fdb", accumulators=["log_decay", "S"], q=q, k=k, v=v, log_decay=log_decay, S=S
    )
    *batch, length, _ = q.shape
    boundary_states = empty(S, (*batch, -(-length // SIDE), *S.shape[-2:]))
    saved = Saved(q, k, v, log_decay, boundary_states, choose_operand(q, TILES, *S.shape[-2:]))
    return _attend(saved, q, k, v, S), saved


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v, log_decay and S from those of y and of the last S."""
    q, k, v, log_decay, boundary_states, _ = saved
    dy, dlast = cotangents
    check("gated_linear_attention", dtypes="fdb", accumulators=["dS"], q=q, dy=dy, dS=dlast)
    dv, _ = _attend(saved, k, q, dy, dlast, reverse=True)
    dq, dk, dS = (empty(x, x.shape) for x in (q, k, dlast))
    dlog_decay = empty(q, q.shape, accumulator_dtype(q))
    _launch(
        "gated_linear_attention",
        "gated_linear_attention_backward",
        saved,
        q.shape[-1],
        v.shape[-1],
        q,
        k,
        v,
        log_decay,
        boundary_states,
        dy,
        dlast,
        dq,
        dk,
        dlog_decay,
        dS,
    )
    return dq, dk, dv, dlog_decay if log_decay.ndim == q.ndim else dlog_decay.sum(axis=-1), dS


def _attend(saved: Saved, q: Any, k: Any, v: Any, S: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    y, last = empty(v, v.shape), empty(S, S.shape)
    source, kernel = ("gated_linear_attention", "gated_linear_attention") if not saved.operand else TENSOR_CORES
    _launch(
        source,
        kernel,
        saved,
        v.shape[-1],
        q.shape[-1],
        q,
        k,
        v,
        saved.log_decay,
        S,
        y,
        last,
        saved.boundary_states,
        reverse=reverse,
    )
    return y, last


def _launch(source: str, kernel: str, saved: Saved, split: int, rows: int, *arrays: Any, **flags: bool) -> None:
    """Launch a block for every 32 of `split` (K or V), with 32 columns of a state of `rows` rows (V or K)."""
    q, (*batch, length, keys), values = saved.q, saved.q.shape, saved.v.shape[-1]
    gates = keys if saved.log_decay.ndim == q.ndim else 1  # a decay for each key, or one for all
    launch(
        source,
        kernel,
        q,
        (math.prod(batch) * -(-split // SIDE),),
        THREADS,
        *arrays,
        length,
        keys,
        values,
        gates,
        *map(int, flags.values()),
        defines=defines(saved.operand),
        shared=shared_bytes(q, rows, saved.operand),
        of=f"K = {keys}, V = {values}",
    )

"""The gated delta rule in chunks, and its adjoint, by `gated_delta_rule.cu` and `gated_delta_rule_keys.cu`."""

import math
from typing import Any, NamedTuple

from gpu.kernels.product import SIDE, THREADS, choose_operand, defines, shared_bytes
from gpu.launch import check, check_same_shape, empty, launch
from gpu.precision import accumulator_dtype

TILES = 6  # in shared memory beside those of the state; one of them stands for the gates


class Saved(NamedTuple):
    """Residuals of the backward pass."""

    q: Any
    k: Any
    beta: Any
    log_decay: Any
    e: Any  # errors v − α k S, (*batch, T, V)
    boundary_states: Any  # S at the start of every chunk, (*batch, chunks, K, V)
    operand: str | None  # the type to which operands of products are rounded


def supports(q: Any, k: Any, v: Any, beta: Any, log_decay: Any, S: Any) -> bool:
    """Return whether the gates are of the kind that the kernels know: one per token, not one per channel."""
    return log_decay.ndim < k.ndim


def forward(q: Any, k: Any, v: Any, beta: Any, log_decay: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V), beta, log_decay (*batch, T), S (*batch, K, V).

    `log_decay` is at most 0 and may be −∞. Where q, k, v and so y are bfloat16, beta, log_decay and S are float32.
    Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check(
        "gated_delta_rule",
        dtypes="fdb",
        accumulators=["beta", "log_decay", "S"],
        q=q,
        k=k,
        v=v,
        beta=beta,
        log_decay=log_decay,
        S=S,
    )
    check_same_shape("gated_delta_rule", beta=beta, log_decay=log_decay)
    *batch, length, _ = q.shape
    y, e, last = empty(v, v.shape), empty(v, v.shape, accumulator_dtype(v)), empty(S, S.shape)
    boundary_states = empty(S, (*batch, -(-length // SIDE), *S.shape[-2:]))
    saved = Saved(q, k, beta, log_decay, e, boundary_states, choose_operand(q, TILES, *S.shape[-2:]))
    _launch(
        "gated_delta_rule",
        "gated_delta_rule",
        saved,
        v.shape[-1],
        q.shape[-1],
        q,
        k,
        v,
        beta,
        log_decay,
        S,
        y,
        e,
        last,
        boundary_states,
    )
    return (y, last), saved


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v, beta, log_decay and S from those of y and of the last S."""
    q, k, beta, log_decay, e, boundary_states, _ = saved
    dy, dlast = cotangents
    check("gated_delta_rule", dtypes="fdb", accumulators=["dS"], q=q, dy=dy, dS=dlast)
    keys, values, w = q.shape[-1], e.shape[-1], empty(e, e.shape)
    _launch("gated_delta_rule", "gated_delta_rule_backward", saved, values, keys, q, k, beta, log_decay, dy, dlast, w)
    dv, dbeta, u = w * beta[..., None], (w * e).sum(axis=-1), e * beta[..., None]
    dq, dk, dS = (empty(x, x.shape) for x in (q, k, dlast))
    dlog_decay = empty(beta, (-(-keys // SIDE), *beta.shape))
    _launch(
        "gated_delta_rule_keys",
        "gated_delta_rule_keys",
        saved,
        keys,
        values,
        q,
        k,
        u,
        beta,
        log_decay,
        boundary_states,
        dy,
        dv,
        dlast,
        dq,
        dk,
        dlog_decay,
        dS,
    )
    return dq, dk, dv.astype(dy.dtype, copy=False), dbeta, dlog_decay.sum(axis=0), dS


def _launch(source: str, kernel: str, saved: Saved, split: int, rows: int, *arrays: Any) -> None:
    """Launch a block for every 32 of `split` (K or V), with 32 columns of a state of `rows` rows (V or K)."""
    (*batch, length, keys), values = saved.q.shape, saved.e.shape[-1]
    launch(
        source,
        kernel,
        saved.q,
        (math.prod(batch) * -(-split // SIDE),),
        THREADS,
        *arrays,
        length,
        keys,
        values,
        defines=defines(saved.operand),
        shared=shared_bytes(saved.q, rows, saved.operand),
        of=f"K = {keys}, V = {values}",
    )

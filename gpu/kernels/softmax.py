"""Softmax attention in tiles, and its adjoint, by the kernels of `softmax.cu`.

bfloat16 arrays, and float32 arrays where `gpu.precision` allows rounding, use `softmax_tensor_cores.cu`.
"""

import math
from typing import Any, NamedTuple

from gpu.kernels import operands
from gpu.launch import check, empty, launch
from gpu.precision import accumulator_dtype, operand

THREADS, SIDE = 256, 32  # of a block; its rows
# On tensor cores:
WARPS = 4
BLOCK_ROWS = {"forward": 128, "backward": 64}  # rows of a block, which stay in shared memory
PASSING_ROWS = 32  # rows of the other side that pass through shared memory at a time


class Saved(NamedTuple):
    """Residuals of the backward pass."""

    q: Any
    k: Any
    v: Any
    y: Any
    lse: Any  # (*batch, T): log-sum-exp of every query's scores, float32 where the others are bfloat16
    causal: bool
    scale: float
    operand: str | None  # the type to which operands of products are rounded


def forward(q: Any, k: Any, v: Any, *, causal: bool, scale: float) -> tuple[Any, Saved]:
    """Return (y, saved) for q (*batch, T, K), k (*batch, S, K), v (*batch, S, V): the queries are the last T of S ≥ T.

    Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("softmax", dtypes="fdb", q=q, k=k, v=v)
    if causal and q.shape[-2] > k.shape[-2]:
        raise ValueError(
            f"softmax: k holds {k.shape[-2]} keys, expected at least one for each of {q.shape[-2]} queries"
        )
    y, lse = empty(v, (*q.shape[:-1], v.shape[-1])), empty(q, q.shape[:-1], accumulator_dtype(q))
    operand_type = operand(q)
    operand_type = operand_type and operand(q, max(_shared_bytes(operand_type, q, v).values()))
    saved = Saved(q, k, v, y, lse, causal, scale, operand_type)
    _launch("forward", saved, (q, k, v, y, lse), q.shape[-2], (v,))
    return y, saved


def backward(saved: Saved, dy: Any) -> tuple[Any, Any, Any]:
    """Return the cotangents of q, k and v from that of y."""
    q, k, v, y, lse, *_ = saved
    check("softmax", dtypes="fdb", q=q, dy=dy)
    row_dot = _row_dot(saved, dy)
    dq, dk, dv = (empty(x, x.shape) for x in (q, k, v))
    _launch("backward_queries", saved, (q, k, v, dy, lse, row_dot, dq), q.shape[-2], (q,))
    _launch("backward_keys", saved, (q, k, v, dy, lse, row_dot, dk, dv), k.shape[-2], (q, v))
    return dq, dk, dv


def _row_dot(saved: Saved, dy: Any) -> Any:
    """Return rowsum(dY ∘ Y)."""
    y, lse = saved.y, saved.lse
    if not saved.operand:
        return (dy * y).sum(axis=-1)
    row_dot = empty(y, lse.shape, lse.dtype)
    launch(
        "softmax_tensor_cores",
        "softmax_row_dot",
        y,
        (-(-lse.size // WARPS),),
        operands.THREADS,
        dy,
        y,
        row_dot,
        lse.size,
        y.shape[-1],
        defines=_defines(saved.operand, _columns(saved)),
    )
    return row_dot


def _launch(kernel: str, saved: Saved, arrays: tuple[Any, ...], rows: int, outputs: tuple[Any, ...]) -> None:
    """Launch a kernel on blocks for so many rows; its outputs are as wide as the arrays `outputs`."""
    q, k, v, *_ = saved
    *batch, queries, width = q.shape
    sequences, values, widths = math.prod(batch), v.shape[-1], [operands.padded(x.shape[-1]) for x in outputs]
    arguments = *arrays, accumulator_dtype(q).type(saved.scale), queries, k.shape[-2], width, values, int(saved.causal)
    if saved.operand:
        direction, columns = kernel.partition("_")[0], _columns(saved)
        grid = sequences * -(-rows // BLOCK_ROWS[direction]), -(-max(widths) // columns)
        launch(
            "softmax_tensor_cores",
            f"softmax_{kernel}",
            q,
            grid,
            operands.THREADS,
            *arguments,
            defines=_defines(saved.operand, columns),
            shared=_shared_bytes(saved.operand, q, v)[direction],
            of=f"K = {width}, V = {values}",
        )
    else:
        launch(
            "softmax",
            f"softmax_{kernel}",
            q,
            (sequences * -(-rows // SIDE),),
            THREADS,
            *arguments,
            shared=sum(widths) * SIDE * q.dtype.itemsize,
            of=f"K = {width}, V = {values}",
        )


def _columns(saved: Saved) -> int:
    """Return how many columns of its output a block computes on tensor cores."""
    return 64 if max(saved.q.shape[-1], saved.v.shape[-1]) <= 64 else 128


def _defines(operand_type: str, columns: int) -> tuple[str, str]:
    return f"OPERAND={operand_type}", f"COLUMNS={columns}"


def _shared_bytes(operand_type: str, q: Any, v: Any) -> dict[str, int]:
    """Return the shared memory of a block on tensor cores: its own rows, and the passing rows, double buffered."""
    K, V = (operands.tile_bytes(operand_type, 1, x.shape[-1]) for x in (q, v))
    own = {"forward": K, "backward": K + V}
    return {direction: BLOCK_ROWS[direction] * row + 2 * PASSING_ROWS * (K + V) for direction, row in own.items()}

"""Softmax attention in tiles, and its adjoint, by the kernels of `softmax.cu`.

Where `gpu.precision` says that fewer bits will do, it is by those of `softmax_tensor_cores.cu`.
"""

import math
from typing import Any, NamedTuple

from gpu.launch import check, empty, launch
from gpu.precision import operand

THREADS, SIDE = 256, 32  # rows of a block
TENSOR_THREADS, OWN, PASSING, COLUMNS = 128, 64, 32, 128  # rows it keeps, rows that pass, columns of its result
BY_ROWS, BY_COLUMNS = 8, 4  # the gap behind a tile's rows


class Saved(NamedTuple):
    """What the backward pass needs: the inputs, the output, and the logarithm of every query's sum."""

    q: Any
    k: Any
    v: Any
    y: Any
    logs: Any  # (*batch, T)
    causal: bool
    scale: float
    operand: str | None  # what is multiplied is rounded to this


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
    K, V = _padded(q.shape[-1]), _padded(v.shape[-1])
    room = OWN * (K + BY_ROWS) + PASSING * (K + BY_ROWS + V + BY_COLUMNS)
    saved = Saved(q, k, v, y, logs, causal, scale, operand(q, 4 * _room_for_backward(K, V)))
    _launch("softmax_forward", saved, (q, k, v, y, logs), q.shape[-2], (V,), room)
    return y, saved


def backward(saved: Saved, gy: Any) -> tuple[Any, Any, Any]:
    """Return the cotangents of q, k and v from that of y."""
    q, k, v, y, logs, *_ = saved
    check("softmax", q=q, gy=gy)
    means = (gy * y).sum(axis=-1)
    gq, gk, gv = (empty(x, x.shape) for x in (q, k, v))
    K, V = _padded(q.shape[-1]), _padded(v.shape[-1])
    room = _room_for_backward(K, V)
    _launch("softmax_backward_queries", saved, (q, k, v, gy, logs, means, gq), q.shape[-2], (K,), room)
    _launch("softmax_backward_keys", saved, (q, k, v, gy, logs, means, gk, gv), k.shape[-2], (K, V), room)
    return gq, gk, gv


def _launch(kernel: str, saved: Saved, arrays: tuple[Any, ...], rows: int, widths: tuple[int, ...], room: int) -> None:
    """Blocks for so many rows, whose results have these widths; on tensor cores they need room for so many numbers."""
    q, k, v, *_ = saved
    *batch, queries, width = q.shape
    sequences, values, numbers = math.prod(batch), v.shape[-1], q.dtype.type
    given = *arrays, numbers(saved.scale), queries, k.shape[-2], width, values, int(saved.causal)
    if saved.operand:
        grid = sequences * -(-rows // OWN), -(-max(widths) // COLUMNS)
        launch("softmax_tensor_cores", kernel, q, grid, TENSOR_THREADS, *given,
               defines=(f"OPERAND={saved.operand}",), shared=4 * room, of=f"K = {width}, V = {values}")  # fmt: skip
    else:
        launch("softmax", kernel, q, (sequences * -(-rows // SIDE),), THREADS, *given,
               shared=sum(widths) * SIDE * q.dtype.itemsize, of=f"K = {width}, V = {values}")  # fmt: skip


def _room_for_backward(K: int, V: int) -> int:
    return (OWN + PASSING) * (K + V + 2 * BY_ROWS)


def _padded(columns: int) -> int:
    return -(-columns // 32) * 32

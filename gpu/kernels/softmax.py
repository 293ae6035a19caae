"""Softmax attention in tiles, and its adjoint, by the kernels of `softmax.cu`.

Arrays of bfloat16 go to those of `softmax_tensor_cores.cu`, and float32 does where `gpu.precision` says that fewer bits
will do.
"""

import math
from typing import Any, NamedTuple

from gpu.kernels import operands
from gpu.launch import check, empty, launch
from gpu.precision import accumulator_dtype, operand

THREADS, SIDE = 256, 32  # rows of a block
WARPS = 4  # on tensor cores
OWN = {"forward": 128, "backward": 64}  # rows that a block keeps there
PASSING = 32  # rows that pass


class Saved(NamedTuple):
    """What the backward pass needs: the inputs, the output, and the logarithm of every query's sum."""

    q: Any
    k: Any
    v: Any
    y: Any
    lse: Any  # (*batch, T), float32 where the others are bfloat16
    causal: bool
    scale: float
    operand: str | None  # what is multiplied is rounded to this


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
    wanted = operand(q)
    saved = Saved(q, k, v, y, lse, causal, scale, wanted and operand(q, max(_room(wanted, q, v).values())))
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
    """rowsum(Ȳ ∘ Y), where dy is Ȳ."""
    y, lse = saved.y, saved.lse
    if not saved.operand:
        return (dy * y).sum(axis=-1)
    row_dot = empty(y, lse.shape, lse.dtype)
    launch("softmax_tensor_cores", "softmax_row_dot", y, (-(-lse.size // WARPS),), operands.THREADS, dy, y, row_dot,
           lse.size, y.shape[-1], defines=_version(saved)[0])  # fmt: skip
    return row_dot


def _launch(kernel: str, saved: Saved, arrays: tuple[Any, ...], rows: int, made: tuple[Any, ...]) -> None:
    """Blocks for so many rows, whose results are as wide as these arrays."""
    q, k, v, *_ = saved
    *batch, queries, width = q.shape
    sequences, values, widths = math.prod(batch), v.shape[-1], [operands.padded(x.shape[-1]) for x in made]
    given = *arrays, accumulator_dtype(q).type(saved.scale), queries, k.shape[-2], width, values, int(saved.causal)
    if saved.operand:
        way, (defines, columns) = kernel.partition("_")[0], _version(saved)
        grid = sequences * -(-rows // OWN[way]), -(-max(widths) // columns)
        launch("softmax_tensor_cores", f"softmax_{kernel}", q, grid, operands.THREADS, *given,
               defines=defines, shared=_room(saved.operand, q, v)[way], of=f"K = {width}, V = {values}")  # fmt: skip
    else:
        launch("softmax", f"softmax_{kernel}", q, (sequences * -(-rows // SIDE),), THREADS, *given,
               shared=sum(widths) * SIDE * q.dtype.itemsize, of=f"K = {width}, V = {values}")  # fmt: skip


def _version(saved: Saved) -> tuple[tuple[str, str], int]:
    """What is defined for tensor cores: how numbers are rounded, and of how many columns a block makes its result."""
    columns = 64 if max(saved.q.shape[-1], saved.v.shape[-1]) <= 64 else 128
    return (f"OPERAND={saved.operand}", f"COLUMNS={columns}"), columns


def _room(kind: str, q: Any, v: Any) -> dict[str, int]:
    """Bytes that a block shares on tensor cores: its own rows, and twice those that pass: the next are on the way."""
    K, V = (operands.tile(kind, 1, x.shape[-1]) for x in (q, v))
    own = {"forward": K, "backward": K + V}
    return {way: OWN[way] * bytes + 2 * PASSING * (K + V) for way, bytes in own.items()}

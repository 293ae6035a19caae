"""Linear attention in chunks, and its adjoint, by the kernel of `linear_attention.cu`.

Arrays of bfloat16 go to those of `linear_attention_tensor_cores.cu`, and float32 does where `gpu.precision` says that
fewer bits will do.
"""

import math
from typing import Any, NamedTuple

from gpu.kernels import operands
from gpu.kernels.product import SIDE, THREADS, stack
from gpu.launch import check, empty, launch
from gpu.precision import operand

TENSOR_CORES = "linear_attention_tensor_cores"
CHUNK = 64  # tokens between two states that are kept
KEYS, VALUES = 64, 32  # of a state, where a block makes it
MOST = 128  # of its rows or columns, where a block reads it


class Saved(NamedTuple):
    """What the backward pass needs: the inputs, and how it multiplies."""

    q: Any
    k: Any
    v: Any
    S: Any  # on tensor cores that at the start of every chunk, (*batch, chunks, K, V)
    operand: str | None  # what factors are rounded to


def forward(q: Any, k: Any, v: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V) and S (*batch, K, V).

    Where q, k, v and so y are bfloat16, S is float32. Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("linear_attention", dtypes="fdb", accumulators=["S"], q=q, k=k, v=v, S=S)
    rounded = operand(q)
    rounded = rounded and operand(q, _most(rounded, *S.shape[-2:]))
    if not rounded:
        return _attend(q, k, v, S), Saved(q, k, v, S, None)
    kept, last = _states(rounded, k, v, S)
    return (_outputs(rounded, q, k, v, kept), last), Saved(q, k, v, kept, rounded)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v and S from those of y and of the last S."""
    q, k, v, S, rounded = saved
    dy, dS = cotangents
    check("linear_attention", dtypes="fdb", accumulators=["dS"], q=q, dy=dy, dS=dS)
    if rounded:
        kept, dS = _states(rounded, q, dy, dS, back=True)
        dq = _outputs(rounded, dy, v, k, S, turned=True)
        dk = _outputs(rounded, v, dy, q, kept, turned=True, back=True)
        return dq, dk, _outputs(rounded, k, q, dy, kept, back=True), dS
    dq, _ = _attend(dy, v, k, _transposed(S))
    dk, _ = _attend(v, dy, q, _transposed(dS), back=True)
    dv, dS = _attend(k, q, dy, dS, back=True)
    return dq, dk, dv, dS


def _attend(q: Any, k: Any, v: Any, S: Any, *, back: bool = False) -> tuple[Any, Any]:
    *batch, length, keys = q.shape
    values, y, last = v.shape[-1], empty(v, v.shape), empty(S, S.shape)
    launch("linear_attention", "linear_attention", q, (math.prod(batch) * -(-values // SIDE),), THREADS,
           q, k, v, S, y, last, length, keys, values, int(back),
           shared=stack(q, keys, None), of=f"K = {keys}, V = {values}")  # fmt: skip
    return y, last


def _transposed(S: Any) -> Any:
    return S.swapaxes(-1, -2).copy(order="C")


def _states(rounded: str, k: Any, v: Any, S: Any, *, back: bool = False) -> tuple[Any, Any]:
    """The state at the start of every chunk, and the last one; where we come `back`, at every end, and the first."""
    *batch, length, keys = k.shape
    values, kept, last = v.shape[-1], empty(k, (*batch, -(-length // CHUNK), *S.shape[-2:])), empty(S, S.shape)
    grid = math.prod(batch), -(-keys // KEYS), -(-values // VALUES)
    launch(TENSOR_CORES, "linear_attention_states", k, grid, operands.THREADS,
           k, v, S, kept, last, length, keys, values, int(back), defines=(f"OPERAND={rounded}",),
           shared=_of_states(rounded))  # fmt: skip
    return kept, last


def _outputs(rounded: str, q: Any, k: Any, v: Any, kept: Any, *, turned: bool = False, back: bool = False) -> Any:
    """The results of all chunks, which read a state by its columns where it is `turned`."""
    *batch, length, keys = q.shape
    values, y = v.shape[-1], empty(v, v.shape)
    columns = 64 if values <= 64 else MOST
    grid = math.prod(batch) * -(-length // CHUNK), -(-values // columns)
    launch(TENSOR_CORES, "linear_attention_outputs", q, grid, operands.THREADS,
           q, k, v, kept, y, length, keys, values, int(turned), int(back),
           defines=(f"OPERAND={rounded}", f"COLUMNS={columns}"),
           shared=_of_outputs(rounded, keys, values, turned=turned), of=f"K = {keys}, V = {values}")  # fmt: skip
    return y


def _of_states(rounded: str) -> int:
    """Bytes that a block shares: a chunk's keys and values, and the next one's."""
    return 2 * sum(operands.tile(rounded, CHUNK, columns) for columns in (KEYS, VALUES))


def _of_outputs(rounded: str, keys: int, values: int, *, turned: bool) -> int:
    """Bytes that a block shares: queries, and a part of a state or what replaces it, keys and values."""
    deep, wide = (min(MOST, operands.padded(columns)) for columns in (keys, values))
    q, v = (operands.tile(rounded, CHUNK, columns) for columns in (keys, wide))
    return q + max(q + v, operands.tile(rounded, wide, deep) if turned else operands.tile(rounded, deep, wide))


def _most(rounded: str, keys: int, values: int) -> int:
    """The bytes of the launch that takes most, there or back."""
    widths = (keys, values, False), (keys, values, True), (values, keys, False), (values, keys, True)
    return max(_of_states(rounded), *(_of_outputs(rounded, k, v, turned=turned) for k, v, turned in widths))

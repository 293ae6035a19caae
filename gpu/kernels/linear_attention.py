"""Linear attention in chunks, and its adjoint, by the kernel of `linear_attention.cu`.

bfloat16 arrays, and float32 arrays where `gpu.precision` allows rounding, use `linear_attention_tensor_cores.cu`.
"""

import math
from typing import Any, NamedTuple

from gpu.kernels import operands
from gpu.kernels.product import SIDE, THREADS, shared_bytes
from gpu.launch import check, empty, launch
from gpu.precision import operand

TENSOR_CORES = "linear_attention_tensor_cores"
CHUNK = 64  # tokens between two boundary states
KEYS, VALUES = 64, 32  # tile of a state that a block computes
SLAB = 128  # rows or columns of a state that a block reads at a time


class Saved(NamedTuple):
    """Residuals of the backward pass."""

    q: Any
    k: Any
    v: Any
    S: Any  # the initial state; on tensor cores the state at the start of every chunk, (*batch, chunks, K, V)
    operand: str | None  # the type to which operands of products are rounded


def forward(q: Any, k: Any, v: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V) and S (*batch, K, V).

    Where q, k, v and so y are bfloat16, S is float32. Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("linear_attention", dtypes="fdb", accumulators=["S"], q=q, k=k, v=v, S=S)
    operand_type = operand(q)
    operand_type = operand_type and operand(q, _max_shared_bytes(operand_type, *S.shape[-2:]))
    if not operand_type:
        return _attend(q, k, v, S), Saved(q, k, v, S, None)
    states, last = _boundary_states(operand_type, k, v, S)
    return (_outputs(operand_type, q, k, v, states), last), Saved(q, k, v, states, operand_type)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v and S from those of y and of the last S."""
    q, k, v, S, operand_type = saved
    dy, dS = cotangents
    check("linear_attention", dtypes="fdb", accumulators=["dS"], q=q, dy=dy, dS=dS)
    if operand_type:
        dstates, dS = _boundary_states(operand_type, q, dy, dS, reverse=True)
        dq = _outputs(operand_type, dy, v, k, S, transposed=True)
        dk = _outputs(operand_type, v, dy, q, dstates, transposed=True, reverse=True)
        return dq, dk, _outputs(operand_type, k, q, dy, dstates, reverse=True), dS
    dq, _ = _attend(dy, v, k, _transposed(S))
    dk, _ = _attend(v, dy, q, _transposed(dS), reverse=True)
    dv, dS = _attend(k, q, dy, dS, reverse=True)
    return dq, dk, dv, dS


def _attend(q: Any, k: Any, v: Any, S: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    *batch, length, keys = q.shape
    values, y, last = v.shape[-1], empty(v, v.shape), empty(S, S.shape)
    launch(
        "linear_attention",
        "linear_attention",
        q,
        (math.prod(batch) * -(-values // SIDE),),
        THREADS,
        q,
        k,
        v,
        S,
        y,
        last,
        length,
        keys,
        values,
        int(reverse),
        shared=shared_bytes(q, keys, None),
        of=f"K = {keys}, V = {values}",
    )
    return y, last


def _transposed(S: Any) -> Any:
    return S.swapaxes(-1, -2).copy(order="C")


def _boundary_states(operand_type: str, k: Any, v: Any, S: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    """Return the state at the start of every chunk and the last state, or in reverse, at every end and the first."""
    *batch, length, keys = k.shape
    values, last = v.shape[-1], empty(S, S.shape)
    states = empty(k, (*batch, -(-length // CHUNK), keys, values))
    grid = math.prod(batch), -(-keys // KEYS), -(-values // VALUES)
    launch(
        TENSOR_CORES,
        "linear_attention_states",
        k,
        grid,
        operands.THREADS,
        k,
        v,
        S,
        states,
        last,
        length,
        keys,
        values,
        int(reverse),
        defines=(f"OPERAND={operand_type}",),
        shared=_states_shared_bytes(operand_type),
    )
    return states, last


def _outputs(
    operand_type: str, q: Any, k: Any, v: Any, states: Any, *, transposed: bool = False, reverse: bool = False
) -> Any:
    """Return the outputs of all chunks, from boundary states or the transposed ones."""
    *batch, length, keys = q.shape
    values, y = v.shape[-1], empty(v, v.shape)
    columns = 64 if values <= 64 else SLAB
    grid = math.prod(batch) * -(-length // CHUNK), -(-values // columns)
    launch(
        TENSOR_CORES,
        "linear_attention_outputs",
        q,
        grid,
        operands.THREADS,
        q,
        k,
        v,
        states,
        y,
        length,
        keys,
        values,
        int(transposed),
        int(reverse),
        defines=(f"OPERAND={operand_type}", f"COLUMNS={columns}"),
        shared=_outputs_shared_bytes(operand_type, keys, values, transposed=transposed),
        of=f"K = {keys}, V = {values}",
    )
    return y


def _states_shared_bytes(operand_type: str) -> int:
    """Return the shared memory of a block: keys and values of a chunk, double buffered."""
    return 2 * sum(operands.tile_bytes(operand_type, CHUNK, columns) for columns in (KEYS, VALUES))


def _outputs_shared_bytes(operand_type: str, keys: int, values: int, *, transposed: bool) -> int:
    """Return the shared memory of a block: queries, and either a slab of the state or keys and values."""
    rows, columns = (min(SLAB, operands.padded(width)) for width in (keys, values))
    if transposed:
        rows, columns = columns, rows
    q = operands.tile_bytes(operand_type, CHUNK, keys)
    v = operands.tile_bytes(operand_type, CHUNK, min(SLAB, operands.padded(values)))
    return q + max(q + v, operands.tile_bytes(operand_type, rows, columns))


def _max_shared_bytes(operand_type: str, keys: int, values: int) -> int:
    """Return the shared memory of the launch that needs most, forward and backward."""
    widths = (keys, values, False), (keys, values, True), (values, keys, False), (values, keys, True)
    outputs = (_outputs_shared_bytes(operand_type, k, v, transposed=transposed) for k, v, transposed in widths)
    return max(_states_shared_bytes(operand_type), *outputs)

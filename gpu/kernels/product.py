"""Launch parameters of kernels that include `product.cuh`: which of its two versions, and bytes of its tiles."""

from typing import Any

from gpu.precision import accumulator_dtype, operand

THREADS, SIDE = 256, 32  # of a block; rows and columns of a tile


def choose_operand(like: Any, tiles: int, *widths: int) -> str | None:
    """Return the type to which operands are rounded, or None for full precision.

    A block needs shared memory for a number of tiles, and for a state with any of these widths, in rows.
    """
    operand_type = operand(like)
    return operand_type and operand(like, shared_bytes(like, SIDE * tiles + max(widths), operand_type))


def defines(operand: str | None) -> tuple[str, ...]:
    """Return the macro definitions that select the version for an operand type, or for full precision."""
    return (f"OPERAND={operand}",) if operand else ()


def shared_bytes(like: Any, rows: int, operand: str | None) -> int:
    """Return the shared memory of tiles with so many rows in all, each of 32 numbers and its padding, in bytes."""
    return -(-rows // SIDE) * SIDE * (SIDE + (4 if operand else 1)) * accumulator_dtype(like).itemsize

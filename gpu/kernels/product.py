"""What `product.cuh` asks of a launch: which of its two versions is meant, and how large that one's tiles are."""

from typing import Any

from gpu.precision import accumulator_dtype, operand

THREADS, SIDE = 256, 32  # of a block; rows and columns of a tile


def rounded(like: Any, tiles: int, *widths: int) -> str | None:
    """What factors are rounded to, or None, where a block shares so many tiles and a stack of any of these widths."""
    wanted = operand(like)
    return wanted and operand(like, stack(like, SIDE * tiles + max(widths), wanted))


def version(operand: str | None) -> tuple[str, ...]:
    """What is defined for products whose factors are rounded to `operand`, or kept."""
    return (f"OPERAND={operand}",) if operand else ()


def stack(like: Any, width: int, operand: str | None) -> int:
    """The bytes of the tiles that hold so many rows of 32 numbers, each of which has a gap behind it."""
    return -(-width // SIDE) * SIDE * (SIDE + (4 if operand else 1)) * accumulator_dtype(like).itemsize

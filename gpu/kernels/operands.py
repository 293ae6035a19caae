"""Launch parameters of kernels that include `operands.cuh`: threads of a block, and bytes of its tiles."""

THREADS = 128
BYTES = {"Tf32": 4, "Bf16": 2}  # of a number in a tile
PADDING = 16  # bytes after every row of a tile, against bank conflicts


def padded(columns: int) -> int:
    """Return a number of columns rounded up to whole 32s, as tiles have them."""
    return -(-columns // 32) * 32


def tile_bytes(operand: str, rows: int, columns: int) -> int:
    """Return the shared memory of a tile whose numbers are rounded to `operand`, in bytes."""
    return rows * (BYTES[operand] * padded(columns) + PADDING)

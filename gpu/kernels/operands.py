"""What `operands.cuh` asks of a launch: its threads, and how large the tiles are that a block shares."""

THREADS = 128
BYTES = {"Tf32": 4, "Bf16": 2}  # of a number in a tile
GAP = 16  # bytes behind a tile's rows


def padded(columns: int) -> int:
    """The columns of a tile that holds so many."""
    return -(-columns // 32) * 32


def tile(operand: str, rows: int, columns: int) -> int:
    """The bytes of a tile of so many rows, whose numbers are rounded to `operand`."""
    return rows * (BYTES[operand] * padded(columns) + GAP)

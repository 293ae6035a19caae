"""How many bits of their operands matrix products keep: all, unless fewer are asked for.

Arrays of float32 are rounded before they are multiplied where `matmul_precision` says so. Those of bfloat16, which
some kernels take, are multiplied as they are, and what is made between two products is rounded to it. Sums are float32.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

OPERANDS = {"float32": None, "tensorfloat32": "Tf32", "bfloat16": "Bf16"}  # the types of mma.cuh
BITS = {"float32": 24, "tensorfloat32": 11, "bfloat16": 8}  # of significand
TENSOR_CORE_CAPABILITY = 80  # compute capability from which on tensor cores take bf16 and tf32

_chosen: ContextVar[str] = ContextVar("chosen", default="float32")


@contextlib.contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Kernels may round what they multiply to 11 bits ("tensorfloat32") or 8 ("bfloat16"), for tensor cores.

    Sums stay float32. All bits are kept in float64, on devices before sm_80, where a block cannot share as much as the
    version for tensor cores needs, and by a kernel that has none. Raises ValueError for another name.
    """
    if name not in OPERANDS:
        raise ValueError(f"matmul_precision: name is {name!r}, expected {' or '.join(map(repr, OPERANDS))}")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def operand(like: Any, shared: int = 0) -> str | None:
    """What products on this array's device round its numbers to, by the name in `mma.cuh`; None where they do not.

    They do not either where a block cannot share so many bytes, unless all the array's numbers are rounded already.
    """
    if like.dtype.name == "bfloat16":
        return "Bf16"
    rounded = OPERANDS[_chosen.get()]
    if rounded is None or like.dtype.name != "float32":
        return None
    return rounded if isinstance(like, np.ndarray) or _able(like.device, shared) else None


def sums(like: Any) -> np.dtype:
    """The type in which numbers like these are added: float32 for bfloat16."""
    return np.dtype(np.float32) if like.dtype.name == "bfloat16" else like.dtype


def _able(device: Any, shared: int) -> bool:
    return int(device.compute_capability) >= TENSOR_CORE_CAPABILITY and shared <= device.attributes["MaxSharedMemoryPerBlockOptin"]

"""The precision of matrix products: float32, unless `matmul_precision` allows tensor cores to round their operands.

bfloat16 arrays, which some kernels take, are multiplied as they are, and intermediate results that enter another
product are rounded to bfloat16. Accumulation is in float32.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

OPERANDS = {"float32": None, "tensorfloat32": "Tf32", "bfloat16": "Bf16"}  # the types of mma.cuh
BITS = {"float32": 24, "tensorfloat32": 11, "bfloat16": 8}  # of significand
TENSOR_CORE_CAPABILITY = 80  # compute capability from which on tensor cores take bf16 and tf32

_precision: ContextVar[str] = ContextVar("matmul_precision", default="float32")


@contextlib.contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Let kernels round the operands of products to 11 bits ("tensorfloat32") or 8 bits ("bfloat16") of significand.

    Accumulation stays in float32. It has no effect in float64, before sm_80, where a block has too little shared memory
    for the tensor-core version, and in kernels without one. Raises ValueError for another name.
    """
    if name not in OPERANDS:
        raise ValueError(f"matmul_precision: name is {name!r}, expected {' or '.join(map(repr, OPERANDS))}")
    token = _precision.set(name)
    try:
        yield
    finally:
        _precision.reset(token)


def operand(like: Any, shared: int = 0) -> str | None:
    """Return the operand type of `mma.cuh` that products of this array use; None for full precision.

    None as well where a block cannot have `shared` bytes of shared memory, unless the array is bfloat16.
    """
    if like.dtype.name == "bfloat16":
        return "Bf16"
    chosen = OPERANDS[_precision.get()]
    if chosen is None or like.dtype.name != "float32":
        return None
    return chosen if isinstance(like, np.ndarray) or _has_tensor_cores(like.device, shared) else None


def accumulator_dtype(like: Any) -> np.dtype:
    """Return the dtype in which sums of such numbers are accumulated: float32 for bfloat16, else their own."""
    return np.dtype(np.float32) if like.dtype.name == "bfloat16" else like.dtype


def _has_tensor_cores(device: Any, shared: int) -> bool:
    return (
        int(device.compute_capability) >= TENSOR_CORE_CAPABILITY
        and shared <= device.attributes["MaxSharedMemoryPerBlockOptin"]
    )

"""The linear recurrence hₜ = aₜ hₜ₋₁ + xₜ and its adjoint, by the kernels of `scan.cu`."""

import math
from typing import Any

from gpu.launch import check, check_same_shape, empty, launch, zeros

THREADS, TILE_BYTES = 256, 8192  # of a block; of one array's tile in shared memory


def scan(a: Any, x: Any, axis: int, reverse: bool) -> Any:
    """Return all hₜ along an axis, from h = 0, or backwards in time, as `minigrad.scan` asks for CuPy arrays."""
    lines = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    a, inputs = (z if z.flags.c_contiguous else z.copy() for z in (a, x))
    return forward(a.reshape(lines), inputs.reshape(lines), reverse=reverse).reshape(x.shape)


def forward(a: Any, x: Any, *, reverse: bool = False) -> Any:
    """Return h of a, x (*batch, T, D), from h₋₁ = 0, or in `reverse` from h_T = 0 and the last token to the first.

    Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("scan", dtypes="fdFD", a=a, x=x)
    check_same_shape("scan", a=a, x=x)
    h = empty(x, x.shape)
    _launch("scan_forward", a, x, h, reverse=reverse)
    return h


def backward(a: Any, h: Any, dh: Any) -> tuple[Any, Any]:
    """Return the cotangents of a and x from that of h: Jᴴ dh."""
    check("scan", dtypes="fdFD", a=a, h=h, dh=dh)
    check_same_shape("scan", a=a, h=h, dh=dh)
    da, dx = empty(a, a.shape), empty(a, a.shape)
    _launch("scan_backward", a, h, dh, da, dx)
    return da, dx


def _launch(kernel: str, *arrays: Any, **flags: bool) -> None:
    a = arrays[0]
    *batch, length, channels = a.shape
    width = 1 << min(5, (channels - 1).bit_length())
    lines = math.prod(batch) * -(-channels // width)
    tiles = -(-length // (TILE_BYTES // a.dtype.itemsize // width))
    partials, status = empty(a, (lines, tiles, 3, width)), zeros(a, (lines * tiles + 1,), "int32")
    launch(
        "scan",
        kernel,
        a,
        (lines * tiles,),
        THREADS,
        *arrays,
        partials,
        status,
        length,
        channels,
        lines,
        tiles,
        *map(int, flags.values()),
        defines=(f"WIDTH={width}",),
    )

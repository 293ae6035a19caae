"""The selective scan and its adjoint, by the kernels of `selective_scan.cu`."""

import math
from typing import Any, NamedTuple

from gpu.launch import check, empty, launch

THREADS, WARPS, SLAB = 256, 8, 32  # channels of a block: forward one a warp, backward a slab
TILE_BYTES = 1024  # of one channel: 256 tokens in float32, 128 in float64


class Saved(NamedTuple):
    """What the backward pass needs: the inputs, and the state at the start of every tile of tokens."""

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any
    kept: Any  # (batch, tiles, D, N)


def forward(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, h: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, h), saved) for u, delta (*batch, T, D), A (D, N), B, C (*batch, T, N), D (D,), h (*batch, D, N).

    Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("selective_scan", u=u, delta=delta, A=A, B=B, C=C, D=D, h=h)
    (*batch, length, channels), states = u.shape, A.shape[-1]
    count, tiles = math.prod(batch), -(-length // (TILE_BYTES // u.dtype.itemsize))
    y, last = empty(u, u.shape), empty(u, h.shape)
    kept = empty(u, (count, tiles, channels, states))
    blocks, shared = count * -(-channels // WARPS), WARPS * states * u.dtype.itemsize
    launch("selective_scan", "selective_scan_forward", u, (blocks,), THREADS,
           u, delta, A, B, C, D, h, y, last, kept, length, channels, states,
           shared=shared, of=f"N = {states}")  # fmt: skip
    return (y, last), Saved(u, delta, A, B, C, D, kept)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of u, delta, A, B, C, D and h from those of y and of the last h."""
    u, delta, A, B, C, D, kept = saved
    gy, glast = cotangents
    check("selective_scan", u=u, gy=gy, gh=glast)
    (*batch, length, channels), states = u.shape, A.shape[-1]
    count, slabs = math.prod(batch), -(-channels // SLAB)
    gu, gdelta, gh = empty(u, u.shape), empty(u, u.shape), empty(u, glast.shape)
    gA, gD = empty(u, (count, channels, states)), empty(u, (count, channels))
    gB, gC = (empty(u, (slabs, count, states, length)) for _ in "BC")
    launch("selective_scan", "selective_scan_backward", u, (count * slabs,), THREADS,
           u, delta, A, B, C, D, kept, gy, glast, gu, gdelta, gA, gB, gC, gD, gh, length, channels, states,
           shared=2 * WARPS * states * u.dtype.itemsize, of=f"N = {states}")  # fmt: skip
    gB, gC = (g.sum(axis=0).swapaxes(-1, -2).reshape(B.shape) for g in (gB, gC))
    return gu, gdelta, gA.sum(axis=0), gB, gC, gD.sum(axis=0), gh

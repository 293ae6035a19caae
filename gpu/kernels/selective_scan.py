"""The selective scan and its adjoint, by the kernels of `selective_scan.cu`."""

import math
from typing import Any, NamedTuple

from gpu.launch import check, empty, launch


class BlockSizes(NamedTuple):
    """Sizes of a block of `selective_scan.cu`."""

    states: int  # of a channel, N rounded up: STATES
    threads: int
    channels: int
    tile: int  # tokens between two boundary states
    forward: int  # bytes of shared memory
    backward: int  # bytes of shared memory


class Saved(NamedTuple):
    """Residuals of the backward pass."""

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any
    boundary_states: Any  # h at the start of every tile of tokens, (batch, tiles, D, N)


def forward(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, h: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, h), saved) for u, delta (*batch, T, D), A (D, N), B, C (*batch, T, N), D (D,), h (*batch, D, N).

    Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("selective_scan", u=u, delta=delta, A=A, B=B, C=C, D=D, h=h)
    (*batch, length, channels), states = u.shape, A.shape[-1]
    block = _block_sizes(states, u.dtype.itemsize)
    count, tiles = math.prod(batch), -(-length // block.tile)
    y, last = empty(u, u.shape), empty(u, h.shape)
    boundary_states = empty(u, (count, tiles, channels, states))
    launch(
        "selective_scan",
        "selective_scan_forward",
        u,
        (count * -(-channels // block.channels),),
        block.threads,
        u,
        delta,
        A,
        B,
        C,
        D,
        h,
        y,
        last,
        boundary_states,
        length,
        channels,
        states,
        defines=(f"STATES={block.states}",),
        shared=block.forward,
        of=f"N = {states}",
    )
    return (y, last), Saved(u, delta, A, B, C, D, boundary_states)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of u, delta, A, B, C, D and h from those of y and of the last h."""
    u, delta, A, B, C, D, boundary_states = saved
    dy, dlast = cotangents
    check("selective_scan", u=u, dy=dy, dh=dlast)
    (*batch, length, channels), states = u.shape, A.shape[-1]
    block = _block_sizes(states, u.dtype.itemsize)
    count, slabs = math.prod(batch), -(-channels // block.channels)
    du, ddelta, dh = empty(u, u.shape), empty(u, u.shape), empty(u, dlast.shape)
    dA, dD = empty(u, (count, channels, states)), empty(u, (count, channels))
    dB, dC = (empty(u, (slabs, count, length, states)) for _ in "BC")
    launch(
        "selective_scan",
        "selective_scan_backward",
        u,
        (count * slabs,),
        block.threads,
        u,
        delta,
        A,
        B,
        C,
        D,
        boundary_states,
        dy,
        dlast,
        du,
        ddelta,
        dA,
        dB,
        dC,
        dD,
        dh,
        length,
        channels,
        states,
        defines=(f"STATES={block.states}",),
        shared=block.backward,
        of=f"N = {states}",
    )
    dB, dC = (g.sum(axis=0).reshape(B.shape) for g in (dB, dC))
    return du, ddelta, dA.sum(axis=0), dB, dC, dD.sum(axis=0), dh


def _block_sizes(states: int, itemsize: int) -> BlockSizes:
    """Return the sizes for N states and numbers of `itemsize` bytes."""
    states = max(4, 1 << (states - 1).bit_length())
    states_per_thread, threads, tile, steps = max(4, states // 32), 512 // itemsize, 256 // itemsize, 32 // itemsize
    channels, rows = threads * states_per_thread // states, 2 * tile * states
    checkpoints, sums = tile // steps * threads * states_per_thread, 2 * steps * (channels + 1) * states
    return BlockSizes(states, threads, channels, tile, rows * itemsize, (rows + checkpoints + sums) * itemsize)

"""The selective scan and its adjoint, by the kernels of `selective_scan.cu`."""

import math
from typing import Any, NamedTuple

from gpu.launch import check, empty, launch


class Split(NamedTuple):
    """How a block of `selective_scan.cu` splits its work."""

    states: int  # of a channel, rounded up as the source expects it
    threads: int
    channels: int
    tile: int  # tokens, at whose start a state is kept
    forward: int  # bytes of shared memory
    backward: int


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
    block = _split(states, u.dtype.itemsize)
    count, tiles = math.prod(batch), -(-length // block.tile)
    y, last = empty(u, u.shape), empty(u, h.shape)
    kept = empty(u, (count, tiles, channels, states))
    launch("selective_scan", "selective_scan_forward", u, (count * -(-channels // block.channels),), block.threads,
           u, delta, A, B, C, D, h, y, last, kept, length, channels, states, defines=(f"STATES={block.states}",),
           shared=block.forward, of=f"N = {states}")  # fmt: skip
    return (y, last), Saved(u, delta, A, B, C, D, kept)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of u, delta, A, B, C, D and h from those of y and of the last h."""
    u, delta, A, B, C, D, kept = saved
    dy, dlast = cotangents
    check("selective_scan", u=u, dy=dy, dh=dlast)
    (*batch, length, channels), states = u.shape, A.shape[-1]
    block = _split(states, u.dtype.itemsize)
    count, slabs = math.prod(batch), -(-channels // block.channels)
    du, ddelta, dh = empty(u, u.shape), empty(u, u.shape), empty(u, dlast.shape)
    dA, dD = empty(u, (count, channels, states)), empty(u, (count, channels))
    dB, dC = (empty(u, (slabs, count, length, states)) for _ in "BC")
    launch("selective_scan", "selective_scan_backward", u, (count * slabs,), block.threads,
           u, delta, A, B, C, D, kept, dy, dlast, du, ddelta, dA, dB, dC, dD, dh, length, channels, states,
           defines=(f"STATES={block.states}",), shared=block.backward, of=f"N = {states}")  # fmt: skip
    dB, dC = (g.sum(axis=0).reshape(B.shape) for g in (dB, dC))
    return du, ddelta, dA.sum(axis=0), dB, dC, dD.sum(axis=0), dh


def _split(states: int, itemsize: int) -> Split:
    """For N states, and numbers of so many bytes."""
    states = max(4, 1 << (states - 1).bit_length())
    own, threads, tile, steps = max(4, states // 32), 512 // itemsize, 256 // itemsize, 32 // itemsize
    channels, rows = threads * own // states, 2 * tile * states
    marks, sums = tile // steps * threads * own, 2 * steps * (channels + 1) * states
    return Split(states, threads, channels, tile, rows * itemsize, (rows + marks + sums) * itemsize)

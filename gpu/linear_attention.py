"""Linear attention in chunks, and its adjoint, by the kernel of `linear_attention.cu`."""

import math
from typing import Any, NamedTuple

from gpu.launch import check, empty, launch

THREADS, SIDE = 256, 32  # columns of a block, keys of a slice


class Saved(NamedTuple):
    """What the backward pass needs: the inputs."""

    q: Any
    k: Any
    v: Any
    S: Any


def forward(q: Any, k: Any, v: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V) and S (*batch, K, V).

    Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("linear_attention", q=q, k=k, v=v, S=S)
    return _attend(q, k, v, S), Saved(q, k, v, S)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v and S from those of y and of the last S."""
    q, k, v, S = saved
    gy, gS = cotangents
    check("linear_attention", q=q, gy=gy, gS=gS)
    gq, _ = _attend(gy, v, k, _transposed(S))
    gk, _ = _attend(v, gy, q, _transposed(gS), back=True)
    gv, gS = _attend(k, q, gy, gS, back=True)
    return gq, gk, gv, gS


def _attend(q: Any, k: Any, v: Any, S: Any, *, back: bool = False) -> tuple[Any, Any]:
    *batch, length, keys = q.shape
    values, y, last = v.shape[-1], empty(v, v.shape), empty(S, S.shape)
    blocks, shared = math.prod(batch) * -(-values // SIDE), -(-keys // SIDE) * SIDE * SIDE * q.dtype.itemsize
    launch("linear_attention", "linear_attention", q, (blocks,), THREADS,
           q, k, v, S, y, last, length, keys, values, int(back),
           shared=shared, of=f"K = {keys}, V = {values}")  # fmt: skip
    return y, last


def _transposed(S: Any) -> Any:
    return S.swapaxes(-1, -2).copy(order="C")

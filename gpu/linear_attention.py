"""Linear attention in chunks, and its adjoint, by the kernel of `linear_attention.cu`."""

import math
from typing import Any, NamedTuple

from gpu.launch import check, empty, launch
from gpu.product import SIDE, THREADS, rounded, stack, version

TILES = 4  # that a block shares, beside those of its state


class Saved(NamedTuple):
    """What the backward pass needs: the inputs, and how it multiplies."""

    q: Any
    k: Any
    v: Any
    S: Any
    operand: str | None  # what factors are rounded to


def forward(q: Any, k: Any, v: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V) and S (*batch, K, V).

    Where q, k, v and so y are bfloat16, S is float32. Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("linear_attention", numbers="fdb", sums=["S"], q=q, k=k, v=v, S=S)
    saved = Saved(q, k, v, S, rounded(q, TILES, *S.shape[-2:]))
    return _attend(saved, q, k, v, S), saved


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v and S from those of y and of the last S."""
    q, k, v, S, _ = saved
    gy, gS = cotangents
    check("linear_attention", numbers="fdb", sums=["gS"], q=q, gy=gy, gS=gS)
    gq, _ = _attend(saved, gy, v, k, _transposed(S))
    gk, _ = _attend(saved, v, gy, q, _transposed(gS), back=True)
    gv, gS = _attend(saved, k, q, gy, gS, back=True)
    return gq, gk, gv, gS


def _attend(saved: Saved, q: Any, k: Any, v: Any, S: Any, *, back: bool = False) -> tuple[Any, Any]:
    *batch, length, keys = q.shape
    values, y, last = v.shape[-1], empty(v, v.shape), empty(S, S.shape)
    launch("linear_attention", "linear_attention", q, (math.prod(batch) * -(-values // SIDE),), THREADS,
           q, k, v, S, y, last, length, keys, values, int(back),
           defines=version(saved.operand), shared=stack(q, keys, saved.operand),
           of=f"K = {keys}, V = {values}")  # fmt: skip
    return y, last


def _transposed(S: Any) -> Any:
    return S.swapaxes(-1, -2).copy(order="C")

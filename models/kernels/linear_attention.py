"""Linear attention in one pass, and its adjoint in three: every one of them is a linear attention.

    Sₜ = Sₜ₋₁ + kₜᵀ vₜ          yₜ = qₜ Sₜ                  Katharopoulos et al. 2020, eq. 18 and 20

backward, with dSₜ = dSₜ₊₁ + qₜᵀ dyₜ the cotangent of Sₜ, from the last token to the first:

    dqₜ = dyₜ Sₜᵀ                 the memory Sᵀ, written with k for v, read with dy          in the order of time
    dkₜ = vₜ dSₜᵀ                 the memory dSᵀ, written with q for dy, read with v          against it
    dvₜ = kₜ dSₜ                  the memory dS, written with dy for q, read with k           against it

Transposing the memory puts the results into the lanes, so that no sum runs across lanes.

Work    and layout as in `models.kernels.linear_attention_core`.
Memory  one state a thread: none is saved, since S and dS are computed in the order in which they are read.
Cost    two multiplications and additions a token and entry of S forward, three times that back.
"""

from typing import Any, NamedTuple

import numpy as np

from minigrad.compiled.layout import cut_out, flat_count
from models.kernels.linear_attention_core import attend, memory, sequence


class Saved(NamedTuple):
    """Residuals of the backward pass: the padded inputs, and their shapes."""

    q: np.ndarray  # (batch, T', K')
    k: np.ndarray
    v: np.ndarray  # (batch, T', V')
    S: Any  # the state before the first token, as it came
    keys: tuple[int, ...]
    values: tuple[int, ...]


def forward(q: Any, k: Any, v: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V), S (*batch, K, V)."""
    count = flat_count(q.shape)
    rows, columns = (count, *q.shape[-2:]), (count, *v.shape[-2:])
    saved = Saved(sequence(q, *rows), sequence(k, *rows), sequence(v, *columns), S, q.shape, v.shape)
    after = memory(S, count, *S.shape[-2:])
    y = attend(saved.q, saved.k, saved.v, after)
    return (cut_out(y, v.shape), cut_out(after, S.shape)), saved


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v and S from those of y and of the last S."""
    q, k, v, S, keys, values = saved
    dy, dS = cotangents
    count, _, _ = q.shape
    transposed = (count, *S.shape[:-3:-1])
    dy = sequence(dy, count, *values[-2:])
    dq = attend(dy, v, k, memory(np.swapaxes(S, -1, -2), *transposed))
    dk = attend(v, dy, q, memory(np.swapaxes(dS, -1, -2), *transposed), backwards=True)
    before = memory(dS, count, *S.shape[-2:])
    dv = attend(k, q, dy, before, backwards=True)
    return cut_out(dq, keys), cut_out(dk, keys), cut_out(dv, values), cut_out(before, S.shape)

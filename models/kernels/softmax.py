"""Softmax attention in tiles: the array of all scores is never formed. BLAS multiplies, compiled code does the rest.

    P = softmax(Q Kᵀ · scale)          O = P V                                    Vaswani et al. 2017, eq. 1

The running maximum m and sum l of a row are updated tile by tile; sums under a smaller maximum are rescaled by
2^(m − m′) (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1). Backward, each tile of P is recomputed:

    P = 2^(S − m) / l     dV = Pᵀ dO     dS = P ⊙ (dO Vᵀ − Σᵥ dO ⊙ O)     dQ = dS K · scale     dK = dSᵀ Q · scale

Scores are multiplied by log₂ e, so that 2ˣ serves for eˣ. In a causal tile only visible scores are exponentiated.

Work    a tile of queries of one sequence is a thread's unit forward, a sequence backward. BLAS keeps to the thread that
        calls it.
Memory  m and l for each query; two tiles of 128 × 512 a thread, which are reused in later calls.
"""

import math
import threading
from typing import Any, NamedTuple

import numpy as np

from minigrad.compiled.layout import flat_count
from minigrad.compiled.simd import exp2, kernel, lanes, largest, load, splat, store, total
from minigrad.compiled.threads import one_blas_thread, share

QUERIES, KEYS = 128, 512  # in a tile
LOG2E = math.log2(math.e)
_own = threading.local()


class Saved(NamedTuple):
    """Residuals of the backward pass: inputs and result with one batch axis, and each row's maximum and sum."""

    q: np.ndarray  # (batch, T, K)
    k: np.ndarray  # (batch, S, K)
    v: np.ndarray  # (batch, S, V)
    y: np.ndarray  # (batch, T, V)
    m: np.ndarray  # (batch, T), in powers of 2
    l: np.ndarray
    visibility: "Visibility"
    scale: float
    shapes: tuple[tuple[int, ...], ...]  # of q, k and v


class Visibility(NamedTuple):
    """Visibility of keys to queries: up to the query's own time where `causal`, and where the mask is true."""

    causal: bool
    offset: int  # number of keys before that of the first query
    mask: Any  # (*batch, T, S) of booleans, or None

    def keys(self, queries: slice, count: int) -> int:
        """Return how many keys are visible to the last of these queries, the most of any of them."""
        return min(count, queries.stop + self.offset) if self.causal else count

    def tile(self, b: int, queries: slice, keys: slice, count: int) -> tuple[int, Any]:
        """Return how many of these keys are visible to the first of these queries, and their part of the mask."""
        limit = queries.start + self.offset + 1 - keys.start if self.causal else count
        if self.mask is None:
            return limit, None
        return limit, self.mask[(*np.unravel_index(b, self.mask.shape[:-2]), queries, keys)]


def forward(q: Any, k: Any, v: Any, *, causal: bool, mask: Any, scale: float) -> tuple[Any, Saved]:
    """Return (y, saved) for q (*batch, T, K), k (*batch, S, K), v (*batch, S, V) and mask (*batch, T, S) or None."""
    shapes = q.shape, k.shape, v.shape
    q, k, v = (np.reshape(x, (flat_count(x.shape), *x.shape[-2:])) for x in (q, k, v))
    visibility = Visibility(causal, k.shape[1] - q.shape[1], mask)
    y = np.zeros((*q.shape[:2], v.shape[2]), v.dtype)
    m, l = np.full(q.shape[:2], -np.inf, q.dtype), np.zeros(q.shape[:2], q.dtype)
    tiles = _tiles(q.shape[1], QUERIES)

    def work(part: int, first: int, last: int) -> None:
        scores, _ = _scratch(q.dtype)
        for item in range(first, last):
            b, rows = item // len(tiles), tiles[item % len(tiles)]
            exponents, size = q[b, rows] * q.dtype.type(scale * LOG2E), rows.stop - rows.start
            for columns in _tiles(visibility.keys(rows, k.shape[1]), KEYS):
                width = columns.stop - columns.start
                np.matmul(exponents, k[b, columns].T, out=scores[:size, :width])
                limit, mask_tile = visibility.tile(b, rows, columns, width)
                _online_softmax_tile(scores, size, width, limit, mask_tile, m[b, rows], l[b, rows], y[b, rows])
                y[b, rows] += scores[:size, :width] @ v[b, columns]
            y[b, rows] /= np.where(l[b, rows] == 0, 1, l[b, rows])[:, None]

    with one_blas_thread():
        share(work, len(q) * len(tiles))
    return y.reshape(*shapes[0][:-1], v.shape[2]), Saved(q, k, v, y, m, l, visibility, scale, shapes)


def backward(saved: Saved, dy: Any) -> tuple[Any, Any, Any]:
    """Return the cotangents of q, k and v from that of y."""
    q, k, v, y, m, l, visibility, scale, shapes = saved
    dy = np.ascontiguousarray(np.reshape(dy, y.shape))
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    row_dot, tiles = np.einsum("btv,btv->bt", dy, y), _tiles(q.shape[1], QUERIES)

    def work(part: int, first: int, last: int) -> None:
        scores, dP = _scratch(q.dtype)
        for b in range(first, last):
            for rows in tiles:
                exponents, size = q[b, rows] * q.dtype.type(scale * LOG2E), rows.stop - rows.start
                for columns in _tiles(visibility.keys(rows, k.shape[1]), KEYS):
                    width = columns.stop - columns.start
                    P, dS = scores[:size, :width], dP[:size, :width]
                    np.matmul(exponents, k[b, columns].T, out=P)
                    np.matmul(dy[b, rows], v[b, columns].T, out=dS)  # dP until the tile is scaled
                    limit, mask_tile = visibility.tile(b, rows, columns, width)
                    _softmax_backward_tile(
                        scores, dP, size, width, limit, mask_tile, m[b, rows], l[b, rows], row_dot[b, rows]
                    )
                    dv[b, columns] += P.T @ dy[b, rows]
                    dk[b, columns] += dS.T @ q[b, rows]
                    dq[b, rows] += dS @ k[b, columns]

    with one_blas_thread():
        share(work, len(q))
    dq *= q.dtype.type(scale)
    dk *= q.dtype.type(scale)
    return dq.reshape(shapes[0]), dk.reshape(shapes[1]), dv.reshape(shapes[2])


def _tiles(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _scratch(dtype: np.dtype) -> np.ndarray:
    """Return two tiles of this thread's own."""
    if dtype.name not in _own.__dict__:
        _own.__dict__[dtype.name] = np.zeros((2, QUERIES, KEYS), dtype)
    return _own.__dict__[dtype.name]


@kernel
def _online_softmax_tile(scores, size, width, limit, mask, m, l, y):
    """Turn scores into 2^(score − m), row by row, and rescale the sums so far to the new maximum m."""
    step, stride = lanes(scores), scores.shape[1]
    tops = np.empty(step, scores.dtype)
    for r in range(size):
        visible, row = min(max(r + limit, 0), width), r * stride
        end = -(-visible // step) * step
        if mask is not None:
            for s in range(visible):
                if not mask[r, s]:
                    scores[r, s] = -np.inf
        for s in range(visible, end):
            scores[r, s] = -np.inf
        top = splat(scores, -np.inf)
        for i in range(row, row + end, step):
            top = largest(load(scores, i), top)
        store(tops, 0, top)
        best = max(m[r], tops.max())
        if best == -np.inf:
            if not _holds_nan(scores[r, :visible]):
                scores[r, :width] = 0
                continue
            best = scores.dtype.type(0)  # a maximum passes NaN over: the sum of powers is to hold it
        powers = splat(scores, 0)
        for i in range(row, row + end, step):
            power = exp2(load(scores, i) - splat(scores, best))
            powers = powers + power
            store(scores, i, power)
        for s in range(end, width):
            scores[r, s] = 0
        scale = np.exp2(m[r] - best)
        m[r], l[r] = best, l[r] * scale + total(powers)
        for c in range(y.shape[1]):
            y[r, c] *= scale


@kernel
def _holds_nan(row):
    for x in row:
        if x != x:
            return True
    return False


@kernel
def _softmax_backward_tile(scores, dP, size, width, limit, mask, m, l, row_dot):
    """Write P in place of the scores, dS = P ⊙ (dP − row_dot) in place of dP."""
    step, stride = lanes(scores), scores.shape[1]
    for r in range(size):
        visible, row = min(max(r + limit, 0), width), r * stride
        if m[r] == -np.inf:
            visible = 0
        end = -(-visible // step) * step
        for i in range(row, row + end, step):
            P = exp2(load(scores, i) - splat(scores, m[r])) / splat(scores, l[r])
            store(scores, i, P)
            store(dP, i, P * (load(dP, i) - splat(scores, row_dot[r])))
        for s in range(visible, width):
            scores[r, s], dP[r, s] = 0, 0
        if mask is not None:
            for s in range(visible):
                if not mask[r, s]:
                    scores[r, s], dP[r, s] = 0, 0

"""Softmax attention: a mean of the values, weighted by the softmax of scaled dot products of query and keys.

    O = softmax(Q Kᵀ · scale) V          Vaswani et al. 2017, eq. 1; scale = 1/√K

Lazily, for chunks j of the keys, with a division at the end (Rabe and Staats 2021, sections 2–4):

    mⱼ = max(Q Kⱼᵀ), Pⱼ = exp(Q Kⱼᵀ − mⱼ), lⱼ = Pⱼ 1      row by row, Q scaled
    O  = Σⱼ e^(mⱼ − m) Pⱼ Vⱼ / l                           m = maxⱼ mⱼ, l = Σⱼ e^(mⱼ − m) lⱼ

and back, with the weights of a chunk recomputed (Dao et al. 2022, algorithm 4):

    Pⱼ  = exp(Q Kⱼᵀ − m − log l)
    dVⱼ = Pⱼᵀ dO,   dSⱼ = Pⱼ ∘ (dO Vⱼᵀ − rowsum(dO ∘ O)),   dQ = Σⱼ dSⱼ Kⱼ,   dKⱼ = dSⱼᵀ Q

    q, k, v   query, key and value of a token, as rows.
    causal    a query attends to keys up to its own time (section 3.2.3: scores of later ones become −∞).
    mask      true where a query may attend, broadcast to (*batch, T, S + T); narrows `causal` further.
    bias      finite numbers added to the scaled scores, broadcast to (*batch, T, S + T): relative positions.
    state     (keys, values) so far, S of them; the T queries are the last T of S + T positions. It is the only
              mechanism here whose state grows with time.

Cross-attention, whose queries are of another sequence than keys and values, is `cross`.

A query that may attend to no key has the output 0 and the gradient 0, as in PyTorch. For real numbers; what
does not fit raises TypeError or ValueError, as `models.forms` says.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

from jaxtyping import Bool, Float

import minigrad as mg
from minigrad import namespace
from minigrad.conversion import copy_if_mutable
from minigrad.engine import unwrap
from models.forms import Array, checked, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism

TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]
QUERIES = 256  # of a chunk: the calls for shorter chunks take longer than what they compute

Pairs = tuple[Float[Array, "*batch S K"], Float[Array, "*batch S V"]]

MECHANISM = Mechanism(
    arguments={"q": Domain.ANY, "k": Domain.KEYS, "v": Domain.ANY},
    state=Domain.ANY,
    rational=False,
    state_grows=True,
    blocks={"softmax": "models.blocks.softmax.SoftmaxBlock"},
)


@form(work="T²", memory="T²")
def quadratic(
    q: TK,
    k: TK,
    v: TV,
    *,
    causal: bool = True,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
    state: Pairs | None = None,
) -> tuple[TV, Pairs]:
    """Compute the whole T × (S + T) matrix of weights: O(T·(S + T)·(K + V)).

    Raises ValueError also when the mask or the bias does not broadcast to the scores.
    """
    k, v = _append(k, v, state)
    mask = _broadcast_to_scores("softmax.quadratic", "mask", mask, q, k)
    bias = _broadcast_to_scores("softmax.quadratic", "bias", bias, q, k)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return _attention(q, k, v, causal=causal, mask=mask, bias=bias, scale=scale), (k, v)


@form(work="T²")
def lazy(
    q: TK,
    k: TK,
    v: TV,
    *,
    causal: bool = True,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
    state: Pairs | None = None,
    chunk_size: int | None = None,
) -> tuple[TV, Pairs]:
    """Compute C queries at a time against √(S + T) keys at a time: O(C·√(S + T)·(1 + V)) memory beside y.

    C is `chunk_size`, or 256, and there are at least C keys. The paper's listing has 1024 queries and 4096 keys, which
    is √n at n = 2²⁴. Raises ValueError also when the mask or the bias does not broadcast to the scores.
    """
    k, v = _append(k, v, state)
    mask = copy_if_mutable(unwrap(mask))  # which the backward pass reads
    mask = _broadcast_to_scores("softmax.lazy", "mask", mask, q, k)
    bias = _broadcast_to_scores("softmax.lazy", "bias", bias, q, k)
    size = chunk_size or QUERIES
    options = {"causal": causal, "mask": mask, "queries": size, "keys": max(size, math.isqrt(k.shape[-2]))}
    attend = functools.partial(_attend_lazily, **options)
    call = mg.fused(attend, functools.partial(_attend_backward, **options), lambda *inputs: attend(*inputs)[0])
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    return call(q, k, v, *(() if bias is None else (bias,))), (k, v)


@form(compiled=True, work="T²")
def fused(
    q: TK,
    k: TK,
    v: TV,
    *,
    causal: bool = True,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
    state: Pairs | None = None,
) -> tuple[TV, Pairs]:
    """Compute by a tiled kernel with an online softmax, for NumPy's float32 and float64: no T × (S + T) array.

    The kernels take no bias: with one, the array code of `quadratic` runs. Raises ValueError also when the mask or the
    bias does not broadcast to the scores.
    """
    k, v = _append(k, v, state)
    mask = unwrap(_broadcast_to_scores("softmax.fused", "mask", mask, q, k))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if bias is not None:
        bias = _broadcast_to_scores("softmax.fused", "bias", bias, q, k)
        return _attention(q, k, v, causal=causal, mask=mask, bias=bias, scale=scale), (k, v)
    return _compiled(q, k, v, causal=causal, mask=mask, scale=scale), (k, v)


@checked
def cross(
    q: TK,
    k: Float[Array, "*batch S K"],
    v: Float[Array, "*batch S V"],
    *,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
) -> tuple[TV, None]:
    """Compute cross-attention: T queries attend to the S keys and values of another sequence (section 3.2.3).

    It is `quadratic` without an order of time, and no form: there is no state, and nothing streams but the queries.
    The mask and the bias broadcast to (*batch, T, S). Raises ValueError also where they do not.
    """
    mask = _broadcast_to_scores("softmax.cross", "mask", mask, q, k)
    bias = _broadcast_to_scores("softmax.cross", "bias", bias, q, k)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return _attention(q, k, v, causal=False, mask=mask, bias=bias, scale=scale), None


def _append(k: Array, v: Array, state: Pairs | None) -> Pairs:
    """Append k and v to the keys and values of the state."""
    if state is None:
        return k, v
    xp = namespace(k, v)
    return xp.concat([state[0], k], axis=-2), xp.concat([state[1], v], axis=-2)


def _broadcast_to_scores(label: str, name: str, x: Array | None, q: Array, k: Array) -> Array | None:
    """Broadcast the mask or the bias to the shape of the scores. Raises ValueError where it does not fit."""
    if x is None:
        return None
    shape = (*q.shape[:-1], k.shape[-2])
    try:
        return namespace(x).broadcast_to(x, shape)
    except (RuntimeError, TypeError, ValueError):
        message = f"{name} has shape {tuple(x.shape)}, expected one that broadcasts to {tuple(shape)}"
        raise ValueError(f"{label}: {message}") from None


def _attention(
    q: Array, k: Array, v: Array, *, causal: bool, mask: Array | None, scale: float, bias: Array | None = None
) -> Array:
    """Return softmax(Q Kᵀ · scale + bias) V; with `causal` the last query attends up to the last key."""
    xp, size, key_count = namespace(unwrap(q)), q.shape[-2], k.shape[-2]  # a mask is made where the arrays are
    visible = xp.tril(xp.ones((size, key_count), dtype=bool), k=key_count - size) if causal else None
    if mask is not None:
        visible = mask if visible is None else visible & mask
    scores = (q * scale) @ k.mT
    return mg.softmax(scores if bias is None else scores + bias, axis=-1, where=visible) @ v


# The lazy form, a chunk of queries at a time


def _chunks(length: int, size: int) -> Iterator[slice]:
    """Yield the chunks of an axis, of which the last may be shorter."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def _tiles(
    rows: slice, q: Array, k: Array, bias: Array | None, *, causal: bool, mask: Array | None, queries: int, keys: int
) -> Iterator[tuple[slice, Array]]:
    """Yield the chunks of keys that some of these queries may attend to, and the scores: −∞ where they may not."""
    xp, raw, seen = namespace(q, k), namespace(unwrap(q)), k.shape[-2]
    first = seen - q.shape[-2] + rows.start  # the last key that the first of these queries may attend to
    for columns in _chunks(seen, keys):
        if causal and columns.start > first + rows.stop - rows.start - 1:
            break
        scores, visible = q[..., rows, :] @ k[..., columns, :].mT, None
        if bias is not None:
            scores = scores + bias[..., rows, columns]
        if causal and columns.stop > first + 1:
            visible = raw.tril(raw.ones(scores.shape[-2:], dtype=bool), k=first - columns.start)
        if mask is not None:
            visible = mask[..., rows, columns] if visible is None else visible & mask[..., rows, columns]
        yield columns, scores if visible is None else xp.where(visible, scores, -math.inf)


def _attend_lazily(q: Array, k: Array, v: Array, bias: Array | None = None, **options: Any) -> tuple[Array, Any]:
    """Return O, and what the backward pass needs of it: m + log l besides the arguments."""
    xp, outputs, log_sums = namespace(q, k, v), [], []

    def summarize(scores: Array, V: Array) -> tuple[Array, Array, Array]:
        m = mg.stop_gradient(xp.max(scores, axis=-1, keepdims=True))
        P = xp.exp(scores - _finite(xp, m))
        return m, xp.sum(P, axis=-1, keepdims=True), P @ V

    for rows in _chunks(q.shape[-2], options["queries"]):
        summaries = [summarize(scores, v[..., keys, :]) for keys, scores in _tiles(rows, q, k, bias, **options)]
        m_j, l_j, values = map(xp.stack, zip(*summaries, strict=True))
        m = _finite(xp, xp.max(m_j, axis=0))
        weights = xp.exp(m_j - m)  # (chunks, *batch, C, 1)
        l = xp.sum(weights * l_j, axis=0)
        l = xp.where(l == 0, 1, l)  # of a query that attends to no key
        outputs.append(xp.sum(weights * values, axis=0) / l)
        log_sums.append(m + xp.log(l))
    y = xp.concat(outputs, axis=-2)
    return y, (q, k, v, bias, y, xp.concat(log_sums, axis=-2))


def _attend_backward(saved: Any, dy: Array, **options: Any) -> tuple[Array, ...]:
    """Return the cotangents of q, k and v, and of the bias if there is one."""
    q, k, v, bias, y, lse = saved
    xp, row_dot = namespace(q, k, v), namespace(q, k, v).sum(dy * y, axis=-1, keepdims=True)
    key_chunks = list(_chunks(k.shape[-2], options["keys"]))
    dk, dv = ([xp.zeros_like(x[..., keys, :]) for keys in key_chunks] for x in (k, v))
    dq, dbias = [], []
    for rows in _chunks(q.shape[-2], options["queries"]):
        Q, dO, dQ, dS_rows = q[..., rows, :], dy[..., rows, :], xp.zeros_like(q[..., rows, :]), []
        for j, (keys, scores) in enumerate(_tiles(rows, q, k, bias, **options)):
            P = xp.exp(scores - lse[..., rows, :])
            dS = P * (dO @ v[..., keys, :].mT - row_dot[..., rows, :])
            dQ = dQ + dS @ k[..., keys, :]
            dk[j] = dk[j] + dS.mT @ Q
            dv[j] = dv[j] + P.mT @ dO
            if bias is not None:
                dS_rows.append(dS)
        dq.append(dQ)
        if bias is not None:
            later = xp.zeros_like(bias[..., rows, sum(dS.shape[-1] for dS in dS_rows) :])
            dbias.append(xp.concat([*dS_rows, later], axis=-1))
    return tuple(_concat_and_clear(xp, chunks) for chunks in (dq, dk, dv, dbias) if chunks)


def _concat_and_clear(xp: Any, chunks: list[Array]) -> Array:
    """Return the chunks as one array, and empty the list, so that at most one array is held twice."""
    whole = xp.concat(chunks, axis=-2)
    chunks.clear()
    return whole


def _finite(xp: Any, x: Array) -> Array:
    """Return x with 0 for −∞, the maximum of no number."""
    return xp.where(x == -math.inf, 0, x)


_compiled = with_kernel("attention.softmax", _attention)

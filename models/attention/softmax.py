"""Softmax attention: a weighted mean of all values, weighted by how well each key fits the query.

    O = softmax(Q Kᵀ · scale) V          Vaswani et al. 2017, eq. 1; scale = 1/√K

    q, k, v   query, key and value of a token, as rows.
    causal    a query sees the keys up to its own time (section 3.2.3: scores of later ones become −∞).
    mask      true where a query may look, broadcast to (*batch, T, S + T); narrows `causal` further.
    state     (keys, values) so far, S of them; the T queries are the last T of S + T positions. It is the only
              mechanism here whose state grows with time.

A query that may look nowhere has no weights: it reads 0 and its gradient is 0, as in PyTorch. For real numbers; what
does not fit raises TypeError or ValueError, as `models.forms` says.
"""

from jaxtyping import Bool, Float

import minigrad as mg
from minigrad import namespace
from minigrad.engine import unwrap
from models.forms import Array, form
from models.kernels.dispatch import with_kernel

TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]
Pairs = tuple[Float[Array, "*batch S K"], Float[Array, "*batch S V"]]


@form
def quadratic(
    q: TK,
    k: TK,
    v: TV,
    *,
    causal: bool = True,
    mask: Bool[Array, "..."] | None = None,
    scale: float | None = None,
    state: Pairs | None = None,
) -> tuple[TV, Pairs]:
    """All queries against all keys at once: O(T·(S + T)·(K + V)), with an array T × (S + T).

    Raises ValueError also when the mask does not broadcast to the scores.
    """
    k, v = _appended(k, v, state)
    mask = _fitted("softmax.quadratic", mask, q, k)
    return _at_once(q, k, v, causal=causal, mask=mask, scale=q.shape[-1] ** -0.5 if scale is None else scale), (k, v)


@form(compiled=True)
def fused(
    q: TK,
    k: TK,
    v: TV,
    *,
    causal: bool = True,
    mask: Bool[Array, "..."] | None = None,
    scale: float | None = None,
    state: Pairs | None = None,
) -> tuple[TV, Pairs]:
    """Tile by tile, compiled for NumPy's float32 and float64: O(T·(S + T)·(K + V)), and no array T × (S + T).

    Raises ValueError also when the mask does not broadcast to the scores.
    """
    k, v = _appended(k, v, state)
    mask = unwrap(_fitted("softmax.fused", mask, q, k))
    return _compiled(q, k, v, causal=causal, mask=mask, scale=q.shape[-1] ** -0.5 if scale is None else scale), (k, v)


def _appended(k: Array, v: Array, state: Pairs | None) -> Pairs:
    """The keys and values so far and these."""
    if state is None:
        return k, v
    xp = namespace(k, v)
    return xp.concat([state[0], k], axis=-2), xp.concat([state[1], v], axis=-2)


def _fitted(label: str, mask: Array | None, q: Array, k: Array) -> Array | None:
    """The mask as large as the scores."""
    if mask is None:
        return None
    shape = (*q.shape[:-1], k.shape[-2])
    try:
        return namespace(mask).broadcast_to(mask, shape)
    except (RuntimeError, TypeError, ValueError):
        message = f"mask has shape {tuple(mask.shape)}, expected one that broadcasts to {tuple(shape)}"
        raise ValueError(f"{label}: {message}") from None


def _at_once(q: Array, k: Array, v: Array, *, causal: bool, mask: Array | None, scale: float) -> Array:
    """softmax(Q Kᵀ · scale) V, where the last query sees the last key."""
    xp, size, seen = namespace(q, k, v), q.shape[-2], k.shape[-2]
    visible = xp.tril(xp.ones((size, seen), dtype=bool), k=seen - size) if causal else None
    if mask is not None:
        visible = mask if visible is None else visible & mask
    return mg.softmax((q * scale) @ k.mT, axis=-1, where=visible) @ v


_compiled = with_kernel("attention.softmax", _at_once)

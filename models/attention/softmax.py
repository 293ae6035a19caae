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
from models.forms import Array, form

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
    xp = namespace(q, k, v)
    if state is not None:
        k, v = xp.concat([state[0], k], axis=-2), xp.concat([state[1], v], axis=-2)
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.mT
    size, seen = scores.shape[-2:]
    visible = xp.tril(xp.ones((size, seen), dtype=bool), k=seen - size) if causal else None
    if mask is not None:
        mask = _fitted(mask, scores)
        visible = mask if visible is None else visible & mask
    return mg.softmax(scores, axis=-1, where=visible) @ v, (k, v)


def _fitted(mask: Array, scores: Array) -> Array:
    try:
        return namespace(mask).broadcast_to(mask, scores.shape)
    except (RuntimeError, TypeError, ValueError):
        message = f"mask has shape {tuple(mask.shape)}, expected one that broadcasts to {tuple(scores.shape)}"
        raise ValueError(f"softmax.quadratic: {message}") from None

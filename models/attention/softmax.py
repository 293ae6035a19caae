"""Softmax attention: a mean of the values, weighted by the softmax of scaled dot products of query and keys.

    O = softmax(Q Kᵀ · scale) V          Vaswani et al. 2017, eq. 1; scale = 1/√K

    q, k, v   query, key and value of a token, as rows.
    causal    a query attends to keys up to its own time (section 3.2.3: scores of later ones become −∞).
    mask      true where a query may attend, broadcast to (*batch, T, S + T); narrows `causal` further.
    state     (keys, values) so far, S of them; the T queries are the last T of S + T positions. It is the only
              mechanism here whose state grows with time.

A query that may attend to no key has the output 0 and the gradient 0, as in PyTorch. For real numbers; what
does not fit raises TypeError or ValueError, as `models.forms` says.
"""

from jaxtyping import Bool, Float

import minigrad as mg
from minigrad import namespace
from minigrad.engine import unwrap
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism

TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]
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
    scale: float | None = None,
    state: Pairs | None = None,
) -> tuple[TV, Pairs]:
    """Compute the whole T × (S + T) matrix of weights: O(T·(S + T)·(K + V)).

    Raises ValueError also when the mask does not broadcast to the scores.
    """
    k, v = _append(k, v, state)
    mask = _broadcast_mask("softmax.quadratic", mask, q, k)
    return _attention(q, k, v, causal=causal, mask=mask, scale=q.shape[-1] ** -0.5 if scale is None else scale), (k, v)


@form(compiled=True, work="T²")
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
    """Compute by a tiled kernel with an online softmax, for NumPy's float32 and float64: no T × (S + T) array.

    Raises ValueError also when the mask does not broadcast to the scores.
    """
    k, v = _append(k, v, state)
    mask = unwrap(_broadcast_mask("softmax.fused", mask, q, k))
    return _compiled(q, k, v, causal=causal, mask=mask, scale=q.shape[-1] ** -0.5 if scale is None else scale), (k, v)


def _append(k: Array, v: Array, state: Pairs | None) -> Pairs:
    """Append k and v to the keys and values of the state."""
    if state is None:
        return k, v
    xp = namespace(k, v)
    return xp.concat([state[0], k], axis=-2), xp.concat([state[1], v], axis=-2)


def _broadcast_mask(label: str, mask: Array | None, q: Array, k: Array) -> Array | None:
    """Broadcast the mask to the shape of the scores. Raises ValueError where it does not fit."""
    if mask is None:
        return None
    shape = (*q.shape[:-1], k.shape[-2])
    try:
        return namespace(mask).broadcast_to(mask, shape)
    except (RuntimeError, TypeError, ValueError):
        message = f"mask has shape {tuple(mask.shape)}, expected one that broadcasts to {tuple(shape)}"
        raise ValueError(f"{label}: {message}") from None


def _attention(q: Array, k: Array, v: Array, *, causal: bool, mask: Array | None, scale: float) -> Array:
    """Return softmax(Q Kᵀ · scale) V; with `causal` the last query attends up to the last key."""
    xp, size, key_count = namespace(q, k, v), q.shape[-2], k.shape[-2]
    visible = xp.tril(xp.ones((size, key_count), dtype=bool), k=key_count - size) if causal else None
    if mask is not None:
        visible = mask if visible is None else visible & mask
    return mg.softmax((q * scale) @ k.mT, axis=-1, where=visible) @ v


_compiled = with_kernel("attention.softmax", _attention)

"""Multi-head attention: split channels into heads, attend with each, join them; with grouped queries.

    head[h] = Attention(Q[h], K[h], V[h]),  y = [head[1] ‖ … ‖ head[H]]        Vaswani et al. 2017, section 3.2.2
    head[h] = Attention(Q[h], K[g], V[g]),  g = ⌊h G/H⌋                         Ainslie et al. 2023, section 2.2

    H    query heads, and G heads of keys and values, which H/G consecutive query heads share. G = H is multi-head
         attention, G = 1 multi-query attention (Shazeer 2019).

The form is one of softmax attention. Where G < H it receives keys and values broadcast over a group, as views.
`quadratic` and `lazy` compute with the views and copy nothing; `fused` repeats them H/G times, and so do all forms
where they append to the keys and values of a state. The state has G heads.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array

Pairs = tuple[Float[Array, "*batch G S K"], Float[Array, "*batch G S V"]]


def attend(
    form: Callable[..., Any],
    q: Float[Array, "*batch T HK"],
    k: Float[Array, "*batch T GK"],
    v: Float[Array, "*batch T GV"],
    *,
    heads: int,
    key_value_heads: int | None = None,
    **options: Any,
) -> tuple[Float[Array, "*batch T HV"], Pairs]:
    """Split heads, attend with each by a form of softmax attention, and join them; return (y, state).

    `key_value_heads` is G, H by default; the options are those of the form, and of `grouped`. Raises ValueError for
    heads that do not divide.
    """
    groups = heads if key_value_heads is None else key_value_heads
    y, state = grouped(
        form, split_heads(q, heads, "q"), split_heads(k, groups, "k"), split_heads(v, groups, "v"), **options
    )
    return merge_heads(y), state


def grouped(
    form: Callable[..., Any],
    q: Float[Array, "*batch H T K"],
    k: Float[Array, "*batch G T K"],
    v: Float[Array, "*batch G T V"],
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    state: Pairs | None = None,
    **options: Any,
) -> tuple[Float[Array, "*batch H T V"], Pairs]:
    """Attend with H query heads to G heads of keys and values, by a form of softmax attention; return (y, state).

    The mask and the bias broadcast to (*batch, H, T, S + T). Raises ValueError for numbers of
    heads that do not fit.
    """
    heads, groups = q.shape[-3], k.shape[-3]
    if heads % groups:
        raise ValueError(f"multihead.grouped: q has {heads} heads, expected a multiple of the {groups} of k")
    if v.shape[-3] != groups:
        raise ValueError(f"multihead.grouped: v has {v.shape[-3]} heads, expected {groups} as k")
    for name, scores in (("mask", mask), ("bias", bias)):
        if scores is not None:
            if scores.ndim > 2 and scores.shape[-3] not in (1, heads):
                raise ValueError(f"multihead.grouped: {name} has {scores.shape[-3]} heads, expected 1 or {heads}")
            options[name] = scores if groups == heads else _split_groups(scores, groups)
    if groups == heads:
        return form(q, k, v, state=state, **options)
    keys, values, options["state"] = k, v, None
    if state is not None:
        xp = namespace(k, v)
        keys, values = xp.concat([state[0], k], axis=-2), xp.concat([state[1], v], axis=-2)
        options["state"] = tuple(_share(x, heads // groups) for x in state)
    y, _ = form(_split_groups(q, groups), _share(k, heads // groups), _share(v, heads // groups), **options)
    return namespace(y).reshape(y, (*q.shape[:-1], y.shape[-1])), (keys, values)


def split_heads(x: Array, heads: int, name: str = "x") -> Array:
    """Return (*batch, H, T, K) from x (*batch, T, H·K). Raises ValueError, with the name of x, if H does not divide."""
    xp, width = namespace(x), x.shape[-1]
    if heads < 1 or width % heads:
        raise ValueError(f"multihead: {name} has {width} channels, expected a positive multiple of {heads} heads")
    return xp.moveaxis(xp.reshape(x, (*x.shape[:-1], heads, width // heads)), -3, -2)


def merge_heads(y: Array) -> Array:
    """Return (*batch, T, H·K) from y (*batch, H, T, K): the inverse of `split_heads`."""
    xp = namespace(y)
    y = xp.moveaxis(y, -3, -2)
    return xp.reshape(y, (*y.shape[:-2], y.shape[-2] * y.shape[-1]))


def _split_groups(x: Array, groups: int) -> Array:
    """Return (*batch, G, H/G, T, …) from x (*batch, H, T, …); one without heads, or with one for all, broadcasts."""
    if x.ndim < 3:
        return x
    axes = (1, 1) if x.shape[-3] == 1 else (groups, x.shape[-3] // groups)
    return namespace(x).reshape(x, (*x.shape[:-3], *axes, *x.shape[-2:]))


def _share(x: Array, queries: int) -> Array:
    """Return (*batch, G, H/G, T, K) from x (*batch, G, T, K), the same for all H/G query heads of a group."""
    return namespace(x).broadcast_to(x[..., None, :, :], (*x.shape[:-2], queries, *x.shape[-2:]))

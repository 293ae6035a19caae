"""Multi-head latent attention (MLA): keys and values of all heads are linear in one latent vector a token.

    kₕ = [c W_UKₕᵀ ‖ k_R],  vₕ = c W_UVₕᵀ         DeepSeek-AI 2024 (DeepSeek-V2), eq. 10, 11 and 17
    oₕ = Attention(qₕ, kₕ, vₕ)                    eq. 18; scale = 1/√(K + J)

Or the up-projections are absorbed by what they are multiplied with (section 2.1.2, after eq. 11). All heads then attend
to the latents themselves, as to the one head of multi-query attention:

    qₕ kₕᵀ = [qₕ,C W_UKₕ ‖ qₕ,R] [c ‖ k_R]ᵀ      with qₕ = [qₕ,C ‖ qₕ,R]
    oₕ     = Attention([qₕ,C W_UKₕ ‖ qₕ,R], [c ‖ k_R], c) W_UVₕᵀ

    q         queries of H heads, K channels for the keys made of c and J for the shared one.
    latents   [c ‖ k_R]: R channels from which all keys and values are made, and J of a key that all heads share.
    W_UK      up-projections of the heads to keys, (H, K, R).
    W_UV      up-projections of the heads to values, (H, V, R).
    state     the latents so far, (*batch, S, R + J): what the paper caches, R + J numbers a token instead of H (K + V).

`expanded` computes with keys and values, which takes fewer products over a sequence. `absorbed` computes with
latents, which takes fewer where one token follows S others: S H (2R + J), where the keys and values alone take S H R
(K + V). The form is one of softmax attention. The paper rotates the J channels of q and k_R by their positions; here
nothing does.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array

Queries = Float[Array, "*batch H T KJ"]
Latents = Float[Array, "*batch T RJ"]
Values = Float[Array, "*batch H T V"]


def expanded(
    form: Callable[..., Any],
    q: Queries,
    latents: Latents,
    W_UK: Float[Array, "H K R"],
    W_UV: Float[Array, "H V R"],
    *,
    state: Latents | None = None,
) -> tuple[Values, Latents]:
    """Make the keys and values of every head, attend, and return (o, state)."""
    past = None if state is None else keys_and_values(state, W_UK, W_UV)
    o, _ = form(q, *keys_and_values(latents, W_UK, W_UV), state=past)
    return o, _append(state, latents)


def absorbed(
    form: Callable[..., Any],
    q: Queries,
    latents: Latents,
    W_UK: Float[Array, "H K R"],
    W_UV: Float[Array, "H V R"],
    *,
    state: Latents | None = None,
) -> tuple[Values, Latents]:
    """Attend with every head to the latents, up-project what it read, and return (o, state)."""
    xp, (heads, K, R) = namespace(q, latents, W_UK), W_UK.shape

    def shared(x: Latents) -> tuple[Array, Array]:
        x = xp.broadcast_to(x[..., None, :, :], (*x.shape[:-2], heads, *x.shape[-2:]))
        return x, x[..., :R]

    q_latent = xp.concat([q[..., :K] @ W_UK, q[..., K:]], axis=-1)
    past = None if state is None else shared(state)
    o, _ = form(q_latent, *shared(latents), scale=q.shape[-1] ** -0.5, state=past)
    return o @ W_UV.mT, _append(state, latents)


def keys_and_values(
    latents: Latents, W_UK: Float[Array, "H K R"], W_UV: Float[Array, "H V R"]
) -> tuple[Float[Array, "*batch H T KJ"], Values]:
    """Return the keys and the values of every head."""
    xp, R = namespace(latents, W_UK, W_UV), W_UK.shape[-1]
    c, k_R = latents[..., None, :, :R], latents[..., None, :, R:]
    k_C = c @ W_UK.mT
    return xp.concat([k_C, xp.broadcast_to(k_R, (*k_C.shape[:-1], k_R.shape[-1]))], axis=-1), c @ W_UV.mT


def _append(state: Latents | None, latents: Latents) -> Latents:
    return latents if state is None else namespace(state, latents).concat([state, latents], axis=-2)

"""Gated linear attention: a linear attention whose memory fades, by as much as each token says.

    Sₜ = Diag(αₜ) Sₜ₋₁ + kₜᵀ vₜ          fade, then write   Yang et al. 2024 (GLA), section 4.1
    oₜ = qₜ Sₜ                           the read
    oₜ = Σₛ≤ₜ Σᵢ qₜᵢ kₛᵢ (αₛ₊₁ ⋯ αₜ)ᵢ vₛ  all t at once      section 4.1, without its quotients of products

    q, k, v     query, key and value of a token, as rows.
    log_decay   log α ≤ 0. One number a token, (*batch, T), fades the whole memory; one for each key channel,
                (*batch, T, K), fades each row of S on its own. Which of the two it is follows from its rank.
                −∞ is a gate of 0: the memory is emptied before the token is written.
    S           the memory, K × V, read as q S.

Decays are never divided by: what is left at t of the token at s is the exponential of the sum of log α between them,
at most 1. For real numbers; the state starts at 0. What does not fit raises TypeError or ValueError, as
`models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.memory.chunks import chunks, empty, segment_sums, tokens

T = Float[Array, "*batch T"]
TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]
KV = Float[Array, "*batch K V"]


@form
def recurrent(q: TK, k: TK, v: TV, log_decay: T | TK, *, state: KV | None = None) -> tuple[TV, KV]:
    """One token after the other, in a memory of constant size: O(T·K·V)."""
    xp = namespace(q, k, v, log_decay)
    S, y = empty(k, v) if state is None else state, []
    for q_t, k_t, v_t, g_t in tokens(q, k, v, _rows(log_decay, k)):
        S = xp.exp(g_t).mT * S + k_t.mT @ v_t
        y.append(q_t @ S)
    return xp.concat(y, axis=-2), S


@form
def parallel(q: TK, k: TK, v: TV, log_decay: T | TK, *, state: KV | None = None) -> tuple[TV, KV]:
    """All tokens at once, as attention: O(T²·(K + V)); a decay for each channel takes an array T × T × K."""
    return _at_once(q, k, v, _rows(log_decay, k), empty(k, v) if state is None else state)


@form
def chunkwise(
    q: TK, k: TK, v: TV, log_decay: T | TK, *, state: KV | None = None, chunk_size: int = 16
) -> tuple[TV, KV]:
    """Parallel inside a chunk of C tokens, recurrent from chunk to chunk: O(T·(C·(K + V) + K·V)). Section 4.2."""
    xp = namespace(q, k, v, log_decay)
    S, y = empty(k, v) if state is None else state, []
    for q_c, k_c, v_c, g_c in chunks(chunk_size, q, k, v, _rows(log_decay, k)):
        o, S = _at_once(q_c, k_c, v_c, g_c, S)
        y.append(o)
    return xp.concat(y, axis=-2), S


@form(compiled=True)
def fused(q: TK, k: TK, v: TV, log_decay: T | TK, *, state: KV | None = None) -> tuple[TV, KV]:
    """The recurrence, compiled for NumPy's float32 and float64, forward and backward: O(T·K·V)."""
    return _compiled(q, k, v, log_decay, empty(k, v) if state is None else state)


_compiled = with_kernel("memory.gated_linear_attention", lambda q, k, v, g, S: chunkwise(q, k, v, g, state=S))


def _rows(log_decay: Array, k: Array) -> Array:
    """Lay the logarithms out as rows (*batch, T, K), or (*batch, T, 1) where one number stands for all channels."""
    return log_decay if log_decay.ndim == k.ndim else log_decay[..., None]


def _at_once(q: Array, k: Array, v: Array, g: Array, S: Array) -> tuple[Array, Array]:
    """All tokens at once from the memory S: what they read of S, and what they read of each other."""
    xp = namespace(q, k, v, g)
    since_start = xp.exp(xp.cumulative_sum(g, axis=-2))  # (T, K or 1): what is left at t of S
    since = xp.exp(segment_sums(g))  # (T, T, K or 1): what is left at t of the token at s
    if g.shape[-1] == 1:
        scores = (q @ k.mT) * since[..., 0]
    else:
        scores = ((k[..., None, :, :] * since) @ q[..., :, :, None])[..., 0]
    y = (q * since_start) @ S + xp.tril(scores) @ v
    return y, since_start[..., -1:, :].mT * S + (k * since[..., -1, :, :]).mT @ v

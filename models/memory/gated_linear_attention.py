"""Gated linear attention (GLA): linear attention whose state decays by a data-dependent gate.

    Sₜ = Diag(αₜ) Sₜ₋₁ + kₜᵀ vₜ          decay and update   Yang et al. 2024 (GLA), section 4.1
    oₜ = qₜ Sₜ                           the output
    oₜ = Σₛ≤ₜ Σᵢ qₜᵢ kₛᵢ (αₛ₊₁ ⋯ αₜ)ᵢ vₛ  the parallel form  section 4.1, without its quotients of products

    q, k, v     query, key and value of a token, as rows.
    log_decay   log α ≤ 0. One number a token, (*batch, T), decays the whole state; one for each key channel,
                (*batch, T, K), decays each row of S by its own. Which of the two it is follows from its rank.
                −∞ is a gate of 0: the state is reset before the update.
    S           the state, K × V, read as q S.

No quotient of decays is taken: the decay from s to t is the exponential of the sum of log α between them, at most 1.
For real numbers; the state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import chunks, decay_rows, decayed_products, initial_memory, segment_sums, tokens

T = Float[Array, "*batch T"]
TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]
KV = Float[Array, "*batch K V"]

MECHANISM = Mechanism(
    arguments={"q": Domain.ANY, "k": Domain.KEYS, "v": Domain.ANY, "log_decay": Domain.LOG_GATE},
    state=Domain.ANY,
    rational=True,
    blocks={"gated_linear_attention": "models.blocks.gated_linear_attention.GatedLinearAttentionBlock"},
)


@form
def recurrent(q: TK, k: TK, v: TV, log_decay: T | TK, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence, token after token: O(T·K·V) time, a state of constant size."""
    xp = namespace(q, k, v, log_decay)
    S, y = initial_memory(state, k, v), []
    for q_t, k_t, v_t, g_t in tokens(q, k, v, decay_rows(log_decay, k)):
        S = xp.exp(g_t).mT * S + k_t.mT @ v_t
        y.append(q_t @ S)
    return xp.concat(y, axis=-2), S


@form(work="T²", memory="T²")
def parallel(q: TK, k: TK, v: TV, log_decay: T | TK, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute all tokens at once, as masked attention: O(T²·(K + V)); a gate per channel needs a T × T × K array."""
    return _parallel(q, k, v, decay_rows(log_decay, k), initial_memory(state, k, v))


@form
def chunkwise(
    q: TK, k: TK, v: TV, log_decay: T | TK, *, state: KV | None = None, chunk_size: int = 16
) -> tuple[TV, KV]:
    """Compute the parallel form in chunks of C tokens, a recurrence between: O(T·(C·(K + V) + K·V)). Section 4.2."""
    xp = namespace(q, k, v, log_decay)
    S, y = initial_memory(state, k, v), []
    for q_c, k_c, v_c, g_c in chunks(chunk_size, q, k, v, decay_rows(log_decay, k)):
        o, S = _parallel(q_c, k_c, v_c, g_c, S)
        y.append(o)
    return xp.concat(y, axis=-2), S


@form(compiled=True)
def fused(q: TK, k: TK, v: TV, log_decay: T | TK, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence by a kernel, forward and backward, for NumPy's float32 and float64: O(T·K·V)."""
    return _compiled(q, k, v, log_decay, initial_memory(state, k, v))


_compiled = with_kernel("memory.gated_linear_attention", lambda q, k, v, g, S: chunkwise(q, k, v, g, state=S))


def _parallel(q: Array, k: Array, v: Array, g: Array, S: Array) -> tuple[Array, Array]:
    """Return (y, state) of all tokens: the decayed contribution of the initial state S, plus masked attention."""
    xp = namespace(q, k, v, g)
    decay_from_start = xp.exp(xp.cumulative_sum(g, axis=-2))  # (T, K or 1)
    decay = xp.exp(segment_sums(g))  # (T, T, K or 1): from s to t
    y = (q * decay_from_start) @ S + xp.tril(decayed_products(q, k, decay)) @ v
    return y, decay_from_start[..., -1:, :].mT * S + (k * decay[..., -1, :, :]).mT @ v

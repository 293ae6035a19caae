"""The gated delta rule (Gated DeltaNet, Kimi Delta Attention): decay the state, then write its prediction's error.

    uₜ = βₜ (vₜ − kₜ Diag(αₜ) Sₜ₋₁)      the update vector of the decayed state
    Sₜ = Diag(αₜ) Sₜ₋₁ + kₜᵀ uₜ          decay and update   = (I − βₜ kₜᵀ kₜ) Diag(αₜ) Sₜ₋₁ + βₜ kₜᵀ vₜ
    oₜ = qₜ Sₜ                           the output         Kimi Team 2025 (Kimi Linear), eq. 1

One αₜ for all channels commutes with kₜᵀ kₜ: this is then αₜ (I − βₜ kₜᵀ kₜ) Sₜ₋₁ + βₜ kₜᵀ vₜ, Gated DeltaNet (Yang et
al. 2025, eq. 10). In a chunk with the initial state S, with γₜ = α₁ ⊙ ⋯ ⊙ αₜ and Γ[t, s] = αₛ₊₁ ⊙ ⋯ ⊙ αₜ (Yang et al.,
section 3.3; Kimi Team, section 3.1):

    (I + A) U = Diag(β) (V − (γ ⊙ K) S)      A[t, s] = βₜ Σᵢ kₜᵢ kₛᵢ Γ[t, s]ᵢ for s < t, else 0
    O  = (γ ⊙ Q) S + P U                     P[t, s] = Σᵢ qₜᵢ kₛᵢ Γ[t, s]ᵢ for s ≤ t, else 0
    S′ = Diag(γ_C) S + (K ⊙ Γ[C])ᵀ U         Γ[C]: the decays to the chunk's end, a row for each token

    q, k, v     query, key and value of a token, as rows; the block around this mechanism normalises q and k.
    beta        β, the writing strength, (*batch, T).
    log_decay   log α ≤ 0. One number a token, (*batch, T), decays the whole state (Gated DeltaNet); one for each key
                channel, (*batch, T, K), each row of S by its own (Kimi Delta Attention). Which of the two it is
                follows from its rank. −∞ is a gate of 0: the state, or the row, is reset before the update.
    S           the state, K × V, read as q S. Yang et al. write V × K.
    u           the update vector; U holds those of a chunk.

Yang et al.'s chunkwise formula for O prints M alone where Γ ∘ M is meant (NVlabs/GatedDeltaNet, issue 15).
Γ is the exponential of sums of log α, never the quotient γₜ / γₛ, nor a product of γₜ and 1/γₛ as in Kimi Team,
section 3.1, whose second factor overflows. For real numbers; the state starts at 0. What does not fit raises TypeError
or ValueError, as `models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import (
    chunks,
    decay_rows,
    decayed_products,
    initial_memory,
    segment_sums,
    tokens,
    unit_lower_inverse,
)

T = Float[Array, "*batch T"]
TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]
KV = Float[Array, "*batch K V"]

MECHANISM = Mechanism(
    arguments={
        "q": Domain.ANY,
        "k": Domain.KEYS,
        "v": Domain.ANY,
        "beta": Domain.NONNEGATIVE,
        "log_decay": Domain.LOG_GATE,
    },
    state=Domain.ANY,
    rational=True,
    blocks={
        "gated_delta_rule": "models.blocks.gated_delta_rule.GatedDeltaRuleBlock",
        "kda": "models.blocks.kda.KimiDeltaAttentionBlock",
    },
)


@form
def recurrent(q: TK, k: TK, v: TV, beta: T, log_decay: T | TK, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence, token after token: O(T·K·V) time, a state of constant size."""
    xp = namespace(q, k, v, beta, log_decay)
    S, y = initial_memory(state, k, v), []
    for q_t, k_t, v_t, beta_t, g_t in tokens(q, k, v, beta[..., None], decay_rows(log_decay, k)):
        S = xp.exp(g_t).mT * S
        u_t = beta_t * (v_t - k_t @ S)
        S = S + k_t.mT @ u_t
        y.append(q_t @ S)
    return xp.concat(y, axis=-2), S


@form
def chunkwise(
    q: TK, k: TK, v: TV, beta: T, log_decay: T | TK, *, state: KV | None = None, chunk_size: int = 16
) -> tuple[TV, KV]:
    """Solve for all update vectors of a chunk of C tokens at once: O(T·(C²·log C + C·(K + V) + K·V)).

    A gate per channel needs an array of C × C × K numbers a chunk.
    """
    xp = namespace(q, k, v, beta, log_decay)
    S, y = initial_memory(state, k, v), []
    for Q, K, V, B, g in chunks(chunk_size, q, k, v, beta[..., None], decay_rows(log_decay, k)):
        gamma = xp.exp(xp.cumulative_sum(g, axis=-2))  # (C, K or 1)
        Gamma = xp.exp(segment_sums(g))  # (C, C, K or 1); 1 above the diagonal, which tril removes
        A = B * decayed_products(K, K, Gamma)  # (C, C); the inverse reads only the strictly lower triangle
        U = unit_lower_inverse(A) @ (B * (V - (gamma * K) @ S))
        y.append((gamma * Q) @ S + xp.tril(decayed_products(Q, K, Gamma)) @ U)
        S = gamma[..., -1:, :].mT * S + (K * Gamma[..., -1, :, :]).mT @ U
    return xp.concat(y, axis=-2), S


@form(compiled=True)
def fused(q: TK, k: TK, v: TV, beta: T, log_decay: T | TK, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence by a kernel, forward and backward, for NumPy's float32 and float64: O(T·K·V)."""
    return _compiled(q, k, v, beta, log_decay, initial_memory(state, k, v))


_compiled = with_kernel("memory.gated_delta_rule", lambda q, k, v, beta, g, S: chunkwise(q, k, v, beta, g, state=S))

"""The gated delta rule (Gated DeltaNet): decay the state, then write the error of its prediction.

    uₜ = βₜ (vₜ − αₜ kₜ Sₜ₋₁)            the update vector of the decayed state
    Sₜ = αₜ Sₜ₋₁ + kₜᵀ uₜ                decay and update   = αₜ (I − βₜ kₜᵀ kₜ) Sₜ₋₁ + βₜ kₜᵀ vₜ
    oₜ = qₜ Sₜ                           the output         Yang et al. 2025 (Gated DeltaNet), eq. 10

In a chunk with the initial state S, with γₜ = α₁ ⋯ αₜ and Γ[t, s] = αₛ₊₁ ⋯ αₜ (section 3.3):

    (I + A) U = Diag(β) (V − Diag(γ) K S),   A[t, s] = βₜ (kₜ kₛᵀ) Γ[t, s] for s < t, else 0
    O  = Diag(γ) Q S + (Q Kᵀ ∘ Γ ∘ M) U      M[t, s] = 1 for s ≤ t, else 0
    S′ = γ_C S + (Kᵀ ∘ Γ[C]) U               Γ[C]: the last row of Γ, the decays to the chunk's end

    q, k, v     query, key and value of a token, as rows; the block around this mechanism normalises q and k.
    beta        β, the writing strength, (*batch, T).
    log_decay   log α ≤ 0, (*batch, T). −∞ is a gate of 0: the state is reset before the update.
    S           the state, K × V, read as q S. The paper writes V × K.
    u           the update vector; U holds those of a chunk.

The paper's chunkwise formula for O prints M alone where Γ ∘ M is meant (NVlabs/GatedDeltaNet, issue 15).
Γ is the exponential of sums of log α, never the quotient γₜ / γₛ. For real numbers; the state starts at 0. What does
not fit raises TypeError or ValueError, as `models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import chunks, initial_memory, segment_sums, tokens, unit_lower_inverse

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
    blocks={"gated_delta_rule": "models.blocks.gated_delta_rule.GatedDeltaRuleBlock"},
)


@form
def recurrent(q: TK, k: TK, v: TV, beta: T, log_decay: T, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence, token after token: O(T·K·V) time, a state of constant size."""
    xp = namespace(q, k, v, beta, log_decay)
    S, y = initial_memory(state, k, v), []
    for q_t, k_t, v_t, beta_t, g_t in tokens(q, k, v, beta[..., None], log_decay[..., None]):
        S = xp.exp(g_t) * S
        u_t = beta_t * (v_t - k_t @ S)
        S = S + k_t.mT @ u_t
        y.append(q_t @ S)
    return xp.concat(y, axis=-2), S


@form
def chunkwise(
    q: TK, k: TK, v: TV, beta: T, log_decay: T, *, state: KV | None = None, chunk_size: int = 16
) -> tuple[TV, KV]:
    """Solve for all update vectors of a chunk of C tokens at once: O(T·(C²·log C + C·(K + V) + K·V))."""
    xp = namespace(q, k, v, beta, log_decay)
    S, y = initial_memory(state, k, v), []
    for Q, K, V, B, g in chunks(chunk_size, q, k, v, beta[..., None], log_decay[..., None]):
        gamma = xp.exp(xp.cumulative_sum(g, axis=-2))  # (C, 1)
        Gamma = xp.exp(segment_sums(g))[..., 0]  # (C, C); 1 above the diagonal, which tril removes
        A = B * (K @ K.mT) * Gamma  # (C, C); the inverse reads only the strictly lower triangle
        U = unit_lower_inverse(A) @ (B * (V - gamma * (K @ S)))
        y.append(gamma * (Q @ S) + xp.tril(Q @ K.mT * Gamma) @ U)
        S = gamma[..., -1:, :] * S + (K.mT * Gamma[..., -1:, :]) @ U
    return xp.concat(y, axis=-2), S


@form(compiled=True)
def fused(q: TK, k: TK, v: TV, beta: T, log_decay: T, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence by a kernel, forward and backward, for NumPy's float32 and float64: O(T·K·V)."""
    return _compiled(q, k, v, beta, log_decay, initial_memory(state, k, v))


_compiled = with_kernel("memory.gated_delta_rule", lambda q, k, v, beta, g, S: chunkwise(q, k, v, beta, g, state=S))

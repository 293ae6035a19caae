"""RWKV-7's memory: a matrix whose transition is diagonal plus rank one, the generalised delta rule.

    zₜ = aₜ Sₜ₋₁                                the read whose answer is written back
    Sₜ = Diag(αₜ) Sₜ₋₁ + bₜᵀ zₜ + kₜᵀ vₜ        decay and update      Peng et al. 2025 (RWKV-7), eq. 17
    yₜ = rₜ Sₜ                                  the output

RWKV-7 has aₜ = −κ̂ₜ and bₜ = κ̂ₜ ∘ ηₜ, with κ̂ the removal key, of length 1, and η the in-context learning rate, which
the paper calls a: its eq. 17, Sₜ = Sₜ₋₁ (diag(wₜ) − κ̂ₜᵀ (aₜ ∘ κ̂ₜ)) + vₜᵀ k̃ₜ, holds the transpose of S.

In a chunk with the initial state S, with Γ[t, s] = αₛ₊₁ ⋯ αₜ and γₜ = α₁ ⋯ αₜ, both of K channels:

    (I − A) Z = (γₜ₋₁ ∘ aₜ)ₜ S + A′ V          A[t, s]  = Σ aₜ ∘ Γ[t−1, s] ∘ bₛ for s < t, A′ so with kₛ, else 0
    Y  = (γₜ ∘ rₜ)ₜ S + B Z + B′ V             B[t, s]  = Σ rₜ ∘ Γ[t, s] ∘ bₛ for s ≤ t, B′ so with kₛ, else 0
    S′ = Diag(γ_C) S + Σₛ (Γ[C, s] ∘ bₛ)ᵀ zₛ + (Γ[C, s] ∘ kₛ)ᵀ vₛ

    r, k, v     receptance (a query), key and value of a token, as rows; the paper's key here is k̃.
    a, b        what the state is read with, and with which the answer is written back, (*batch, T, K).
    log_decay   log α ≤ 0 of each key channel, (*batch, T, K). −∞ is a gate of 0.
    S           the state, K × V, read as r S. The paper writes V × K.

No quotient of decays is taken: Γ is the exponential of sums of log α, at most 1. The paper's −κ̂ is a single a here, and
need not be b's direction: all transitions that are diagonal plus rank one are covered, as in fla's `dplr_delta_rule`.
For real numbers; the state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import chunks, initial_memory, segment_sums, tokens, unit_lower_inverse

TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]
KV = Float[Array, "*batch K V"]

MECHANISM = Mechanism(
    arguments={
        "r": Domain.ANY,
        "k": Domain.KEYS,
        "v": Domain.ANY,
        "a": Domain.KEYS,
        "b": Domain.SMALL,
        "log_decay": Domain.LOG_GATE,
    },
    state=Domain.ANY,
    rational=True,
    blocks={"rwkv7": "models.blocks.rwkv7.RWKV7Block"},
)


@form
def recurrent(r: TK, k: TK, v: TV, a: TK, b: TK, log_decay: TK, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence, token after token: O(T·K·V) time, a state of constant size."""
    xp = namespace(r, k, v, a, b, log_decay)
    S, y = initial_memory(state, k, v), []
    for r_t, k_t, v_t, a_t, b_t, g_t in tokens(r, k, v, a, b, log_decay):
        z_t = a_t @ S
        S = xp.exp(g_t).mT * S + b_t.mT @ z_t + k_t.mT @ v_t
        y.append(r_t @ S)
    return xp.concat(y, axis=-2), S


@form
def chunkwise(
    r: TK, k: TK, v: TV, a: TK, b: TK, log_decay: TK, *, state: KV | None = None, chunk_size: int = 16
) -> tuple[TV, KV]:
    """Solve for all reads z of a chunk of C tokens at once: O(T·(C²·log C + C·K + C·V + K·V)), by a C × C × K array."""
    xp = namespace(r, k, v, a, b, log_decay)
    S, y = initial_memory(state, k, v), []
    for R, K, V, a_c, b_c, g in chunks(chunk_size, r, k, v, a, b, log_decay):
        gamma = xp.exp(xp.cumulative_sum(g, axis=-2))  # (C, K)
        Gamma = xp.exp(segment_sums(g))  # (C, C, K); 1 for s ≥ t
        before = xp.concat([xp.ones_like(gamma[..., :1, :]), gamma[..., :-1, :]], axis=-2)  # γₜ₋₁
        Before = xp.concat([xp.ones_like(Gamma[..., :1, :, :]), Gamma[..., :-1, :, :]], axis=-3)  # Γ[t−1, s]
        A = _products(a_c, Before, b_c)  # (C, C); the inverse reads only the strictly lower triangle
        Z = unit_lower_inverse(-A) @ ((before * a_c) @ S + xp.tril(_products(a_c, Before, K), k=-1) @ V)
        y.append((gamma * R) @ S + xp.tril(_products(R, Gamma, b_c)) @ Z + xp.tril(_products(R, Gamma, K)) @ V)
        to_end = Gamma[..., -1, :, :]  # (C, K)
        S = gamma[..., -1:, :].mT * S + (to_end * b_c).mT @ Z + (to_end * K).mT @ V
    return xp.concat(y, axis=-2), S


@form(compiled=True)
def fused(r: TK, k: TK, v: TV, a: TK, b: TK, log_decay: TK, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence by a kernel, forward and backward, for NumPy's float32 and float64: O(T·K·V)."""
    return _compiled(r, k, v, a, b, log_decay, initial_memory(state, k, v))


_compiled = with_kernel("recurrent.rwkv7", lambda r, k, v, a, b, g, S: chunkwise(r, k, v, a, b, g, state=S))


def _products(x: Array, Gamma: Array, y: Array) -> Array:
    """Return Σᵢ xₜᵢ Γ[t, s]ᵢ yₛᵢ, (*batch, C, C), for x and y (*batch, C, K)."""
    return ((y[..., None, :, :] * Gamma) @ x[..., :, :, None])[..., 0]

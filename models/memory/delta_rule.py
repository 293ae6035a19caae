"""The delta rule (DeltaNet): linear attention that writes the error of the state's prediction instead of the value.

    uₜ = βₜ (vₜ − kₜ Sₜ₋₁)               the update vector  Schlag et al. 2021, section 4.2
    Sₜ = Sₜ₋₁ + kₜᵀ uₜ                   the state update   = (I − βₜ kₜᵀ kₜ) Sₜ₋₁ + βₜ kₜᵀ vₜ
    oₜ = qₜ Sₜ                           the output

In a chunk with the initial state S, every update vector depends on those before it: Sₜ₋₁ = S + Σₛ kₛᵀ uₛ, s < t.
Together they solve one unit lower triangular system (Yang et al. 2024, DeltaNet, section 3: WY representation and
UT transform):

    (I + A) U = Diag(β) (V − K S),       A[t, s] = βₜ kₜ kₛᵀ for s < t, else 0
    O  = Q S + (Q Kᵀ ∘ M) U              M[t, s] = 1 for s ≤ t, else 0
    S′ = S + Kᵀ U

    q, k, v   query, key and value of a token, as rows. Schlag et al. divide q and k by their sums, DeltaNet (section
              3.3) by their L2 norms; that is done by the block around this mechanism.
    beta      β, the writing strength, (*batch, T): 0 writes nothing, 1 replaces the value stored under a unit key.
    S         the state, K × V, read as q S. The papers write V × K.
    u         the update vector, U those of a chunk. The paper splits U into (I + A)⁻¹ Diag(β) V and
              (I + A)⁻¹ Diag(β) K; solving for U itself is equivalent and takes one product less.

For real numbers; the state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import chunks, initial_memory, tokens, unit_lower_inverse

T = Float[Array, "*batch T"]
TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]
KV = Float[Array, "*batch K V"]

MECHANISM = Mechanism(
    arguments={"q": Domain.ANY, "k": Domain.KEYS, "v": Domain.ANY, "beta": Domain.NONNEGATIVE},
    state=Domain.ANY,
    rational=True,
    blocks={"delta_rule": "models.blocks.delta_rule.DeltaRuleBlock"},
)


@form
def recurrent(q: TK, k: TK, v: TV, beta: T, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence, token after token: O(T·K·V) time, a state of constant size."""
    xp = namespace(q, k, v, beta)
    S, y = initial_memory(state, k, v), []
    for q_t, k_t, v_t, beta_t in tokens(q, k, v, beta[..., None]):
        u_t = beta_t * (v_t - k_t @ S)
        S = S + k_t.mT @ u_t
        y.append(q_t @ S)
    return xp.concat(y, axis=-2), S


@form
def chunkwise(q: TK, k: TK, v: TV, beta: T, *, state: KV | None = None, chunk_size: int = 16) -> tuple[TV, KV]:
    """Solve for all update vectors of a chunk of C tokens at once: O(T·(C²·log C + C·(K + V) + K·V))."""
    xp = namespace(q, k, v, beta)
    S, y = initial_memory(state, k, v), []
    for Q, K, V, B in chunks(chunk_size, q, k, v, beta[..., None]):
        A = B * (K @ K.mT)  # (C, C); the inverse reads only the strictly lower triangle
        U = unit_lower_inverse(A) @ (B * (V - K @ S))
        y.append(Q @ S + xp.tril(Q @ K.mT) @ U)
        S = S + K.mT @ U
    return xp.concat(y, axis=-2), S


@form(compiled=True)
def fused(q: TK, k: TK, v: TV, beta: T, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence by a kernel, forward and backward, for NumPy's float32 and float64: O(T·K·V)."""
    return _compiled(q, k, v, beta, initial_memory(state, k, v))


_compiled = with_kernel("memory.delta_rule", lambda q, k, v, beta, S: chunkwise(q, k, v, beta, state=S))

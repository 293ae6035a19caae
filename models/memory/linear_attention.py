"""Linear attention: attention without the softmax, an RNN whose state is the sum of k vᵀ over past tokens.

    Sₜ = Sₜ₋₁ + kₜᵀ vₜ                   the state update   Katharopoulos et al. 2020, eq. 10 and 18
    oₜ = qₜ Sₜ                           the output         eq. 12 and 20, without the denominator
    O  = (Q Kᵀ ∘ M) V                    the parallel form  Yang et al. 2024 (GLA), section 2.1; M[t, s] = 1 for s ≤ t

    q, k, v   rows of Q, K, V: query, key and value of a token. The feature map φ and the denominator of the paper
              are in `models.attention.feature_maps`; here q and k are φ(q) and φ(k).
    S         the state, K × V, read as q S. Some papers write its transpose.
    o         the output; `y` holds all of them.

For real numbers; the state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import chunks, initial_memory, tokens

TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]
KV = Float[Array, "*batch K V"]

MECHANISM = Mechanism(
    arguments={"q": Domain.ANY, "k": Domain.KEYS, "v": Domain.ANY},
    state=Domain.ANY,
    rational=True,
    blocks={"linear_attention": "models.blocks.linear_attention.LinearAttentionBlock"},
)


@form
def recurrent(q: TK, k: TK, v: TV, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence, token after token: O(T·K·V) time, a state of constant size."""
    xp = namespace(q, k, v)
    S, y = initial_memory(state, k, v), []
    for q_t, k_t, v_t in tokens(q, k, v):
        S = S + k_t.mT @ v_t
        y.append(q_t @ S)
    return xp.concat(y, axis=-2), S


@form(work="T²", memory="T²")
def parallel(q: TK, k: TK, v: TV, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute all tokens at once, as masked attention: O(T²·(K + V))."""
    xp = namespace(q, k, v)
    S = initial_memory(state, k, v)
    return q @ S + xp.tril(q @ k.mT) @ v, S + k.mT @ v


@form
def chunkwise(q: TK, k: TK, v: TV, *, state: KV | None = None, chunk_size: int = 64) -> tuple[TV, KV]:
    """Compute the parallel form in chunks of C tokens, the recurrence between them: O(T·(C·(K + V) + K·V)).

    Yang et al. 2024 (GLA), section 2.2.
    """
    xp = namespace(q, k, v)
    y = []
    for q_c, k_c, v_c in chunks(chunk_size, q, k, v):
        o, state = parallel(q_c, k_c, v_c, state=state)
        y.append(o)
    return xp.concat(y, axis=-2), state


@form(compiled=True)
def fused(q: TK, k: TK, v: TV, *, state: KV | None = None) -> tuple[TV, KV]:
    """Compute the recurrence by a kernel, forward and backward, for NumPy's float32 and float64: O(T·K·V)."""
    return _compiled(q, k, v, initial_memory(state, k, v))


_compiled = with_kernel("memory.linear_attention", lambda q, k, v, S: chunkwise(q, k, v, state=S))

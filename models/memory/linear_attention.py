"""Linear attention: attention without the softmax, which is an RNN whose state is the sum of all k vᵀ.

    Sₜ = Sₜ₋₁ + kₜᵀ vₜ                   the write          Katharopoulos et al. 2020, eq. 10 and 18
    oₜ = qₜ Sₜ                           the read           eq. 12 and 20, without the denominator
    O  = (Q Kᵀ ∘ M) V                    all t at once      Yang et al. 2024 (GLA), section 2.1; M[t, s] = 1 for s ≤ t

    q, k, v   rows of Q, K, V: query, key and value of a token. The feature map φ and the denominator of the paper
              are in `models.attention.feature_maps`; here q and k are what φ has made of them.
    S         the memory, K × V. The papers differ in which way it lies; here it is read as q S.
    o         the output; `y` holds all of them.

For real numbers; the state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.memory.chunks import chunks, empty, tokens

TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]
KV = Float[Array, "*batch K V"]


@form
def recurrent(q: TK, k: TK, v: TV, *, state: KV | None = None) -> tuple[TV, KV]:
    """One token after the other, in a memory of constant size: O(T·K·V)."""
    xp = namespace(q, k, v)
    S, y = empty(k, v) if state is None else state, []
    for q_t, k_t, v_t in tokens(q, k, v):
        S = S + k_t.mT @ v_t
        y.append(q_t @ S)
    return xp.concat(y, axis=-2), S


@form
def parallel(q: TK, k: TK, v: TV, *, state: KV | None = None) -> tuple[TV, KV]:
    """All tokens at once, as attention: O(T²·(K + V))."""
    xp = namespace(q, k, v)
    S = empty(k, v) if state is None else state
    return q @ S + xp.tril(q @ k.mT) @ v, S + k.mT @ v


@form
def chunkwise(q: TK, k: TK, v: TV, *, state: KV | None = None, chunk_size: int = 64) -> tuple[TV, KV]:
    """Parallel inside a chunk of C tokens, recurrent from chunk to chunk: O(T·(C·(K + V) + K·V)).

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
    """The recurrence, compiled for NumPy's float32 and float64, forward and backward: O(T·K·V)."""
    return _compiled(q, k, v, empty(k, v) if state is None else state)


_compiled = with_kernel("memory.linear_attention", lambda q, k, v, S: chunkwise(q, k, v, state=S))

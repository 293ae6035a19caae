"""State-space duality (SSD, Mamba-2): a selective scan with a scalar A per head is attention with a mask of decays.

    Sₜ = exp(Δₜ A) Sₜ₋₁ + Bₜᵀ Δₜ xₜ        the recurrence                  Dao and Gu 2024 (Mamba-2), eq. 2
    yₜ = Cₜ Sₜ                             the output
    Y  = (L ∘ C Bᵀ) Δ X                    its dual: all t at once         section 5
    L[t, s] = exp(Δₛ₊₁A + … + ΔₜA)         s ≤ t, else 0: 1-semiseparable  section 3

    x        the input, (*batch, T, P). Heads are a batch axis: (…, H, T, P).
    delta    Δ ≥ 0, the step, (*batch, T).
    A        ≤ 0, one rate a head: a number, (), or as many as the last batch axes have, such as (H,).
    B, C     input and output projections of a token, (*batch, T, N): keys and queries of the dual form.
    S        the state, N × P, read as C S. The paper writes P × N.

B̄ = ΔB as in the selective scan, and not zero-order hold. The skip D x is the block's. No quotient of decays is taken:
the decay from s to t is the exponential of the sum of ΔA between them. For real numbers; the state starts at
0. What does not fit raises TypeError or ValueError, as `models.forms` says, and so do A > 0 and Δ < 0.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import (
    check_rates,
    chunk_boundary_states,
    initial_memory,
    pad_and_chunk,
    segment_sums,
    tokens,
)

T = Float[Array, "*batch T"]
TP = Float[Array, "*batch T P"]
TN = Float[Array, "*batch T N"]
NP = Float[Array, "*batch N P"]
Rate = Float[Array, "..."]

MECHANISM = Mechanism(
    arguments={
        "x": Domain.ANY,
        "delta": Domain.POSITIVE,
        "A": Domain.NEGATIVE,
        "B": Domain.SMALL,
        "C": Domain.ANY,
    },
    state=Domain.ANY,
    rational=False,
    blocks={"mamba2": "models.blocks.mamba2.Mamba2Block"},
)


@form
def recurrent(x: TP, delta: T, A: Rate, B: TN, C: TN, *, state: NP | None = None) -> tuple[TP, NP]:
    """Compute the recurrence, token after token: O(T·N·P) time, a state of constant size."""
    xp, log_decay = namespace(x, delta, A, B, C), _log_decay("ssd.recurrent", delta, A)
    S, y = initial_memory(state, B, x), []
    for x_t, delta_t, g_t, B_t, C_t in tokens(x, delta[..., None], log_decay[..., None], B, C):
        S = xp.exp(g_t) * S + B_t.mT @ (delta_t * x_t)
        y.append(C_t @ S)
    return xp.concat(y, axis=-2), S


@form(work="T²", memory="T²")
def quadratic(x: TP, delta: T, A: Rate, B: TN, C: TN, *, state: NP | None = None) -> tuple[TP, NP]:
    """Compute all tokens at once, as masked attention: O(T²·(N + P))."""
    log_decay = _log_decay("ssd.quadratic", delta, A)
    return dual(delta[..., None] * x, log_decay, B, C, initial_memory(state, B, x))


@form
def chunkwise(
    x: TP, delta: T, A: Rate, B: TN, C: TN, *, state: NP | None = None, chunk_size: int = 64
) -> tuple[TP, NP]:
    """Compute the dual form in chunks of C tokens, the recurrence between them: O(T·(C·(N + P) + N·P)). Section 6."""
    log_decay = _log_decay("ssd.chunkwise", delta, A)
    return chunked(delta[..., None] * x, log_decay, B, C, initial_memory(state, B, x), chunk_size)


@form(compiled=True)
def fused(x: TP, delta: T, A: Rate, B: TN, C: TN, *, state: NP | None = None) -> tuple[TP, NP]:
    """Compute the recurrence by a kernel, forward and backward, for NumPy's float32 and float64: O(T·N·P)."""
    log_decay = _log_decay("ssd.fused", delta, A)
    return _compiled(C, B, delta[..., None] * x, log_decay, initial_memory(state, B, x))


def dual(v: Array, log_decay: Array, B: Array, C: Array, S: Array) -> tuple[Array, Array]:
    """Return (y, state) for v = Δx: (L ∘ C Bᵀ) v, plus the decayed contribution of the initial state S."""
    xp = namespace(v, log_decay, B, C, S)
    L = xp.exp(segment_sums(log_decay[..., None]))[..., 0]  # (T, T): the decay from s to t
    decay_from_start = xp.exp(xp.cumulative_sum(log_decay, axis=-1))[..., None]  # (T, 1)
    y = xp.tril(L * (C @ B.mT)) @ v + decay_from_start * (C @ S)
    return y, decay_from_start[..., -1:, :] * S + (L[..., -1, :, None] * B).mT @ v


def chunked(v: Array, log_decay: Array, B: Array, C: Array, S: Array, chunk_size: int) -> tuple[Array, Array]:
    """Return what `dual` returns, in the four steps and the names of Dao and Gu 2024, listing 1 (`ssd_minimal`)."""
    xp, length = namespace(v, log_decay, B, C, S), v.shape[-2]
    X, B, C = (pad_and_chunk(x, chunk_size, axis=-2) for x in (v, B, C))  # (*batch, T, ·) → (*batch, chunks, l, ·)
    A = pad_and_chunk(log_decay, chunk_size, axis=-1)  # (*batch, T) → (*batch, chunks, l)
    A_cumsum = xp.cumulative_sum(A, axis=-1)

    # 1. The output of each chunk from a zero state: the diagonal blocks of the semiseparable matrix.
    L = xp.exp(segment_sums(A[..., None]))[..., 0]  # (…, l, l); 1 above the diagonal, where the listing has 0: so tril
    Y_diag = xp.tril(L * (C @ B.mT)) @ X  # (…, l, P)

    # 2. The final state of each chunk from a zero state: the right factor (B) of the off-diagonal blocks.
    # The decays to the chunk's end are the last row of L. The listing has exp(A_cumsum[-1] − A_cumsum), which is NaN
    # after a decay to 0, where both are −∞.
    decay_states = L[..., -1, :, None]  # (…, l, 1)
    states = (decay_states * B).mT @ X  # (…, N, P)

    # 3. The recurrence between chunks: the states at their boundaries. The listing multiplies by a matrix of decays
    # between all pairs of chunks, O((T/l)²); a scan takes O(T/l).
    states = chunk_boundary_states(A_cumsum[..., -1, None, None], states, S)  # (…, chunks + 1, N, P)
    states, final_state = states[..., :-1, :, :], states[..., -1, :, :]

    # 4. The output of each chunk from the state at its start: the left factor (C) of the off-diagonal blocks.
    state_decay_out = xp.exp(A_cumsum)[..., None]  # (…, l, 1)
    Y_off = state_decay_out * (C @ states)

    # (*batch, chunks, l, P) → (*batch, T + padding, P)
    Y = xp.reshape(Y_diag + Y_off, (*S.shape[:-2], Y_diag.shape[-3] * chunk_size, X.shape[-1]))
    return Y[..., :length, :], final_state


# Gated linear attention with one gate a token: q = C, k = B, v = Δx, log α = ΔA.
_compiled = with_kernel("ssm.ssd", lambda C, B, v, log_decay, S: chunked(v, log_decay, B, C, S, 64))


def _log_decay(label: str, delta: Array, A: Array) -> Array:
    """Return ΔA, (*batch, T)."""
    check_rates(label, delta, A)
    heads = delta.shape[: delta.ndim - 1]
    if tuple(A.shape) != tuple(heads[len(heads) - A.ndim :] if A.ndim else ()):
        swapped = tuple(A.shape) == tuple(delta.shape[-1:])
        why = ": x seems to have time before heads, (…, T, H, P), expected (…, H, T, P)" if swapped else ""
        raise ValueError(
            f"{label}: A has shape {tuple(A.shape)}, expected () or the last of the batch axes {heads}{why}"
        )
    return delta * A[..., None]

"""State-space duality: with one rate a head, the selective scan is attention under a mask of decays (Mamba-2).

    Sₜ = exp(Δₜ A) Sₜ₋₁ + Bₜᵀ Δₜ xₜ        the recurrence                  Dao and Gu 2024 (Mamba-2), eq. 2
    yₜ = Cₜ Sₜ                             the read
    Y  = (L ∘ C Bᵀ) Δ X                    its dual: all t at once         section 5
    L[t, s] = exp(Δₛ₊₁A + … + ΔₜA)         s ≤ t, else 0: 1-semiseparable  section 3

    x        the input, (*batch, T, P). Heads are a batch axis: (…, H, T, P).
    delta    Δ ≥ 0, the step, (*batch, T).
    A        ≤ 0, one rate a head: a number, (), or as many as the last batch axes have, such as (H,).
    B, C     how a token enters and reads the state, (*batch, T, N): the keys and the queries.
    S        the state, N × P, read as C S. The paper writes P × N.

B̄ = ΔB as in the selective scan, and not zero-order hold. The skip D x is the block's. Decays are never divided by: what
is left at t of the token at s is the exponential of the sum of ΔA between them. For real numbers; the state starts at
0. What does not fit raises TypeError or ValueError, as `models.forms` says, and so do A > 0 and Δ < 0.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.memory.chunks import empty, segment_sums, tokens
from models.ssm.selective_scan import carried, check_rates, cut

T = Float[Array, "*batch T"]
TP = Float[Array, "*batch T P"]
TN = Float[Array, "*batch T N"]
NP = Float[Array, "*batch N P"]
Rate = Float[Array, "..."]


@form
def recurrent(x: TP, delta: T, A: Rate, B: TN, C: TN, *, state: NP | None = None) -> tuple[TP, NP]:
    """One token after the other, in a state of constant size: O(T·N·P)."""
    xp, log_decay = namespace(x, delta, A, B, C), _log_decay("ssd.recurrent", delta, A)
    S, y = empty(B, x) if state is None else state, []
    for x_t, delta_t, g_t, B_t, C_t in tokens(x, delta[..., None], log_decay[..., None], B, C):
        S = xp.exp(g_t) * S + B_t.mT @ (delta_t * x_t)
        y.append(C_t @ S)
    return xp.concat(y, axis=-2), S


@form
def quadratic(x: TP, delta: T, A: Rate, B: TN, C: TN, *, state: NP | None = None) -> tuple[TP, NP]:
    """All tokens at once, as attention: O(T²·(N + P))."""
    log_decay = _log_decay("ssd.quadratic", delta, A)
    return dual(delta[..., None] * x, log_decay, B, C, empty(B, x) if state is None else state)


@form
def chunkwise(
    x: TP, delta: T, A: Rate, B: TN, C: TN, *, state: NP | None = None, chunk_size: int = 64
) -> tuple[TP, NP]:
    """The dual inside chunks of C tokens, the recurrence between them: O(T·(C·(N + P) + N·P)). Section 6."""
    log_decay = _log_decay("ssd.chunkwise", delta, A)
    return in_chunks(delta[..., None] * x, log_decay, B, C, empty(B, x) if state is None else state, chunk_size)


@form(compiled=True)
def fused(x: TP, delta: T, A: Rate, B: TN, C: TN, *, state: NP | None = None) -> tuple[TP, NP]:
    """The recurrence, compiled for NumPy's float32 and float64, forward and backward: O(T·N·P)."""
    log_decay = _log_decay("ssd.fused", delta, A)
    return _compiled(C, B, delta[..., None] * x, log_decay, empty(B, x) if state is None else state)


def dual(v: Array, log_decay: Array, B: Array, C: Array, S: Array) -> tuple[Array, Array]:
    """Return (y, state) for v = Δx by (L ∘ C Bᵀ) v, and what is left of S."""
    xp = namespace(v, log_decay, B, C, S)
    since = xp.exp(segment_sums(log_decay[..., None]))[..., 0]  # (T, T): what is left at t of the token at s
    since_start = xp.exp(xp.cumulative_sum(log_decay, axis=-1))[..., None]
    y = xp.tril(since * (C @ B.mT)) @ v + since_start * (C @ S)
    return y, since_start[..., -1:, :] * S + (since[..., -1, :, None] * B).mT @ v


def in_chunks(v: Array, log_decay: Array, B: Array, C: Array, S: Array, size: int) -> tuple[Array, Array]:
    """Return what `dual` returns: every chunk from an empty state, then what it inherits, faded."""
    xp, length = namespace(v, log_decay, B, C, S), v.shape[-2]
    v, B, C = (cut(x, size, axis=-2) for x in (v, B, C))  # (*batch, chunks, C, features)
    log_decay = cut(log_decay, size, axis=-1)
    y, own = dual(v, log_decay, B, C, empty(B, v))
    since_start = xp.cumulative_sum(log_decay, axis=-1)
    states = carried(since_start[..., -1, None, None], own, S)
    y = y + xp.exp(since_start)[..., None] * (C @ states[..., :-1, :, :])
    y = xp.reshape(y, (*S.shape[:-2], y.shape[-3] * size, y.shape[-1]))
    return y[..., :length, :], states[..., -1, :, :]


# Gated linear attention with one gate a token: q = C, k = B, v = Δx, log α = ΔA.
_compiled = with_kernel("ssm.ssd", lambda C, B, v, log_decay, S: in_chunks(v, log_decay, B, C, S, size=64))


def _log_decay(label: str, delta: Array, A: Array) -> Array:
    """Return ΔA, (*batch, T)."""
    check_rates(label, delta, A)
    heads = delta.shape[: delta.ndim - 1]
    if tuple(A.shape) != tuple(heads[len(heads) - A.ndim :] if A.ndim else ()):
        raise ValueError(f"{label}: A has shape {tuple(A.shape)}, expected () or the last of the batch axes {heads}")
    return delta * A[..., None]

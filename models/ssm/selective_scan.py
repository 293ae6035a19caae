"""The selective scan (Mamba's S6): a diagonal state space model whose Δ, B and C depend on the input.

    Āₜ = exp(Δₜ A)                                  zero-order hold      Gu and Dao 2023 (Mamba), eq. 4
    B̄ₜ = Δₜ Bₜ                                      Mamba's code; its eq. 4 says (ΔA)⁻¹(exp(ΔA) − 1) ΔB instead
    hₜ = Āₜ ⊙ hₜ₋₁ + B̄ₜ uₜ                          the recurrence       eq. 2a
    yₜ = Cₜ hₜ + D uₜ                               the output           eq. 2b, and the skip of its code
    (a₂, b₂) ∘ (a₁, b₁) = (a₂ a₁, a₂ b₁ + b₂)       composition of steps Blelloch 1990, section 1.4

    u        the input, (*batch, T, D): D channels, each with a state of its own.
    delta    Δ ≥ 0, the step, (*batch, T, D). 0 passes the state on unchanged, which is what softplus rounds down to.
    A        ≤ 0, the rates, (D, N): the diagonals of D matrices.
    B, C     input and output projections of a token, (*batch, T, N), shared by all channels.
    D        the skip connection, (D,).
    h        the state, (*batch, D, N).

Deviation from the paper: B̄ as the code has it. One step of it differs from zero-order hold by O(Δ²)
(proofs.identities.selective).

No quotient of decays is taken: a product of decays is the exponential of a sum of ΔA, at most 1. For real numbers;
the state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says, and so do A > 0, Δ < 0.
"""

from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import (
    check_rates,
    chunk_boundary_states,
    fold_in_initial_state,
    initial_state,
    pad_and_chunk,
    tokens,
)

TD = Float[Array, "*batch T D"]
TN = Float[Array, "*batch T N"]
DN = Float[Array, "D N"]
Skip = Float[Array, "D"]
H = Float[Array, "*batch D N"]

MECHANISM = Mechanism(
    arguments={
        "u": Domain.ANY,
        "delta": Domain.POSITIVE,
        "A": Domain.NEGATIVE,
        "B": Domain.SMALL,
        "C": Domain.ANY,
        "D": Domain.ANY,
    },
    state=Domain.ANY,
    rational=False,
    blocks={"mamba": "models.blocks.mamba.MambaBlock"},
)


@form
def recurrent(u: TD, delta: TD, A: DN, B: TN, C: TN, D: Skip, *, state: H | None = None) -> tuple[TD, H]:
    """Compute the recurrence, token after token: O(T·D·N) time, a state of constant size."""
    check_rates("selective_scan.recurrent", delta, A)
    xp = namespace(u, delta, A, B, C, D)
    h, y = initial_state(state, u, A), []
    for u_t, delta_t, B_t, C_t in tokens(u, delta, B, C):
        h = xp.exp(delta_t.mT * A) * h + (delta_t * u_t).mT @ B_t
        y.append(C_t @ h.mT)
    return xp.concat(y, axis=-2) + D * u, h


@form(work="T log T")
def associative(u: TD, delta: TD, A: DN, B: TN, C: TN, D: Skip, *, state: H | None = None) -> tuple[TD, H]:
    """Compute all tokens at once, in log₂ T rounds of the operator ∘: O(T·log T·D·N). Hillis and Steele 1986."""
    check_rates("selective_scan.associative", delta, A)
    h = hillis_steele_scan(*_discrete(u, delta, A, B), initial_state(state, u, A))
    return _output(h, u, C, D), h[..., -1, :, :]


@form
def chunkwise(
    u: TD, delta: TD, A: DN, B: TN, C: TN, D: Skip, *, state: H | None = None, chunk_size: int = 64
) -> tuple[TD, H]:
    """Scan all chunks of C tokens at once, then the states at their boundaries, in C + T/C steps: O(T·D·N)."""
    check_rates("selective_scan.chunkwise", delta, A)
    h = chunked_scan(*_discrete(u, delta, A, B), initial_state(state, u, A), chunk_size)
    return _output(h, u, C, D), h[..., -1, :, :]


@form(compiled=True)
def fused(u: TD, delta: TD, A: DN, B: TN, C: TN, D: Skip, *, state: H | None = None) -> tuple[TD, H]:
    """Compute the recurrence by a kernel for NumPy's float32 and float64, without an array of all states: O(T·D·N)."""
    check_rates("selective_scan.fused", delta, A)
    return _compiled(u, delta, A, B, C, D, initial_state(state, u, A))


def hillis_steele_scan(log_a: Array, b: Array, h: Array) -> Array:
    """Return h₁ … h_T of hₜ = aₜ hₜ₋₁ + bₜ from h, combining every pair (a, b) with that 1, 2, 4, … steps before it.

    log_a, b and the result are (*batch, T, D, N), h is (*batch, D, N).
    """
    xp, reach, b = namespace(log_a, b, h), 1, fold_in_initial_state(log_a, b, h)
    while reach < b.shape[-3]:
        later, earlier = slice(reach, None), slice(None, -reach)
        combined = xp.exp(log_a[..., later, :, :]) * b[..., earlier, :, :] + b[..., later, :, :]
        b = xp.concat([b[..., :reach, :, :], combined], axis=-3)
        sums = log_a[..., later, :, :] + log_a[..., earlier, :, :]
        log_a = xp.concat([log_a[..., :reach, :, :], sums], axis=-3)
        reach *= 2
    return b


def chunked_scan(log_a: Array, b: Array, h: Array, size: int) -> Array:
    """Return what `hillis_steele_scan` returns, by a scan inside chunks and one over their boundaries.

    States of a chunk are those from a zero state plus the decayed contribution of the state at its start.
    """
    xp, length = namespace(log_a, b, h), b.shape[-3]
    log_a, b = (pad_and_chunk(x, size, axis=-3) for x in (log_a, b))  # (*batch, chunks, C, D, N)
    from_zero = mg.scan(xp.exp(log_a), b, axis=-3)
    log_decay = xp.cumulative_sum(log_a, axis=-3)
    boundaries = chunk_boundary_states(log_decay[..., -1, :, :], from_zero[..., -1, :, :], h)  # (…, chunks + 1, D, N)
    states = xp.exp(log_decay) * boundaries[..., :-1, None, :, :] + from_zero
    states = xp.reshape(states, (*h.shape[:-2], states.shape[-4] * size, *h.shape[-2:]))
    return states[..., :length, :, :]


def _reference(u: Array, delta: Array, A: Array, B: Array, C: Array, D: Array, h: Array) -> tuple[Array, Array]:
    return chunkwise(u, delta, A, B, C, D, state=h)


_compiled = with_kernel("ssm.selective_scan", _reference)


def _discrete(u: Array, delta: Array, A: Array, B: Array) -> tuple[Array, Array]:
    """Return log Ā = ΔA and B̄u = ΔBu, (*batch, T, D, N)."""
    return delta[..., None] * A, (delta * u)[..., None] * B[..., None, :]


def _output(h: Array, u: Array, C: Array, D: Array) -> Array:
    """Return Ch + Du for all tokens."""
    return (h @ C[..., None])[..., 0] + D * u

"""The selective scan: a diagonal state space whose step, input and output the token itself chooses (Mamba's S6).

    Āₜ = exp(Δₜ A)                                  zero-order hold      Gu and Dao 2023 (Mamba), eq. 4
    B̄ₜ = Δₜ Bₜ                                      Mamba's code; its eq. 4 says (ΔA)⁻¹(exp(ΔA) − 1) ΔB instead
    hₜ = Āₜ ⊙ hₜ₋₁ + B̄ₜ uₜ                          the recurrence       eq. 2a
    yₜ = Cₜ hₜ + D uₜ                               the read             eq. 2b, and the skip of its code
    (a₂, b₂) ∘ (a₁, b₁) = (a₂ a₁, a₂ b₁ + b₂)       two steps as one     Blelloch 1990, section 1.4

    u        the input, (*batch, T, D): D channels, each with a state of its own.
    delta    Δ ≥ 0, the step, (*batch, T, D). 0 passes the state on unchanged, which is what softplus rounds down to.
    A        ≤ 0, the rates, (D, N): the diagonals of D matrices.
    B, C     how a token enters and reads the state, (*batch, T, N), alike for all channels.
    D        what of u passes by the state, (D,).
    h        the state, (*batch, D, N).

Deviation from the paper: B̄ as the code has it. One step of it differs from zero-order hold by O(Δ²)
(proofs.identities.selective).

Decays are never divided by: a product of them is the exponential of a sum of ΔA, which is at most 1. For real numbers;
the state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says, and so do A > 0, Δ < 0.
"""

from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from minigrad.engine import unwrap
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.memory.chunks import tokens

TD = Float[Array, "*batch T D"]
TN = Float[Array, "*batch T N"]
DN = Float[Array, "D N"]
Skip = Float[Array, "D"]
H = Float[Array, "*batch D N"]


@form
def recurrent(u: TD, delta: TD, A: DN, B: TN, C: TN, D: Skip, *, state: H | None = None) -> tuple[TD, H]:
    """One token after the other, in a state of constant size: O(T·D·N)."""
    check_rates("selective_scan.recurrent", delta, A)
    xp = namespace(u, delta, A, B, C, D)
    h, y = _empty(u, A) if state is None else state, []
    for u_t, delta_t, B_t, C_t in tokens(u, delta, B, C):
        h = xp.exp(delta_t.mT * A) * h + (delta_t * u_t).mT @ B_t
        y.append(C_t @ h.mT + D * u_t)
    return xp.concat(y, axis=-2), h


@form
def associative(u: TD, delta: TD, A: DN, B: TN, C: TN, D: Skip, *, state: H | None = None) -> tuple[TD, H]:
    """All tokens at once, in log₂ T rounds of the operator ∘: O(T·log T·D·N). Hillis and Steele 1986."""
    check_rates("selective_scan.associative", delta, A)
    h = doubling(*_discrete(u, delta, A, B), _empty(u, A) if state is None else state)
    return _read(h, u, C, D), h[..., -1, :, :]


@form
def chunkwise(
    u: TD, delta: TD, A: DN, B: TN, C: TN, D: Skip, *, state: H | None = None, chunk_size: int = 64
) -> tuple[TD, H]:
    """All chunks of C tokens at once, then the states between them, in C + T/C steps: O(T·D·N)."""
    check_rates("selective_scan.chunkwise", delta, A)
    h = in_chunks(*_discrete(u, delta, A, B), _empty(u, A) if state is None else state, chunk_size)
    return _read(h, u, C, D), h[..., -1, :, :]


@form(compiled=True)
def fused(u: TD, delta: TD, A: DN, B: TN, C: TN, D: Skip, *, state: H | None = None) -> tuple[TD, H]:
    """The recurrence, compiled for NumPy's float32 and float64: no array of all states is made. O(T·D·N)."""
    check_rates("selective_scan.fused", delta, A)
    return _compiled(u, delta, A, B, C, D, _empty(u, A) if state is None else state)


def doubling(log_a: Array, b: Array, h: Array) -> Array:
    """Return h₁ … h_T of hₜ = aₜ hₜ₋₁ + bₜ after h: every pair (a, b) takes in the 1, 2, 4, … pairs before it.

    log_a, b and the result are (*batch, T, D, N), h is (*batch, D, N).
    """
    xp, reach, b = namespace(log_a, b, h), 1, started(log_a, b, h)
    while reach < b.shape[-3]:
        later, earlier = slice(reach, None), slice(None, -reach)
        carried = xp.exp(log_a[..., later, :, :]) * b[..., earlier, :, :]
        b = xp.concat([b[..., :reach, :, :], carried + b[..., later, :, :]], axis=-3)
        sums = log_a[..., later, :, :] + log_a[..., earlier, :, :]
        log_a = xp.concat([log_a[..., :reach, :, :], sums], axis=-3)
        reach *= 2
    return b


def in_chunks(log_a: Array, b: Array, h: Array, size: int) -> Array:
    """Return what `doubling` returns: each chunk from an empty state, then what it inherits, faded."""
    xp, length = namespace(log_a, b, h), b.shape[-3]
    log_a, b = cut(log_a, size, axis=-3), cut(b, size, axis=-3)  # (*batch, chunks, C, D, N)
    own = mg.scan(xp.exp(log_a), b, axis=-3)
    since_start = xp.cumulative_sum(log_a, axis=-3)
    before = carried(since_start[..., -1, :, :], own[..., -1, :, :], h)[..., :-1, :, :]
    made = xp.exp(since_start) * before[..., None, :, :] + own
    made = xp.reshape(made, (*h.shape[:-2], made.shape[-4] * size, *h.shape[-2:]))
    return made[..., :length, :, :]


def carried(log_a: Array, b: Array, h: Array) -> Array:
    """Return h, h₁, …, hₙ, the states before, between and after n chunks: (*batch, n, D, N) → (*batch, n + 1, D, N)."""
    xp = namespace(log_a, b, h)
    after = mg.scan(xp.exp(log_a), started(log_a, b, h), axis=-3)
    return xp.concat([h[..., None, :, :], after], axis=-3)


def started(log_a: Array, b: Array, h: Array) -> Array:
    """Return b (*batch, T, D, N) with what its first step inherits, b₁ + a₁ h: from h on becomes from 0 on."""
    xp = namespace(log_a, b, h)
    first = xp.exp(log_a[..., :1, :, :]) * h[..., None, :, :] + b[..., :1, :, :]
    return xp.concat([first, b[..., 1:, :, :]], axis=-3)


def cut(x: Array, size: int, *, axis: int) -> Array:
    """Return x with its time axis T as two, (T/C, C). Zeros fill the last: steps with log a = 0, b = 0 do nothing."""
    xp, axis = namespace(x), axis % x.ndim
    before, length, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    count = -(-length // size)
    if missing := count * size - length:
        x = xp.concat([x, xp.zeros((*before, missing, *after), dtype=x.dtype)], axis=axis)
    return xp.reshape(x, (*before, count, size, *after))


def check_rates(label: str, delta: Array, A: Array) -> None:
    """Raise ValueError where A > 0, whose states would grow without bound, where Δ < 0, and where either is NaN."""
    for name, x, worst, wanted in (
        ("delta", delta, "min", "steps of at least 0"),
        ("A", A, "max", "rates of at most 0"),
    ):
        x = unwrap(x)
        xp = namespace(x)
        try:
            fits = bool(xp.all(x >= 0 if worst == "min" else x <= 0))
        except TypeError:  # a compiler traces the function, or the numbers have no order: there is nothing to look at
            continue
        if not fits:
            raise ValueError(f"{label}: {name} holds {getattr(xp, worst)(x)}, expected {wanted}")


def _in_chunks(u: Array, delta: Array, A: Array, B: Array, C: Array, D: Array, h: Array) -> tuple[Array, Array]:
    return chunkwise(u, delta, A, B, C, D, state=h)


_compiled = with_kernel("ssm.selective_scan", _in_chunks)


def _empty(u: Array, A: Array) -> Array:
    """h₀ = 0, (*batch, D, N)."""
    return namespace(u, A).zeros_like(u[..., 0, :, None] * A)


def _discrete(u: Array, delta: Array, A: Array, B: Array) -> tuple[Array, Array]:
    """Return log Ā = ΔA and B̄u = ΔBu, (*batch, T, D, N)."""
    return delta[..., None] * A, (delta * u)[..., None] * B[..., None, :]


def _read(h: Array, u: Array, C: Array, D: Array) -> Array:
    """Return Ch + Du for all tokens."""
    return (h @ C[..., None])[..., 0] + D * u

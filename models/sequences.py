"""Helpers shared by the mechanisms: chunks of sequences, initial states, decays, chunk recurrences, argument checks."""

from collections.abc import Iterator
from numbers import Integral

import minigrad as mg
from minigrad import namespace
from minigrad.engine import unwrap
from minigrad.values import holds
from models.forms import Array

# Chunks of sequences


def chunks(size: int, *sequences: Array) -> Iterator[tuple[Array, ...]]:
    """Split sequences (*batch, T, …) along T into chunks of `size` rows; the last may be shorter."""
    for start in range(0, sequences[0].shape[-2], size):
        yield tuple(x[..., start : start + size, :] for x in sequences)


def tokens(*sequences: Array) -> Iterator[tuple[Array, ...]]:
    """Split sequences (*batch, T, …) into tokens, each still a row (*batch, 1, …), as in the papers."""
    return chunks(1, *sequences)


def pad_and_chunk(x: Array, size: int, *, axis: int) -> Array:
    """Zero-pad the time axis of x and split it, T → (⌈T/C⌉, C); steps with log a = 0, b = 0 do not change a state."""
    xp, axis = namespace(x), axis % x.ndim
    before, length, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    count = -(-length // size)
    if missing := count * size - length:
        x = xp.concat([x, xp.zeros((*before, missing, *after), dtype=x.dtype)], axis=axis)
    return xp.reshape(x, (*before, count, size, *after))


# Initial states


def initial_memory(state: Array | None, k: Array, v: Array) -> Array:
    """Return the state of a matrix memory, or S₀ = 0 where it is None: (*batch, K, V), of the dtype of k and v."""
    return namespace(k, v).zeros_like(k[..., :1, :].mT @ v[..., :1, :]) if state is None else state


def initial_state(state: Array | None, u: Array, B: Array) -> Array:
    """Return the state of a state space, or h₀ = 0 where it is None: (*batch, D, N) for u (*batch, T, D), B (D, N)."""
    return namespace(u, B).zeros_like(u[..., 0, :, None] * B) if state is None else state


# Decays and triangular systems


def segment_sums(g: Array) -> Array:
    """Return sums[t, s] = g[s+1] + … + g[t] for s < t, else 0, per channel: (*batch, C, G) → (*batch, C, C, G).

    For log decays g these are the log decays from time s to time t (`segsum` in Mamba-2's code, with −∞ for s > t).
    Every sum is accumulated separately: a difference of cumulative sums would be −∞ − (−∞) after a gate of 0.
    """
    xp = namespace(g)
    after = xp.tril(xp.ones((g.shape[-2], g.shape[-2]), dtype=bool), k=-1)[..., None]  # after[r, s]: r > s
    return xp.cumulative_sum(xp.where(after, g[..., :, None, :], 0), axis=-3)


def decay_rows(log_decay: Array, k: Array) -> Array:
    """Return log decays as rows: (*batch, T, K), or (*batch, T, 1) where there is one per token, (*batch, T)."""
    return log_decay if log_decay.ndim == k.ndim else log_decay[..., None]


def decayed_products(q: Array, k: Array, decay: Array) -> Array:
    """Return Σᵢ qₜᵢ kₛᵢ decay[t, s, i], (*batch, C, C), for q, k (*batch, C, K) and decay (*batch, C, C, K or 1).

    With a decay per channel these are no product of matrices, and k ⊙ decay is an array (*batch, C, C, K). Factors
    γₜ and 1/γₛ would make them one, but 1/γₛ overflows.
    """
    if decay.shape[-1] == 1:
        return (q @ k.mT) * decay[..., 0]
    return ((k[..., None, :, :] * decay) @ q[..., :, :, None])[..., 0]


def unit_lower_inverse(A: Array) -> Array:
    """Return (I + N)⁻¹ for the strictly lower triangle N of A (*batch, C, C), by merging blocks of 1, 2, 4, … rows.

        ⎡ P  0 ⎤⁻¹   ⎡   P⁻¹      0  ⎤
        ⎣ L  Q ⎦   = ⎣ −Q⁻¹LP⁻¹  Q⁻¹ ⎦

    The product (I − N)(I + N²)(I + N⁴)… is as short and the same over fractions, but where keys resemble each other
    its powers grow like binomial coefficients before they cancel: at C = 64 no digit of a float32 is correct.
    """
    xp = namespace(A)
    row, size = xp.arange(A.shape[-1]), 1
    X = xp.eye(A.shape[-1], dtype=A.dtype)
    while size < A.shape[-1]:
        block = row // size
        below = (block[:, None] == block + 1) & (block % 2 == 0)  # L lies below P, the even one of two neighbours
        X = X - X @ xp.where(below, A, 0) @ X
        size *= 2
    return X


# Linear recurrences between chunks


def fold_in_initial_state(log_a: Array, b: Array, h: Array) -> Array:
    """Replace b₁ by b₁ + a₁ h in b (*batch, T, D, N): hₜ = aₜ hₜ₋₁ + bₜ from h becomes the recurrence from 0."""
    xp = namespace(log_a, b, h)
    first = xp.exp(log_a[..., :1, :, :]) * h[..., None, :, :] + b[..., :1, :, :]
    return xp.concat([first, b[..., 1:, :, :]], axis=-3)


def chunk_boundary_states(log_a: Array, b: Array, h: Array) -> Array:
    """Return the states at the boundaries of n chunks, h₀ = h to hₙ: (*batch, n + 1, D, N).

    Of chunk i, log_a is the total log decay and b the final state from a zero state, (*batch, n, D, N); the states
    obey hᵢ = aᵢ hᵢ₋₁ + bᵢ.
    """
    xp = namespace(log_a, b, h)
    after = mg.scan(xp.exp(log_a), fold_in_initial_state(log_a, b, h), axis=-3)
    return xp.concat([h[..., None, :, :], after], axis=-3)


# Complex numbers as pairs of real ones


def real_and_imag(z: Array) -> Array:
    """Return (Re z, Im z) concatenated along the last axis, (…, 2N) from (…, N)."""
    xp = namespace(z)
    return xp.concat([xp.real(z), xp.imag(z)], axis=-1)


def to_complex(x: Array) -> Array:
    """Return the complex numbers (…, N) of parts x (…, 2N), the inverse of `real_and_imag`."""
    n = x.shape[-1] // 2
    return x[..., :n] + 1j * x[..., n:]


# Checks of arguments


def check_positive_int(label: str, count: object) -> int:
    """Return a count as an int. Raises ValueError for what is not an integer of at least 1."""
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{label} is {count!r}, expected an integer of at least 1")
    return int(count)


def check_rates(label: str, delta: Array, A: Array) -> None:
    """Raise ValueError where A > 0, whose states would grow without bound, where Δ < 0, and where either is NaN."""
    if not holds((label, "delta"), lambda delta: delta >= 0, delta):
        raise ValueError(f"{label}: delta holds {_min(delta)}, expected steps of at least 0")
    if not holds((label, "A"), lambda A: A <= 0, A):
        why = ": they seem to be A_log, A is −exp(A_log)" if _min(A) >= 0 else ""
        raise ValueError(f"{label}: A holds {_max(A)}, expected rates of at most 0{why}")


def check_eigenvalues(label: str, Lambda: Array, delta: Array, *, strict: bool = False) -> None:
    """Raise ValueError for Re Λ > 0, with `strict` also for Re Λ = 0, for Δ ≤ 0, and where either is NaN."""
    Lambda, requirement = unwrap(Lambda), "below 0" if strict else "of at most 0"
    real = namespace(Lambda).real(Lambda)
    if not holds((label, "Lambda"), lambda real: real < 0 if strict else real <= 0, real):
        raise ValueError(f"{label}: Lambda holds real part {_max(real)}, expected real parts {requirement}")
    if not holds((label, "delta"), lambda delta: delta > 0, delta):
        raise ValueError(f"{label}: delta holds {_min(delta)}, expected steps above 0")


def _min(x: Array) -> Array:
    return namespace(unwrap(x)).min(unwrap(x))


def _max(x: Array) -> Array:
    return namespace(unwrap(x)).max(unwrap(x))

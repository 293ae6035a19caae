"""What the memories share: cutting a sequence in time, decays between two moments, and one triangular inverse."""

from collections.abc import Iterator

from minigrad import namespace
from models.forms import Array


def chunks(size: int, *sequences: Array) -> Iterator[tuple[Array, ...]]:
    """Cut sequences (*batch, T, …) along T into pieces of `size` rows; the last may be shorter."""
    for start in range(0, sequences[0].shape[-2], size):
        yield tuple(x[..., start : start + size, :] for x in sequences)


def tokens(*sequences: Array) -> Iterator[tuple[Array, ...]]:
    """Cut sequences (*batch, T, …) into tokens, each still a row (*batch, 1, …), as in the papers."""
    return chunks(1, *sequences)


def empty(k: Array, v: Array) -> Array:
    """S₀ = 0, (*batch, K, V): a memory that holds nothing, in the numbers of the keys and values."""
    return namespace(k, v).zeros_like(k[..., :1, :].mT @ v[..., :1, :])


def segment_sums(g: Array) -> Array:
    """sums[t, s] = g[s+1] + … + g[t] for s < t, else 0, channel by channel: (*batch, C, G) → (*batch, C, C, G).

    Where g is the logarithm of decays, this is the logarithm of what is left at time t of what was written at s.
    Each sum is added up on its own: as a difference of running sums it would be −∞ − (−∞) after a gate of 0.
    """
    xp = namespace(g)
    after = xp.tril(xp.ones((g.shape[-2], g.shape[-2]), dtype=bool), k=-1)[..., None]  # after[r, s]: r > s
    return xp.cumulative_sum(xp.where(after, g[..., :, None, :], 0), axis=-3)


def unit_lower_inverse(A: Array) -> Array:
    """(I + N)⁻¹, where N is what A, (*batch, C, C), has below its diagonal, by merging blocks of 1, 2, 4, … rows.

        ⎡ P  0 ⎤⁻¹   ⎡   P⁻¹      0  ⎤
        ⎣ L  Q ⎦   = ⎣ −Q⁻¹LP⁻¹  Q⁻¹ ⎦

    The product (I − N)(I + N²)(I + N⁴)… is as short and the same over fractions, but where keys resemble each other
    its powers grow like binomial coefficients before they cancel: at C = 64 no digit of a float32 is left.
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

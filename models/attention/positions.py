"""Positions of tokens: sinusoidal, learned, rotary, ALiBi and T5's relative bias.

    sinusoidal   PE[t, 2i] = sin(t / 10000^(2i/D)),  PE[t, 2i + 1] = cos(t / 10000^(2i/D))
                                                                           Vaswani et al. 2017, section 3.5
    learned      E[t], a row of a table                                    the same section, by Gehring et al. 2017
    rotary       R[t] x: channels (2i, 2i + 1) rotated by the angle t θᵢ, θᵢ = 10000^(−2i/R)
                 (R[t] q)·(R[s] k) = q·(R[s − t] k)                        Su et al. 2021, eq. 15 and 16
    ALiBi        softmax(q Kᵀ / √K − m |t − s|), m = 2^(−8h/H) for head h = 1 … H
                                                                           Press et al. 2022, section 3
    T5           softmax(q Kᵀ + b[bucket(s − t)]), one b a head            Raffel et al. 2020, section 2.1

    t, s         `positions` of a query and of a key: integers (T,), such as start + np.arange(T)
    layout       which channels are a pair: "interleaved", 2i and 2i + 1, as in the papers and GPT-J; "halves", i and
                 i + R/2, as in GPT-NeoX and Llama, and in Marian's sinusoids
    θ            `frequencies` (R/2,), in radians a token; channels after the first R are not rotated

Deviation: Press et al. have causal attention only, where |t − s| = t − s.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import namespace
from minigrad.conversion import to_library_of
from models.errors import known_name
from models.forms import Array

BASE = 10_000.0

# Where each scheme enters: added to the embeddings, applied to queries and keys, or added to the scores.
SCHEMES = {
    "sinusoidal": "embeddings",
    "learned": "embeddings",
    "rotary": "queries and keys",
    "alibi": "scores",
    "t5": "scores",
}


# Added to the embeddings


def sinusoidal(x: Array, positions: np.ndarray, *, base: float = BASE, layout: str = "interleaved") -> Array:
    """Return the sinusoids (T, D) for x (*batch, T, D), in its library and precision.

    Raises ValueError where D is odd, where there is not one position a token, and for an unknown layout.
    """
    from_halves = _known_layout("sinusoidal", layout)[1]
    cos, sin = _cos_and_sin("sinusoidal", x, positions, rotary_frequencies(x.shape[-1], base=base))
    return from_halves(namespace(sin).concat([sin, cos], axis=-1))


def learned(table: Array, positions: np.ndarray) -> Array:
    """Return the rows (T, D) of a table (positions, D). Raises ValueError for a position that it does not have."""
    positions = np.asarray(positions)
    beyond = positions[(positions < 0) | (positions >= table.shape[0])]
    if beyond.size:
        size = table.shape[0]
        raise ValueError(f"positions.learned: position {beyond[0]}, expected 0 to {size - 1} for a table of {size}")
    return table[_in_library_of(table, positions)]


# Applied to queries and keys


def rotary_frequencies(width: int, *, base: float = BASE) -> np.ndarray:
    """Return θᵢ = base^(−2i/R) for R = `width` channels: (R/2,). Raises ValueError for an odd width."""
    if width % 2:
        raise ValueError(f"positions: {width} channels, expected an even number, for they form pairs")
    return base ** (-np.arange(width // 2) / (width // 2))


def llama3_frequencies(
    frequencies: np.ndarray, *, factor: float = 8.0, low: float = 1.0, high: float = 4.0, length: int = 8192
) -> np.ndarray:
    """Return Llama 3.1's frequencies for contexts longer than the trained `length` (Meta's code, `apply_scaling`).

    A pair that turns fewer than `low` times in the trained length gets θ / factor, one that turns more than `high`
    times keeps θ, and those between are interpolated linearly in the number of turns.
    """
    turns = length * frequencies / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - smooth) * frequencies / factor + smooth * frequencies


def yarn_frequencies(
    frequencies: np.ndarray,
    *,
    factor: float,
    base: float = BASE,
    length: int = 8192,
    fast: float = 32.0,
    slow: float = 1.0,
    whole: bool = True,
) -> np.ndarray:
    """Return YaRN's frequencies for contexts longer than the trained `length` (Peng et al. 2024, section 3.2).

    A pair that turns more than `fast` times in the trained length keeps θ, one that turns fewer than `slow` times gets
    θ / factor. Between them is a ramp, linear in the index of the pair, as in the authors' code; the paper's is linear
    in the number of turns. `whole` rounds the ends of the ramp outwards to whole indices.
    """
    width = 2 * len(frequencies)
    first, last = (width * np.log(length / (2 * math.pi * turns)) / (2 * np.log(base)) for turns in (fast, slow))
    if whole:
        first, last = np.floor(first), np.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    ramp = np.clip((np.arange(len(frequencies)) - first) / (last - first or 1e-3), 0, 1)
    return ramp * frequencies / factor + (1 - ramp) * frequencies


def rotary(x: Array, positions: np.ndarray, *, frequencies: np.ndarray | None = None, layout: str = "halves") -> Array:
    """Return queries or keys x (*batch, T, K) with each pair of channels rotated by position · frequency.

    Without `frequencies` all K channels are rotated, with those of `rotary_frequencies`. Raises ValueError for more
    frequencies than pairs of channels, where there is not one position a token, and for an unknown layout.
    """
    frequencies = rotary_frequencies(x.shape[-1]) if frequencies is None else frequencies
    width = 2 * len(frequencies)
    if width > x.shape[-1]:
        raise ValueError(f"positions.rotary: {width // 2} frequencies, expected at most {x.shape[-1] // 2} for x")
    rotated = rotate(x[..., :width], *_cos_and_sin("rotary", x, positions, frequencies), layout=layout)
    if width == x.shape[-1]:
        return rotated
    return namespace(x).concat([rotated, x[..., width:]], axis=-1)


def rotate(x: Array, cos: Array, sin: Array, *, layout: str = "halves") -> Array:
    """Return x (*batch, T, R) with each pair of channels rotated by the angles of cos and sin, (T, R/2).

    Raises ValueError for an unknown layout.
    """
    to_halves, from_halves = _known_layout("rotate", layout)
    return from_halves(mg.rotary(to_halves(x), cos, sin))


# Added to the scores


def alibi_slopes(heads: int) -> np.ndarray:
    """Return m of each head: 2^(−8h/H) for H a power of two.

    For other H: those of the largest power of two P below, then every second one of 2P, as in the authors' code.
    Raises ValueError for no heads.
    """
    if heads < 1:
        raise ValueError(f"positions.alibi_slopes: {heads} heads, expected at least 1")
    power = 1 << heads.bit_length() - 1
    slopes = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-8 * np.arange(1, 2 * power, 2) / (2 * power))
    return np.concatenate([slopes, between[: heads - power]])


def alibi(q: Array, positions: np.ndarray, key_positions: np.ndarray) -> Array:
    """Return the bias −m |t − s|, (H, T, S), for queries q (*batch, H, T, K), in their library and precision."""
    distance = abs(np.asarray(positions)[:, None] - np.asarray(key_positions))
    return _in_library_of(q, -alibi_slopes(q.shape[-3])[:, None, None] * distance, q.dtype)


def t5_bias(
    table: Array, positions: np.ndarray, key_positions: np.ndarray, *, bidirectional: bool, max_distance: int = 128
) -> Array:
    """Return the bias b[bucket(s − t)], (H, T, S), from a table (buckets, H).

    T5 has no 1/√K: its attention has `scale=1`. Raises ValueError as `t5_buckets` does.
    """
    relative = np.asarray(key_positions) - np.asarray(positions)[:, None]
    buckets = t5_buckets(relative, table.shape[0], bidirectional=bidirectional, max_distance=max_distance)
    return namespace(table).moveaxis(table[_in_library_of(table, buckets)], -1, 0)


def t5_buckets(relative: np.ndarray, count: int, *, bidirectional: bool, max_distance: int = 128) -> np.ndarray:
    """Return the bucket of each relative position s − t, from 0 to count − 1.

    Where bidirectional, the upper half of the buckets is for keys after the query; else all of those share bucket 0.
    Of n buckets for a side, distances below n/2 have one each, and the others share n/2 more, whose ranges grow
    logarithmically up to `max_distance`. All that is further has the last bucket.
    Raises ValueError for too few buckets, and for a distance that is too small for them.
    """
    n = count // 2 if bidirectional else count
    exact = n // 2
    if not 0 < exact < max_distance:
        expected = f"expected at least {4 if bidirectional else 2}, and a distance above {exact}"
        raise ValueError(f"positions.t5_buckets: {count} buckets up to a distance of {max_distance}, {expected}")
    distance = abs(relative) if bidirectional else np.maximum(-relative, 0)
    octaves = np.log(np.maximum(distance, exact) / exact) / math.log(max_distance / exact)
    shared = exact + np.floor(octaves * (n - exact)).astype(int)
    bucket = np.where(distance < exact, distance, np.minimum(shared, n - 1))
    return bucket + n * (relative > 0) if bidirectional else bucket


# Layouts, tables and libraries


def _to_halves(x: Array) -> Array:
    """Return [x₀ x₂ … ‖ x₁ x₃ …]."""
    return _regroup(x, (x.shape[-1] // 2, 2))


def _from_halves(x: Array) -> Array:
    """Return the inverse of `_to_halves`."""
    return _regroup(x, (2, x.shape[-1] // 2))


def _regroup(x: Array, axes: tuple[int, int]) -> Array:
    """Return x with its last axis read as a matrix of this shape and written transposed."""
    xp = namespace(x)
    return xp.reshape(xp.matrix_transpose(xp.reshape(x, (*x.shape[:-1], *axes))), x.shape)


def _unchanged(x: Array) -> Array:
    return x


LAYOUTS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "halves": (_unchanged, _unchanged),
    "interleaved": (_to_halves, _from_halves),
}


def _known_layout(function: str, layout: str) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Return the maps from a layout to halves and back."""
    return LAYOUTS[known_name(layout, f"positions.{function}: layout", LAYOUTS)]


def _cos_and_sin(function: str, x: Array, positions: np.ndarray, frequencies: np.ndarray) -> tuple[Array, Array]:
    """Return cos and sin of position · frequency, (T, R/2), in the library and precision of x (*batch, T, …)."""
    positions = np.asarray(positions)
    if positions.shape != x.shape[-2:-1]:
        expected = f"expected ({x.shape[-2]},), one for each token of x"
        raise ValueError(f"positions.{function}: positions has shape {positions.shape}, {expected}")
    angles = positions[:, None] * frequencies
    return _in_library_of(x, np.cos(angles), x.dtype), _in_library_of(x, np.sin(angles), x.dtype)


def _in_library_of(x: Array, array: np.ndarray, dtype: Any = None) -> Array:
    """Convert a NumPy array to the library and device of x, and to a dtype."""
    converted = to_library_of(x, array)
    return converted if dtype is None else namespace(converted).astype(converted, dtype)

"""Positions: sinusoids and rotations, learned rows, ALiBi's slopes and T5's buckets.

Angles are no rational numbers. What rotations do is proven for rational ones, R[t] = Rᵗ with cos² + sin² = 1; that
the code's tables are those of the papers is checked within the rounding of an angle, `table_error`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

from minigrad import namespace
from minigrad.conversion import to_library_of
from models.attention import positions, softmax
from proofs.checker.statements import Instance, bounded, identity, refuted
from proofs.checker.strategies import LARGE, SMALL, Strategy, unit_rows

CHAPTER = 1

VASWANI, SU, PRESS, RAFFEL = "vaswani2017", "su2021", "press2022", "raffel2020"
UNIT = 2.0**-53
LAYOUTS = [Instance(layout, {"layout": layout}, {}) for layout in ("halves", "interleaved")]
DIRECTIONS = [
    Instance(label, {"bidirectional": bidirectional}, {})
    for label, bidirectional in (("bidirectional", True), ("causal", False))
]

Start = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 1000)))]
Shift = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, 1000)))]
SmallShift = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, 4)))]
PAIRS = {"N": st.integers(1, 3)}  # with 3, the matrix of pairs and its transpose have different shapes
Channels = Annotated[Any, Strategy("*batch T N 2", LARGE, sizes=PAIRS)]
Rotations = Annotated[Any, Strategy("N 2", unit_rows, differentiable=False, degree=2, sizes=PAIRS)]  # cos, sin
TwoChannels = Annotated[Any, Strategy("*batch T 2", SMALL)]
HeadQueries = Annotated[Any, Strategy("P T K", LARGE)]
HeadKeys = Annotated[Any, Strategy("P T K", SMALL)]
HeadValues = Annotated[Any, Strategy("P T V", LARGE)]
Table = Annotated[Any, Strategy("8 P", LARGE)]

# Sinusoids


@bounded(
    "PE[t, 2i] = sin(t / 10000^(2i/D)) and PE[t, 2i + 1] = cos(t / 10000^(2i/D))",
    source=f"{VASWANI}, section 3.5",
    only=("float64",),
)
def sinusoids_are_the_paper_s(start: Start):
    errors, limits = [], []
    for D in (2, 4, 6, 64):
        table = positions.sinusoidal(np.zeros((3, D)), start + np.arange(3))
        for t, c in np.ndindex(3, D):
            angle = (start + t) / 10000 ** ((c - c % 2) / D)
            errors.append(abs(table[t, c] - (math.cos if c % 2 else math.sin)(angle)))
            limits.append(2 * table_error(angle))
    return np.array(errors), np.array(limits)


@bounded(
    "PE[t + n] is PE[t], each pair rotated by an angle that depends on n alone, the one of PE[n]",
    source=f"{VASWANI}, section 3.5: a linear function of PE[t]",
    only=("float64",),
)
def a_shift_of_sinusoids_is_a_rotation(start: Start, shift: Shift):
    at = np.array([start, shift, start + shift])
    pairs = positions.sinusoidal(np.zeros((3, 8)), at).reshape(3, 4, 2)
    (sin, cos), (sin_n, cos_n), (sin_sum, cos_sum) = (np.moveaxis(x, -1, 0) for x in pairs)
    rotated = np.stack([sin * cos_n + cos * sin_n, cos * cos_n - sin * sin_n])
    return abs(rotated - np.stack([sin_sum, cos_sum])), np.full((2, 4), 6 * table_error(start + shift))


@refuted(
    "Scores of embeddings with sinusoids added depend on t − s only (products of an embedding and a sinusoid do not)",
    source=f"{SU}, section 3.1",
)
def sinusoids_make_scores_relative(q: TwoChannels, k: TwoChannels):
    def scores(start: int) -> Any:
        q_, k_ = (x + positions.sinusoidal(x, start + np.arange(x.shape[-2])) for x in (q, k))
        return q_ @ k_.mT

    return scores(0), scores(1)


# Rotations


@identity(
    "Rotary scores depend on t − s only: shifting all positions changes none",
    source=f"{SU}, eq. 16",
    exact=True,
    over=LAYOUTS,
)
def rotary_scores_are_relative(q: Channels, k: Channels, rotations: Rotations, shift: SmallShift, layout: str):
    T = q.shape[-3]
    cos, sin = powers(rotations, T + shift)

    def scores(start: int) -> Any:
        at = slice(start, start + T)
        q_, k_ = (positions.rotate(join_pairs(x), cos[at], sin[at], layout=layout) for x in (q, k))
        return q_ @ k_.mT

    return scores(shift), scores(0)


@identity("A rotation changes no length", source=f"{SU}, section 3.2.2: R is orthogonal", exact=True, over=LAYOUTS)
def rotations_keep_lengths(q: Channels, rotations: Rotations, layout: str):
    xp, x = namespace(q), join_pairs(q)
    rotated = positions.rotate(x, *powers(rotations, x.shape[-2]), layout=layout)
    return xp.sum(rotated * rotated, axis=-1), xp.sum(x * x, axis=-1)


@identity(
    "The two layouts are one up to the order of the channels: halves of the even and the odd channels",
    source=f"{SU}, eq. 34",
    exact=True,
)
def layouts_are_orders_of_channels(q: Channels, rotations: Rotations):
    table, x = powers(rotations, q.shape[-3]), join_pairs(q)
    interleaved = positions.rotate(x, *table, layout="interleaved")
    return halves_of(interleaved), positions.rotate(halves_of(x), *table, layout="halves")


@bounded(
    "Rotary embedding multiplies by R[t], blocks of cos t θᵢ and sin t θᵢ with θᵢ = 10000^(−2i/K)",
    source=f"{SU}, eq. 15",
    only=("float64",),
)
def rotary_is_the_paper_s(q: Channels, start: Start):
    xp, x = namespace(q), join_pairs(q)
    T, K = x.shape[-2:]
    rotated = positions.rotary(x, start + np.arange(T), layout="interleaved")
    matrices = np.zeros((T, K, K))
    for t, i in np.ndindex(T, K // 2):
        angle = (start + t) * 10000 ** (-2 * i / K)
        c, s = math.cos(angle), math.sin(angle)
        matrices[t, 2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, -s], [s, c]]
    errors = abs(rotated - (to_library_of(x, matrices) @ x[..., None])[..., 0])
    return errors, xp.sum(abs(x), axis=-1, keepdims=True) * (2 * table_error(start + T)) + 0 * errors


@bounded(
    "With the paper's angles too, any offset leaves rotary scores as they are",
    source=f"{SU}, eq. 16",
    over=LAYOUTS,
    only=("float64",),
)
def an_offset_changes_no_rotary_score(q: Channels, k: Channels, start: Start, shift: Shift, layout: str):
    xp, T = namespace(q), q.shape[-3]
    x, y = join_pairs(q), join_pairs(k)

    def scores(first: int) -> Any:
        q_, k_ = (positions.rotary(z, first + np.arange(T), layout=layout) for z in (x, y))
        return q_ @ k_.mT

    errors = abs(scores(start + shift) - scores(start))
    sizes = xp.sum(abs(x), axis=-1)[..., :, None] * xp.sum(abs(y), axis=-1)[..., None, :]
    return errors, sizes * (16 * table_error(start + shift + T))


@identity(
    "Rotating a sequence from an offset on is rotating the whole and leaving out its beginning", source=f"{SU}, eq. 15"
)
def rotary_continues(q: Channels):
    x = join_pairs(q)
    at, half = np.arange(x.shape[-2]), (x.shape[-2] - 1) // 2
    return positions.rotary(x[..., half:, :], at[half:]), positions.rotary(x, at)[..., half:, :]


@refuted("Rotary embedding leaves scores as they were", source=f"{SU}, eq. 16")
def rotary_changes_nothing(q: Channels, k: Channels):
    x, y = join_pairs(q), join_pairs(k)
    at = np.arange(x.shape[-2])
    return positions.rotary(x, at) @ positions.rotary(y, at).mT, x @ y.mT


@bounded(
    "Llama 3's frequencies: θ for wavelengths below 8192/4, θ/8 for those above 8192, a mean between",
    source="llama3-code, apply_scaling",
    only=("float64",),
)
def llama3_scales_long_wavelengths():
    theta = positions.rotary_frequencies(128, base=500_000.0)
    scaled = []
    for frequency in theta:
        wavelength = 2 * math.pi / frequency
        smooth = (8192 / wavelength - 1) / (4 - 1)
        if wavelength < 8192 / 4:
            scaled.append(frequency)
        elif wavelength > 8192:
            scaled.append(frequency / 8)
        else:
            scaled.append((1 - smooth) * frequency / 8 + smooth * frequency)
    return abs(positions.llama3_frequencies(theta) - np.array(scaled)), 64 * UNIT * theta


@bounded(
    "YaRN's frequencies: θ for pairs that turn at least 32 times in the trained length, θ/8 for those that turn "
    "at most once, and a ramp of weights in the pair's index between the nearest of both, the first not before pair 0",
    source="peng2024yarn, section 3.2",
    only=("float64",),
)
def yarn_scales_slow_pairs():
    errors, limits = [], []
    for base, length in (
        (500_000.0, 8192),
        (10_000.0, 128),
        (2.0, 256),
    ):  # the ramp begins before pair 0, ends after 127
        theta = positions.rotary_frequencies(128, base=base)
        turns = {i: length / (2 * math.pi) * base ** (-i / 64) for i in range(-512, 512)}
        fast, slow = max(i for i in turns if turns[i] >= 32), min(i for i in turns if turns[i] <= 1)
        fast, slow = max(fast, 0), min(slow, 127)  # as in the authors' code, which ends at the width less 1
        weights = [0 if i <= fast else 1 if i >= slow else (i - fast) / (slow - fast) for i in range(64)]
        scaled = [w * frequency / 8 + (1 - w) * frequency for w, frequency in zip(weights, theta, strict=True)]
        errors.append(abs(positions.yarn_frequencies(theta, factor=8.0, base=base, length=length) - np.array(scaled)))
        limits.append(64 * UNIT * theta)
    return errors, limits


# Learned positions


@identity("A learned position is a row of the table, a product with a one-hot vector", source=VASWANI, exact=True)
def learned_positions_are_rows(table: Table):
    at = np.array([2, 7, 0, 2])
    one_hot = namespace(table).astype(to_library_of(table, np.eye(8, dtype=int)[at]), table.dtype)
    return positions.learned(table, at), one_hot @ table


# ALiBi


@bounded(
    "Slopes for H heads: 2^(−8/H) to the powers 1 … H; for H no power of two, those of the power below it, then every "
    "second one of the power above",
    source=f"{PRESS}, section 3 and the code it names",
    only=("float64",),
)
def slopes_are_the_paper_s():
    def published(heads: int) -> list[float]:
        if heads & (heads - 1) == 0:
            return [2 ** (-8 * h / heads) for h in range(1, heads + 1)]
        below = 2 ** int(math.log2(heads))
        return published(below) + published(2 * below)[0::2][: heads - below]

    slopes = [(positions.alibi_slopes(heads), np.array(published(heads))) for heads in range(1, 41)]
    errors = np.concatenate([abs(ours - theirs) for ours, theirs in slopes])
    return errors, 16 * UNIT * np.concatenate([theirs for _, theirs in slopes])


@identity(
    "Attention with ALiBi: softmax(qₜ [k₁ … kₜ]ᵀ/√K + m [−(t − 1), …, −1, 0]), with m of each head",
    source=f"{PRESS}, section 3",
)
def alibi_is_the_paper_s(q: HeadQueries, k: HeadKeys, v: HeadValues):
    xp, (heads, T, K) = namespace(q, k, v), q.shape
    at = np.arange(T)
    biased, _ = softmax.quadratic(q, k, v, bias=positions.alibi(q, at, at))
    slopes = {1: [2**-8], 2: [2**-4, 2**-8], 3: [2**-4, 2**-8, 2**-2]}[heads]
    outputs = []
    for t in range(T):
        distances = np.array([[[m * (s - t) for s in range(t + 1)]] for m in slopes])
        bias = xp.astype(to_library_of(q, distances), q.dtype)
        weights = xp.exp(q[:, t : t + 1] @ k[:, : t + 1].mT * K**-0.5 + bias)
        outputs.append(weights @ v[:, : t + 1] / xp.sum(weights, axis=-1, keepdims=True))
    return biased, xp.concat(outputs, axis=-2)


@identity("ALiBi depends on t − s only", source=f"{PRESS}, section 3", derivatives=False)
def alibi_is_relative(q: HeadQueries, shift: Shift):
    at = np.arange(q.shape[-2])
    return positions.alibi(q, shift + at, shift + at[:2]), positions.alibi(q, at, at[:2])


@identity(
    "In causal attention the bias m s of the key alone does the same: the softmax ignores m t",
    source=f"{PRESS}, section 3",
)
def alibi_of_keys_alone(q: HeadQueries, k: HeadKeys, v: HeadValues):
    at = np.arange(q.shape[-2])
    bias = positions.alibi(q, at, at)
    first = -bias[:, :, :1]  # m t
    return softmax.quadratic(q, k, v, bias=bias)[0], softmax.quadratic(q, k, v, bias=bias + first)[0]


# T5


@identity(
    "T5's buckets: a distance below n/2 has its own; the others are in bucket n/2 + ⌊n/2 · log(x / (n/2)) / "
    "log(128 / (n/2))⌋, the last from 128 on",
    source=f"{RAFFEL}, section 2.1 and its code",
    over=DIRECTIONS,
    derivatives=False,
    only=("float64",),
)
def buckets_are_the_paper_s(bidirectional: bool):
    relative = np.arange(-300, 301)
    ours = [positions.t5_buckets(relative, count, bidirectional=bidirectional) for count in (8, 32, 64)]
    return ours, [np.array([bucket(int(r), count, bidirectional) for r in relative]) for count in (8, 32, 64)]


@identity(
    "T5's bias of head h is the entry [bucket, h] of the table, and depends on t − s only",
    source=f"{RAFFEL}, section 2.1",
    exact=True,
    over=DIRECTIONS,
)
def t5_bias_is_relative(table: Table, shift: Shift, bidirectional: bool):
    xp, at = namespace(table), 13 * np.arange(4)
    bias = positions.t5_bias(table, shift + at, shift + at[:3], bidirectional=bidirectional)
    rows = [[table[bucket(13 * (s - t), 8, bidirectional)] for s in range(3)] for t in range(4)]
    return bias, xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def bucket(relative: int, count: int, bidirectional: bool) -> int:
    """Return T5's bucket of a relative position s − t, in integers: the largest whose distances begin at or below."""
    n = count // 2 if bidirectional else count
    h, upper = n // 2, n * (bidirectional and relative > 0)
    x = abs(relative) if bidirectional else max(-relative, 0)
    if x < h:
        return upper + x
    return upper + max(j for j in range(h, n) if Fraction(x, h) ** (n - h) >= Fraction(128, h) ** (j - h))


def table_error(angle: Any) -> Any:
    """Return a bound on the error of the cosine and sine of an angle t θ.

    θ is a power and t θ a product: within 6 ulp together, which is 12 u of the angle; cos and sin are within 4 ulp.
    """
    return UNIT * (12 * angle + 8)


def powers(rotations: Any, count: int) -> tuple[Any, Any]:
    """Return cos and sin (count, N) of the powers 0 … count − 1 of rotations (N, 2)."""
    xp = namespace(rotations)
    c, s = rotations[..., 0], rotations[..., 1]
    cos, sin = [0 * c + 1], [0 * s]
    for _ in range(count - 1):
        cos, sin = [*cos, cos[-1] * c - sin[-1] * s], [*sin, cos[-1] * s + sin[-1] * c]
    return xp.stack(cos, axis=0), xp.stack(sin, axis=0)


def join_pairs(x: Any) -> Any:
    """Return (*batch, T, 2N) from x (*batch, T, N, 2)."""
    return namespace(x).reshape(x, (*x.shape[:-2], 2 * x.shape[-2]))


def halves_of(x: Any) -> Any:
    """Return the even channels of x, then the odd ones."""
    return namespace(x).concat([x[..., 0::2], x[..., 1::2]], axis=-1)

"""HiPPO's polynomials: which moments of the past count, what a change of coefficients changes, what the indices mean.

For every measure the coefficients are those of the best approximation, in the mean square under the measure. √(2n + 1)
is not rational, so the exact statements are about cₙ/√(2n + 1), the coefficients of Legendre polynomials that are not
normalised, whose squares count 2n + 1 times. Samples that are held constant make an f that is integrated piece by
piece, by Gauss's rule, which is exact for polynomials of degree up to 39.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st
from numpy.polynomial import laguerre, legendre

from models.ssm import hippo
from proofs.checker.statements import EXACT, Instance, bounded, grows, identity, refuted
from proofs.checker.strategies import LARGE, Strategy
from proofs.identities.hippo import (
    HIPPO,
    UNIT,
    Order,
    Polynomial,
    Samples,
    Time,
    lagt_coefficients,
    legs_coefficients,
    legt_coefficients,
    scaled_to_integers,
    taylor_shift,
)

CHAPTER = 12

TALK = "talk-mamba, slide 14"
NODES = 20

Changes = Annotated[Any, Strategy("N", LARGE, sizes={"N": st.integers(1, 5)})]  # of coefficients
Reversible = Annotated[Any, Strategy("M", LARGE, sizes={"M": st.integers(2, 12)})]

BASES = [Instance(measure, {"measure": measure}, {}) for measure in hippo.MEASURES]
PROJECTED = [Instance(measure, {"measure": measure}, {}) for measure in ("legs", "legt", "lagt")]
ONLINE = [Instance(measure, {"measure": measure}, {}) for measure in ("legs", "lagt")]

# The measures


def quadrature(measure: str) -> tuple[Any, Any]:
    """Return ages and weights that integrate products of the basis over the measure."""
    if measure == "lagt":
        return laguerre.laggauss(NODES)
    if measure == "fourier":
        return np.arange(NODES) / NODES, np.full(NODES, 1 / NODES)
    nodes, weights = legendre.leggauss(NODES)
    return (nodes + 1) / 2, weights / 2


@bounded(
    "LegS weighs all of the past alike, LegT and Fourier a window, LagT by e^(−age): so their bases are orthonormal",
    source=f"{HIPPO}, section 2.2 and appendix D; {TALK}, importance by time",
    over=BASES,
    only=("float64",),
)
def bases_are_orthonormal(measure: str, N: Order):
    ages, weights = quadrature(measure)
    g = hippo.basis(N, ages, measure=measure)
    return abs(g.T @ (weights[:, None] * g) - np.eye(N)), np.full((N, N), 2**12 * UNIT * N * N)


def in_powers(n: int, measure: str) -> list[Fraction]:
    """Return Pₙ(2s − 1) as powers of s, or the Laguerre polynomial Lₙ(a) as powers of a."""
    if measure == "lagt":
        return [Fraction((-1) ** m * math.comb(n, m), math.factorial(m)) for m in range(n + 1)]
    return [Fraction((-1) ** (n + m) * math.comb(n, m) * math.comb(n + m, m)) for m in range(n + 1)]


def seen(f: list[Any], t: Any, measure: str) -> list[Any]:
    """Return f as a polynomial in s = 0 … 1 from the far end to now, or in the age a for LagT."""
    if measure == "legs":
        return [a * t**m for m, a in enumerate(f)]
    if measure == "legt":
        return taylor_shift(f, t - 1)
    return [(-1) ** m * a for m, a in enumerate(taylor_shift(f, t))]


def mean_square(polynomial: list[Any], measure: str) -> Any:
    """Return ∫ p² over the measure: ∫₀¹ sᵐ ds = 1/(m + 1), ∫₀^∞ aᵐ e⁻ᵃ da = m!."""
    total = 0 * polynomial[0]
    for i, a in enumerate(polynomial):
        for j, b in enumerate(polynomial):
            total = total + a * b * (math.factorial(i + j) if measure == "lagt" else Fraction(1, i + j + 1))
    return total


def squared_error(f: list[Any], c: list[Any], measure: str) -> Any:
    """Return ∫ (f − Σ cₙ gₙ)² over the measure, for c of polynomials that are not normalised."""
    rest = [*f, *[0 * c[0]] * (len(c) - len(f))]
    for n, x in enumerate(c):
        for m, p in enumerate(in_powers(n, measure)):
            rest[m] = rest[m] - (1 if measure == "lagt" else 2 * n + 1) * x * p
    return mean_square(rest, measure)


@identity(
    "Coefficients minimise ∫ (f − Σ cₙ gₙ)² over the measure: a change d adds |d|² to it",
    source=f"{HIPPO}, section 2.2; {TALK}, importance by time",
    exact=True,
    over=PROJECTED,
    only=EXACT,
)
def projection_is_the_best(measure: str, f: Polynomial, t: Time, d: Changes):
    find = {"legs": legs_coefficients, "legt": legt_coefficients, "lagt": lagt_coefficients}[measure]
    f, t, N = list(f), t[()], len(d)
    c, past = find(f, t, N), seen(f, t, measure)
    changed = squared_error(past, [x + y for x, y in zip(c, d, strict=True)], measure)
    added = [x * x * (1 if measure == "lagt" else 2 * n + 1) for n, x in enumerate(d)]
    return np.array([changed]), np.array([sum(added, squared_error(past, c, measure))])


def held_error(f: Any, c: Any, measure: str) -> float:
    """Return ∫ (f − Σ cₙ gₙ)² over the measure, f held for one unit of age a sample (legs: 1/T), and 0 before."""
    nodes, weights = legendre.leggauss(NODES)
    T, unit = len(f), 1 / len(f) if measure == "legs" else 1.0
    total: Any = 0.0
    for k, value in enumerate(f):
        ages = unit * (T - 1 - k + (nodes + 1) / 2)
        density = np.exp(-ages) if measure == "lagt" else 1.0
        total += unit * (weights / 2 * density) @ (value - hippo.reconstruct(c, ages, measure=measure)) ** 2
    if measure == "lagt":
        ages, weights = laguerre.laggauss(NODES)
        total += math.exp(-T) * weights @ hippo.reconstruct(c, T + ages, measure=measure) ** 2
    return total


@bounded(
    "So do those of the recurrence, by zero-order hold, for samples that are held: LegS under its measure, LagT under "
    "its own",
    source=f"{HIPPO}, theorems 1 and 2; {TALK}, importance by time",
    over=ONLINE,
    only=("float64",),
)
def online_coefficients_are_the_best(measure: str, f: Samples, d: Changes):
    f, d = (np.asarray(x, dtype=np.float64) for x in (f, d))
    c = hippo.project(f, len(d), measure=measure, method="zoh")[-1]
    least, changed = held_error(f, c, measure), held_error(f, c + d, measure)
    scale = 1 + (f @ f) + (c @ c) + (d @ d)
    return np.array([abs(changed - least - d @ d)]), np.array([1e5 * UNIT * len(d) ** 2 * scale])


@bounded(
    "To LegS every moment is alike: the past in reverse has the same coefficients, up to the sign (−1)ⁿ",
    source=f"{HIPPO}, theorem 2; {TALK}, importance by time",
    only=("float64",),
)
def legs_does_not_fade(f: Samples, N: Order):
    f = np.asarray(f, dtype=np.float64)
    forwards, backwards = (hippo.project(x, N, method="zoh")[-1] for x in (f, f[::-1]))
    limit = 1e4 * UNIT * N * N * (1 + abs(f).max())
    return abs(backwards - (-1.0) ** np.arange(N) * forwards), np.full(N, limit)


@refuted(
    "To LagT too (its measure fades: what was long ago counts less)",
    source=f"{HIPPO}, theorem 1; {TALK}",
    relation="≤",
    instead="polynomials.legs_does_not_fade",
)
def lagt_does_not_fade(f: Reversible, N: Order):
    f = np.asarray(f, dtype=np.float64)
    forwards, backwards = (hippo.project(x, N, measure="lagt", method="zoh")[-1] for x in (f, f[::-1]))
    return abs(backwards - (-1.0) ** np.arange(N) * forwards), np.full(N, 0.01)


# "A polynomial of high order jumps at a touch"


@bounded(
    "A change d of LegS's N coefficients moves the reconstruction of the past by N |d| at most",
    source=f"{HIPPO}, section 2.2, with |Pₙ| ≤ 1; {TALK}, high order",
    only=("float64",),
)
def reconstruction_is_stable(d: Changes):
    d = np.asarray(d, dtype=np.float64)
    moved = abs(hippo.reconstruct(d, np.linspace(0, 1, 33)))
    return moved, np.full(33, (1 + 64 * UNIT) * len(d) * math.sqrt(d @ d))


@bounded(
    "No smaller factor will do: in the direction of B it moves the value now by N |B|, of |B| = N",
    source=f"{HIPPO}, theorem 2, B; {TALK}, high order",
    only=("float64",),
)
def bound_is_attained(N: Order):
    _, B = hippo.legs(N)
    return abs(np.array([hippo.reconstruct(B, [0.0])[0], B @ B]) - N * N), np.full(2, 64 * UNIT * N * N)


@refuted(
    "So it moves what is extrapolated, beyond the beginning of the past (there polynomials of high order do jump)",
    source=f"{TALK}, high order",
    relation="≤",
    instead="polynomials.reconstruction_is_stable",
)
def extrapolation_is_stable(d: Changes):
    d = np.asarray(d, dtype=np.float64)
    return abs(hippo.reconstruct(d, np.array([2.0]))), np.array([len(d) * math.sqrt(d @ d)])


@bounded(
    "And a change of f changes the coefficients by no more, in the mean square: Σ cₙ² ≤ ∫ f² (Bessel)",
    source=f"{HIPPO}, section 2.2; {TALK}, high order",
    exact=True,
    over=PROJECTED,
    only=("fractions",),
)
def coefficients_are_stable(measure: str, f: Polynomial, t: Time, N: Order):
    find = {"legs": legs_coefficients, "legt": legt_coefficients, "lagt": lagt_coefficients}[measure]
    f, t = list(f), t[()]
    squares = [x * x * (1 if measure == "lagt" else 2 * n + 1) for n, x in enumerate(find(f, t, N))]
    return np.array([sum(squares)]), np.array([mean_square(seen(f, t, measure), measure)])


@refuted(
    "So it changes the coefficients of 1, s, s², … (it is this basis that is badly conditioned, not the order)",
    source=f"{TALK}, high order",
    exact=True,
    relation="≤",
    instead="polynomials.coefficients_are_stable",
)
def monomials_are_stable(f: Polynomial):
    f = list(f)
    return np.array([sum(a * a for a in f)]), np.array([mean_square(f, "legs")])


def inverse_hilbert(N: int) -> Any:
    """Return the inverse of the matrix ∫₀¹ sⁱ sʲ ds = 1/(i + j + 1), in whole numbers."""
    n, C = N, math.comb
    entries = [
        [(-1) ** (i + j) * (i + j + 1) * C(n + i, n - j - 1) * C(n + j, n - i - 1) * C(i + j, i) ** 2 for j in range(n)]
        for i in range(n)
    ]
    return np.array(entries, dtype=object)


def hilbert(N: int) -> Any:
    """Return the matrix ∫₀¹ sⁱ sʲ ds = 1/(i + j + 1)."""
    return np.array([[Fraction(1, i + j + 1) for j in range(N)] for i in range(N)], dtype=object)


@identity(
    "The products of 1, s, s², … are Hilbert's matrix 1/(i + j + 1), whose inverse is of whole numbers",
    source="minigrad, Hilbert's matrix",
    exact=True,
    only=("fractions",),
)
def inverse_of_hilbert(N: Order):
    return hilbert(2 * N) @ inverse_hilbert(2 * N), hilbert(2 * N)[0, 0] * np.eye(2 * N, dtype=int).astype(object)


@grows(
    "Its condition number is exponential: its logarithm is of order 1 in N. That of Legendre's basis is 1",
    source=f"minigrad, Hilbert's matrix; {TALK}, high order",
    order=1,
    lengths=(8, 16, 32),
)
def condition_of_monomials(length: int):
    norms = [abs(matrix).sum(axis=1).max() for matrix in (hilbert(length), inverse_hilbert(length))]
    return math.log(norms[0] * norms[1])


# The indices of the matrix


@identity(
    "LegS's entries are −√(2n+1)√(2k+1) below the diagonal, −(n+1) on it and 0 above: n and k are degrees",
    source=f"{HIPPO}, theorem 2; talk-mamba, slide 19",
    exact=True,
    only=EXACT,
)
def entries_of_legs(N: Order):
    stated = [[-(2 * n + 1) * (2 * k + 1 if n > k else n + 1) if n >= k else 0 for k in range(N)] for n in range(N)]
    return scaled_to_integers(hippo.legs(N)[0]), np.array(stated, dtype=object)


@grows(
    "In a column they grow as √n, slower than linearly",
    source="talk-mamba, slide 19",
    order=0.5,
    lengths=(64, 128, 256),
)
def entries_of_a_column(length: int):
    return abs(hippo.legs(length + 1)[0][length, 0])


@grows("On the diagonal and beside it they grow linearly", source="talk-mamba, slide 19, made precise", order=1)
def entries_of_the_diagonal(length: int):
    return abs(hippo.legs(length + 1)[0][length, [length - 1, length]]).sum()


@bounded(
    "The function of index n is a polynomial of degree n: its differences of order n are constant",
    source=f"{HIPPO}, appendix D.3; talk-mamba, slide 19",
    only=("float64",),
)
def indices_are_degrees(N: Order):
    g = hippo.basis(N, np.arange(N + 2) / (N + 1))
    errors = [abs(np.diff(g[:, n], n + 1)).max() for n in range(N)]
    constant = [abs(np.diff(g[:, n], n)).min() for n in range(N)]  # the leading coefficient, which is not 0
    limits = [2.0**N * 64 * UNIT * np.abs(g).max()] * N
    return (np.array(errors), np.array(limits)), (np.array(limits), np.array(constant))


@refuted(
    "They are times: a new sample enters the last coefficient and leaves those of earlier times (it enters all)",
    source="talk-mamba, slide 19: 'where the time is before k'",
    relation="≤",
    instead="polynomials.indices_are_degrees",
)
def indices_are_times(f: Reversible):
    f = np.asarray(f, dtype=np.float64)
    before, after = hippo.project(f, len(f))[-2:]
    return abs(after - before)[:-1], np.full(len(f) - 1, 0.01)

"""HiPPO: the coefficients satisfy the published equations, and how well they reconstruct the past.

√(2n + 1) is not rational, but LegS and LegT are √(2n + 1)√(2k + 1) times rational numbers. With D = diag √(2n + 1) the
matrices D A D and D⁻¹ A D are whole, so the statements about them are decided by whole numbers, for the code's own A.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st
from numpy.polynomial import legendre

from models.ssm import hippo
from proofs.checker.statements import EXACT, Instance, bounded, converges, grows, identity, refuted
from proofs.checker.strategies import LARGE, POSITIVE, Strategy, elements

CHAPTER = 12

HIPPO = "gu2020hippo"

Polynomial = Annotated[Any, Strategy("M", LARGE, sizes={"M": st.integers(1, 6)})]  # a₀ + a₁x + a₂x² + …
Samples = Annotated[Any, Strategy("M", LARGE, sizes={"M": st.integers(1, 12)})]
Time = Annotated[Any, Strategy("", POSITIVE)]
Waves = Annotated[Any, Strategy("M 2", LARGE, sizes={"M": st.integers(1, 3)})]  # of cos 2πmt and sin 2πmt
Frequency = Annotated[Any, Strategy("", elements(2, 1, 3, "7/3", "1/2"))]
Order = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, 5)))]

UNIT = 2.0**-53


def as_integers(matrix: Any) -> Any:
    """Return the integer matrix that a float matrix is up to rounding. Raises ValueError for others."""
    nearest = np.rint(matrix)
    if not np.all(abs(matrix - nearest) <= 64 * UNIT * abs(nearest)):
        raise ValueError(f"{matrix} is not whole")
    return np.vectorize(lambda x: int(float(x)), otypes=[object])(nearest)


def scaled_to_integers(A: Any) -> Any:
    """Return D A D for LegS's A (N, N), with √(2n + 1) on the diagonal of D: its entries are integers."""
    root = np.sqrt(2 * np.arange(len(A)) + 1.0)
    return as_integers(root[:, None] * A * root)


def unnormalised(N: int, measure: str) -> Any:
    """Return D⁻¹ A D, for coefficients c/D: the A of Legendre polynomials that are not normalised."""
    root = np.sqrt(2 * np.arange(N) + 1.0)
    return as_integers(hippo.MEASURES[measure](N)[0] / root[:, None] * root)


# The equations


def polynomial_value(polynomial: Any, t: Any) -> Any:
    """Return Σ aₘ tᵐ."""
    total = 0 * t
    for a in reversed(list(polynomial)):
        total = total * t + a
    return total


def derivative_value(polynomial: Any, t: Any) -> Any:
    """Return the polynomial's derivative at t."""
    return polynomial_value([m * polynomial[m] for m in range(1, len(polynomial))] or [0 * t], t)


def taylor_shift(polynomial: Any, start: Any) -> list[Any]:
    """Return the coefficients of p(start + x) as a polynomial in x."""
    size = len(polynomial)
    return [polynomial_value([math.comb(m, j) * polynomial[m] for m in range(j, size)], start) for j in range(size)]


def project_on_legendre(polynomial: Any, n: int) -> Any:
    """Return ∫₀¹ p(s) Pₙ(2s − 1) ds, from ∫₀¹ sᵐ Pₙ(2s − 1) ds = m!²/((m − n)!(m + n + 1)!)."""
    total = 0 * polynomial[0]
    for m in range(n, len(polynomial)):
        below = math.factorial(m - n) * math.factorial(m + n + 1)
        total = total + polynomial[m] * math.factorial(m) ** 2 / below
    return total


def legs_coefficients(polynomial: Any, t: Any, N: int) -> list[Any]:
    """Return cₙ(t)/√(2n + 1) = ∫₀¹ f(ts) Pₙ(2s − 1) ds."""
    stretched = [polynomial[m] * t**m for m in range(len(polynomial))]
    return [project_on_legendre(stretched, n) for n in range(N)]


def legt_coefficients(polynomial: Any, t: Any, N: int) -> list[Any]:
    """Return cₙ(t)/√(2n + 1) = ∫₀¹ f(t − 1 + s) Pₙ(2s − 1) ds."""
    return [project_on_legendre(taylor_shift(polynomial, t - 1), n) for n in range(N)]


def lagt_coefficients(polynomial: Any, t: Any, N: int) -> list[Any]:
    """Return cₙ(t) = ∫₀^∞ f(t − a) Lₙ(a) e⁻ᵃ da, from ∫₀^∞ aᵐ Lₙ(a) e⁻ᵃ da = (−1)ⁿ m! C(m, n)."""
    behind = taylor_shift(polynomial, t)
    weights = [[(-1) ** (m + n) * math.factorial(m) * math.comb(m, n) for m in range(len(behind))] for n in range(N)]
    return [sum((w * b for w, b in zip(row, behind, strict=True)), 0 * t) for row in weights]


def derivative(coefficients: Any, polynomial: Any, t: Any, N: int) -> list[Any]:
    """Return ċ for a measure translated with t: c(t) of f is c(0) of f(t + ·), so ċ is the coefficients of f′."""
    return coefficients([m * polynomial[m] for m in range(1, len(polynomial))] or [0 * t], t, N)


def matrix_times(A: Any, c: list[Any]) -> list[Any]:
    """Return A c for an integer matrix and numbers of any kind."""
    return [sum((a * x for a, x in zip(row, c, strict=True)), 0 * c[0]) for row in A.tolist()]


@identity(
    "LegS's coefficients, ∫ f gₙ over all of the past, obey t ċ = A c + B f, whatever f",
    source=f"{HIPPO}, theorem 2 and appendix D.3",
    exact=True,
    only=EXACT,
)
def legs_equation(f: Polynomial, t: Time, N: Order):
    f, t = list(f), t[()]
    A, c = unnormalised(N, "legs"), legs_coefficients(f, t, N)
    moving = legs_coefficients([m * f[m] for m in range(len(f))], t, N)  # t d/dt of tᵐ is m tᵐ
    # B is 1 in these coefficients
    return np.array(moving), np.array([x + polynomial_value(f, t) for x in matrix_times(A, c)])


@identity(
    "LagT's coefficients, ∫ f gₙ e^(−age), obey ċ = A c + B f, whatever f",
    source=f"{HIPPO}, theorem 1 and appendix D.2",
    exact=True,
    only=EXACT,
)
def lagt_equation(f: Polynomial, t: Time, N: Order):
    f, t = list(f), t[()]
    A, c = as_integers(hippo.lagt(N)[0]), lagt_coefficients(f, t, N)
    moving = derivative(lagt_coefficients, f, t, N)
    return np.array(moving), np.array([x + polynomial_value(f, t) for x in matrix_times(A, c)])


def legt_sides(f: list[Any], t: Any, N: int) -> tuple[Any, Any]:
    """Return ċ and A c + B f of LegT."""
    A, c = unnormalised(N, "legt"), legt_coefficients(f, t, N)
    moving = derivative(legt_coefficients, f, t, N)
    return np.array(moving), np.array([x + polynomial_value(f, t) for x in matrix_times(A, c)])


@identity(
    "LegT's coefficients obey their equation for polynomials below the order",
    source=f"{HIPPO}, theorem 1 and appendix D.1",
    exact=True,
    only=EXACT,
)
def legt_equation(f: Polynomial, t: Time, N: Order):
    return legt_sides(list(f)[:N], t[()], N)


@refuted(
    "LegT's coefficients obey their equation for any f (it replaces the value that leaves the window by its "
    "reconstruction)",
    source=f"{HIPPO}, appendix D.1, made precise",
    exact=True,
)
def legt_equation_of_any_function(f: Polynomial, t: Time, N: Order):
    return legt_sides(list(f), t[()], N)


@bounded(
    "Fourier's functions are 1, √2 cos 2πa, √2 sin 2πa, √2 cos 4πa, …, and its coefficients of an f of period 1 below "
    "the order obey ċ = A c + B f and give f back",
    source="gu2023hippo, the system S4-FouT (place not verified)",
    only=("float64",),
)
def fourier_equation(waves: Waves, t: Time):
    a, b = np.asarray(waves, dtype=np.float64).T
    time, ages, turns, N = float(t[()]), np.linspace(0, 1, 7), 2 * math.pi * np.arange(len(a)), 2 * len(a) - 1
    cos, sin = np.cos(turns * time), np.sin(turns * time)
    even, odd = (a * cos + b * sin)[1:] / math.sqrt(2), (a * sin - b * cos)[1:] / math.sqrt(2)
    c, moving = np.full(N, a[0]), np.zeros(N)
    c[1::2], c[2::2], moving[1::2], moving[2::2] = even, odd, -turns[1:] * odd, turns[1:] * even
    A, B = hippo.fourier(N)
    now, *past = [a @ np.cos(turns * (time - age)) + b @ np.sin(turns * (time - age)) for age in (0, *ages)]
    errors = abs(moving - (A @ c + B * now)), abs(hippo.reconstruct(c, ages, measure="fourier") - past)
    bound = 1e4 * UNIT * N * N * (1 + abs(a).max() + abs(b).max())
    return errors, (np.full(N, bound), np.full(7, bound))


# Remembering


def project_held(samples: Any, N: int) -> Any:
    """Return cₙ = Σₖ fₖ ∫ gₙ over the k-th of T equal parts of the past, by the antiderivative of a polynomial."""
    edges, c = np.linspace(-1, 1, len(samples) + 1), []
    for n in range(N):
        integral = legendre.legval(edges, legendre.legint(np.eye(n + 1)[n])) / 2
        c.append(math.sqrt(2 * n + 1) * np.sum(samples * np.diff(integral)))
    return np.array(c)


@bounded(
    "The projection of held samples, by quadrature, is LegS's recurrence by zero-order hold",
    source=f"{HIPPO}, theorem 2, in the time log t",
    only=("float64",),
)
def recurrence_is_projection(f: Samples, N: Order):
    f = np.asarray(f, dtype=np.float64)
    online = hippo.project(f, N, method="zoh")
    errors = [abs(online[k] - project_held(f[: k + 1], N)) for k in range(len(f))]
    return np.array(errors), np.full((len(f), N), 1e4 * UNIT * N * N * (1 + abs(f).max()))


@grows(
    "The bilinear recurrence, as published, converges to the projection of a smooth f with order 1 in the step",
    source=f"{HIPPO}, section 2.4 and appendix B.3",
    order=1,
    lengths=(64, 128, 256),
)
def bilinear_recurrence(length: int):
    f = np.sin(3 * np.arange(1, length + 1) / length)
    ages, weights = legendre.leggauss(20)
    smooth = (weights / 2 * np.sin(3 * (1 - ages) / 2)) @ hippo.basis(5, (1 + ages) / 2)
    return 1 / abs(hippo.project(f, 5)[-1] - smooth).max()


@bounded(
    "LegS does not depend on the time scale: every sample twice gives the same coefficients",
    source=f"{HIPPO}, proposition 3",
    only=("float64",),
)
def timescale(f: Samples, N: Order):
    f = np.asarray(f, dtype=np.float64)
    slow, fast = hippo.project(np.repeat(f, 2), N, method="zoh")[-1], hippo.project(f, N, method="zoh")[-1]
    return abs(slow - fast), np.full(N, 1e4 * UNIT * N * N * (1 + abs(f).max()))


MEASURES = [Instance(measure, {"measure": measure}, {}) for measure in ("legs", "legt", "lagt")]


def reconstruct(f: Any, N: int, measure: str, ages: Any) -> Any:
    """Return the reconstruction at t = 1 from the exact projection of a polynomial with these coefficients."""
    find = {"legs": legs_coefficients, "legt": legt_coefficients, "lagt": lagt_coefficients}[measure]
    roots = np.sqrt(2 * np.arange(N) + 1.0) if measure != "lagt" else np.ones(N)
    f = [Fraction(float(a)) for a in f]
    return hippo.reconstruct(np.array([float(c) for c in find(f, Fraction(1), N)]) * roots, ages, measure=measure)


@bounded(
    "A polynomial below the order is reconstructed exactly",
    source=f"{HIPPO}, section 2.2",
    over=MEASURES,
    only=("float64",),
)
def reconstruction(measure: str, f: Polynomial):
    f, ages = np.asarray(f, dtype=np.float64), np.linspace(0, 1, 7)
    exact = np.polynomial.polynomial.polyval(1 - ages, f)
    return abs(reconstruct(f, len(f), measure, ages) - exact), np.full(7, 1e6 * UNIT * (1 + abs(f).max()))


@refuted("A polynomial of any degree is reconstructed exactly", source="minigrad, N numbers", relation="≤")
def reconstruction_of_any_degree(f: Polynomial, N: Order):
    f, ages = np.asarray(f, dtype=np.float64), np.linspace(0, 1, 7)
    exact = np.polynomial.polynomial.polyval(1 - ages, f)
    return abs(reconstruct(f, N, "legs", ages) - exact), np.full(7, 0.01)


@converges(
    "For a smooth f, the root mean square error falls below 2 (ω/4)ᴺ/N!: for f = sin ωx, faster than any power",
    source=f"{HIPPO}, proposition 6 with Chebyshev's bound on the best polynomial",
)
def smooth_memory(omega: Frequency):
    omega = float(omega)
    orders = range(2, 13)
    ages, weights = legendre.leggauss(40)
    x, f = (1 - ages) / 2, np.sin(omega * (1 - ages) / 2)
    errors = []
    for N in orders:
        c = (weights / 2 * f) @ hippo.basis(N, 1 - x)
        errors.append(math.sqrt(weights / 2 @ (hippo.reconstruct(c, 1 - x) - f) ** 2))
    return np.array(errors), np.array([2 * (omega / 4) ** N / math.factorial(N) + 1e4 * UNIT for N in orders])


@grows(
    "For an f with a corner the error falls only as N^(−3/2)",
    source=f"{HIPPO}, proposition 6 with k = 1, made precise",
    order=1.5,
    lengths=(16, 32, 64),
)
def memory_of_a_corner(length: int):
    nodes, weights = legendre.leggauss(400)
    left, right = (nodes - 1) / 2, (nodes + 1) / 2  # each half on its own: |x| is a polynomial there
    x, w = np.concatenate([left, right]), np.concatenate([weights, weights]) / 4
    c = (w * abs(x)) @ hippo.basis(length, (1 - x) / 2)
    return 1 / math.sqrt(w @ (hippo.reconstruct(c, (1 - x) / 2) - abs(x)) ** 2)


@refuted(
    "The projection is a Taylor approximation",
    source="talk-mamba, slide 14",
    exact=True,
    instead="hippo.recurrence_is_projection",
)
def taylor(f: Polynomial, t: Time):
    f, t = list(f), t[()]
    # of order 1: the mean, and the value now
    return np.array(legs_coefficients(f, t, 1)), np.array([polynomial_value(f, t)])

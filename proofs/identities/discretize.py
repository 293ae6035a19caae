"""Discretisation of ẋ = Ax + Bu: zero-order hold, bilinear, Euler, and Mamba's rule."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.sequences import unit_lower_inverse
from models.ssm import discretize
from proofs.checker.counting import counted
from proofs.checker.statements import FLOATS, Instance, bounded, grows, identity, refuted
from proofs.checker.strategies import LARGE, POSITIVE, SMALL, Strategy, elements
from proofs.checker.systems import SYSTEMS

CHAPTER = 14

MAMBA = "gu2023mamba"
N = {"N": st.integers(1, 2)}
NEGATIVE = elements(-1, "-1/3", -2, "-3/5", "-1/7")

Step = Annotated[Any, Strategy("", POSITIVE)]
Steps = Annotated[Any, Strategy("D", POSITIVE)]
Rates = Annotated[Any, Strategy("N", NEGATIVE, sizes=N)]
Mixing = Annotated[Any, Strategy("N N", SMALL, sizes=N)]
Push = Annotated[Any, Strategy("N", SMALL, sizes=N)]
Enter = Annotated[Any, Strategy("N", SMALL, sizes=N)]
Start = Annotated[Any, Strategy("N", LARGE, sizes=N)]
Turns = Annotated[Any, Strategy("N", LARGE, sizes=N)]

# The other libraries compile every function for every shape: they run each method once, matrix beside diagonal.
OURS = tuple(name for name, system in SYSTEMS.items() if not system.library)
METHODS = [
    Instance(name, {"method": method}, {}, exact=name in ("bilinear", "euler"))
    for name, method in discretize.METHODS.items()
]


def stable(mixing: Any, push: Any) -> Any:
    """Return −I + a skew-symmetric matrix − p pᵀ, similar to HiPPO's: xᵀAx < 0, so every eigenvalue has Re λ < 0."""
    xp = namespace(mixing, push)
    skew = mixing - xp.matrix_transpose(mixing)
    return skew - xp.eye(push.shape[0], dtype=push.dtype) - push[:, None] * push[None, :]


def diagonal(rates: Any) -> Any:
    """Return the matrix with this diagonal."""
    return rates[:, None] * namespace(rates).eye(rates.shape[0], dtype=rates.dtype)


# Zero-order hold is the solution


@identity(
    "Zero-order hold is the ODE's solution for constant u: its derivative in Δ is Ax + Bu",
    source=f"{MAMBA}, eq. 4; talk-mamba, slide 22",
    derivatives=False,
    only=FLOATS,
)
def hold_solves_the_equation(mixing: Mixing, push: Push, B: Enter, x: Start, delta: Step):
    A = stable(mixing, push)

    def state(delta: Any) -> Any:
        A_bar, B_bar = discretize.zoh(A, B, delta)
        return A_bar @ x + B_bar

    reached, slope = mg.jvp(state, (delta,), (namespace(delta).ones_like(delta),))
    return slope, A @ reached + B


@identity(
    "Zero-order hold composes: a step of Δ + Δ′ is a step of Δ and then one of Δ′", source=f"{MAMBA}, eq. 4", only=OURS
)
def hold_by_parts(mixing: Mixing, push: Push, B: Enter, delta: Step, later: Steps):
    A, then = stable(mixing, push), later[0]
    A_1, B_1 = discretize.zoh(A, B, delta)
    A_2, B_2 = discretize.zoh(A, B, then)
    return discretize.zoh(A, B, delta + then), (A_2 @ A_1, A_2 @ B_1 + B_2)


@bounded(
    "It agrees with a general solver (Dormand and Prince's, of order 5) within the solver's tolerance",
    source="scipy, scipy.integrate.solve_ivp",
    only=("float64",),
)
def hold_beside_a_solver(mixing: Mixing, push: Push, B: Enter, x: Start, u: Steps, delta: Step):
    from scipy.integrate import solve_ivp  # here, for it takes a quarter of the time to import the statements

    mixing, push, B, x, u = (np.asarray(value, dtype=np.float64) for value in (mixing, push, B, x, u))
    A, step, tolerance = stable(mixing, push), float(delta), 1e-7
    A_bar, B_bar = discretize.zoh(A, B, step)
    x_zoh = x_solver = x
    for value in u:  # piecewise constant
        x_zoh = A_bar @ x_zoh + B_bar * value
        solution = solve_ivp(
            lambda _, y, value=value: A @ y + B * value, (0, step), x_solver, rtol=tolerance, atol=tolerance
        )
        x_solver = solution.y[:, -1]
    scale = 1 + np.abs(x_zoh).max()
    return np.abs(x_zoh - x_solver), np.full(x_zoh.shape, 100 * tolerance * scale)  # a hundred steps at most


@identity(
    "A singular A is no exception: for a nilpotent one, Ā = I + ΔA + Δ²A²/2, B̄ = (I + ΔA/2 + Δ²A²/6) ΔB",
    source="minigrad, the series, A⁻¹ does not exist",
    only=OURS,
)
def hold_of_a_nilpotent(mixing: Mixing, B: Enter, delta: Step):
    xp = namespace(mixing)
    X = delta * xp.triu(mixing, k=1)
    eye = xp.eye(B.shape[0], dtype=B.dtype)
    return discretize.zoh(X / delta, B, delta), (
        eye + X + X @ X / 2,
        (eye + X / 2 + X @ X / 6) @ (delta * B),
    )


@identity(
    "Its B̄ is a block of a matrix exponential: exp(Δ[[A, B], [0, 0]]) = [[Ā, B̄], [0, 1]]",
    source="vanloan1978, theorem 1 (place not verified)",
    only=FLOATS,
)
def hold_is_a_block_exponential(mixing: Mixing, push: Push, B: Enter, delta: Step):
    xp, A = namespace(mixing, push, B, delta), stable(mixing, push)
    size = B.shape[0]
    top = xp.concat([A, B[:, None]], axis=-1)
    exponential, _ = discretize.zoh(xp.concat([top, 0 * top[:1]], axis=0), 0 * top[0], delta)
    return discretize.zoh(A, B, delta), (exponential[:size, :size], exponential[:size, size])


# Matrices and diagonals


@identity(
    "A diagonal matrix and its diagonal give the same Ā and B̄",
    source="talk-mamba, slides 22–23",
    over=METHODS,
    exact=True,
)
def diagonal_is_dense(method: Any, rates: Rates, B: Enter, delta: Step):
    A_bar, B_bar = method(rates, B, delta)
    return method(diagonal(rates), B, delta), (diagonal(A_bar), B_bar)


@identity(
    "Complex diagonals too: λ = a + bi is the real matrix [[a, −b], [b, a]]",
    source="gu2022s4d, section 2 (place not verified)",
    over=METHODS,
    only=OURS,
)
def complex_is_two_real(method: Any, rates: Rates, turns: Turns, B: Enter, delta: Step):
    xp = namespace(rates, turns, B, delta)
    A_bar, B_bar = method(rates + 1j * turns, B + 0j * turns, delta)
    dense = method(rotation(rates, turns), xp.concat([B, 0 * B], axis=0), delta)
    return dense, (rotation(mg.real(A_bar), mg.imag(A_bar)), xp.concat([mg.real(B_bar), mg.imag(B_bar)], axis=0))


def rotation(a: Any, b: Any) -> Any:
    """Return [[a, −b], [b, a]] with diagonal blocks: a + bi as a real matrix on real and imaginary parts."""
    xp, a, b = namespace(a, b), diagonal(a), diagonal(b)
    return xp.concat([xp.concat([a, -b], axis=1), xp.concat([b, a], axis=1)], axis=0)


@identity(
    "A diagonalisable A is discretised in the basis of its eigenvectors: M A M⁻¹, M B gives M Ā M⁻¹, M B̄, whatever Δ",
    source="talk-mamba, slide 23; gu2022s4, lemma 3.1",
    over=METHODS,
    exact=True,
    only=OURS,
)
def change_of_basis(method: Any, rates: Rates, B: Enter, delta: Step, left: Mixing, right: Mixing):
    M, inverse = invertible(left, right)
    A_bar, B_bar = method(rates, B, delta)  # N operations, in the basis of the eigenvectors
    return method(M @ diagonal(rates) @ inverse, M @ B, delta), (M @ diagonal(A_bar) @ inverse, M @ B_bar)


@refuted(
    "A may vary as Δ does: steps with A₁ and then A₂ are one with A₁ + A₂ (so it is where the two commute)",
    source="talk-mamba, slides 21–23: 'a slightly different matrix at each time'",
    instead="discretize.commuting_matrices_add_up",
)
def matrices_add_up(mixing: Mixing, other: Mixing, push: Push, B: Enter, delta: Step):
    A_1, A_2 = stable(mixing, push), stable(other, push)
    return discretize.zoh(A_1 + A_2, B, delta)[0], discretize.zoh(A_2, B, delta)[0] @ discretize.zoh(A_1, B, delta)[0]


@identity(
    "Matrices with the same eigenvectors commute, and their steps add up: so does one A with several Δ",
    source="talk-mamba, slide 23, made precise",
    only=OURS,
)
def commuting_matrices_add_up(rates: Rates, others: Rates, B: Enter, delta: Step, left: Mixing, right: Mixing):
    M, inverse = invertible(left, right)
    A_1, A_2 = (M @ diagonal(x) @ inverse for x in (rates, others))
    steps = [discretize.zoh(A, B, delta)[0] for A in (A_1, A_2, A_1 + A_2)]
    return steps[1] @ steps[0], steps[2]


def invertible(left: Any, right: Any) -> tuple[Any, Any]:
    """Return a matrix and its inverse: a product of unit lower and unit upper triangular matrices."""
    xp = namespace(left, right)
    eye = xp.eye(left.shape[-1], dtype=left.dtype)
    lower, upper = (eye + xp.tril(x, k=-1) for x in (left, right))
    M = lower @ xp.matrix_transpose(upper)
    return M, xp.matrix_transpose(unit_lower_inverse(right)) @ unit_lower_inverse(left)


def count_operations(length: int, *, dense: bool) -> int:
    """Count the scalar operations of zero-order hold for a system of this size."""
    tally = [0]
    rates = -np.linspace(0.1, 0.9, length)
    A = counted(np.diag(rates) if dense else rates, tally)
    B, delta = counted(np.ones(length), tally), counted(np.ones(() if dense else 1), tally)
    discretize.zoh(A, B, delta)
    return tally[0]


@grows("Zero-order hold of a matrix costs N³", source="talk-mamba, slide 22", order=3, lengths=(6, 12, 24))
def cost_of_a_matrix(length: int):
    return count_operations(length, dense=True)


@grows("Zero-order hold of a diagonal costs N", source="talk-mamba, slides 22–23", order=1)
def cost_of_a_diagonal(length: int):
    return count_operations(length, dense=False)


# One family


@identity(
    "The generalised bilinear method is Euler's for α = 0, and for α = 1 backward Euler's",
    source="gu2021lssl, section 2",
    exact=True,
    only=OURS,
)
def ends_of_the_family(mixing: Mixing, push: Push, B: Enter, x: Start, delta: Step):
    A = stable(mixing, push)
    A_bar, B_bar = discretize.generalized_bilinear(A, B, delta, alpha=1)
    after = A_bar @ x + B_bar
    forward_euler = discretize.generalized_bilinear(A, B, delta, alpha=0)
    return (forward_euler, after - x), (discretize.euler(A, B, delta), delta * (A @ after + B))


@identity("For α = ½ it is the bilinear one", source="gu2021lssl, section 2", only=FLOATS)
def middle_of_the_family(mixing: Mixing, push: Push, B: Enter, delta: Step):
    A = stable(mixing, push)
    return discretize.generalized_bilinear(A, B, delta, alpha=0.5), discretize.bilinear(A, B, delta)


@identity(
    "The bilinear method steps with the mean of the slopes at both ends",
    source="gu2020hippo, appendix B.3",
    exact=True,
    only=OURS,
)
def trapezoid(mixing: Mixing, push: Push, B: Enter, x: Start, delta: Step):
    A = stable(mixing, push)
    A_bar, B_bar = discretize.bilinear(A, B, delta)
    after = A_bar @ x + B_bar
    return 2 * (after - x), delta * ((A @ x + B) + (A @ after + B))


@bounded(
    "Bilinear steps of a stable system are stable, whatever Δ: |Ā| ≤ 1",
    source="tustin1947; gu2022s4, eq. 3",
    exact=True,
    only=OURS,
)
def bilinear_is_stable(rates: Rates, delta: Step):
    A_bar, _ = discretize.bilinear(4 * rates, rates, 4 * delta)
    return A_bar * A_bar, 0 * A_bar + 1


@refuted("Euler's steps of a stable system are stable", source="minigrad, ΔA < −2", exact=True, relation="≤")
def euler_is_stable(rates: Rates, delta: Step):
    A_bar, _ = discretize.euler(4 * rates, rates, 4 * delta)
    return A_bar * A_bar, 0 * A_bar + 1

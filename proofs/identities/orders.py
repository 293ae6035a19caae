"""The order of convergence of each discretisation in the step Δ.

The system is ẋ = λx + u with u = e^(iωt) and x(0) = 0, which comes to (e^(iω) − e^λ)/(iω − λ) at t = 1.
"""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy as np

from models.ssm import discretize
from proofs.checker.statements import converges, grows
from proofs.identities.discretize import MAMBA, Enter, Mixing, Push, Step, stable

CHAPTER = 15

MAMBA3 = "lahoti2026mamba3"
RATE, FREQUENCY = -1 + 2j, 3.0


def inverse_error(length: int, step: Any) -> float:
    """Return 1/error after `length` steps of `step(x, u before, u after, λ, Δ)`."""
    x, delta = 0j, 1 / length
    samples = [cmath.exp(1j * FREQUENCY * k * delta) for k in range(length + 1)]
    for before, after in zip(samples, samples[1:], strict=False):
        x = step(x, before, after, delta)
    exact = (cmath.exp(1j * FREQUENCY) - cmath.exp(RATE)) / (1j * FREQUENCY - RATE)
    return 1 / abs(x - exact)


def discretize_rate(method: str, delta: float) -> tuple[complex, complex]:
    """Return Ā and B̄ of the system above."""
    A_bar, B_bar = discretize.METHODS[method](np.array([RATE]), np.ones(1), delta)
    return A_bar[0], B_bar[0]


def hold_step(method: str) -> Any:
    """Return the step xₖ = Ā xₖ₋₁ + B̄ uₖ."""

    def step(x: complex, _: complex, u: complex, delta: float) -> complex:
        A_bar, B_bar = discretize_rate(method, delta)
        return A_bar * x + B_bar * u

    return step


LENGTHS = (64, 128, 256)


@grows(
    "Euler's method is of order 1: the error falls as Δ", source="gu2020hippo, appendix B.3", order=1, lengths=LENGTHS
)
def order_of_euler(length: int):
    def step(x: complex, u: complex, _: complex, delta: float) -> complex:
        A_bar, B_bar = discretize_rate("euler", delta)
        return A_bar * x + B_bar * u

    return inverse_error(length, step)


@grows(
    "The bilinear method is of order 2, given the mean of u at both ends",
    source="gu2020hippo, appendix B.3",
    order=2,
    lengths=LENGTHS,
)
def order_of_bilinear(length: int):
    def step(x: complex, before: complex, after: complex, delta: float) -> complex:
        A_bar, B_bar = discretize_rate("bilinear", delta)
        return A_bar * x + B_bar * (before + after) / 2

    return inverse_error(length, step)


@grows(
    "Given uₖ alone, as S4 gives it, the bilinear method is of order 1 for a changing input",
    source="gu2022s4, eq. 3, made precise",
    order=1,
    lengths=LENGTHS,
)
def order_of_bilinear_held(length: int):
    return inverse_error(length, hold_step("bilinear"))


@grows(
    "Zero-order hold, exact for a constant input, is of order 1 for a changing one",
    source=f"{MAMBA}, eq. 4, made precise",
    order=1,
    lengths=LENGTHS,
)
def order_of_hold(length: int):
    return inverse_error(length, hold_step("zoh"))


@grows(
    "Mamba's rule, the exponential Euler method, is of order 1",
    source=f"mamba-code; {MAMBA3}, section 3.1",
    order=1,
    lengths=LENGTHS,
)
def order_of_mamba(length: int):
    return inverse_error(length, hold_step("mamba"))


@grows(
    "The exponential trapezoidal rule, xₖ = Ā xₖ₋₁ + Δ/2 (Ā B uₖ₋₁ + B uₖ), is of order 2",
    source=f"{MAMBA3}, section 3.1",
    order=2,
    lengths=LENGTHS,
)
def order_of_exponential_trapezoid(length: int):
    def step(x: complex, before: complex, after: complex, delta: float) -> complex:
        A_bar, B_bar = discretize_rate("mamba", delta)
        return A_bar * x + (A_bar * B_bar * before + B_bar * after) / 2

    return inverse_error(length, step)


def halved_steps(delta: Any) -> list[Any]:
    """Return Δ, Δ/2, …, Δ/256."""
    return [delta / 2**k for k in range(9)]


def norms(*vectors: Any) -> Any:
    """Return the Euclidean norm of each vector."""
    return np.array([math.sqrt(sum(abs(complex(x)) ** 2 for x in np.ravel(vector))) for vector in vectors])


@converges(
    "B̄ = ΔB differs from zero-order hold's by at most Δ²‖AB‖/2 a step, for matrices too",
    source=f"{MAMBA}, eq. 4 against its code; mamba-code, #114, #121, #129, #524",
)
def euler_input(mixing: Mixing, push: Push, B: Enter, delta: Step):
    A = stable(mixing, push)
    B = B + 0 * push + (abs(B).sum() == 0)  # not 0, or there is nothing to bound
    errors = [discretize.zoh(A, B, step)[1] - discretize.mamba(A, B, step)[1] for step in halved_steps(delta)]
    return norms(*errors), norms(*[step * step / 2 * (A @ B) for step in halved_steps(delta)])


@converges(
    "Bilinear Ā differs from exp(ΔA) by at most Δ³‖A‖³/6 a step", source="minigrad, the remainders of both series"
)
def bilinear_transition(mixing: Mixing, push: Push, delta: Step):
    A = stable(mixing, push)
    errors, bounds = [], []
    for step in halved_steps(delta):
        errors.append(discretize.bilinear(A, push, step)[0] - discretize.zoh(A, push, step)[0])
        bounds.append(step**3 / 6 * norms(A)[0] ** 3)
    return norms(*errors), np.array(bounds)

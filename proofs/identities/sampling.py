"""Sampling rates: a state space with a step Δ is a system in continuous time, whatever the rate of its samples."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from scipy.linalg import expm

from minigrad import namespace
from models.ssm import hippo, lssl, s4, s4d
from proofs.checker.statements import converges, grows, identity, refuted
from proofs.checker.strategies import LARGE, POSITIVE, RATES, SMALL, Strategy, elements, pairs
from proofs.identities import lti
from proofs.identities.s4 import Eigenvalues, Enter, Inputs, Leave, Skip, Start, Steps

CHAPTER = 17

S4, S4D = "gu2022s4", "gu2022s4d"
SPEECH = "book-ssm, S4: 'excellent on audio and time series', made precise"
COUNTS = 2 ** np.arange(2, 11)  # samples
OMEGA = 3.0  # of the signals sin ωt

Modes = Annotated[Any, Strategy("N", pairs(RATES, LARGE), complex=True, differentiable=False)]
Weights = Annotated[Any, Strategy("N", pairs(SMALL, SMALL), complex=True, differentiable=False)]
Factor = Annotated[Any, Strategy("", POSITIVE)]
Frequency = Annotated[Any, Strategy("", elements(3, 1, "1/2", 7), differentiable=False)]


def held(u: Any) -> Any:
    """Return every token twice, (*batch, 2 T, D)."""
    xp = namespace(u)
    return xp.reshape(xp.stack([u, u], axis=-2), (*u.shape[:-2], 2 * u.shape[-2], u.shape[-1]))


@identity(
    "At twice the rate, with half the step, S4D is the same system: samples held for two give the same outputs there",
    source=f"{S4D}, section 3; {SPEECH}",
)
def half_the_step(u: Inputs, Lambda: Eigenvalues, B: Enter, C: Leave, D: Skip, delta: Steps, state: Start):
    y, end = s4d.recurrent(held(u), Lambda, B, C, D, delta / 2, state=state)
    return (y[..., 1::2, :], end), s4d.recurrent(u, Lambda, B, C, D, delta, state=state)


@refuted(
    "At twice the rate S4D with the same step Δ gives the same outputs (it is then a system that is twice as fast)",
    source=f"minigrad, Δ is the time between samples; {SPEECH}",
    instead="sampling.half_the_step",
)
def the_step_as_it_was(u: Inputs, Lambda: Eigenvalues, B: Enter, C: Leave, D: Skip, delta: Steps, state: Start):
    y, end = s4d.recurrent(held(u), Lambda, B, C, D, delta, state=state)
    return (y[..., 1::2, :], end), s4d.recurrent(u, Lambda, B, C, D, delta, state=state)


@identity(
    "LSSL depends on ΔA and ΔB alone: with kA and kB in place of A and B it is the system at steps k times as long",
    source="gu2021lssl, section 3",
    exact=True,
)
def steps_are_speeds(
    u: lti.Inputs,
    A: lti.Stable,
    B: lti.Enter,
    C: lti.LeaveEach,
    D: lti.Skip,
    delta: lti.Steps,
    state: lti.Start,
    k: Factor,
):
    faster = lssl.recurrent(u, k * A, k * B, C, D, delta, state=state)
    return faster, lssl.recurrent(u, A, B, C, D, k * delta, state=state)


@converges(
    "Sampled ever faster, Δ being the time between samples, S4D's output of sin ωt approaches that of the continuous "
    "system: the error is at most Δω 2Σ |CₙBₙ / Re λₙ|",
    source=f"{S4D}, section 3: zero-order hold of a signal of slope ω; {SPEECH}",
)
def approaches_the_continuous_system(Lambda: Modes, B: Weights, C: Weights, omega: Frequency):
    omega, errors = float(omega), []
    total = 2 * float(np.sum(abs(C * B / Lambda.real)))
    for count in COUNTS:
        times = np.arange(1, count + 1) / count
        row, one = np.sin(omega * times)[:, None], np.ones(1)
        y, _ = s4d.recurrent(row, Lambda[None], B[None], C[None], 0 * one, one / count)
        errors.append(abs(y[:, 0] - continuous(Lambda, B, C, omega, times)).max())
    return np.array(errors), total * omega / COUNTS + 1e-12


def continuous(Lambda: Any, B: Any, C: Any, omega: float, times: Any) -> Any:
    """Return 2 Re Σ C h(t) of ḣ = λh + B sin ωt, h(0) = 0, in closed form."""
    grown, t = np.exp(Lambda * times[:, None]), times[:, None]
    waves = [(np.exp(sign * 1j * omega * t) - grown) / (sign * 1j * omega - Lambda) for sign in (1, -1)]
    return 2 * np.real((waves[0] - waves[1]) / 2j @ (B * C))


@grows(
    "So does S4's, by the bilinear rule: twice as many samples, half the error",
    source=f"{S4}, eq. 3; {SPEECH}",
    order=1,
    lengths=(64, 128, 256),
)
def error_of_s4(length: int):
    Lambda, P, B, _ = (x[None] for x in hippo.dplr(8))
    u, one = np.sin(OMEGA * np.arange(1, length + 1) / length)[:, None], np.ones(1)
    y, _ = s4.recurrent(u, Lambda, P, B, np.conj(B), 0 * one, one / length)
    full, low, enter = (np.concatenate([x[0], x[0].conj()]) for x in (Lambda, P, B))
    A = np.diag(full) - np.outer(low, low.conj())
    waves = []  # (e^{±iω} − e^A)(±iω − A)⁻¹ B, of ḣ = Ah + B e^{±iωt} at t = 1
    for omega in (OMEGA, -OMEGA):
        wave = np.linalg.solve(1j * omega * np.eye(len(A)) - A, enter)
        waves.append(np.exp(1j * omega) * wave - expm(A) @ wave)
    exact = enter.conj() @ (waves[0] - waves[1]) / 2j
    return 1 / abs(y[-1, 0] - exact.real)

"""Selection by the steps Δ of the tokens: linearity, composition of steps, operations, and memory of the scan.

A itself is one for all tokens, and so is S4's step for each channel; Mamba's Δ, B and C are computed from the token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

from minigrad import namespace
from models import linear_systems
from models.ssm import discretize, selective_scan
from proofs.checker.counting import counted
from proofs.checker.statements import bounded, converges, identity, refuted
from proofs.checker.strategies import LARGE, POSITIVE, SMALL, Strategy
from proofs.identities.discretize import OURS
from proofs.identities.lazy_softmax import workspace
from proofs.identities.lti import delay
from proofs.identities.selective import Enter, Inputs, Leave, N, Rates, Skip, Start, Step, Steps

CHAPTER = 18

MAMBA = "gu2023mamba"
TALK = "talk-papers, Mamba Linear-Time Sequence Modeling with Selective State Spaces"

EnterOfAll = Annotated[Any, Strategy("N", SMALL, sizes=N)]
LeaveOfAll = Annotated[Any, Strategy("N", LARGE, sizes=N)]
Pair = Annotated[Any, Strategy("2", SMALL)]
FourInputs = Annotated[Any, Strategy("*batch T D", LARGE, sizes={"T": st.integers(4, 9)})]
OneInput = Annotated[Any, Strategy("*batch 1 D", LARGE)]
OneStep = Annotated[Any, Strategy("*batch 1 D", POSITIVE)]
OneEnter = Annotated[Any, Strategy("*batch 1 N", SMALL, sizes=N)]

# "Selective is adding Δ"


@identity(
    "A step Δ for each channel, as S4 has, selects nothing: with one B and one C for all tokens the scan is linear in "
    "the input and commutes with delays",
    source="gu2022s4, eq. 3; talk-mamba, slide 22",
    only=OURS,
)
def steps_of_channels_select_nothing(
    u: Inputs, w: Inputs, delta: Step, A: Rates, B: EnterOfAll, C: LeaveOfAll, D: Skip, factors: Pair
):
    def scan(u: Any) -> Any:
        B_all, C_all = (x + 0 * u[..., :1] for x in (B, C))
        return selective_scan.recurrent(u, delta + 0 * u, A, B_all, C_all, D)[0]

    a, b = factors[0], factors[1]
    return (scan(a * u + b * w), scan(delay(u))), (a * scan(u) + b * scan(w), delay(scan(u)))


@identity(
    "Given the Δ, B and C of the tokens the scan is linear in the input: it is that they depend on it that is not",
    source=f"{MAMBA}, section 3.2; talk-mamba, slides 21 and 22",
    only=OURS,
)
def linear_given_its_selection(
    u: Inputs, w: Inputs, delta: Steps, A: Rates, B: Enter, C: Leave, D: Skip, factors: Pair
):
    a, b = factors[0], factors[1]
    (y, h), (z, g) = (selective_scan.recurrent(x, delta, A, B, C, D) for x in (u, w))
    return selective_scan.associative(a * u + b * w, delta, A, B, C, D), (a * y + b * z, a * h + b * g)


@identity(
    "One A for all tokens: without inputs they take h to exp((Δ₁ + … + Δ_T) A) h, so what a token chooses is a time",
    source=f"{MAMBA}, section 3.5.2: Δ; talk-mamba, slide 21: 'a slightly different matrix at each time'",
    only=OURS,
)
def steps_add_up(u: Inputs, delta: Steps, A: Rates, B: Enter, C: Leave, D: Skip, state: Start):
    _, h = selective_scan.recurrent(0 * u, delta, A, B, C, D, state=state)
    xp = namespace(delta, A)
    return h, xp.exp(xp.sum(delta, axis=-2)[..., None] * A) * state


# "Only a part of the state is used"


@identity(
    "A Δ of 0 keeps the state, whatever the input, and reads all of it: y = C h + D u",
    source=f"{MAMBA}, section 3.5.2: Δ; {TALK}",
    only=OURS,
)
def no_step_keeps_the_state(u: Inputs, A: Rates, B: Enter, C: Leave, D: Skip, state: Start):
    y, h = selective_scan.recurrent(u, 0 * u, A, B, C, D, state=state)
    return (y, h), (C @ state.mT + D * u, state)


@converges(
    "As Δ → 0 the state is kept: a token changes it by Δ (|A h| + |B u|) at most",
    source=f"{MAMBA}, section 3.5.2: Δ; {TALK}",
)
def small_steps_keep_the_state(u: OneInput, A: Rates, B: OneEnter, D: Skip, state: Start):
    xp = namespace(u, A)
    steps = [2.0**-k for k in range(9)]
    slope = abs(A * state) + abs(u.mT * B)
    after = [selective_scan.recurrent(u, step + 0 * u, A, B, B, D, state=state)[1] for step in steps]
    return xp.stack([abs(h - state) for h in after], axis=-1), xp.stack([step * slope for step in steps], axis=-1)


@refuted(
    "A token with Δ > 0 uses a part of the state only: some number of it stays as it is",
    source=f"{TALK}: 'only a part of the state space at each time'",
    relation="≤",
    instead="selective_steps.no_step_keeps_the_state",
)
def part_of_the_state_is_used(u: OneInput, delta: OneStep, A: Rates, B: OneEnter, D: Skip, state: Start):
    _, h = selective_scan.recurrent(u, delta, A, B, B, D, state=state)
    changes = namespace(h).min(abs(h - state), axis=(-2, -1))
    return changes, 0 * changes


@identity(
    "Selection saves no operations: there are as many for any Δ, for Δ = 0 too",
    source=f"{TALK}: 'less computation'",
    derivatives=False,
    only=("float64",),
)
def operations_for_any_step(u: Inputs, delta: Steps, A: Rates, B: Enter, C: Leave, D: Skip):
    arguments = [np.asarray(x, dtype=np.float64) for x in (A, B, C, D)]

    def count(delta: Any) -> int:
        tally = [0]
        tokens = [np.asarray(x, dtype=np.float64) for x in (u, delta)]
        selective_scan.recurrent(*(counted(x, tally) for x in (*tokens, *arguments)))
        return tally[0]

    return np.array([count(delta), count(delta)]), np.array([count(0 * delta), count(1 + delta)])


@bounded(
    "From four tokens on it adds some: one Δ, B and C for all tokens are discretised once, those of tokens each time",
    source=f"{TALK}: 'less computation'",
    only=("float64",),
)
def selection_adds_operations(u: FourInputs, delta: Steps, A: Rates, B: Enter, C: Leave):
    def count(run: Callable[..., Any], *arguments: Any) -> np.ndarray:
        tally = [0]
        run(*(counted(np.asarray(x, dtype=np.float64), tally) for x in arguments))
        return np.array([float(tally[0])])

    def constant(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
        y, _ = linear_systems.run_recurrence(u, *discretize.mamba(A, B, delta[:, None]), C + 0 * A, None)
        return y + D * u

    of_one = (x[(0,) * (x.ndim - 1)] for x in (B, C))  # the first token of the first sequence
    first = delta[(0,) * (delta.ndim - 1)]
    return count(constant, u, first, A, *of_one, first), count(selective_scan.recurrent, u, delta, A, B, C, first)


# "Kernel fusion, called the scan algorithm"


def memory_of_a_state(form: Callable[..., Any], T: int, D: int) -> np.ndarray:
    """Return the bytes that a form takes, beside arguments and results, for one number more in each channel's state."""
    sizes = (16, 32)
    bytes_of = []
    for states in sizes:
        u, A, B = np.ones((T, D)), -np.ones((D, states)), np.ones((T, states))
        bytes_of.append(workspace(lambda u, A=A, B=B: form(u, u, A, B, B, u[0]), u))
    return np.array([(bytes_of[1] - bytes_of[0]) / (sizes[1] - sizes[0])])


@bounded(
    "Fusion keeps no array of all states: a number more in the state takes less memory than one number a token",
    source=f"{MAMBA}, section 3.3.2; talk-mamba, slide 24: kernel fusion",
    only=("float64",),
)
def fusion_keeps_no_states():
    T, D = 512, 8
    return memory_of_a_state(selective_scan.fused, T, D), np.array([8.0 * T])


@refuted(
    "That is the scan algorithm (the scan is the use of associativity; by itself it keeps several T·D numbers more)",
    source=f"{MAMBA}, section 3.3.2; talk-mamba, slide 24: 'this is called the scan algorithm'",
    relation="≤",
    instead="selective_steps.fusion_keeps_no_states",
)
def the_scan_keeps_no_states():
    T, D = 512, 8
    return memory_of_a_state(selective_scan.associative, T, D), np.array([8.0 * T])

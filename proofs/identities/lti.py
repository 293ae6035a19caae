"""Linear time-invariant systems: recurrence, convolution, and their invariances."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models import linear_systems
from models.blocks.block import BlockConfig
from models.blocks.s4 import S4Block
from models.ssm import discretize, lssl, lti
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import LARGE, POSITIVE, SEVERAL, SMALL, Length, Strategy, stable
from proofs.identities.discretize import OURS, invertible

CHAPTER = 16

S4, LSSL = "gu2022s4", "gu2021lssl"
N = {"N": st.integers(1, 3)}

Inputs = Annotated[Any, Strategy("*batch T D", LARGE)]
System = Annotated[Any, Strategy("N N", SMALL, sizes=N)]
Stable = Annotated[Any, Strategy("N N", stable, degree=2, sizes=N)]
Diagonal = Annotated[Any, Strategy("N", SMALL, sizes=N)]
Enter = Annotated[Any, Strategy("N", SMALL, sizes=N)]
Leave = Annotated[Any, Strategy("N", LARGE, sizes=N)]
LeaveEach = Annotated[Any, Strategy("D N", LARGE, sizes=N)]
Start = Annotated[Any, Strategy("*batch D N", LARGE, sizes=N)]
Steps = Annotated[Any, Strategy("D", POSITIVE)]
Skip = Annotated[Any, Strategy("D", LARGE)]
Mixing = Annotated[Any, Strategy("N N", SMALL, sizes=N)]
Kernel = Annotated[Any, Strategy("D T", LARGE)]
Pair = Annotated[Any, Strategy("two", SMALL, sizes={"two": st.just(2)})]
HiddenNumber = Annotated[Any, Strategy("*batch D 1", LARGE)]
NInputs = Annotated[Any, Strategy("*batch N D", LARGE, sizes=N)]  # as many tokens as numbers in the state
TwoChannels = Annotated[Any, Strategy("*batch T 2", LARGE)]
# A token that a wrong turn carries to another place, so that there is more than one.
Several = Annotated[Any, Strategy("*batch T D", LARGE, sizes={"T": SEVERAL})]


def kernel_by_powers(A: Any, B: Any, C: Any, length: int) -> Any:
    """Return C B, C A B, C A A B, …, by repeated multiplication."""
    entries, x = [], B[:, None]
    for _ in range(length):
        entries.append((C[None, :] @ x)[0, 0])
        x = A @ x
    return namespace(A, B, C).stack(entries, axis=0)


def direct_sum(u: Any, kernel: Any) -> Any:
    """Return yₜ = Σ_{s ≤ t} K[t − s] uₛ, term by term."""
    terms = [[kernel[t - s] * u[..., s, :] for s in range(t + 1)] for t in range(u.shape[-2])]
    return namespace(u, kernel).stack([sum(row[1:], row[0]) for row in terms], axis=-2)


def delay(x: Any) -> Any:
    """Shift x by one token; the first becomes 0."""
    return namespace(x).concat([0 * x[..., :1, :], x[..., :-1, :]], axis=-2)


@identity(
    "The recurrence is the convolution with CB̄, CĀB̄, CĀ²B̄, …",
    source=f"{S4}, eq. 4–5; talk-mamba, slide 18; book-ssm, S4",
    exact=True,
)
def recurrence_is_a_convolution(u: Inputs, A: System, B: Enter, C: Leave):
    return lti.recurrent(u, A, B, C)[0], direct_sum(u, kernel_by_powers(A, B, C, u.shape[-2]))


@identity("Powers by doubling are the powers", source="minigrad, made precise", exact=True)
def doubled_powers(A: System, B: Enter, C: Leave, length: Length):
    return linear_systems.kernel(A[None], B[None], C[None], length=length)[0], kernel_by_powers(A, B, C, length)


@identity(
    "A diagonal system is the dense one with zeros off its diagonal", source="talk-mamba, slides 22–23", exact=True
)
def diagonal_is_dense(u: Inputs, A: Diagonal, B: Enter, C: Leave, state: Start):
    dense = A[:, None] * namespace(A).eye(A.shape[0], dtype=A.dtype)
    return lti.convolution(u, A, B, C, state=state), lti.recurrent(u, dense, B, C, state=state)


@identity("A convolution by zero-padded Fourier transforms is the direct one", source=f"{S4}, eq. 4")
def padded_transforms(u: Inputs, kernel: Kernel):
    return linear_systems.causal_convolution(u, kernel), direct_sum(u, namespace(kernel).matrix_transpose(kernel))


@identity(
    "From a zero state the system is linear in the input: if u gives y and w gives z, a u + b w gives a y + b z",
    source="book-ssm, SSM: A, B, C and D are matrices, a linear relation",
    exact=True,
    only=OURS,
)
def superposition(u: Inputs, w: Inputs, A: System, B: Enter, C: Leave, factors: Pair):
    a, b = factors[0], factors[1]
    (y, h), (z, g) = (lti.convolution(x, A, B, C) for x in (u, w))
    return lti.recurrent(a * u + b * w, A, B, C), (a * y + b * z, a * h + b * g)


@refuted(
    "From any state it is: twice the input gives twice the output (it is linear in input and state together)",
    source="book-ssm, SSM",
    exact=True,
    instead="lti.linear_in_input_and_state",
)
def superposition_from_a_state(u: Inputs, A: System, B: Enter, C: Leave, state: Start):
    return lti.recurrent(2 * u, A, B, C, state=state)[0], 2 * lti.recurrent(u, A, B, C, state=state)[0]


@identity(
    "In input and state together it is: twice both gives twice the output and twice the final state",
    source="book-ssm, SSM, made precise",
    exact=True,
    only=OURS,
)
def linear_in_input_and_state(u: Inputs, A: System, B: Enter, C: Leave, state: Start):
    y, h = lti.recurrent(u, A, B, C, state=state)
    return lti.convolution(2 * u, A, B, C, state=2 * state), (2 * y, 2 * h)


@refuted(
    "A layer of it is linear too: a state space drops nonlinearity (along time only: its block has a GELU and a gate)",
    source="book-ssm, SSM: activation functions are left out; gu2022s4, appendix D.2 (place not verified)",
    relation="≤",
    instead="lti.superposition",
)
def layer_is_linear(x: TwoChannels):
    x = np.asarray(x, dtype=np.float64)
    block = S4Block(BlockConfig(width=2, states=2, form="recurrent"), np.random.default_rng(0))
    return abs(block(2 * x)[0] - 2 * block(x)[0]), np.full(x.shape, 0.01)


@refuted("The zero-padding is not needed", source="minigrad, the end would wrap around onto the beginning")
def transforms_without_padding(u: Several, kernel: Kernel):
    return circular_convolution(u, kernel), linear_systems.direct_convolution(u, kernel)


@identity(
    "Without it the convolution is circular: outputs after the end are added at the beginning",
    source="minigrad, made precise",
)
def wrapped_around(u: Inputs, kernel: Kernel):
    xp = namespace(u, kernel)
    twice = linear_systems.direct_convolution(xp.concat([u, u], axis=-2), xp.concat([kernel, 0 * kernel], axis=-1))
    return circular_convolution(u, kernel), twice[..., u.shape[-2] :, :]


def circular_convolution(u: Any, kernel: Any) -> Any:
    """Convolve circularly, by Fourier transforms of the input's length."""
    spectrum = mg.fft.rfft(u, axis=-2) * namespace(kernel).matrix_transpose(mg.fft.rfft(kernel))
    return mg.fft.irfft(spectrum, u.shape[-2], axis=-2)


@identity("The system commutes with delays", source=f"{S4}, section 2.4", exact=True)
def commutes_with_delays(u: Inputs, A: System, B: Enter, C: Leave):
    return lti.convolution(delay(u), A, B, C)[0], delay(lti.recurrent(u, A, B, C)[0])


@identity(
    "A change of basis, (MAM⁻¹, MB, CM⁻¹) from the state Mh, leaves the output unchanged",
    source=f"{S4}, lemma 3.1; talk-mamba, slides 16 and 19",
    exact=True,
)
def change_of_basis(u: Inputs, A: System, B: Enter, C: Leave, state: Start, left: Mixing, right: Mixing):
    M, inverse = invertible(left, right)
    y, h = lti.recurrent(u, A, B, C, state=state)
    changed = lti.convolution(u, M @ A @ inverse, M @ B, C @ inverse, state=state @ namespace(M).matrix_transpose(M))
    return changed, (y, h @ namespace(M).matrix_transpose(M))


@refuted(
    "A change of basis of A alone leaves the output unchanged",
    source="minigrad, B and C are written in the old basis",
    exact=True,
)
def change_of_basis_of_one(u: Inputs, A: System, B: Enter, C: Leave, left: Mixing, right: Mixing):
    M, inverse = invertible(left, right)
    return lti.recurrent(u, M @ A @ inverse, B, C)[0], lti.recurrent(u, A, B, C)[0]


@identity(
    "A pair of conjugate eigenvalues is a real system of size 2, whose output is twice a real part",
    source=f"{S4}, section 3; {LSSL}",
    exact=True,
)
def conjugate_pair(u: Inputs, a: Pair, b: Pair, c: Pair):
    xp = namespace(a)
    turning = xp.stack([xp.stack([a[0], -a[1]], axis=0), xp.stack([a[1], a[0]], axis=0)], axis=0)
    reading = xp.stack([2 * c[0], -2 * c[1]], axis=0)
    kernel, power = [], (b[0], b[1])
    for _ in range(u.shape[-2]):
        kernel.append(2 * complex_product((c[0], c[1]), power)[0])
        power = complex_product((a[0], a[1]), power)
    return lti.convolution(u, turning, b, reading)[0], direct_sum(u, xp.stack(kernel, axis=0))


def complex_product(x: Any, y: Any) -> tuple[Any, Any]:
    """Multiply complex numbers given as (real, imaginary)."""
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


# Inferring the state


def observable(C: Any, A: Any) -> Any:
    """Return the rows C, C A, …, C Aᴺ⁻¹."""
    rows = [C]
    for _ in range(A.shape[0] - 1):
        rows.append(rows[-1] @ A)
    return namespace(A, C).stack(rows, axis=0)


@identity(
    "Where [C; CA; …; CAᴺ⁻¹] has rank N, N outputs less what the inputs add to them are solved for the state",
    source="talk-mamba, slide 16; kalman1960",
    exact=True,
    only=OURS,
)
def state_is_inferred(u: NInputs, tail: Diagonal, B: Enter, C: Leave, left: Mixing, right: Mixing, state: Start):
    xp, size = namespace(u), B.shape[0]
    M, inverse = invertible(left, right)
    ones = xp.eye(size, dtype=B.dtype)
    # a companion matrix and its first unit vector, whose rows C Aⁱ are the unit vectors, in another basis
    companion = xp.concat([ones[1:], tail[None]], axis=0)
    A, C = M @ companion @ inverse, ones[0] @ inverse
    y, _ = lti.recurrent(u, A, B, C, state=state)
    known = lti.recurrent(u[..., 1:, :], A, B, C)[0] if size > 1 else y[..., 1:, :]
    of_state = xp.concat([y[..., :1, :], y[..., 1:, :] - known], axis=-2)  # C Aⁱ h₁, (*batch, N, D)
    _, h = lti.recurrent(u[..., :1, :], A, B, C, state=state)  # h₁
    return h.mT, xp.linalg.solve(observable(C, A), of_state)


@refuted(
    "Outputs and inputs always give the state (two states that differ where C, CA, … are 0 have the same outputs)",
    source="talk-mamba, slide 16; kalman1960",
    exact=True,
    instead="lti.state_is_inferred",
)
def any_state_is_inferred(u: Inputs, A: System, B: Enter, C: Leave, hidden: HiddenNumber, state: Start):
    return unobservable_pair(u, A, B, C, hidden, state)


@identity(
    "Such states cannot be told apart by any outputs, whatever the inputs",
    source="talk-mamba, slide 16, made precise; kalman1960",
    exact=True,
    only=OURS,
)
def hidden_states_change_no_output(u: Inputs, A: System, B: Enter, C: Leave, hidden: HiddenNumber, state: Start):
    (y, _), (z, _) = unobservable_pair(u, A, B, C, hidden, state)
    return y, z


def unobservable_pair(u: Any, A: Any, B: Any, C: Any, hidden: Any, state: Any) -> tuple[Any, Any]:
    """Return (y, state) from two states of the system [[A, 0], [C, 1]], read by [C, 0], that differ in the last."""
    xp = namespace(u, A)
    column = 0 * B[:, None]
    bottom = xp.concat([C[None], 1 + 0 * C[None, :1]], axis=-1)
    larger = xp.concat([xp.concat([A, column], axis=-1), bottom], axis=0)
    B_, C_ = xp.concat([B, 1 + 0 * B[:1]]), xp.concat([C, 0 * C[:1]])
    starts = [xp.concat([state, x], axis=-1) for x in (hidden, 1 + hidden)]
    first, second = ((lti.recurrent(u, larger, B_, C_, state=h)[0], h) for h in starts)
    return first, second


# LSSL


@identity(
    "LSSL is the bilinear rule, channel by channel: one A, and a step of its own for each",
    source=f"{LSSL}, section 3",
    exact=True,
)
def lssl_by_channels(u: Inputs, A: Stable, B: Enter, C: LeaveEach, D: Skip, delta: Steps, state: Start):
    def one_channel(i: int) -> Any:
        A_bar, B_bar = discretize.bilinear(A, B, delta[i])
        return lti.recurrent(u[..., i : i + 1], A_bar, B_bar, C[i], state=state[..., i : i + 1, :])

    each, xp = [one_channel(i) for i in range(u.shape[-1])], namespace(u)
    y, h = xp.concat([y for y, _ in each], axis=-1), xp.concat([h for _, h in each], axis=-2)
    return lssl.convolution(u, A, B, C, D, delta, state=state), (y + D * u, h)


@identity("With α = 1 LSSL is backward Euler: h′ = h + Δ(Ah′ + Bu)", source=f"{LSSL}, section 2", exact=True)
def lssl_backwards(u: Inputs, A: Stable, B: Enter, C: LeaveEach, D: Skip, delta: Steps, state: Start):
    xp, first = namespace(u), u[..., :1, :]
    _, h = lssl.recurrent(first, A, B, C, D, delta, state=state, alpha=1)
    slope = h @ xp.matrix_transpose(A) + first[..., 0, :, None] * B
    return h, state + delta[:, None] * slope

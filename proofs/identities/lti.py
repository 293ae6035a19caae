"""Linear time-invariant systems: recurrence, convolution, and their invariances."""

from __future__ import annotations

from typing import Annotated, Any

from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models import linear_systems
from models.sequences import unit_lower_inverse
from models.ssm import discretize, lssl, lti
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import LARGE, POSITIVE, SEVERAL, SMALL, Length, Strategy, stable

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
    source=f"{S4}, lemma 3.1; talk-mamba, slide 19",
    exact=True,
)
def change_of_basis(u: Inputs, A: System, B: Enter, C: Leave, state: Start, left: Mixing, right: Mixing):
    M, inverse = invertible(left, right)
    y, h = lti.recurrent(u, A, B, C, state=state)
    changed = lti.convolution(u, M @ A @ inverse, M @ B, C @ inverse, state=state @ namespace(M).matrix_transpose(M))
    return changed, (y, h @ namespace(M).matrix_transpose(M))


def invertible(left: Any, right: Any) -> tuple[Any, Any]:
    """Return a matrix and its inverse: a product of unit lower and unit upper triangular matrices."""
    xp = namespace(left, right)
    eye = xp.eye(left.shape[-1], dtype=left.dtype)
    lower, upper = (eye + xp.tril(x, k=-1) for x in (left, right))
    M = lower @ xp.matrix_transpose(upper)
    return M, xp.matrix_transpose(unit_lower_inverse(right)) @ unit_lower_inverse(left)


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

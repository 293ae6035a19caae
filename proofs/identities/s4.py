"""S4 and S4D: conjugate pairs, kernels without matrix powers, and their initialisations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models import linear_systems
from models.ssm import discretize, hippo, initializers, lssl, s4, s4d
from proofs.checker.counting import counted
from proofs.checker.statements import Instance, bounded, grows, identity, refuted
from proofs.checker.strategies import LARGE, POSITIVE, RATES, SMALL, Length, Strategy, pairs
from proofs.identities.discretize import OURS
from proofs.identities.lazy_softmax import workspace

CHAPTER = 17

S4, S4D = "gu2022s4", "gu2022s4d"

Eigenvalues = Annotated[Any, Strategy("D N", pairs(RATES, LARGE), complex=True)]
Low = Annotated[Any, Strategy("D N", pairs(SMALL, SMALL), complex=True)]
Enter = Annotated[Any, Strategy("D N", pairs(SMALL, SMALL), complex=True)]
Leave = Annotated[Any, Strategy("D N", pairs(LARGE, LARGE), complex=True)]
Start = Annotated[Any, Strategy("*batch D N", pairs(LARGE, LARGE), complex=True)]
Steps = Annotated[Any, Strategy("D", POSITIVE)]
Inputs = Annotated[Any, Strategy("*batch T D", LARGE)]
Skip = Annotated[Any, Strategy("D", LARGE)]
Pairs = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, 4)))]
Reader = Annotated[Any, Strategy("eight", LARGE, sizes={"eight": st.just(8)})]
Step = Annotated[Any, Strategy("", POSITIVE)]

DISCRETISATIONS = [Instance(name, {"discretisation": name}, {}) for name in s4d.DISCRETISATIONS]


def both_halves(x: Any) -> Any:
    """Return both members of the conjugate pairs."""
    xp = namespace(x)
    return xp.concat([x, xp.conj(x)], axis=-1)


# S4D


@identity(
    "S4D's kernel, two small Vandermonde matrices, is the powers of Ā", source=f"{S4D}, section 3", over=DISCRETISATIONS
)
def vandermonde_is_powers(Lambda: Eigenvalues, B: Enter, C: Leave, delta: Steps, length: Length, discretisation: str):
    xp = namespace(Lambda)
    kernel = s4d.kernel_vandermonde(Lambda, B, C, delta, length=length, discretisation=discretisation)
    A, power = discretize.METHODS[discretisation](Lambda, B, delta[:, None])
    expected = []
    for _ in range(length):
        expected.append(2 * xp.real(xp.sum(C * power, axis=-1)))
        power = A * power
    return kernel, xp.stack(expected, axis=-1)


@identity(
    "Conjugate pairs: twice the real part over one half is the sum over both",
    source=f"{S4}, section 3; {S4D}, section 3",
    over=DISCRETISATIONS,
)
def twice_the_real_part(Lambda: Eigenvalues, B: Enter, C: Leave, delta: Steps, length: Length, discretisation: str):
    xp = namespace(Lambda)
    kernel = s4d.kernel_vandermonde(Lambda, B, C, delta, length=length, discretisation=discretisation)
    A, power = discretize.METHODS[discretisation](both_halves(Lambda), both_halves(B), delta[:, None])
    expected = []
    for _ in range(length):
        expected.append(xp.sum(both_halves(C) * power, axis=-1))
        power = A * power
    return kernel + 0j * kernel, xp.stack(expected, axis=-1)


@refuted("The real part without the factor 2 suffices", source="minigrad, the other half adds as much again")
def once_the_real_part(Lambda: Eigenvalues, B: Enter, C: Leave, delta: Steps):
    xp = namespace(Lambda)
    _, B_bar = discretize.zoh(Lambda, B, delta[:, None])
    kernel = s4d.kernel_vandermonde(Lambda, B, C, delta, length=1)
    return kernel[:, 0], xp.real(xp.sum(C * B_bar, axis=-1))


@identity(
    "S4D's convolution from an initial state is its recurrence, by zero-order hold and bilinear",
    source=f"{S4D}, section 3",
    over=DISCRETISATIONS,
)
def diagonal_forms(
    u: Inputs, Lambda: Eigenvalues, B: Enter, C: Leave, D: Skip, delta: Steps, state: Start, discretisation: str
):
    arguments, options = (u, Lambda, B, C, D, delta), {"state": state, "discretisation": discretisation}
    return s4d.convolution(*arguments, **options), s4d.recurrent(*arguments, **options)


# S4


@identity(
    "S4's kernel by Woodbury, Cauchy and one inverse FFT is that by powers of Ā, at even and odd lengths",
    source=f"{S4}, theorem 3 and appendix C.3",
)
def cauchy_is_powers(Lambda: Eigenvalues, P: Low, B: Enter, C: Leave, delta: Steps, length: Length):
    arguments = Lambda, P, B, C, delta
    return s4.kernel_cauchy(*arguments, length=length), s4.kernel_power(*arguments, length=length)


@identity(
    "It is the kernel of the dense matrix: A = Λ − PPᴴ, discretised bilinearly, its powers",
    source=f"{S4}, eq. 3–5 and theorem 1",
)
def cauchy_is_dense(Lambda: Eigenvalues, P: Low, B: Enter, C: Leave, delta: Steps, length: Length):
    kernel = s4.kernel_cauchy(Lambda, P, B, C, delta, length=length)
    full = [both_halves(x) for x in (Lambda, P, B, C)]
    each = [dense_kernel(*(x[i] for x in full), delta=delta[i], length=length) for i in range(delta.shape[0])]
    return kernel + 0j * kernel, namespace(Lambda).stack(each, axis=0)


def dense_kernel(Lambda: Any, P: Any, B: Any, C: Any, *, delta: Any, length: int) -> Any:
    """Return C B̄, C Ā B̄, … of one channel, with A = Λ − PPᴴ as a dense matrix."""
    xp = namespace(Lambda, P)
    A = Lambda[:, None] * xp.eye(Lambda.shape[0], dtype=Lambda.dtype) - P[:, None] * xp.conj(P)[None, :]
    A_bar, x = discretize.bilinear(A, B, delta)
    kernel = []
    for _ in range(length):
        kernel.append(xp.sum(C * x, axis=-1))
        x = A_bar @ x
    return xp.stack(kernel, axis=-1)


@refuted("C may replace C̃ = C(1 − Āᴸ)", source=f"{S4}, appendix C.3: it makes L terms of infinitely many")
def without_truncation(Lambda: Eigenvalues, P: Low, B: Enter, C: Leave, delta: Steps, length: Length):
    untruncated = mg.fft.irfft(s4.kernel_spectrum(Lambda, P, B, C, delta, length, s4.cauchy), length)
    return untruncated, s4.kernel_power(Lambda, P, B, C, delta, length=length)


@identity("Without its low-rank term S4 is S4D with the bilinear method", source=f"{S4D}, section 3")
def without_rank_one(Lambda: Eigenvalues, B: Enter, C: Leave, delta: Steps, length: Length):
    diagonal = s4d.kernel_vandermonde(Lambda, B, C, delta, length=length, discretisation="bilinear")
    return s4.kernel_cauchy(Lambda, 0 * B, B, C, delta, length=length), diagonal


@refuted(
    "The low-rank term may be left out, S4's A is diagonal: S4D-LegS is S4-LegS",
    source=f"{S4D}, section 4: only as N grows without bound; talk-mamba, slide 19; book-ssm, S4",
    instead="s4.without_rank_one",
)
def rank_one_left_out(Lambda: Eigenvalues, P: Low, B: Enter, C: Leave, delta: Steps, length: Length):
    diagonal = s4d.kernel_vandermonde(Lambda, B, C, delta, length=length, discretisation="bilinear")
    return s4.kernel_cauchy(Lambda, P, B, C, delta, length=length), diagonal


@bounded(
    "A step of S4 never adds to |h|, whatever Δ: Re Λ < 0, and −PPᴴ takes energy too",
    source=f"{S4}, section 3; goel2022sashimi, section 4 (place not verified)",
)
def energy_falls(Lambda: Eigenvalues, P: Low, B: Enter, delta: Steps, h: Start):
    xp = namespace(Lambda)

    def energy(h: Any) -> Any:
        return xp.sum(xp.real(h * xp.conj(h)), axis=-1)

    return energy(s4.make_step(Lambda, P, B, delta)(h, 0 * delta[:, None])), energy(h)


@identity(
    "A multiple of the identity in A saves nothing: it fades every mode alike, so that −½I makes of K̄ₗ e^(−Δl/2) K̄ₗ",
    source=f"{S4}, appendix C.1; talk-meeting, (6): 'an identity matrix and the like'",
    only=OURS,
)
def identity_in_the_matrix(Lambda: Eigenvalues, B: Enter, C: Leave, delta: Steps, length: Length):
    def kernel(Lambda: Any) -> Any:
        A_bar, B_bar = discretize.mamba(Lambda, B, delta[:, None])  # whose B̄ does not depend on A
        return s4d.responses(C * B_bar, A_bar, length)

    xp = namespace(delta)
    return kernel(Lambda - 0.5), xp.stack([xp.exp(-delta * l / 2) for l in range(length)], axis=-1) * kernel(Lambda)


# The cost of a kernel, by the size of the state


def count_operations(kernel: Callable[..., Any], *shapes: tuple[int, ...]) -> int:
    """Count the scalar operations of a kernel of 4 tokens, of arrays of these shapes."""
    tally = [0]
    kernel(*(counted(0.1 + np.zeros(shape), tally) for shape in shapes), length=4)
    return tally[0]


@grows(
    "LSSL's kernel, by powers of its matrix, squared again and again, takes N³ operations",
    source=f"{S4}, section 3.1, by squaring; talk-mamba, slide 18: 'products of matrices'",
    order=3,
    lengths=(8, 16, 32),
)
def cost_of_squaring(length: int):
    return count_operations(linear_systems.kernel, (1, length, length), (1, length), (1, length))


@grows(
    "By products of matrix and vector, one for each token, it takes N²",
    source=f"{S4}, section 3.1; talk-mamba, slide 18",
    order=2,
    lengths=(8, 16, 32),
)
def cost_of_stepping(length: int):
    def kernel(A: Any, B: Any, C: Any, length: int) -> Any:
        impulse = np.eye(length, 1)
        return linear_systems.run_recurrence(counted(impulse, A.flat[0].tally), A, B, C, None)

    return count_operations(kernel, (1, length, length), (1, length), (1, length))


@grows("Of a diagonal it takes N", source=f"{S4D}, section 3; talk-mamba, slide 19", order=1)
def cost_of_a_diagonal(length: int):
    return count_operations(s4d.responses, (1, length), (1, length))


@grows(
    "S4's Cauchy sums, of a diagonal plus rank one, take N as well: the rank one costs four sums for one",
    source=f"{S4}, theorem 3; talk-mamba, slide 19",
    order=1,
)
def cost_of_cauchy_sums(length: int):
    def kernel(Lambda: Any, P: Any, B: Any, C: Any, delta: Any, length: int) -> Any:
        return s4.kernel_spectrum(-1 * Lambda, P, B, C, delta, length, s4.cauchy)

    return count_operations(kernel, *[(1, length)] * 4, (1,))


def memory_of(form: Callable[..., Any], N: int) -> np.ndarray:
    """Return the bytes that a form takes beside its arguments and results for 4096 tokens and a state of N numbers."""
    u, ones = np.ones((4096, 1)), np.ones(1)
    if form is lssl.convolution:
        system: Any = (*hippo.legs(N), np.ones((1, N)))
    else:
        Lambda, P, B, _ = (x[None] for x in hippo.dplr(N))
        system = (Lambda, P, B, np.ones_like(B))
    return np.array([float(workspace(lambda u: form(u, *system, ones, ones / 100), u))])


@bounded(
    "S4's kernel in compiled form takes hardly more memory for 64 numbers in the state than for 8: less than twice",
    source=f"{S4}, section 3.1; talk-mamba, slide 18",
    only=("float64",),
)
def memory_of_cauchy_sums():
    return memory_of(s4.fused, 64), 2 * memory_of(s4.fused, 8)


@refuted(
    "So does LSSL's (it keeps N L numbers, the powers of its matrix times B)",
    source=f"{S4}, section 3.1: O(N L) space; talk-mamba, slide 18",
    relation="≤",
    instead="s4.memory_of_cauchy_sums",
)
def memory_of_powers():
    return memory_of(lssl.convolution, 64), 2 * memory_of(lssl.convolution, 8)


# The starts


@identity(
    "HiPPO's DPLR form, one of each conjugate pair, gives the kernel of HiPPO-LegS itself: N = 8",
    source=f"{S4}, theorem 1",
    only=("float64", "gradient"),
)
def kernel_of_legs(c: Reader, delta: Step, length: Length):
    A, B = hippo.legs(8)
    Lambda, P, B_half, V = (half[None] for half in hippo.dplr(8))
    system = Lambda, P, B_half, (c[None, None] @ V)[:, 0]
    x, kernel = discretize.bilinear(A, B, delta)[1], []
    for _ in range(length):
        kernel.append(namespace(c).sum(c * x))
        x = discretize.bilinear(A, B, delta)[0] @ x
    return s4.kernel_cauchy(*system, delta[None], length=length)[0], namespace(c).stack(kernel, axis=0)


@identity(
    "S4D-LegS starts at the eigenvalues of LegS + PPᵀ, S4D-Lin at −½ + iπn, S4D-Inv at −½ + i(N/π)(N/(2n+1) − 1)",
    source=f"{S4D}, section 4",
    derivatives=False,
    only=("float64",),
)
def published_starts(half: Pairs):
    N = 2 * half
    A, B = hippo.legs(N)
    eigenvalues = np.linalg.eigvals(A + np.outer(B, B) / 2)
    n = np.arange(half)
    stated = np.sort(eigenvalues[eigenvalues.imag > 0].imag), n, np.full(half, -0.5)
    lin, inv = initializers.lin(N), initializers.inv(N)
    from_code = np.sort(initializers.legs(N).imag), lin.imag / np.pi, initializers.legs(N).real
    recovered = (N / (1 + np.pi * inv.imag / N) - 1) / 2
    return [np.round(x, 9) for x in (*from_code, recovered, lin.real, inv.real)], [
        np.round(x, 9) for x in (*stated, n, stated[2], stated[2])
    ]

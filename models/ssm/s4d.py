"""S4D: a complex diagonal state space model per channel, whose kernel is a product of Vandermonde matrices.

    Λ, Δ, B → Ā, B̄                                   zero-order hold or bilinear     models.ssm.discretize
    hₜ = Ā ⊙ hₜ₋₁ + B̄ uₜ                             the recurrence                  Gu et al. 2022 (S4D), section 3
    yₜ = 2 Re(C hₜ) + D uₜ                           the output
    K̄ₗ = 2 Re Σₙ Cₙ B̄ₙ Āₙˡ                          the kernel: y = K̄ ∗ u + D u      section 3
    K̄ₗ = 2 Re Σₙ (Cₙ B̄ₙ Āₙ^(Si)) (Āₙʲ)             l = Si + j, S = √L: a product of L/S × N by N × S

    u        the input, (*batch, T, D): every channel has a system of its own.
    Lambda   Λ, (D, N), Re Λ ≤ 0: one of each conjugate pair of eigenvalues. The other one adds the conjugate of the
             same number, so twice the real part is the sum over both: N stored here are a real state of size 2N.
    B, C     complex, (D, N), in the basis where A is diagonal.
    D        the skip connection, (D,).
    delta    Δ > 0, one step a channel, (D,).
    h        the state, complex, (*batch, D, N).

The state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says, and so do Re Λ > 0,
Δ ≤ 0, and discretisations other than "zoh" and "bilinear".
"""

import math
from collections.abc import Callable

from jaxtyping import Complex, Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.linear_systems import causal_convolution
from models.mechanism import Domain, Mechanism
from models.sequences import check_eigenvalues, initial_state, pad_and_chunk, tokens
from models.ssm.discretize import METHODS

TD = Float[Array, "*batch T D"]
DN = Complex[Array, "D N"]
PerChannel = Float[Array, "D"]
H = Complex[Array, "*batch D N"]

DISCRETISATIONS = ("zoh", "bilinear")

MECHANISM = Mechanism(
    arguments={
        "u": Domain.ANY,
        "Lambda": Domain.LEFT_HALF_PLANE,
        "B": Domain.SMALL,
        "C": Domain.ANY,
        "D": Domain.ANY,
        "delta": Domain.POSITIVE,
    },
    state=Domain.ANY,
    rational=False,
    blocks={"s4d": "models.blocks.s4d.S4DBlock"},
)


@form
def recurrent(
    u: TD,
    Lambda: DN,
    B: DN,
    C: DN,
    D: PerChannel,
    delta: PerChannel,
    *,
    state: H | None = None,
    discretisation: str = "zoh",
) -> tuple[TD, H]:
    """Compute the recurrence, token after token: O(T·D·N) time, a state of constant size."""
    check_eigenvalues("s4d.recurrent", Lambda, delta)
    A, B = discrete(Lambda, B, delta, discretisation)
    xp = namespace(u, A, B, C, D)
    h, y = initial_state(state, u, B), []
    for (u_t,) in tokens(u):
        h = A * h + B * u_t.mT
        y.append(xp.sum(C * h, axis=-1))
    return 2 * xp.real(xp.stack(y, axis=-2)) + D * u, h


@form(work="FFT")
def convolution(
    u: TD,
    Lambda: DN,
    B: DN,
    C: DN,
    D: PerChannel,
    delta: PerChannel,
    *,
    state: H | None = None,
    discretisation: str = "zoh",
) -> tuple[TD, H]:
    """Convolve the input with the kernel by FFT: O(T·D·(log T + N)) time, O(T·D + √T·D·N) memory."""
    check_eigenvalues("s4d.convolution", Lambda, delta)
    A, B = discrete(Lambda, B, delta, discretisation)
    return convolve(u, A, B, C, D, state, responses, final_state)


@form(compiled=True, work="FFT")
def fused(
    u: TD,
    Lambda: DN,
    B: DN,
    C: DN,
    D: PerChannel,
    delta: PerChannel,
    *,
    state: H | None = None,
    discretisation: str = "zoh",
) -> tuple[TD, H]:
    """Compute `convolution` by kernels for the sums of powers (NumPy's float32, float64), with powers in float64."""
    check_eigenvalues("s4d.fused", Lambda, delta)
    A, B = discrete(Lambda, B, delta, discretisation)
    return convolve(u, A, B, C, D, state, compiled_responses, compiled_final_state)


def convolve(
    u: Array, A: Array, B: Array, C: Array, D: Array, h: Array | None, responses: Callable, final_state: Callable
) -> tuple[Array, Array]:
    """Return (y, state) by convolution; the two functions compute sums over powers of Ā."""
    length = u.shape[-2]
    y = causal_convolution(u, responses(C * B, A, length)) + D * u
    end = B * final_state(u, A)
    if h is None:
        return y, end
    return y + responses(C * A * h, A, length).mT, end + last_power(A, length) * h


def kernel_vandermonde(
    Lambda: Array, B: Array, C: Array, delta: Array, *, length: int, discretisation: str = "zoh"
) -> Array:
    """Return K̄ₗ for l = 0 … L − 1, real: (D, L)."""
    check_eigenvalues("s4d.kernel_vandermonde", Lambda, delta)
    A, B = discrete(Lambda, B, delta, discretisation)
    return responses(C * B, A, length)


def discrete(Lambda: Array, B: Array, delta: Array, discretisation: str) -> tuple[Array, Array]:
    """Return Ā and B̄, (D, N). Raises ValueError for Re Λ > 0, Δ ≤ 0 and a discretisation that is not known."""
    if discretisation not in DISCRETISATIONS:
        raise ValueError(f"s4d: discretisation is {discretisation!r}, expected {' or '.join(DISCRETISATIONS)}")
    return METHODS[discretisation](Lambda, B, delta[..., None])


def responses(weights: Array, A: Array, length: int) -> Array:
    """Return 2 Re Σₙ wₙ Aₙˡ for l = 0 … L − 1, (*batch, D, L), for weights (*batch, D, N), as √L × √L blocks."""
    xp, (coarse, fine) = namespace(weights, A), vandermonde(A, length)
    K = 2 * xp.real((weights[..., None] * coarse).mT @ fine)  # (*batch, D, L/S, S)
    return xp.reshape(K, (*weights.shape[:-1], coarse.shape[-1] * fine.shape[-1]))[..., :length]


def final_state(u: Array, A: Array) -> Array:
    """Return Σₜ Aₙ^(T−t) uₜ, the state after T inputs from a zero state with B = 1: (*batch, D, N)."""
    xp, (coarse, fine) = namespace(u, A), vandermonde(A, u.shape[-2])
    # time reversed, (*batch, T, D) → (*batch, D, T) → (*batch, D, T/S, S): index 0 is the last token, times A⁰
    ages = pad_and_chunk(xp.flip(u, axis=-2).mT, fine.shape[-1], axis=-1)
    fine = fine.mT
    near = ages @ xp.concat([xp.real(fine), xp.imag(fine)], axis=-1)  # real products: half the work of complex ones
    n = A.shape[-1]
    return xp.sum((near[..., :n] + 1j * near[..., n:]) * coarse.mT, axis=-2)


def vandermonde(A: Array, length: int) -> tuple[Array, Array]:
    """Return A^(Si) and Aʲ, (D, N, L/S) and (D, N, S), with S = √L: their products are all powers below L."""
    size = math.isqrt(length - 1) + 1
    fine = powers(A, size)
    return powers(fine[..., -1] * A, -(-length // size)), fine


def powers(A: Array, count: int) -> Array:
    """Return 1, A, A², … of A (…, N), (…, N, count), by doubling: A^(2ⁱ) times the first 2ⁱ gives the next 2ⁱ."""
    xp, step = namespace(A), A[..., None]
    rows = xp.ones_like(step)
    while (computed := rows.shape[-1]) < count:
        step = step if computed == 1 else step * step
        rows = xp.concat([rows, step * rows], axis=-1)
    return rows[..., :count]


def last_power(A: Array, length: int) -> Array:
    """Return A^length, (…, N) as A is."""
    coarse, fine = vandermonde(A, length)
    return A * coarse[..., -1] * fine[..., (length - 1) % fine.shape[-1]]


def compiled_responses(weights: Array, A: Array, length: int) -> Array:
    """Compute `responses` by a kernel."""
    xp = namespace(weights, A)
    K = _kernel_of_responses(*map(_rows, (weights, xp.broadcast_to(A, weights.shape))), length=length)
    return xp.reshape(K, (*weights.shape[:-1], length))


def compiled_final_state(u: Array, A: Array) -> Array:
    """Compute `final_state` by a kernel."""
    xp = namespace(u, A)
    A = xp.broadcast_to(A, (*u.shape[:-2], *A.shape))
    return xp.reshape(_kernel_of_final_state(_rows(u.mT), _rows(A)), A.shape)


def _rows(x: Array) -> Array:
    """Flatten all axes of x but its last."""
    return namespace(x).reshape(x, (-1, x.shape[-1]))


_kernel_of_responses = with_kernel("ssm.s4d: kernel", lambda weights, A, length: responses(weights, A, length))
_kernel_of_final_state = with_kernel("ssm.s4d: final state", lambda u, A: final_state(u.mT, A))

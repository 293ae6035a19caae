"""S4D: a state space for every channel, diagonal and complex, whose kernel is a product of Vandermonde matrices.

    Λ, Δ, B → A̅, B̅                                   zero-order hold or bilinear     models.ssm.discretize
    hₜ = A̅ ⊙ hₜ₋₁ + B̅ uₜ                             the recurrence                  Gu et al. 2022 (S4D), section 3
    yₜ = 2 Re(C hₜ) + D uₜ                           the read
    K̅ₗ = 2 Re Σₙ Cₙ B̅ₙ A̅ₙˡ                          the kernel: y = K̅ ∗ u + D u      section 3
    K̅ₗ = 2 Re Σₙ (Cₙ B̅ₙ A̅ₙ^(Si)) (A̅ₙʲ)             l = Si + j, S = √L: a product of L/S × N by N × S

    u        the input, (*batch, T, D): every channel has a system of its own.
    Lambda   Λ, (D, N), Re Λ ≤ 0: one of each conjugate pair of eigenvalues. The other one adds the conjugate of the
             same number, so twice the real part is the sum over both: N stored here are a real state of size 2N.
    B, C     complex, (D, N), in the basis where A is diagonal.
    D        what of u passes by the state, (D,).
    delta    Δ > 0, one step a channel, (D,).
    h        the state, complex, (*batch, D, N).

The state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says, and so do Re Λ > 0,
Δ ≤ 0, and discretisations other than "zoh" and "bilinear".
"""

import math
from collections.abc import Callable

from jaxtyping import Complex, Float

from minigrad import namespace
from minigrad.engine import unwrap
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.memory.chunks import tokens
from models.ssm.discretize import METHODS
from models.ssm.lti import causal_convolution
from models.ssm.selective_scan import cut

TD = Float[Array, "*batch T D"]
DN = Complex[Array, "D N"]
PerChannel = Float[Array, "D"]
H = Complex[Array, "*batch D N"]

DISCRETISATIONS = ("zoh", "bilinear")


@form
def recurrent(
    u: TD, Lambda: DN, B: DN, C: DN, D: PerChannel, delta: PerChannel, *,
    state: H | None = None, discretisation: str = "zoh",
) -> tuple[TD, H]:  # fmt: skip
    """One token after the other, in a state of constant size: O(T·D·N)."""
    check("s4d.recurrent", Lambda, delta)
    A, B = discrete(Lambda, B, delta, discretisation)
    xp = namespace(u, A, B, C, D)
    h, y = xp.zeros_like(u[..., 0, :, None] * B) if state is None else state, []
    for (u_t,) in tokens(u):
        h = A * h + B * u_t.mT
        y.append(2 * xp.real(xp.sum(C * h, axis=-1))[..., None, :] + D * u_t)
    return xp.concat(y, axis=-2), h


@form
def convolution(
    u: TD, Lambda: DN, B: DN, C: DN, D: PerChannel, delta: PerChannel, *,
    state: H | None = None, discretisation: str = "zoh",
) -> tuple[TD, H]:  # fmt: skip
    """The input convolved with the kernel, by Fourier transforms: O(T·D·(log T + N)), in O(T·D + √T·D·N) numbers."""
    check("s4d.convolution", Lambda, delta)
    A, B = discrete(Lambda, B, delta, discretisation)
    return convolved(u, A, B, C, D, state, responses, absorbed)


@form(compiled=True)
def fused(
    u: TD, Lambda: DN, B: DN, C: DN, D: PerChannel, delta: PerChannel, *,
    state: H | None = None, discretisation: str = "zoh",
) -> tuple[TD, H]:  # fmt: skip
    """The convolution with compiled sums of powers, for NumPy's float32 and float64; powers of both are float64."""
    check("s4d.fused", Lambda, delta)
    A, B = discrete(Lambda, B, delta, discretisation)
    return convolved(u, A, B, C, D, state, compiled_responses, compiled_absorbed)


def convolved(
    u: Array, A: Array, B: Array, C: Array, D: Array, h: Array | None, responses: Callable, absorbed: Callable
) -> tuple[Array, Array]:
    """Return (y, state) by the kernel, with these two sums over powers of A̅."""
    length = u.shape[-2]
    y = causal_convolution(u, responses(C * B, A, length)) + D * u
    end = B * absorbed(u, A)
    if h is None:
        return y, end
    return y + responses(C * A * h, A, length).mT, end + last_power(A, length) * h


def kernel_vandermonde(
    Lambda: Array, B: Array, C: Array, delta: Array, *, length: int, discretisation: str = "zoh"
) -> Array:
    """K̅ₗ for l = 0 … L − 1, real: (D, L)."""
    check("s4d.kernel_vandermonde", Lambda, delta)
    A, B = discrete(Lambda, B, delta, discretisation)
    return responses(C * B, A, length)


def discrete(Lambda: Array, B: Array, delta: Array, discretisation: str) -> tuple[Array, Array]:
    """Return A̅ and B̅, (D, N). Raises ValueError for Re Λ > 0, Δ ≤ 0 and a discretisation that is not known."""
    if discretisation not in DISCRETISATIONS:
        raise ValueError(f"s4d: discretisation is {discretisation!r}, expected {' or '.join(DISCRETISATIONS)}")
    return METHODS[discretisation](Lambda, B, delta[..., None])


def responses(weights: Array, A: Array, length: int) -> Array:
    """2 Re Σₙ wₙ Aₙˡ for l = 0 … L − 1, (*batch, D, L), of weights (*batch, D, N): no array has D·N·L numbers."""
    xp, (coarse, fine) = namespace(weights, A), vandermonde(A, length)
    made = 2 * xp.real((weights[..., None] * coarse).mT @ fine)
    return xp.reshape(made, (*weights.shape[:-1], coarse.shape[-1] * fine.shape[-1]))[..., :length]


def absorbed(u: Array, A: Array) -> Array:
    """Σₜ Aₙ^(T−t) uₜ, what T inputs leave in a state with B = 1: (*batch, D, N)."""
    xp, (coarse, fine) = namespace(u, A), vandermonde(A, u.shape[-2])
    ages = xp.moveaxis(cut(xp.flip(u, axis=-2), fine.shape[-1], axis=-2), -1, -3)  # (*batch, D, T/S, S), the last first
    fine = fine.mT
    near = ages @ xp.concat([xp.real(fine), xp.imag(fine)], axis=-1)  # real products: half the work of complex ones
    n = A.shape[-1]
    return xp.sum((near[..., :n] + 1j * near[..., n:]) * coarse.mT, axis=-2)


def vandermonde(A: Array, length: int) -> tuple[Array, Array]:
    """A^(Si) and Aʲ, (D, N, L/S) and (D, N, S), with S = √L: their products are all powers below L."""
    size = math.isqrt(length - 1) + 1
    fine = powers(A, size)
    return powers(fine[..., -1] * A, -(-length // size)), fine


def powers(A: Array, count: int) -> Array:
    """1, A, A², … of A (…, N), (…, N, count): the first 2ⁱ of them times A to the 2ⁱ are the next 2ⁱ."""
    xp, step = namespace(A), A[..., None]
    made = xp.ones_like(step)
    while (known := made.shape[-1]) < count:
        step = step if known == 1 else step * step
        made = xp.concat([made, step * made], axis=-1)
    return made[..., :count]


def last_power(A: Array, length: int) -> Array:
    """A to the length, (…, N) as A is."""
    coarse, fine = vandermonde(A, length)
    return A * coarse[..., -1] * fine[..., (length - 1) % fine.shape[-1]]


def compiled_responses(weights: Array, A: Array, length: int) -> Array:
    """`responses`, compiled."""
    xp = namespace(weights, A)
    made = _kernel_of_responses(*map(_rows, (weights, xp.broadcast_to(A, weights.shape))), length=length)
    return xp.reshape(made, (*weights.shape[:-1], length))


def compiled_absorbed(u: Array, A: Array) -> Array:
    """`absorbed`, compiled."""
    xp = namespace(u, A)
    A = xp.broadcast_to(A, (*u.shape[:-2], *A.shape))
    return xp.reshape(_kernel_of_absorbed(_rows(u.mT), _rows(A)), A.shape)


def _rows(x: Array) -> Array:
    """x with one axis for all but its last."""
    return namespace(x).reshape(x, (-1, x.shape[-1]))


_kernel_of_responses = with_kernel("ssm.s4d: kernel", lambda weights, A, length: responses(weights, A, length))
_kernel_of_absorbed = with_kernel("ssm.s4d: final state", lambda u, A: absorbed(u.mT, A))


def check(label: str, Lambda: Array, delta: Array, *, fades: bool = False) -> None:
    """Raise ValueError where Re Λ > 0, or = 0 where states must fade, where Δ ≤ 0, and where either is NaN."""
    Lambda, delta = unwrap(Lambda), unwrap(delta)
    real, wanted = namespace(Lambda).real(Lambda), "below 0" if fades else "of at most 0"
    try:
        stable = bool(namespace(real).all(real < 0 if fades else real <= 0))
        forward = bool(namespace(delta).all(delta > 0))
    except TypeError:  # a compiler traces the function: there is nothing to look at
        return
    if not stable:
        raise ValueError(f"{label}: Lambda holds real part {real.max()}, expected real parts {wanted}")
    if not forward:
        raise ValueError(f"{label}: delta holds {delta.min()}, expected steps above 0")

"""Linear time-invariant state spaces in discrete time: a recurrence that is a convolution.

    hₜ = A̅ hₜ₋₁ + B̅ uₜ             the recurrence      Gu et al. 2022 (S4), eq. 3
    yₜ = C̅ hₜ                       the read
    y  = K̅ ∗ u                      the convolution     eq. 4
    K̅  = (C̅B̅, C̅A̅B̅, C̅A̅²B̅, …)         its kernel          eq. 5

    u        the input, (*batch, T, D). Each of the D channels runs its own copy of the same system of one input.
    A        A̅, (N, N), or (N,) where it is diagonal.
    B, C     B̅ and C̅, (N,).
    h        the state, (*batch, D, N).

The letters go without their bars: `models.ssm.discretize` makes A̅ and B̅ of continuous A and B. What passes by the
state, D u in the papers, is the layer's. For real numbers; the state starts at 0. What does not fit raises TypeError or
ValueError, as `models.forms` says.
"""

import math

from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from minigrad.compiled import LARGE, worthwhile
from minigrad.engine import unwrap
from minigrad.exact import has_roots_of_unity
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.memory.chunks import tokens
from models.ssm.selective_scan import cut

TD = Float[Array, "*batch T D"]
Matrix = Float[Array, "N N"] | Float[Array, "N"]
Vector = Float[Array, "N"]
H = Float[Array, "*batch D N"]


@form
def recurrent(u: TD, A: Matrix, B: Vector, C: Vector, *, state: H | None = None) -> tuple[TD, H]:
    """One token after the other, in a state of constant size: O(T·D·N²), diagonal O(T·D·N)."""
    return stepped(u, A[None], B[None], C[None], state)


@form
def direct(u: TD, A: Matrix, B: Vector, C: Vector, *, state: H | None = None) -> tuple[TD, H]:
    """The sums of the convolution as they stand: O(T²·D)."""
    A, B, C = A[None], B[None], C[None]
    y = direct_convolution(u, kernel(A, B, C, length=u.shape[-2]))
    return carried(u, y, A, B, C, state)


@form
def convolution(u: TD, A: Matrix, B: Vector, C: Vector, *, state: H | None = None) -> tuple[TD, H]:
    """The convolution as a product of Fourier transforms: O(T·log T·D)."""
    A, B, C = A[None], B[None], C[None]
    y = causal_convolution(u, kernel(A, B, C, length=u.shape[-2]))
    return carried(u, y, A, B, C, state)


# From here on a channel may have a system of its own: A (D, N, N), or (D, N) where it is diagonal, B and C (D, N). One
# for all of them is D = 1.


def stepped(u: Array, A: Array, B: Array, C: Array, h: Array | None) -> tuple[Array, Array]:
    """Return (y, state) by the recurrence."""
    xp, y = namespace(u, A, B, C), []
    h = xp.zeros_like(u[..., 0, :, None] * B) if h is None else h
    for (u_t,) in tokens(u):
        h = applied(A, h[..., None])[..., 0] + u_t.mT * B
        y.append(xp.sum(h * C, axis=-1)[..., None, :])
    return xp.concat(y, axis=-2), h


def carried(u: Array, y: Array, A: Array, B: Array, C: Array, h: Array | None) -> tuple[Array, Array]:
    """Return (y, state): what a convolution made of u, with what the start state adds, and the final state."""
    end = absorbed(u, A, B)
    if h is None:
        return y, end
    length = u.shape[-2]
    columns = A.mT if A.ndim == 3 else A
    reads = krylov(columns, applied(columns, C[..., None])[..., 0], length)  # C A̅ᵗ for t = 1 … T, (D, N, T)
    y = y + (h[..., None, :] @ reads)[..., 0, :].mT
    return y, applied(power(A, length), h[..., None])[..., 0] + end


def kernel(A: Array, B: Array, C: Array, *, length: int) -> Array:
    """K̅ₗ = C A̅ˡ B for l = 0 … L − 1, (D, L)."""
    return (C[..., None, :] @ krylov(A, B, length))[..., 0, :]


def krylov(A: Array, x: Array, length: int) -> Array:
    """x, Ax, …, Aᴸ⁻¹x beside each other, (D, N, L): the first 2ⁱ of them times A to the 2ⁱ are the next 2ⁱ."""
    made, jump = x[..., None], A
    while (count := made.shape[-1]) < length:
        jump = jump if count == 1 else squared(jump)
        made = namespace(A, x).concat([made, applied(jump, made)], axis=-1)
    return made[..., :length]


def absorbed(u: Array, A: Array, B: Array) -> Array:
    """Σₜ A^(T−t) B uₜ, what T inputs leave in the state, (*batch, D, N): inside blocks of √T tokens, then over them."""
    xp, length = namespace(u, A, B), u.shape[-2]
    size = math.isqrt(length - 1) + 1
    ages = xp.moveaxis(cut(xp.flip(u, axis=-2), size, axis=-2), -1, -3)  # (*batch, D, blocks, size), the last first
    blocks, jump = ages @ krylov(A, B, size).mT, power(A, size)
    h = blocks[..., -1, :]
    for i in range(blocks.shape[-2] - 2, -1, -1):
        h = applied(jump, h[..., None])[..., 0] + blocks[..., i, :]
    return h


def applied(A: Array, x: Array) -> Array:
    """A x for the columns of x, (*batch, D, N, L)."""
    return A @ x if A.ndim == 3 else A[..., None] * x


def squared(A: Array) -> Array:
    """A² of matrices (D, N, N), or of diagonals (D, N)."""
    return A @ A if A.ndim == 3 else A * A


def power(A: Array, n: int) -> Array:
    """Aⁿ for n ≥ 1, by squaring, of matrices (D, N, N) or diagonals (D, N)."""
    if n == 1:
        return A
    even = squared(power(A, n // 2))
    return even if n % 2 == 0 else A @ even if A.ndim == 3 else A * even


def direct_convolution(u: Array, kernel: Array) -> Array:
    """yₜ = Σ_{s ≤ t} K[t − s] uₛ for u (*batch, T, D), K (D, T), or (1, T) alike for all channels."""
    xp, length = namespace(u, kernel), u.shape[-2]
    backwards = xp.concat([xp.flip(kernel, axis=-1), xp.zeros_like(kernel)], axis=-1)
    rows = [backwards[:, length - 1 - t : 2 * length - 1 - t] for t in range(length)]  # K[t], …, K[0], 0, …
    weights = xp.stack(rows, axis=-2)
    return (weights @ u.mT[..., None])[..., 0].mT


def causal_convolution(u: Array, kernel: Array) -> Array:
    """`direct_convolution` of the same arrays by the Fourier transform, compiled for large float32 or float64 of NumPy.

    Fractions and residues have no roots of unity: over them it is the direct sum.
    """
    if not (has_roots_of_unity(unwrap(u)) or has_roots_of_unity(unwrap(kernel))):
        return direct_convolution(u, kernel)
    if not worthwhile(u, kernel, size=LARGE // 4):  # two channels of 512 tokens take half the time
        return product_of_spectra(u, kernel)
    if kernel.shape[0] == 1:
        kernel = namespace(u, kernel).broadcast_to(kernel, (u.shape[-1], kernel.shape[-1]))
    return _compiled_convolution(u, kernel)


def product_of_spectra(u: Array, kernel: Array) -> Array:
    """That convolution, (*batch, T, D), as a product of spectra: zeros keep the end from wrapping to the beginning."""
    length = u.shape[-2]
    padded = 1 << (length + kernel.shape[-1] - 2).bit_length()  # a power of two from T + L − 1 on
    spectrum = mg.fft.rfft(u, padded, axis=-2) * mg.fft.rfft(kernel, padded).mT
    return mg.fft.irfft(spectrum, padded, axis=-2)[..., :length, :]


_compiled_convolution = with_kernel("ssm.lti: convolution", product_of_spectra)

"""Linear time-invariant systems hₜ = A hₜ₋₁ + B uₜ, yₜ = C hₜ: recurrence, kernel, convolution and final state.

Shared by `models.ssm.lti`, `lssl`, `s4` and `s4d`. Every channel may have a system of its own: A (D, N, N), or (D, N)
for a diagonal; B and C (D, N); D = 1 for one system shared by all channels. u is (*batch, T, D), states (*batch, D, N).
"""

import math

import minigrad as mg
from minigrad import namespace
from minigrad.compiled import LARGE, worthwhile
from minigrad.engine import unwrap
from minigrad.exact import has_roots_of_unity
from models.forms import Array
from models.kernels.dispatch import with_kernel
from models.sequences import initial_state, pad_and_chunk, tokens


def run_recurrence(u: Array, A: Array, B: Array, C: Array, h: Array | None) -> tuple[Array, Array]:
    """Return (y, state) by the recurrence."""
    h, y = initial_state(h, u, B), []
    xp = namespace(u, A, B, C, h)
    for (u_t,) in tokens(u):
        h = matvec(A, h) + u_t.mT * B
        y.append(xp.sum(h * C, axis=-1))
    return xp.stack(y, axis=-2), h


def add_state_response(u: Array, y: Array, A: Array, B: Array, C: Array, h: Array | None) -> tuple[Array, Array]:
    """Add the response to the initial state h to the output y of a convolution with u; return (y, final state)."""
    end = final_state(u, A, B)
    if h is None:
        return y, end
    length = u.shape[-2]
    columns = A.mT if A.ndim == 3 else A
    reads = krylov_matrix(columns, matvec(columns, C), length)  # C Aᵗ for t = 1 … T, (D, N, T)
    y = y + (h[..., None, :] @ reads)[..., 0, :].mT
    return y, matvec(matrix_power(A, length), h) + end


def kernel(A: Array, B: Array, C: Array, *, length: int) -> Array:
    """Return the kernel Kₗ = C Aˡ B for l = 0 … L − 1, (D, L)."""
    return (C[..., None, :] @ krylov_matrix(A, B, length))[..., 0, :]


def krylov_matrix(A: Array, x: Array, length: int) -> Array:
    """Return the columns x, Ax, …, Aᴸ⁻¹x, (D, N, L), by doubling: A^(2ⁱ) times the first 2ⁱ gives the next 2ⁱ."""
    columns, jump = x[..., None], A
    while (count := columns.shape[-1]) < length:
        jump = jump if count == 1 else square(jump)
        columns = namespace(A, x).concat([columns, multiply_columns(jump, columns)], axis=-1)
    return columns[..., :length]


def final_state(u: Array, A: Array, B: Array) -> Array:
    """Return Σₜ A^(T−t) B uₜ, the state after T inputs from a zero state, (*batch, D, N): in √T blocks of √T tokens."""
    xp, length = namespace(u, A, B), u.shape[-2]
    size = math.isqrt(length - 1) + 1
    # time reversed, (*batch, T, D) → (*batch, D, T) → (*batch, D, blocks, size): index 0 is the last token, times A⁰
    ages = pad_and_chunk(xp.flip(u, axis=-2).mT, size, axis=-1)
    blocks, jump = ages @ krylov_matrix(A, B, size).mT, matrix_power(A, size)
    h = blocks[..., -1, :]
    for i in range(blocks.shape[-2] - 2, -1, -1):
        h = matvec(jump, h) + blocks[..., i, :]
    return h


def matvec(A: Array, h: Array) -> Array:
    """Return A h for states h, (*batch, D, N)."""
    return (A @ h[..., None])[..., 0] if A.ndim == 3 else A * h


def multiply_columns(A: Array, x: Array) -> Array:
    """Return A x for the columns of x, (*batch, D, N, L)."""
    return A @ x if A.ndim == 3 else A[..., None] * x


def square(A: Array) -> Array:
    """Return A² of matrices (D, N, N), or of diagonals (D, N)."""
    return A @ A if A.ndim == 3 else A * A


def matrix_power(A: Array, n: int) -> Array:
    """Return Aⁿ for n ≥ 1, by repeated squaring, of matrices (D, N, N) or diagonals (D, N)."""
    if n == 1:
        return A
    even = square(matrix_power(A, n // 2))
    return even if n % 2 == 0 else A @ even if A.ndim == 3 else A * even


def direct_convolution(u: Array, kernel: Array) -> Array:
    """Return yₜ = Σ_{s ≤ t} K[t − s] uₛ for u (*batch, T, D) and K (D, T), or (1, T) shared by all channels."""
    xp, length = namespace(u, kernel), u.shape[-2]
    backwards = xp.concat([xp.flip(kernel, axis=-1), xp.zeros_like(kernel)], axis=-1)
    rows = [backwards[:, length - 1 - t : 2 * length - 1 - t] for t in range(length)]  # K[t], …, K[0], 0, …
    weights = xp.stack(rows, axis=-2)
    return (weights @ u.mT[..., None])[..., 0].mT


def causal_convolution(u: Array, kernel: Array) -> Array:
    """Compute `direct_convolution` by the Fourier transform, with a kernel for large float32 or float64 of NumPy.

    Fractions and residues have no roots of unity: for them it is the direct sum.
    """
    if not (has_roots_of_unity(unwrap(u)) or has_roots_of_unity(unwrap(kernel))):
        return direct_convolution(u, kernel)
    if not worthwhile(u, kernel, size=LARGE // 4):  # two channels of 512 tokens take half the time
        return fft_convolution(u, kernel)
    if kernel.shape[0] == 1:
        kernel = namespace(u, kernel).broadcast_to(kernel, (u.shape[-1], kernel.shape[-1]))
    return _compiled_convolution(u, kernel)


def fft_convolution(u: Array, kernel: Array) -> Array:
    """Compute `direct_convolution`, (*batch, T, D), as a product of spectra, zero-padded against wrap-around."""
    length = u.shape[-2]
    padded = 1 << (length + kernel.shape[-1] - 2).bit_length()  # a power of two from T + L − 1 on
    spectrum = mg.fft.rfft(u, padded, axis=-2) * mg.fft.rfft(kernel, padded).mT
    return mg.fft.irfft(spectrum, padded, axis=-2)[..., :length, :]


_compiled_convolution = with_kernel("ssm.lti: convolution", fft_convolution)

"""S4: a diagonal plus low-rank (DPLR) state space model, HiPPO's matrix, whose kernel is a sum of Cauchy kernels.

    A = Λ − P Pᴴ                                          DPLR, from hippo.dplr         Gu et al. 2022 (S4), theorem 1
    Ā = (1 − ΔA/2)⁻¹(1 + ΔA/2),  B̄ = (1 − ΔA/2)⁻¹ΔB      bilinear                      eq. 3
    hₜ = Ā hₜ₋₁ + B̄ uₜ,  yₜ = C hₜ + D uₜ                 the recurrence, O(N) a token  appendix C.2
    K̄ₗ = C Āˡ B̄                                          the kernel                    eq. 5
    K̂(z) = Σ_{l<L} K̄ₗ zˡ = C̃ (1 − Āz)⁻¹B̄                its generating function at    appendix C.3
                                                          zᴸ = 1, C̃ = C(1 − Āᴸ)

K̂ at the L roots of unity z = e^(−2iω), ω = πl/L, is the discrete Fourier transform of K̄. With s = sin ω, c = cos ω:

    (1 − Āz)⁻¹B̄ = ((1 − z) − (1 + z)ΔA/2)⁻¹ ΔB                    Ā, B̄ inserted
                = e^(iω) (is − cΔA/2)⁻¹ (Δ/2) B                   1 − z = 2is e^(−iω), 1 + z = 2c e^(−iω)
                = e^(iω) (R⁻¹ + c(Δ/2) P Pᴴ)⁻¹ (Δ/2) B            A = Λ − P Pᴴ, R = (is − cΔΛ/2)⁻¹ diagonal
    K̂(z) = e^(iω) (κ(C̃, B) − c κ(C̃, P) κ(P*, B) / (1 + c κ(P*, P)))     by Woodbury's identity
    κ(a, b) = a R (Δ/2) b = Σₙ aₙ bₙ (Δ/2) / (is − cΔλₙ/2)             a Cauchy sum

Deviation: the paper divides the first line by 1 + z and has 2/(1 + z) C̃ (2/Δ (1 − z)/(1 + z) − A)⁻¹ B. At z = −1, a
node of every even L, that is 0 · ∞ up to rounding. Here the factor is cancelled: c = 0 there, and no node is singular.
Near z = 1 no digit is lost, because s and c are computed from ω and not from 1 ∓ z.

    u        the input, (*batch, T, D): every channel has a system of its own.
    Lambda   Λ, (D, N), Re Λ < 0: one of each conjugate pair of eigenvalues of the normal part.
    P, B, C  complex, (D, N), in the eigenbasis of the normal part: the entries that belong to Λ. P* is the conjugate.
    D        the skip connection, (D,).
    delta    Δ > 0, one step a channel, (D,).
    h        the state, complex, (*batch, D, N).

Only one of each conjugate pair is stored, and so is its term of any sum: N stored numbers are a real state of size 2N,
(Re h, Im h), and a sum of products over all pairs is twice the real part of the sum over the stored ones. The state
starts at 0. Arguments that do not fit raise TypeError or ValueError, as `models.forms` says, and so do Re Λ ≥ 0 and
Δ ≤ 0.
"""

import math
from collections.abc import Callable

from jaxtyping import Complex, Float

import minigrad as mg
from minigrad import namespace
from models import linear_systems
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import check_eigenvalues, initial_state, real_and_imag, to_complex, tokens

TD = Float[Array, "*batch T D"]
DN = Complex[Array, "D N"]
PerChannel = Float[Array, "D"]
H = Complex[Array, "*batch D N"]

MECHANISM = Mechanism(
    arguments={
        "u": Domain.ANY,
        "Lambda": Domain.LEFT_HALF_PLANE,
        "P": Domain.ANY,
        "B": Domain.SMALL,
        "C": Domain.ANY,
        "D": Domain.ANY,
        "delta": Domain.POSITIVE,
    },
    state=Domain.ANY,
    rational=False,
    blocks={"s4": "models.blocks.s4.S4Block"},
)


@form
def recurrent(
    u: TD, Lambda: DN, P: DN, B: DN, C: DN, D: PerChannel, delta: PerChannel, *, state: H | None = None
) -> tuple[TD, H]:
    """Compute the recurrence, token after token, without an N × N matrix: O(T·D·N)."""
    check_eigenvalues("s4.recurrent", Lambda, delta, strict=True)
    xp = namespace(u, Lambda, P, B, C, D, delta)
    step, h, y = make_step(Lambda, P, B, delta), initial_state(state, u, B), []
    for (u_t,) in tokens(u):
        h = step(h, u_t.mT)
        y.append(xp.sum(C * h, axis=-1))
    return 2 * xp.real(xp.stack(y, axis=-2)) + D * u, h


@form(work="FFT")
def convolution(
    u: TD, Lambda: DN, P: DN, B: DN, C: DN, D: PerChannel, delta: PerChannel, *, state: H | None = None
) -> tuple[TD, H]:
    """Convolve the input with the kernel: O(T·D·(log T + N) + √T·D·N²), and O(D·N³·log T) for C̃."""
    check_eigenvalues("s4.convolution", Lambda, delta, strict=True)
    return convolve(u, Lambda, P, B, C, D, delta, state, cauchy)


@form(compiled=True, work="FFT")
def fused(
    u: TD, Lambda: DN, P: DN, B: DN, C: DN, D: PerChannel, delta: PerChannel, *, state: H | None = None
) -> tuple[TD, H]:
    """Compute `convolution` with a kernel for the Cauchy sums (NumPy's float32, float64): no array of D·N·L numbers."""
    check_eigenvalues("s4.fused", Lambda, delta, strict=True)
    return convolve(u, Lambda, P, B, C, D, delta, state, compiled_cauchy)


def convolve(
    u: Array, Lambda: Array, P: Array, B: Array, C: Array, D: Array, delta: Array, h: Array | None, cauchy: Callable
) -> tuple[Array, Array]:
    """Return (y, state) by convolution; `cauchy` computes the Cauchy sums."""
    length = u.shape[-2]
    C_tilde = truncated_output_matrix(Lambda, P, B, C, delta, length)
    spectrum = kernel_spectrum(Lambda, P, B, C_tilde, delta, length, cauchy)
    y = linear_systems.causal_convolution(u, mg.fft.irfft(spectrum, length)) + D * u
    real_h, system = None if h is None else real_and_imag(h), dense_real_system(Lambda, P, B, C, delta)
    y, h = linear_systems.add_state_response(u, y, *system, real_h)
    return y, to_complex(h)


def kernel_power(Lambda: Array, P: Array, B: Array, C: Array, delta: Array, *, length: int) -> Array:
    """Return K̄ₗ for l = 0 … L − 1, real, (D, L), by powers of Ā: O(L·D·N²)."""
    check_eigenvalues("s4.kernel_power", Lambda, delta, strict=True)
    return linear_systems.kernel(*dense_real_system(Lambda, P, B, C, delta), length=length)


def kernel_cauchy(Lambda: Array, P: Array, B: Array, C: Array, delta: Array, *, length: int) -> Array:
    """Return the same, (D, L), as the inverse Fourier transform of K̂ at the L roots of unity."""
    check_eigenvalues("s4.kernel_cauchy", Lambda, delta, strict=True)
    C_tilde = truncated_output_matrix(Lambda, P, B, C, delta, length)
    spectrum = kernel_spectrum(Lambda, P, B, C_tilde, delta, length, cauchy)
    return mg.fft.irfft(spectrum, length)


def truncated_output_matrix(Lambda: Array, P: Array, B: Array, C: Array, delta: Array, length: int) -> Array:
    """Return C̃ = C(1 − Āᴸ), for which C̃ (1 − Āz)⁻¹B̄ is the sum of L terms at zᴸ = 1."""
    xp = namespace(Lambda, P, B, C, delta)
    A, _, rows = dense_real_system(Lambda, P, B, C, delta)
    rows = rows - (rows[..., None, :] @ linear_systems.matrix_power(A, length))[..., 0, :]
    return xp.conj(to_complex(rows)) / 2


def kernel_spectrum(
    Lambda: Array, P: Array, B: Array, C: Array, delta: Array, length: int, cauchy: Callable[..., Array]
) -> Array:
    """Return C (1 − Āz)⁻¹ B̄ at the roots of unity z of the first ⌊L/2⌋ + 1 frequencies, (D, ⌊L/2⌋ + 1)."""
    xp, half = namespace(Lambda, P, B, C, delta), delta[..., None] / 2
    products = xp.stack([C * B, C * P, xp.conj(P) * B, xp.conj(P) * P], axis=-2)  # (D, 4, N)
    sums = cauchy(half[..., None] * products, half * Lambda, length=length)
    cb, cp, pb, pp = (sums[..., i, :] for i in range(4))
    s, c = frequencies(Lambda, length)
    return (c + 1j * s) * (cb - c * cp * pb / (1 + c * pp))


def cauchy(weights: Array, poles: Array, *, length: int) -> Array:
    """Return Σₙ wₙ / (is − c λₙ) over all conjugate pairs, for weights (D, K, N), poles (D, N): (D, K, ⌊L/2⌋ + 1)."""
    xp, (s, c), poles = namespace(weights, poles), frequencies(poles, length), poles[..., None]
    return weights @ (1 / (1j * s - c * poles)) + xp.conj(weights) @ (1 / (1j * s - c * xp.conj(poles)))


def frequencies(like: Array, length: int) -> tuple[Array, Array]:
    """Return sin ω and cos ω for ω = πl/L, l = 0 … ⌊L/2⌋, (⌊L/2⌋ + 1,) each, real and of the precision of `like`."""
    xp, angles = namespace(like), [math.pi * l / length for l in range(length // 2 + 1)]
    dtype = xp.real(like).dtype
    return tuple(xp.asarray([f(angle) for angle in angles], dtype=dtype) for f in (math.sin, math.cos))


compiled_cauchy = with_kernel("ssm.s4: Cauchy sums", cauchy)


def make_step(Lambda: Array, P: Array, B: Array, delta: Array) -> Callable[[Array, Array], Array]:
    """Return (h, u) → Āh + B̄u = M(2h + ΔBu) − h, M = (1 − ΔA/2)⁻¹, for h (*batch, D, N) and u (*batch, D, 1).

    Ā = M(1 + ΔA/2) is 2M − 1. M is the inverse of 1 − ΔΛ/2, a diagonal, but for the rank one that Woodbury's identity
    adds to it.
    """
    xp = namespace(Lambda, P, B, delta)
    half, dual = delta[..., None] / 2, 2 * xp.conj(P)  # twice the real part, over all conjugate pairs
    diagonal, drive = 1 / (1 - half * Lambda), delta[..., None] * B
    correction = half * diagonal * P / (1 + half * xp.real(xp.sum(dual * diagonal * P, axis=-1, keepdims=True)))

    def step(h: Array, u: Array) -> Array:
        solved = diagonal * (2 * h + drive * u)
        xp = namespace(dual, solved)
        return solved - correction * xp.real(xp.sum(dual * solved, axis=-1, keepdims=True)) - h

    return step


# The same system in real numbers, with the state (Re h, Im h)


def dense_real_system(Lambda: Array, P: Array, B: Array, C: Array, delta: Array) -> tuple[Array, Array, Array]:
    """Return Ā (D, 2N, 2N), B̄ (D, 2N) and C (D, 2N) of the real system with the state (Re h, Im h)."""
    xp, n = namespace(Lambda, P, B, C, delta), Lambda.shape[-1]
    eye = xp.eye(n, dtype=Lambda.dtype)
    basis = xp.concat([eye, 1j * eye], axis=0)[:, None, :]  # (2N, 1, N): every unit vector as a batch of states
    step, u = make_step(Lambda, P, B, delta), delta[..., None]
    columns = real_and_imag(step(basis, xp.zeros_like(u)))  # (2N, D, 2N)
    B_bar = real_and_imag(step(xp.zeros_like(B), xp.ones_like(u)))
    return xp.permute_dims(columns, (1, 2, 0)), B_bar, 2 * real_and_imag(xp.conj(C))

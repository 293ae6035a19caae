"""S4: a diagonal state space plus one of rank one, HiPPO's own, whose kernel costs no powers of a matrix.

    A = Λ − P Pᴴ                                          DPLR, after hippo.dplr        Gu et al. 2022 (S4), theorem 1
    A̅ = (1 − ΔA/2)⁻¹(1 + ΔA/2),  B̅ = (1 − ΔA/2)⁻¹ΔB      bilinear                      eq. 3
    hₜ = A̅ hₜ₋₁ + B̅ uₜ,  yₜ = C hₜ + D uₜ                 the recurrence, O(N) a token  appendix C.2
    K̅ₗ = C A̅ˡ B̅                                          the kernel                    eq. 5
    K̂(z) = Σ_{l<L} K̅ₗ zˡ = C̃ (1 − A̅z)⁻¹B̅                at zᴸ = 1, C̃ = C(1 − A̅ᴸ)      appendix C.3
         = e^(iω) (κ(C̃, B) − c κ(C̃, P) κ(P̅, B) / (1 + c κ(P̅, P)))
    κ(a, b) = Σₙ aₙ bₙ Δ/2 / (is − c λₙ Δ/2)              z = e^(−2iω), c = cos ω, s = sin ω

    u        the input, (*batch, T, D): every channel has a system of its own.
    Lambda   Λ, (D, N), Re Λ < 0: one of each conjugate pair of eigenvalues of the normal part.
    P, B, C  complex, (D, N), in its eigenvectors: the halves that belong to Λ.
    D        what of u passes by the state, (D,).
    delta    Δ > 0, one step a channel, (D,).
    h        the state, complex, (*batch, D, N).

The halves that are not stored are the conjugates of those that are, and so is what they add to any sum: N stored here
are a real state of size 2N, the parts of h, and a sum over all of a product is twice its real part over the half.

The paper divides by 1 + z, which is 0 at z = −1, a node of every even length: there it computes 0 · ∞ up to rounding.
Here the factor is cancelled: with s and c, which are what e^(iω)(1 ∓ z)/2 is, no node is singular, and near z = 1 no
digit is lost. The state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says, and so
do Re Λ ≥ 0 and Δ ≤ 0.
"""

import math
from collections.abc import Callable

from jaxtyping import Complex, Float

import minigrad as mg
from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.memory.chunks import tokens
from models.ssm import lti
from models.ssm.s4d import check

TD = Float[Array, "*batch T D"]
DN = Complex[Array, "D N"]
PerChannel = Float[Array, "D"]
H = Complex[Array, "*batch D N"]


@form
def recurrent(
    u: TD, Lambda: DN, P: DN, B: DN, C: DN, D: PerChannel, delta: PerChannel, *, state: H | None = None
) -> tuple[TD, H]:
    """One token after the other, without a matrix: O(T·D·N)."""
    check("s4.recurrent", Lambda, delta, fades=True)
    xp = namespace(u, Lambda, P, B, C, D, delta)
    step, y = stepping(Lambda, P, B, delta), []
    h = xp.zeros_like(u[..., 0, :, None] * B) if state is None else state
    for (u_t,) in tokens(u):
        h = step(h, u_t.mT)
        y.append(twice_real(C, h)[..., None, :] + D * u_t)
    return xp.concat(y, axis=-2), h


@form
def convolution(
    u: TD, Lambda: DN, P: DN, B: DN, C: DN, D: PerChannel, delta: PerChannel, *, state: H | None = None
) -> tuple[TD, H]:
    """The input convolved with the Cauchy kernel: O(T·D·(log T + N) + √T·D·N²), and O(D·N³·log T) for C̃."""
    check("s4.convolution", Lambda, delta, fades=True)
    return convolved(u, Lambda, P, B, C, D, delta, state, cauchy)


@form(compiled=True)
def fused(
    u: TD, Lambda: DN, P: DN, B: DN, C: DN, D: PerChannel, delta: PerChannel, *, state: H | None = None
) -> tuple[TD, H]:
    """The convolution with compiled Cauchy sums, for NumPy's float32 and float64: no array of D·N·L numbers is made."""
    check("s4.fused", Lambda, delta, fades=True)
    return convolved(u, Lambda, P, B, C, D, delta, state, compiled_cauchy)


def convolved(
    u: Array, Lambda: Array, P: Array, B: Array, C: Array, D: Array, delta: Array, h: Array | None, cauchy: Callable
) -> tuple[Array, Array]:
    """Return (y, state) by the kernel, with these Cauchy sums."""
    length = u.shape[-2]
    spectrum = generating(Lambda, P, B, truncated(Lambda, P, B, C, delta, length), delta, length, cauchy)
    y = lti.causal_convolution(u, mg.fft.irfft(spectrum, length)) + D * u
    y, h = lti.carried(u, y, *dense(Lambda, P, B, C, delta), None if h is None else parts(h))
    return y, joined(h)


def kernel_power(Lambda: Array, P: Array, B: Array, C: Array, delta: Array, *, length: int) -> Array:
    """K̅ₗ for l = 0 … L − 1, real, (D, L), by the powers of A̅: O(L·D·N²)."""
    check("s4.kernel_power", Lambda, delta, fades=True)
    return lti.kernel(*dense(Lambda, P, B, C, delta), length=length)


def kernel_cauchy(Lambda: Array, P: Array, B: Array, C: Array, delta: Array, *, length: int) -> Array:
    """The same, (D, L), from K̂ at the L roots of unity: Woodbury's identity, Cauchy sums, an inverse transform."""
    check("s4.kernel_cauchy", Lambda, delta, fades=True)
    spectrum = generating(Lambda, P, B, truncated(Lambda, P, B, C, delta, length), delta, length, cauchy)
    return mg.fft.irfft(spectrum, length)


def truncated(Lambda: Array, P: Array, B: Array, C: Array, delta: Array, length: int) -> Array:
    """C̃ = C(1 − A̅ᴸ): what makes a sum of L terms of the sum of all."""
    xp = namespace(Lambda, P, B, C, delta)
    A, _, rows = dense(Lambda, P, B, C, delta)
    rows = rows - (rows[..., None, :] @ lti.power(A, length))[..., 0, :]
    return xp.conj(joined(rows)) / 2


def generating(
    Lambda: Array, P: Array, B: Array, C: Array, delta: Array, length: int, cauchy: Callable[..., Array]
) -> Array:
    """C (1 − A̅z)⁻¹ B̅ at the roots of unity z of the first ⌊L/2⌋ + 1 frequencies, (D, ⌊L/2⌋ + 1)."""
    xp, half = namespace(Lambda, P, B, C, delta), delta[..., None] / 2
    products = xp.stack([C * B, C * P, xp.conj(P) * B, xp.conj(P) * P], axis=-2)  # (D, 4, N)
    sums = cauchy(half[..., None] * products, half * Lambda, length=length)
    cb, cp, pb, pp = (sums[..., i, :] for i in range(4))
    s, c = frequencies(Lambda, length)
    return (c + 1j * s) * (cb - c * cp * pb / (1 + c * pp))


def cauchy(weights: Array, poles: Array, *, length: int) -> Array:
    """Σₙ wₙ / (is − c λₙ) over all conjugate pairs, for weights (D, K, N), poles (D, N): (D, K, ⌊L/2⌋ + 1)."""
    xp, (s, c), poles = namespace(weights, poles), frequencies(poles, length), poles[..., None]
    return weights @ (1 / (1j * s - c * poles)) + xp.conj(weights) @ (1 / (1j * s - c * xp.conj(poles)))


def frequencies(like: Array, length: int) -> tuple[Array, Array]:
    """sin ω and cos ω for ω = πl/L, l = 0 … ⌊L/2⌋, (⌊L/2⌋ + 1,) each, in real numbers as those of an array."""
    xp, angles = namespace(like), [math.pi * l / length for l in range(length // 2 + 1)]
    dtype = xp.real(like).dtype
    return tuple(xp.asarray([f(angle) for angle in angles], dtype=dtype) for f in (math.sin, math.cos))


compiled_cauchy = with_kernel("ssm.s4: Cauchy sums", cauchy)


def stepping(Lambda: Array, P: Array, B: Array, delta: Array) -> Callable[[Array, Array], Array]:
    """Return (h, u) → A̅h + B̅u = (1 − ΔA/2)⁻¹((1 + ΔA/2)h + ΔBu), for h (*batch, D, N) and u (*batch, D, 1).

    The inverse is that of 1 − ΔΛ/2, a diagonal, but for the rank one that Woodbury's identity adds to it.
    """
    half, dual = delta[..., None] / 2, namespace(Lambda, P, B, delta).conj(P)
    diagonal = 1 / (1 - half * Lambda)
    correction = half * diagonal * P / (1 + half * twice_real(dual, diagonal * P)[..., None])
    explicit, low, entering = 1 + half * Lambda, half * P, delta[..., None] * B

    def step(h: Array, u: Array) -> Array:
        solved = diagonal * (explicit * h - low * twice_real(dual, h)[..., None] + entering * u)
        return solved - correction * twice_real(dual, solved)[..., None]

    return step


def twice_real(a: Array, b: Array) -> Array:
    """Σ ab over all conjugate pairs, of which a and b (…, N) hold the halves: (…)."""
    xp = namespace(a, b)
    return 2 * xp.real(xp.sum(a * b, axis=-1))


# The same system in real numbers: the parts of h beside each other


def dense(Lambda: Array, P: Array, B: Array, C: Array, delta: Array) -> tuple[Array, Array, Array]:
    """Return A̅ (D, 2N, 2N), B̅ (D, 2N) and C (D, 2N) of the real system with the state (Re h, Im h)."""
    xp, n = namespace(Lambda, P, B, C, delta), Lambda.shape[-1]
    one = xp.eye(n, dtype=Lambda.dtype)
    basis = xp.concat([one, 1j * one], axis=0)[:, None, :]  # (2N, 1, N): every unit vector as a batch of states
    step, u = stepping(Lambda, P, B, delta), delta[..., None]
    columns = parts(step(basis, xp.zeros_like(u)))  # (2N, D, 2N)
    return xp.permute_dims(columns, (1, 2, 0)), parts(step(xp.zeros_like(B), xp.ones_like(u))), 2 * parts(xp.conj(C))


def parts(h: Array) -> Array:
    """(Re h, Im h) side by side, (…, 2N) of (…, N)."""
    xp = namespace(h)
    return xp.concat([xp.real(h), xp.imag(h)], axis=-1)


def joined(x: Array) -> Array:
    """The complex numbers (…, N) whose parts are x (…, 2N)."""
    n = x.shape[-1] // 2
    return x[..., :n] + 1j * x[..., n:]

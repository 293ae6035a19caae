"""LSSL: a continuous-time state space model with a dense A, discretised per channel with a step of its own.

    Ā = (1 − αΔA)⁻¹(1 + (1 − α)ΔA)         generalised bilinear      Gu et al. 2021 (LSSL), section 2
    B̄ = (1 − αΔA)⁻¹ΔB                       α = ½: bilinear; 1: backward Euler
    hₜ = Ā hₜ₋₁ + B̄ uₜ                      the recurrence            eq. 4
    yₜ = C hₜ + D uₜ                         the output                  eq. 5
    y  = K̄ ∗ u + D u,  K̄ₗ = C Āˡ B̄          the convolution           eq. 7

    u        the input, (*batch, T, D).
    A, B     (N, N) and (N,), alike for all channels: HiPPO's, or learned.
    C        how each channel reads its state, (D, N).
    D        the skip connection, (D,).
    delta    Δ > 0, one step a channel, (D,): the time scale on which it remembers.
    alpha    α, ½ … 1: below ½ a stable A can become an unstable Ā.
    h        the state, (*batch, D, N).

The powers of a dense Ā are the cost that S4 avoids. For real numbers; the state starts
at 0. What does not fit raises TypeError or ValueError, as `models.forms` says, and so do an A with an eigenvalue of
positive real part, Δ ≤ 0, and α outside ½ … 1.
"""

from functools import partial
from typing import Any

from jaxtyping import Float

from models import linear_systems
from models.forms import Array, form
from models.mechanism import Domain, Mechanism
from models.ssm.discretize import bilinear, generalized_bilinear

TD = Float[Array, "*batch T D"]
NN = Float[Array, "N N"]
N = Float[Array, "N"]
DN = Float[Array, "D N"]
PerChannel = Float[Array, "D"]
H = Float[Array, "*batch D N"]

MECHANISM = Mechanism(
    arguments={
        "u": Domain.ANY,
        "A": Domain.STABLE,
        "B": Domain.SMALL,
        "C": Domain.ANY,
        "D": Domain.ANY,
        "delta": Domain.POSITIVE,
    },
    state=Domain.ANY,
    rational=True,
    blocks={"lssl": "models.blocks.lssl.LSSLBlock"},
)


@form
def recurrent(
    u: TD, A: NN, B: N, C: DN, D: PerChannel, delta: PerChannel, *, state: H | None = None, alpha: Any = 0.5
) -> tuple[TD, H]:
    """Compute the recurrence, token after token: O(T·D·N²)."""
    y, h = linear_systems.run_recurrence(u, *discrete("lssl.recurrent", A, B, delta, alpha), C, state)
    return y + D * u, h


@form(work="FFT")
def convolution(
    u: TD, A: NN, B: N, C: DN, D: PerChannel, delta: PerChannel, *, state: H | None = None, alpha: Any = 0.5
) -> tuple[TD, H]:
    """Compute the kernel by powers of Ā, the convolution by FFT: O(T·D·(log T + N²))."""
    A_bar, B_bar = discrete("lssl.convolution", A, B, delta, alpha)
    y = linear_systems.causal_convolution(u, linear_systems.kernel(A_bar, B_bar, C, length=u.shape[-2])) + D * u
    return linear_systems.add_state_response(u, y, A_bar, B_bar, C, state)


def discrete(label: str, A: Array, B: Array, delta: Array, alpha: Any) -> tuple[Array, Array]:
    """Return Ā (D, N, N) and B̄ (D, N): one system for each step."""
    if not 0.5 <= alpha <= 1:
        raise ValueError(f"{label}: alpha is {alpha}, expected a number from 1/2 to 1")
    method = bilinear if alpha == 0.5 else partial(generalized_bilinear, alpha=alpha)  # half a fraction is a fraction
    return method(A, B, delta[:, None, None])

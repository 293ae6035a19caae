"""Linear time-invariant state space models in discrete time: a recurrence that is also a convolution.

    hₜ = Ā hₜ₋₁ + B̄ uₜ             the recurrence      Gu et al. 2022 (S4), eq. 3
    yₜ = C̄ hₜ                       the output
    y  = K̄ ∗ u                      the convolution     eq. 4
    K̄  = (C̄B̄, C̄ĀB̄, C̄Ā²B̄, …)         its kernel          eq. 5

    u        the input, (*batch, T, D). Each of the D channels runs its own copy of the same system of one input.
    A        Ā, (N, N), or (N,) where it is diagonal.
    B, C     B̄ and C̄, (N,).
    h        the state, (*batch, D, N).

The code's letters have no bars: `models.ssm.discretize` computes Ā and B̄ from continuous A and B. The skip connection,
D u in the papers, belongs to the layer. For real numbers; the state starts at 0. What does not fit raises TypeError or
ValueError, as `models.forms` says.
"""

from jaxtyping import Float

from models import linear_systems
from models.forms import Array, form
from models.mechanism import Domain, Mechanism

TD = Float[Array, "*batch T D"]
Matrix = Float[Array, "N N"] | Float[Array, "N"]
Vector = Float[Array, "N"]
H = Float[Array, "*batch D N"]

MECHANISM = Mechanism(
    arguments={"u": Domain.ANY, "A": Domain.SMALL, "B": Domain.SMALL, "C": Domain.ANY},
    state=Domain.ANY,
    rational=True,
)


@form
def recurrent(u: TD, A: Matrix, B: Vector, C: Vector, *, state: H | None = None) -> tuple[TD, H]:
    """Compute the recurrence, token after token: O(T·D·N²), diagonal O(T·D·N)."""
    return linear_systems.run_recurrence(u, A[None], B[None], C[None], state)


@form(work="T²", memory="T²")
def direct(u: TD, A: Matrix, B: Vector, C: Vector, *, state: H | None = None) -> tuple[TD, H]:
    """Compute the convolution as a sum: O(T²·D)."""
    A, B, C = A[None], B[None], C[None]
    y = linear_systems.direct_convolution(u, linear_systems.kernel(A, B, C, length=u.shape[-2]))
    return linear_systems.add_state_response(u, y, A, B, C, state)


@form(work="FFT")
def convolution(u: TD, A: Matrix, B: Vector, C: Vector, *, state: H | None = None) -> tuple[TD, H]:
    """Compute the convolution by FFT: O(T·log T·D)."""
    A, B, C = A[None], B[None], C[None]
    y = linear_systems.causal_convolution(u, linear_systems.kernel(A, B, C, length=u.shape[-2]))
    return linear_systems.add_state_response(u, y, A, B, C, state)

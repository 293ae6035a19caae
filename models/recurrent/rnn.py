"""The simple (Elman) recurrent network: a nonlinear recurrence, which cannot be computed in parallel over time.

    hₜ = tanh(W hₜ₋₁ + xₜ)               Elman 1990; Pascanu et al. 2013, eq. 2 and footnote 1

    x    the projected input U u + b of a token, (*batch, T, N).
    W    the recurrent weights, (N, N).
    h    the state, (*batch, N); the output is the state at every token.

The gradient from T steps back is a product of T matrices Wᵀ diag(1 − h²): it vanishes where their norms are below 1 and
may explode where they are above (Pascanu et al. 2013, section 2.1). State space models have no tanh, so that all steps
can be computed in parallel. For real numbers; the state starts at 0. What does not fit raises TypeError or ValueError,
as `models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import tokens

TN = Float[Array, "*batch T N"]
NN = Float[Array, "N N"]
H = Float[Array, "*batch N"]

MECHANISM = Mechanism(
    arguments={"x": Domain.ANY, "W": Domain.SMALL},
    state=Domain.ANY,
    rational=False,
    blocks={"rnn": "models.blocks.rnn.RNNBlock"},
)


@form
def recurrent(x: TN, W: NN, *, state: H | None = None) -> tuple[TN, H]:
    """Compute the recurrence, token after token: O(T·N²)."""
    h, y = initial_state(state, x), []
    xp = namespace(x, W, h)
    for (x_t,) in tokens(x):
        h = xp.tanh(h @ W.mT + x_t)
        y.append(h)
    return xp.concat(y, axis=-2), h[..., 0, :]


@form(compiled=True)
def fused(x: TN, W: NN, *, state: H | None = None) -> tuple[TN, H]:
    """Compute the recurrence by a kernel, forward and backward, for NumPy's float32 and float64: O(T·N²)."""
    return _compiled(x, W, initial_state(state, x)[..., 0, :])


def initial_state(state: H | None, x: TN) -> Array:
    """Return h as a row (*batch, 1, N), 0 where the state is None."""
    return namespace(x).zeros_like(x[..., :1, :]) if state is None else state[..., None, :]


_compiled = with_kernel("recurrent.rnn", lambda x, W, h: recurrent(x, W, state=h))

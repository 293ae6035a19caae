"""The simple recurrent network: a state that is squashed at every step, so that no step can be skipped.

    hₜ = tanh(W hₜ₋₁ + xₜ)               Elman 1990; Pascanu et al. 2013, eq. 2 and footnote 1

    x    what enters at a token, U u + b of an input u, (*batch, T, N).
    W    the recurrent weights, (N, N).
    h    the state, (*batch, N); the output is the state at every token.

The gradient from T steps back is a product of T matrices Wᵀ diag(1 − h²): it vanishes where their norms are below 1 and
may explode where they are above (Pascanu et al. 2013, section 2.1). State spaces leave the tanh out, which is what lets
all steps be done at once. For real numbers; the state starts at 0. What does not fit raises TypeError or ValueError, as
`models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.memory.chunks import tokens

TN = Float[Array, "*batch T N"]
NN = Float[Array, "N N"]
H = Float[Array, "*batch N"]


@form
def recurrent(x: TN, W: NN, *, state: H | None = None) -> tuple[TN, H]:
    """One token after the other, the only way there is: O(T·N²)."""
    xp = namespace(x, W)
    h, y = xp.zeros_like(x[..., :1, :]) if state is None else state[..., None, :], []
    for (x_t,) in tokens(x):
        h = xp.tanh(h @ W.mT + x_t)
        y.append(h)
    return xp.concat(y, axis=-2), h[..., 0, :]

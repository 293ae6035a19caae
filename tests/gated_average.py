"""A gated exponential moving average of each channel: a mechanism in one file, which tests add to the others.

    hₜ = αₜ hₜ₋₁ + (1 − αₜ) xₜ           the recurrence
    yₜ = hₜ                              the output
    Y  = L Diag(1 − α) X + γ h₀          all tokens at once; L[t, s] = αₛ₊₁ ⋯ αₜ for s ≤ t, else 0, and γₜ = α₁ ⋯ αₜ

    x           the input, (*batch, T, D).
    log_decay   log α ≤ 0, (*batch, T). −∞ is a gate of 0: the average starts again.
    h           the state, (*batch, D).

For real numbers; the state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says.
"""

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array, form
from models.mechanism import Domain, Mechanism
from models.sequences import segment_sums, tokens

T = Float[Array, "*batch T"]
TD = Float[Array, "*batch T D"]
H = Float[Array, "*batch D"]

MECHANISM = Mechanism(
    arguments={"x": Domain.ANY, "log_decay": Domain.LOG_GATE},
    state=Domain.ANY,
    rational=True,
)


@form
def recurrent(x: TD, log_decay: T, *, state: H | None = None) -> tuple[TD, H]:
    """Compute the recurrence, token after token: O(T·D)."""
    xp = namespace(x, log_decay)
    h, y = xp.zeros_like(x[..., :1, :]) if state is None else state[..., None, :], []
    for x_t, g_t in tokens(x, log_decay[..., None]):
        alpha_t = xp.exp(g_t)
        h = alpha_t * h + (1 - alpha_t) * x_t
        y.append(h)
    return xp.concat(y, axis=-2), h[..., 0, :]


@form(work="T²", memory="T²")
def quadratic(x: TD, log_decay: T, *, state: H | None = None) -> tuple[TD, H]:
    """Compute all tokens at once, as a product with the matrix of decays: O(T²·D)."""
    xp, g = namespace(x, log_decay), log_decay[..., None]
    L = xp.tril(xp.exp(segment_sums(g))[..., 0])  # (T, T)
    y = L @ ((1 - xp.exp(g)) * x)
    if state is not None:
        y = y + xp.exp(xp.cumulative_sum(g, axis=-2)) * state[..., None, :]
    return y, y[..., -1, :]

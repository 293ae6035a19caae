"""The long short-term memory (LSTM): a recurrent network whose cell is kept, written and read through gates.

    aₜ = W xₜ + U hₜ₋₁ + b               the four gates' pre-activations aⁱ, aᶠ, aᵍ, aᵒ, H rows each
    i = σ(aⁱ),  f = σ(aᶠ),  o = σ(aᵒ)    input, forget and output gate
    g = tanh(aᵍ)                         the candidate
    cₜ = fₜ ∘ cₜ₋₁ + iₜ ∘ gₜ             the cell    Gers et al. 2000, section 3
    hₜ = oₜ ∘ tanh(cₜ)                   the output  Hochreiter and Schmidhuber 1997, section 4, where f = 1

    x    the input of a token, (*batch, T, D).
    W    the input weights, (4H, D): PyTorch's `weight_ih`, as it is stored, its rows in the order i, f, g, o.
    U    the recurrent weights, (4H, H): PyTorch's `weight_hh`.
    b    the bias, (4H,): the sum of PyTorch's `bias_ih` and `bias_hh`, which enter as a sum only.
    h    the output, (*batch, H), and c the cell; both are the state.

∂cₜ/∂cₜ₋₁ along the cell is f alone: on that path the error is carried back unchanged with f = 1, and with f < 1 the
cell forgets. Other paths lead through hₜ₋₁, which all gates read. Both squashing functions are tanh, where the paper
of 1997 scales σ to [−2, 2] and [−1, 1]; there are no peepholes.
For real numbers; the state starts at 0. What does not fit raises TypeError or ValueError, as `models.forms` says.
"""

from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Mechanism
from models.sequences import tokens

TD = Float[Array, "*batch T D"]
TH = Float[Array, "*batch T H"]
GD = Float[Array, "4*H D"]
GH = Float[Array, "4*H H"]
G = Float[Array, "4*H"]
H = Float[Array, "*batch H"]

MECHANISM = Mechanism(
    arguments={"x": Domain.ANY, "W": Domain.SMALL, "U": Domain.SMALL, "b": Domain.SMALL},
    state=Domain.ANY,
    rational=False,
    blocks={"lstm": "models.blocks.lstm.LSTMBlock"},
)


@form
def recurrent(x: TD, W: GD, U: GH, b: G, *, state: tuple[H, H] | None = None) -> tuple[TH, tuple[H, H]]:
    """Compute the recurrence, token after token: O(T·H·(D + H))."""
    (h, c), y = initial_state(state, x, U), []
    xp = namespace(x, W, U, b, h, c)
    for (x_t,) in tokens(x):
        h, c = cell(x_t @ W.mT + h @ U.mT + b, c)
        y.append(h)
    return xp.concat(y, axis=-2), (h[..., 0, :], c[..., 0, :])


@form
def projected(x: TD, W: GD, U: GH, b: G, *, state: tuple[H, H] | None = None) -> tuple[TH, tuple[H, H]]:
    """Project all inputs in one product before the loop, as cuDNN does: O(T·H·(D + H))."""
    y, h, c = after_projection(x @ W.mT + b, U, *initial_state(state, x, U))
    return y, (h[..., 0, :], c[..., 0, :])


@form(compiled=True)
def fused(x: TD, W: GD, U: GH, b: G, *, state: tuple[H, H] | None = None) -> tuple[TH, tuple[H, H]]:
    """Compute the recurrence by a kernel, forward and backward, for NumPy's float32 and float64: O(T·H·(D + H))."""
    y, h, c = _compiled(x @ W.mT + b, U, *initial_state(state, x, U))
    return y, (h[..., 0, :], c[..., 0, :])


def initial_state(state: tuple[H, H] | None, x: TD, U: GH) -> tuple[Array, Array]:
    """Return h and c as rows (*batch, 1, H), 0 where the state is None."""
    if state is None:
        zeros = namespace(x, U).zeros_like(x[..., :1, :1] * U[:1, :])
        return zeros, zeros
    h, c = state
    return h[..., None, :], c[..., None, :]


def cell(a: Array, c: Array) -> tuple[Array, Array]:
    """Return the next h and c, rows (*batch, 1, H), from the pre-activations (*batch, 1, 4H)."""
    xp, size = namespace(a, c), c.shape[-1]
    i, f, g, o = (a[..., n * size : (n + 1) * size] for n in range(4))
    c = mg.sigmoid(f) * c + mg.sigmoid(i) * xp.tanh(g)
    return mg.sigmoid(o) * xp.tanh(c), c


def after_projection(a: Array, U: GH, h: Array, c: Array) -> tuple[Array, Array, Array]:
    """Return all outputs, and the last h and c as rows, from the projected inputs W xₜ + b, (*batch, T, 4H)."""
    xp, y = namespace(a, U, h, c), []
    for (a_t,) in tokens(a):
        h, c = cell(a_t + h @ U.mT, c)
        y.append(h)
    return xp.concat(y, axis=-2), h, c


_compiled = with_kernel("recurrent.lstm", after_projection)

"""Test-time training: the state is the weights of a model, trained on each token by a step of gradient descent.

    ℓₛ(W) = ½ ‖f(kₛ; W) − vₛ‖²                               the inner loss      Sun et al. 2024, eq. 4
    Wₜ    = W₀ − τₜ Σₛ ηₛ ∇ℓₛ(W₀),   s ≤ t in the batch      the update          eq. 6, section 2.4
    oₜ    = f(qₜ; Wₜ)                                        the output          eq. 5
    f(x)  = x + LN(g(x; W))                                  the model           section 2.7

In a mini-batch all gradients are taken at W₀, the weights before it; the next batch starts from its last ones. With g
one matrix this is TTT-Linear, with g an MLP of two layers and a GELU it is TTT-MLP. A layer z = x W has the gradient
∇ℓₛ(W₀) = xₛᵀ ∂ℓₛ/∂zₛ, an outer product. Hence the dual form (eq. 7–8; talk 1:17:08–1:20:37), in the names of the
published code: X1, Z1 are input and output of a layer for the keys, X1_bar, Z1_bar those for the queries,

    Attn1 = X1_bar X1ᵀ                                       (b, b)
    Z1_bar = X1_bar W1_init − (R ∘ Attn1) grad_l_wrt_Z1       R[t, s] = τₜ ηₛ for s ≤ t, else 0
    W1_last = W1_init − τ_b Σₛ ηₛ X1ₛᵀ grad_l_wrt_Z1ₛ

which computes all outputs of a batch without the b matrices Wₜ. Lists X, Z, … hold X1, X2, … of all layers.

    q, k, v     query, key and value of a token, as rows (XQ, XK, XV in the code for those of a mini-batch).
    eta         η ≥ 0, the inner learning rate of a token, (*batch, T). The paper learns it: η = η_base σ(θ x).
    weights     W₀ of a sequence, and γ and β of the layer norm, which the inner loss does not train. The outer loss
                learns all of them. Without a norm f = g: the plain model of sections 2.1 to 2.3.
    tau         τ ≥ 0, (*batch, T): a factor on the accumulated gradient that token t sees. The paper has none (τ = 1);
                its code has 1/i + a learned number for the token at place i of a mini-batch.
    state       W₀ of the current mini-batch, Σ η ∇ℓ over its tokens so far, and how many of its tokens are left.

`batch_size` belongs to the mechanism and not to a form: another one gives another result. For real numbers. Arguments
that do not fit raise TypeError or ValueError, as `models.forms` says; a negative rate raises ValueError, and an inner
loss that is not finite FloatingPointError, both with the token.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float

import minigrad as mg
from gpu.inner_model import WeightLayout
from minigrad import namespace
from minigrad.engine import unwrap
from models.forms import Array, form
from models.kernels.dispatch import on_device, with_kernel
from models.mechanism import Domain, Layout, Mechanism
from models.memory import inner
from models.memory.inner import Layers, Norm, map_layers
from models.sequences import check_positive_int

T = Float[Array, "*batch T"]
TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]

MECHANISM = Mechanism(
    arguments={
        "q": Domain.ANY,
        "k": Domain.KEYS,
        "v": Domain.ANY,
        "eta": Domain.NONNEGATIVE,
        "weights": Domain.SMALL,
    },
    state=Domain.SMALL,
    rational=True,
    large_workspace=True,
    layouts={
        "linear": Layout((("K V", "1 V"),)),
        "mlp": Layout((("K D", "1 D"), ("D V", "1 V")), rational=False),
    },
    blocks={"ttt_linear": "models.blocks.ttt.TTTLinearBlock", "ttt_mlp": "models.blocks.ttt.TTTMLPBlock"},
)


class Weights(NamedTuple):
    """The model before the first token: layers as in `models.memory.inner`, and its layer norm, if any."""

    layers: Layers
    norm: Norm | None = None


class State(NamedTuple):
    """State within a mini-batch: weights at its start, accumulated gradients Σ η ∇ℓ, and the number of tokens left."""

    start: Layers
    total: Layers
    left: int


@form
def primal(
    q: TK,
    k: TK,
    v: TV,
    eta: T,
    weights: Weights,
    *,
    tau: T | None = None,
    state: State | None = None,
    batch_size: int = 16,
) -> tuple[TV, State]:
    """Compute every token's gradient by autodiff and every token's weights: O(T·K·V), with b copies of the weights."""
    xp = inner.common_namespace(q, k, v, eta, weights, tau, state)
    (W_init, grad_sum, left), tau = _prepare("ttt.primal", q, k, v, eta, weights, tau, state, batch_size)
    norm = None if weights.norm is None else tuple(x[..., None, :, :] for x in weights.norm)
    y, first = [], 0
    for batch in inner.mini_batches(left, batch_size, q, k, v, eta[..., None], tau):
        # every token is a (1, K) matrix with weights of its own: (*batch, b, 1, K)
        XQ, XK, XV, eta_b, tau_b = (x[..., None, :] for x in batch)
        copies = inner.broadcast_per_token(W_init, XQ.shape[-3])  # (*batch, b, K, V)
        (_, losses), gradients = mg.value_and_grad(_loss, has_aux=True)(copies, norm, XK, XV)
        inner.check_finite_loss("ttt.primal", losses, first)
        steps = map_layers(lambda g, eta_b=eta_b: xp.cumulative_sum(eta_b * g, axis=-3), gradients)
        sums = map_layers(lambda G, step: G[..., None, :, :] + step, grad_sum, steps)
        W = map_layers(lambda W, G, tau_b=tau_b: W - tau_b * G, copies, sums)
        y.append(inner.apply_model(W, norm, XQ))
        grad_sum = map_layers(lambda G: G[..., -1, :, :], sums)
        left, first = left - XQ.shape[-3], first + XQ.shape[-3]
        if left == 0:
            W_last = _updated(W_init, grad_sum, tau_b[..., -1, :, :])
            W_init, grad_sum, left = W_last, inner.zeros_like(grad_sum), batch_size
    return xp.concat(y, axis=-3)[..., 0, :], State(W_init, grad_sum, left)


@form
def dual(
    q: TK,
    k: TK,
    v: TV,
    eta: T,
    weights: Weights,
    *,
    tau: T | None = None,
    state: State | None = None,
    batch_size: int = 16,
) -> tuple[TV, State]:
    """Compute a mini-batch at a time in the dual form, with inner gradients by hand: O(T·(b·(K + V) + K·V))."""
    initial, tau = _prepare("ttt.dual", q, k, v, eta, weights, tau, state, batch_size)
    return _dual("ttt.dual", 0, q, k, v, eta[..., None], tau, weights.norm, initial, batch_size)


@form(compiled=True)
def fused(
    q: TK,
    k: TK,
    v: TV,
    eta: T,
    weights: Weights,
    *,
    tau: T | None = None,
    state: State | None = None,
    batch_size: int = 16,
) -> tuple[TV, State]:
    """Compute whole mini-batches by a kernel with a hand-written backward pass, for NumPy's float32 and float64.

    Incomplete mini-batches at either end run as `dual`, and on a CPU so do models of more than one layer.
    """
    current, tau = _prepare("ttt.fused", q, k, v, eta, weights, tau, state, batch_size)
    length, y = q.shape[-2], []
    first = 0 if state is None else min(current.left, length)  # to finish the current mini-batch
    last = length - (length - first) % batch_size
    run_full_batches = _compiled_batches if len(current.start) == 1 or on_device(k) else _dual
    for run, begin, stop in ((_dual, 0, first), (run_full_batches, first, last), (_dual, last, length)):
        if begin < stop:
            Q, K, V, E, share = (x[..., begin:stop, :] for x in (q, k, v, eta[..., None], tau))
            y_part, current = run("ttt.fused", begin, Q, K, V, E, share, weights.norm, current, batch_size)
            y.append(y_part)
    return namespace(*y).concat(y, axis=-2), current


def _dual(
    label: str,
    first: int,
    q: Array,
    k: Array,
    v: Array,
    eta: Array,
    tau: Array,
    norm: Norm | None,
    state: State,
    batch_size: int,
) -> tuple[Array, State]:
    """Run the dual form from a state, for η and τ as columns (*batch, T, 1); `first` is the index of the first token.

    Deviations from the published code: a call may end inside a mini-batch, so gradients are accumulated beside W_init,
    and those of an earlier call act on X_bar as one more layer. τ scales row t and η column s, where the code has one
    (b, b) matrix of their products.
    """
    xp, (W_init, grad_sum, left), y = inner.common_namespace(q, k, v, eta, tau, norm, state), state, []
    for XQ, XK, XV, eta_b, tau_b in inner.mini_batches(left, batch_size, q, k, v, eta, tau):  # (*batch, b, ·)
        X, Z = inner.forward(W_init, XK)
        error, grad_l_wrt_Z_last = inner.inner_loss_grad(norm, XK, XV, Z[-1])  # (*batch, b, V)
        inner.check_finite_loss(label, xp.sum(unwrap(error) ** 2, axis=-1), first)
        grad_l_wrt_Z = inner.backward(W_init, Z, grad_l_wrt_Z_last)

        eta_tril = xp.tril(xp.ones_like(eta_b) * eta_b.mT)  # (b, b): ηₛ for s ≤ t
        Z_bar = XQ
        for i, layer in enumerate(W_init):
            X_bar = Z_bar if i == 0 else inner.gelu(Z_bar)
            step = inner.apply_layer(grad_sum[i], X_bar)
            step = step + inner.dual_update(layer, X_bar, X[i], grad_l_wrt_Z[i], eta_tril)  # (*batch, b, O)
            Z_bar = inner.apply_layer(layer, X_bar) - tau_b * step
        y.append(inner.add_residual(norm, XQ, Z_bar))

        batch_sum = inner.accumulated_update(W_init, X, grad_l_wrt_Z, eta_b)
        grad_sum = map_layers(lambda G, g: G + g, grad_sum, batch_sum)
        left, first = left - XQ.shape[-2], first + XQ.shape[-2]
        if left == 0:
            W_last = _updated(W_init, grad_sum, tau_b[..., -1:, :])
            W_init, grad_sum, left = W_last, inner.zeros_like(grad_sum), batch_size
    return xp.concat(y, axis=-2), State(W_init, grad_sum, left)


def _compiled_batches(
    label: str,
    first: int,
    q: Array,
    k: Array,
    v: Array,
    eta: Array,
    tau: Array,
    norm: Norm | None,
    state: State,
    batch_size: int,
) -> tuple[Array, State]:
    """Compute `_dual` for whole mini-batches by the kernel."""
    shape, layout = (*v.shape[:-2], 1, v.shape[-1]), inner.layout_of(state.start, norm)
    gamma_beta = () if norm is None else [namespace(v, x).broadcast_to(x, shape) for x in norm]
    y, *matrices = _compiled(
        q,
        k,
        v,
        eta[..., 0],
        tau[..., 0],
        *map(inner.pack_layer, state.start),
        *gamma_beta,
        layout=layout,
        batch_size=batch_size,
        on_losses=lambda losses: inner.check_finite_loss(label, losses, first),
    )
    return y, _initial_state(inner.unpack_model(matrices, layout), batch_size)


def _reference(
    q: Array,
    k: Array,
    v: Array,
    eta: Array,
    tau: Array,
    *weights: Array,
    layout: WeightLayout,
    batch_size: int,
    on_losses: Callable[[Array], None],
) -> tuple[Array, ...]:
    matrices, norm = (weights[:-2], weights[-2:]) if layout.norm else (weights, None)
    state = _initial_state(inner.unpack_model(matrices, layout), batch_size)
    y, state = _dual("ttt.fused", 0, q, k, v, eta[..., None], tau[..., None], norm, state, batch_size)
    return y, *map(inner.pack_layer, state.start)


_compiled = with_kernel("memory.ttt", _reference)


def _initial_state(layers: Layers, batch_size: int) -> State:
    """Return the state at the start of a mini-batch."""
    return State(layers, inner.zeros_like(layers), batch_size)


def _loss(layers: Layers, norm: Norm | None, k: Array, v: Array) -> tuple[Array, Array]:
    """Return Σ ℓ and each ℓ, (*batch, b), for keys and values (*batch, b, 1, ·), each with weights of its own."""
    error = inner.apply_model(layers, norm, k) - v
    losses = mg.sum(error * error, axis=(-2, -1)) / 2
    return mg.sum(losses), losses


def _updated(W_init: Layers, grad_sum: Layers, tau: Array) -> Layers:
    """Return W_last = W_init − τ Σ η ∇ℓ, the weights after a mini-batch, at which the next one starts."""
    return map_layers(lambda W, G: W - tau * G, W_init, grad_sum)


def _prepare(
    form: str,
    q: Array,
    k: Array,
    v: Array,
    eta: Array,
    weights: Weights,
    tau: Array | None,
    state: State | None,
    batch_size: int,
) -> tuple[State, Array]:
    """Check rates, weights and state, and return the initial state and τ as a column (*batch, T, 1).

    Accumulated gradients have the shapes of the weights.
    """
    for name, rate in (("eta", eta), ("tau", tau)):
        if rate is not None:
            inner.check_gate_range(f"{form}: {name}", rate, 0, math.inf, "")
    if not isinstance(weights, Weights):
        raise TypeError(f"{form}: weights is of type {type(weights).__name__}, expected Weights(layers, norm)")
    inner.validate_norm(form, "weights.norm", weights.norm, k, v)
    tau = namespace(q).ones_like(q[..., :1]) if tau is None else tau[..., None]
    layers = inner.validate_layers(f"{form}: weights.layers", weights.layers, k, v)
    if state is None:
        return _initial_state(layers, batch_size), tau
    if not isinstance(state, State):
        raise TypeError(f"{form}: state is of type {type(state).__name__}, expected State(start, total, left)")
    left = check_positive_int(f"{form}: state.left", state.left)
    start, total = (inner.validate_layers(f"{form}: state.{x}", getattr(state, x), k, v) for x in ("start", "total"))
    return State(start, total, left), tau

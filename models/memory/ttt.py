"""Test-time training: the memory is a model, and every token takes one step of gradient descent on what it forgot.

    ℓₛ(W) = ½ ‖f(kₛ; W) − vₛ‖²                               the inner loss      Sun et al. 2024, eq. 4
    Wₜ    = W₀ − τₜ Σₛ ηₛ ∇ℓₛ(W₀),   s ≤ t in the batch      the write           eq. 6, section 2.4
    oₜ    = f(qₜ; Wₜ)                                        the read            eq. 5
    f(x)  = x + LN(g(x; W))                                  the model           section 2.7

In a mini-batch all gradients are taken at W₀, the weights before it; the next batch starts from its last ones. With g
one matrix this is TTT-Linear, with g an MLP of two layers and a GELU it is TTT-MLP. So ∇ℓₛ(W₀) = xₛᵀ δₛ for each layer,
with x what enters the layer and δ the slope of what it gives, and with R[t, s] = τₜ ηₛ for s ≤ t, else 0:

    Z′ = X W₀ − (R ∘ X Xₖᵀ) Δ                                the dual form of a layer, eq. 7–8; talk 1:17:08–1:20:37

    q, k, v     query, key and value of a token, as rows: views of one token, or made of it by three matrices.
    eta         η ≥ 0, the inner rate of a token, (*batch, T). The papers learn it: η = η_base σ(θ x).
    weights     W₀ of a sequence, and the layer norm's γ and β, which are not trained inside. Learned outside, all of
                them. Without a norm f = g: the plain model of sections 2.1 to 2.3.
    tau         τ ≥ 0, (*batch, T): what of the batch's sum a token sees. The paper has none (1); its code has, for the
                token at place i of a mini-batch, 1/i + learned.
    state       W₀ of the batch under way, Σ η ∇ℓ so far, and how many of its tokens are left.

`batch_size` is a part of the mechanism and not of a form: another one learns something else. For real numbers. What
does not fit raises TypeError or ValueError, as `models.forms` says; a rate below 0 ValueError, and an inner loss that
is not finite FloatingPointError, both with the token.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from minigrad.engine import unwrap
from models.forms import Array, form
from models.kernels import compiled, on_device
from models.memory import inner
from models.memory.inner import Layers, Norm, each

T = Float[Array, "*batch T"]
TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]


class Weights(NamedTuple):
    """The model before the first token: its layers, as `models.memory.inner` has them, and its layer norm if any."""

    layers: Layers
    norm: Norm | None = None


class State(NamedTuple):
    """Where a sequence stands: inside a mini-batch that started from `start`, with `left` tokens to come."""

    start: Layers
    total: Layers
    left: int


@form
def primal(
    q: TK, k: TK, v: TV, eta: T, weights: Weights, *, tau: T | None = None, state: State | None = None,
    batch_size: int = 16,
) -> tuple[TV, State]:  # fmt: skip
    """Every token's gradient from `grad`, and every token's weights: O(T·K·V), and b copies of the weights at once."""
    xp = inner.library(q, k, v, eta, weights, tau, state)
    (start, total, left), tau = _begun("ttt.primal", q, k, v, eta, weights, tau, state, batch_size)
    norm = None if weights.norm is None else tuple(x[..., None, :, :] for x in weights.norm)
    y, first = [], 0
    for batch in inner.batches(left, batch_size, q, k, v, eta[..., None], tau):
        Q, K, V, E, share = (x[..., None, :] for x in batch)  # a token is a 1 × K matrix and has weights of its own
        copies = inner.copies(start, Q.shape[-3])
        (_, losses), gradients = mg.value_and_grad(_loss, has_aux=True)(copies, norm, K, V)
        inner.converging("ttt.primal", losses, first)
        steps = each(lambda g, E=E: xp.cumulative_sum(E * g, axis=-3), gradients)
        totals = each(lambda G, step: G[..., None, :, :] + step, total, steps)
        y.append(inner.model(each(lambda W, G, share=share: W - share * G, copies, totals), norm, Q))
        total, left, first = each(lambda G: G[..., -1, :, :], totals), left - Q.shape[-3], first + Q.shape[-3]
        if left == 0:
            start, total, left = _next(start, total, share[..., -1, :, :]), inner.nothing(total), batch_size
    return xp.concat(y, axis=-3)[..., 0, :], State(start, total, left)


@form
def dual(
    q: TK, k: TK, v: TV, eta: T, weights: Weights, *, tau: T | None = None, state: State | None = None,
    batch_size: int = 16,
) -> tuple[TV, State]:  # fmt: skip
    """Gradients by hand, and no token's own weights: O(T·(b·(K + V) + K·V)), a mini-batch at a time."""
    begun, tau = _begun("ttt.dual", q, k, v, eta, weights, tau, state, batch_size)
    return _dual("ttt.dual", 0, q, k, v, eta[..., None], tau, weights.norm, begun, batch_size)


@form
def fused(
    q: TK, k: TK, v: TV, eta: T, weights: Weights, *, tau: T | None = None, state: State | None = None,
    batch_size: int = 16,
) -> tuple[TV, State]:  # fmt: skip
    """`dual` with its adjoint by hand, for NumPy's float32 and float64: of one layer, whole mini-batches are compiled.

    What is left of a mini-batch at either end is `dual`, and so are the first tokens after a state, and, but for the
    raw kernels on a GPU, a deeper model.
    """
    now, tau = _begun("ttt.fused", q, k, v, eta, weights, tau, state, batch_size)
    length, y = q.shape[-2], []
    first = 0 if state is None else min(now.left, length)  # a mini-batch may be under way
    last = length - (length - first) % batch_size
    whole = _compiled_batches if len(now.start) == 1 or on_device(k) else _dual
    for run, begin, stop in ((_dual, 0, first), (whole, first, last), (_dual, last, length)):
        if begin < stop:
            Q, K, V, E, share = (x[..., begin:stop, :] for x in (q, k, v, eta[..., None], tau))
            made, now = run("ttt.fused", begin, Q, K, V, E, share, weights.norm, now, batch_size)
            y.append(made)
    return namespace(*y).concat(y, axis=-2), now


def _dual(
    label: str, first: int, q: Array, k: Array, v: Array, eta: Array, tau: Array, norm: Norm | None, state: State,
    batch_size: int,
) -> tuple[Array, State]:  # fmt: skip
    """The dual form from a state on, with η and τ as columns; `first` is the number of the first token."""
    xp, (start, total, left), y = inner.library(q, k, v, eta, tau, norm, state), state, []
    for Q, K, V, E, share in inner.batches(left, batch_size, q, k, v, eta, tau):
        inputs, outputs = inner.forward(start, K)
        error, slope = inner.missed(norm, K, V, outputs[-1])
        inner.converging(label, xp.sum(unwrap(error) ** 2, axis=-1), first)
        slopes = inner.backward(start, outputs, slope)

        mix, z = xp.tril(xp.ones_like(E) * E.mT), Q  # mix[t, s] = ηₛ for s ≤ t
        for i, layer in enumerate(start):
            x = z if i == 0 else inner.gelu(z)
            step = inner.apply(total[i], x) + inner.moved(layer, x, inputs[i], slopes[i], mix)
            z = inner.apply(layer, x) - share * step
        y.append(inner.answer(norm, Q, z))

        total = each(lambda G, step: G + step, total, inner.written(start, inputs, slopes, E))
        left, first = left - Q.shape[-2], first + Q.shape[-2]
        if left == 0:
            start, total, left = _next(start, total, share[..., -1:, :]), inner.nothing(total), batch_size
    return xp.concat(y, axis=-2), State(start, total, left)


def _compiled_batches(
    label: str, first: int, q: Array, k: Array, v: Array, eta: Array, tau: Array, norm: Norm | None, state: State,
    batch_size: int,
) -> tuple[Array, State]:  # fmt: skip
    """The same for whole mini-batches, by the kernel."""
    shape, depth = (*v.shape[:-2], 1, v.shape[-1]), len(state.start)
    of_norm = () if norm is None else [namespace(v, x).broadcast_to(x, shape) for x in norm]
    y, *matrices = _compiled(
        q, k, v, eta[..., 0], tau[..., 0], *map(inner.one_matrix, state.start), *of_norm, batch_size=batch_size,
        on_losses=lambda losses: inner.converging(label, losses, first), **({"depth": depth} if depth > 1 else {}),
    )  # fmt: skip
    return y, _at_start(matrices, k, batch_size)


def _reference(
    q: Array, k: Array, v: Array, eta: Array, tau: Array, *matrices: Array,
    batch_size: int, on_losses: Callable[[Array], None], depth: int = 1,
) -> tuple[Array, ...]:  # fmt: skip
    state, columns = _at_start(matrices[:depth], k, batch_size), (eta[..., None], tau[..., None])
    y, state = _dual("ttt.fused", 0, q, k, v, *columns, matrices[depth:] or None, state, batch_size)
    return y, *map(inner.one_matrix, state.start)


_compiled = compiled("ttt", _reference)


def _at_start(matrices: Sequence[Array], k: Array, batch_size: int) -> State:
    """The state before a mini-batch with a model whose layers are one matrix each."""
    features = k.shape[-1], *(W.shape[-1] for W in matrices[:-1])
    layers = tuple(map(inner.one_layer, matrices, features))
    return State(layers, inner.nothing(layers), batch_size)


def _loss(layers: Layers, norm: Norm | None, k: Array, v: Array) -> tuple[Array, Array]:
    """Σ ℓ, and each ℓ, (*batch, b), for keys and values (*batch, b, 1, ·), each with weights of its own."""
    error = inner.model(layers, norm, k) - v
    losses = mg.sum(error * error, axis=(-2, -1)) / 2
    return mg.sum(losses), losses


def _next(start: Layers, total: Layers, share: Array) -> Layers:
    """The weights at the end of a mini-batch, where the next one starts."""
    return each(lambda W, G: W - share * G, start, total)


def _begun(
    form: str, q: Array, k: Array, v: Array, eta: Array, weights: Weights, tau: Array | None, state: State | None,
    batch_size: int,
) -> tuple[State, Array]:  # fmt: skip
    """The state to begin with, and τ as a column, once rates are seen to be in their range, weights and state to fit.

    A step of a batch under way is read through the weights of its start, so both have the shapes of the weights.
    """
    for name, rate in (("eta", eta), ("tau", tau)):
        if rate is not None:
            inner.within(f"{form}: {name}", rate, 0, math.inf, "")
    if not isinstance(weights, Weights):
        raise TypeError(f"{form}: weights is of type {type(weights).__name__}, expected Weights(layers, norm)")
    inner.normed(form, "weights.norm", weights.norm, k, v)
    tau = namespace(q).ones_like(q[..., :1]) if tau is None else tau[..., None]
    layers = inner.placed(f"{form}: weights.layers", weights.layers, k, v)
    if state is None:
        return State(layers, inner.nothing(layers), batch_size), tau
    if not isinstance(state, State):
        raise TypeError(f"{form}: state is of type {type(state).__name__}, expected State(start, total, left)")
    left = inner.counted(f"{form}: state.left", state.left)
    start, total = (inner.placed(f"{form}: state.{x}", getattr(state, x), k, v) for x in ("start", "total"))
    return State(start, total, left), tau

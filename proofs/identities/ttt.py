"""Test-time training: special cases, inner gradients, and dual form against primal form."""

from __future__ import annotations

import math
from typing import Annotated, Any

from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.attention import softmax
from models.memory import delta_rule, inner, linear_attention, ttt
from models.memory.ttt import Weights
from proofs.checker.forms import WITHOUT_JAX
from proofs.checker.statements import converges, identity, refuted
from proofs.checker.strategies import (
    BETAS,
    LARGE,
    SMALL,
    Beta,
    Betas,
    ChunkSize,
    Draw,
    Exact,
    FullBetas,
    Key,
    Keys,
    Queries,
    Sizes,
    Strategy,
    Value,
    Values,
)

CHAPTER = 7

SUN = "sun2024ttt"


def distinct_columns(draw: Draw, shape: tuple[int, ...], sizes: Sizes) -> Exact:
    """Draw columns that differ, so that the variance in a layer norm is not 0."""
    return SMALL(draw, shape, sizes) / 2 + [(-1) ** j * (1 + j) for j in range(shape[-1])]


FEW = {"K": st.integers(2, 3), "T": st.integers(1, 3), "*batch": st.just(())}
State = Annotated[Any, Strategy("*batch K V", LARGE, sizes={"T": st.integers(1, 5)})]  # two batches and a rest are in 5
Tokens = Annotated[Any, Strategy("*batch T K", SMALL, sizes=FEW)]
Bias = Annotated[Any, Strategy("1 K", distinct_columns)]
Gamma = Annotated[Any, Strategy("1 K", SMALL)]
Shift = Annotated[Any, Strategy("1 K", LARGE)]
Square = Annotated[Any, Strategy("K K", SMALL)]
Down = Annotated[Any, Strategy("K D", SMALL)]
DownBias = Annotated[Any, Strategy("1 D", SMALL)]
Up = Annotated[Any, Strategy("D K", SMALL)]
Row = Annotated[Any, Strategy("1 K", SMALL, sizes=FEW)]
Inputs = Annotated[Any, Strategy("T D", SMALL, sizes={"T": st.integers(1, 3)})]
View = Annotated[Any, Strategy("D K", SMALL)]
ValueView = Annotated[Any, Strategy("D V", SMALL)]
Rates = Annotated[Any, Strategy("T", BETAS)]
Start = Annotated[Any, Strategy("K V", SMALL)]
Cotangent = Annotated[Any, Strategy("T V", SMALL)]


def matrix(W: Any) -> Weights:
    """Return the linear model without bias or layer norm."""
    return Weights(((W,),))


# What it contains


@identity(
    "Theorem 1: linear model, W₀ = 0, one batch, rate 1 on ½‖·‖² (½ on ‖·‖²): linear attention",
    source=f"{SUN}, theorem 1; talk-titans, 48:28",
    exact=True,
)
def linear_model_in_one_batch(q: Queries, k: Keys, v: Values, eta: FullBetas, state: State):
    y, after = ttt.dual(q, k, v, eta, matrix(0 * state), batch_size=q.shape[-2])
    return (y, after.start[0][0]), linear_attention.recurrent(q, k, v)


@refuted(
    "Theorem 1 holds from any W₀",
    source=f"{SUN}, theorem 1: W₀ = 0 is needed",
    exact=True,
    instead="ttt.linear_model_in_one_batch",
)
def linear_model_from_anywhere(q: Queries, k: Keys, v: Values, eta: FullBetas, state: State):
    y, _ = ttt.dual(q, k, v, eta, matrix(state), batch_size=q.shape[-2])
    return y, linear_attention.recurrent(q, k, v, state=state)[0]


@identity(
    "Linear model, batches of one token, rate β on ½‖·‖²: the delta rule",
    source=f"{SUN}, section 4.2 on DeltaNet; talk-titans, 40:26, 41:53",
    exact=True,
    only=WITHOUT_JAX,
)
def linear_model_in_batches_of_one(q: Queries, k: Keys, v: Values, beta: Betas, state: State):
    forms = [form(q, k, v, beta, matrix(state), batch_size=1) for form in (ttt.primal, ttt.dual)]
    return [(y, after.start[0][0]) for y, after in forms], [delta_rule.recurrent(q, k, v, beta, state=state)] * 2


@identity(
    "Theorem 2: the Nadaraya–Watson estimator with the kernel exp(qkᵀ/√K) is softmax attention",
    source=f"{SUN}, theorem 2",
)
def nadaraya_watson(q: Keys, k: Keys, v: Values):
    xp = namespace(q)
    kernel = xp.tril(xp.exp(q @ k.mT / math.sqrt(q.shape[-1])))
    return kernel @ v / xp.sum(kernel, axis=-1, keepdims=True), softmax.quadratic(q, k, v)[0]


# The gradients by hand are those of the inner loss


@identity("gelu′ by hand is the derivative", source="hendrycks2016, section 2")
def gelu_by_hand(x: Row):
    return inner.gelu_grad(x), mg.grad(lambda x: mg.sum(inner.gelu(x)))(x)


@identity("The layer norm's hand-written gradient is its gradient", source="ba2016, eq. 3–4")
def layer_norm_by_hand(k: Row, W: Square, b: Bias, gamma: Gamma, beta: Shift, g: Shift):
    z = k @ W + b
    by_hand = inner.layer_norm_vjp(*inner.standardise(z), gamma, g)
    return by_hand, mg.vjp(lambda z: inner.layer_norm(z, gamma, beta), z)[1](g)[0]


@refuted(
    "The layer norm's gradient may omit the mean of the cotangent",
    source="minigrad, the normaliser's mean depends on z too",
)
def layer_norm_without_mean(k: Row, W: Square, b: Bias, gamma: Gamma, beta: Shift, g: Shift):
    z = k @ W + b
    deviation = namespace(z).sqrt(namespace(z).sum((z - mg.mean(z)) ** 2) / z.shape[-1] + inner.EPSILON)
    unit = (z - mg.mean(z)) / deviation
    short = (gamma * g - unit * mg.mean(gamma * g * unit)) / deviation
    return short, mg.vjp(lambda z: inner.layer_norm(z, gamma, beta), z)[1](g)[0]


@identity(
    "For every layer the hand-written cotangent gives the gradient of ½‖f(k) − v‖², with layer norm and residual",
    source=f"{SUN}, appendix A; ttt-code, ln_fused_l2_bwd",
)
def inner_gradient_by_hand(k: Row, v: Shift, W1: Down, b1: DownBias, W2: Up, b2: Bias, gamma: Gamma, beta: Shift):
    layers, norm = ((W1, b1), (W2, b2)), (gamma, beta)
    inputs, outputs = inner.forward(layers, k)
    error = k + inner.layer_norm(outputs[-1], *norm) - v
    slopes = inner.backward(layers, outputs, inner.layer_norm_vjp(*inner.standardise(outputs[-1]), gamma, error))
    by_hand = inner.accumulated_update(layers, inputs, slopes, namespace(k).ones_like(k[:, :1]))
    return by_hand, mg.grad(lambda layers: mg.sum((inner.apply_model(layers, norm, k) - v) ** 2) / 2)(layers)


# Dual and primal


@identity(
    "TTT-Linear, with layer norm and residual: the dual form is the primal form",
    source=f"{SUN}, section 2.5, eq. 7–8; talk-titans, 1:17:08–1:20:37",
    only=WITHOUT_JAX,
)
def linear_dual_is_primal(q: Tokens, k: Tokens, v: Tokens, eta: Betas, W: Square, b: Bias, gamma: Gamma, beta: Shift):
    weights = Weights(((W / 8, b),), (gamma / 8, beta))
    return [form(q, k, v, eta / 8, weights, batch_size=2) for form in (ttt.dual, ttt.primal)]


@identity(
    "TTT-MLP, with layer norm and residual: the dual form is the primal form",
    source=f"{SUN}, section 2.5 and appendix A; talk-titans, 1:17:08–1:20:37",
    only=WITHOUT_JAX,
)
def mlp_dual_is_primal(
    q: Tokens, k: Tokens, v: Tokens, eta: Betas, W1: Down, b1: DownBias, W2: Up, b2: Bias, gamma: Gamma, beta: Shift
):
    weights = Weights(((W1, b1), (W2 / 8, b2)), (gamma / 8, beta))
    return [form(q, k, v, eta / 8, weights, batch_size=2) for form in (ttt.dual, ttt.primal)]


@identity(
    "A factor τ on the accumulated gradient is the code's rate η[t, s] = τₜ ηₛ: O = Q W₀ − (R ∘ Q Kᵀ)(K W₀ − V)",
    source=f"{SUN}, section 2.7; ttt-code, eta",
    exact=True,
    only=WITHOUT_JAX,
)
def shares(q: Queries, k: Keys, v: Values, eta: Betas, tau: Betas, state: State):
    rates, error, forms = tau[..., :, None] * eta[..., None, :], k @ state - v, (ttt.primal, ttt.dual)
    results = [form(q, k, v, eta, matrix(state), tau=tau, batch_size=q.shape[-2]) for form in forms]
    y = q @ state - (namespace(q).tril(rates) * (q @ k.mT)) @ error
    last = state - k.mT @ (rates[..., -1, :, None] * error)  # where the next batch starts
    return [(y, final.start[0][0]) for y, final in results], [(y, last)] * 2


# What the batch changes


@refuted(
    "The result does not depend on the size of the mini-batch",
    source=f"{SUN}, section 2.4; talk-titans, 1:12:22, which says so: gradients are taken at an older memory",
    exact=True,
    instead="ttt.batch_size_at_small_rates",
)
def batch_size_changes_nothing(q: Queries, k: Keys, v: Values, eta: Betas, state: State):
    online, batched = (ttt.dual(q, k, v, eta, matrix(state), batch_size=n)[0] for n in (1, q.shape[-2]))
    return online, batched


@converges(
    "At small rates it depends little: batches of 1 and of T differ by O(η²)",
    source=f"{SUN}, section 2.4, made precise",
)
def batch_size_at_small_rates(q: Queries, k: Keys, v: Values, eta: FullBetas, state: State):
    xp, T = namespace(q), q.shape[-2]
    weights, rates = matrix(state), [2.0**-n for n in range(9)]
    batched = [[ttt.dual(q, k, v, rate * eta, weights, batch_size=n)[0] for n in (1, T)] for rate in rates]
    errors = [abs(one - other) for one, other in batched]
    # ‖Wₜ − W₀‖ ≤ ε/κ ((1 + ηκ²)ᵗ − 1), with κ ≥ ‖k‖ and ε ≥ ‖k W₀ − v‖; a step differs by ηκ² of that
    kappa, epsilon, reading = (xp.max(one_norm(x)) for x in (k, k @ state - v, q))
    limits = [reading * epsilon * kappa**3 * rate**2 * math.comb(T, 2) * (1 + rate * kappa**2) ** T for rate in rates]
    return xp.stack(errors, axis=-1), xp.stack([limit + 0 * errors[0] for limit in limits], axis=-1)


def one_norm(x: Any) -> Any:
    """Return the 1-norm of rows, (*batch, T), which bounds their Euclidean norm."""
    return namespace(x).sum(abs(x), axis=-1)


# The outer loop


@identity(
    "The gradient through the inner loop is the derivative of the outputs: for the linear model, in W₀, exactly",
    source=f"{SUN}, section 2.2; talk-titans, 47:08: a learned W₀",
    exact=True,
    derivatives=False,
    only=WITHOUT_JAX,
)
def outer_gradient(q: Queries, k: Keys, v: Values, eta: Betas, state: State, chunk_size: ChunkSize):
    def y(W: Any) -> Any:
        return ttt.primal(q, k, v, eta, matrix(W), batch_size=chunk_size)[0]

    xp, direction = namespace(q), state + 1  # outputs are affine in W₀, so that a difference is the derivative
    gradient = mg.grad(lambda W: mg.sum(v * y(W)))(state)
    return xp.sum(gradient * direction), xp.sum(v * (y(state + direction) - y(state - direction))) / 2


@identity(
    "Into W_q, W_k and W_v the objective's gradient passes through the inner steps: for the linear model in one batch, "
    "y = QW₀ − A(ηE) with A = tril(QKᵀ) and E = KW₀ − V, it is Xᵀ times that of Q, K and V in this formula",
    source=f"{SUN}, section 2.2; talk-titans, 24:58, made precise",
    exact=True,
    derivatives=False,
    only=WITHOUT_JAX,
)
def outer_gradient_of_views(x: Inputs, W_q: View, W_k: View, W_v: ValueView, eta: Rates, W: Start, dy: Cotangent):
    def objective(*views: Any) -> Any:
        q, k, v = (x @ view for view in views)
        return mg.sum(dy * ttt.primal(q, k, v, eta, matrix(W), batch_size=x.shape[-2])[0])

    xp, q, k, v = namespace(x), x @ W_q, x @ W_k, x @ W_v
    errors, A = eta[:, None] * (k @ W - v), xp.tril(q @ k.mT)
    dA, dE = -xp.tril(dy @ errors.mT), -eta[:, None] * (A.mT @ dy)
    dq, dk, dv = dy @ W.mT + dA @ k, dA.mT @ q + dE @ W.mT, -dE
    return mg.grad(objective, argnums=(0, 1, 2))(W_q, W_k, W_v), tuple(x.mT @ d for d in (dq, dk, dv))


@refuted(
    "Views that the inner loss alone reads, W_k and W_v, are not trained by the objective",
    source=f"{SUN}, section 2.2: the inner loop is differentiated",
    exact=True,
    instead="ttt.outer_gradient_of_views",
)
def objective_leaves_the_views(x: Inputs, W_q: View, W_k: View, W_v: ValueView, eta: Rates, W: Start, dy: Cotangent):
    def objective(*views: Any) -> Any:
        k, v = (x @ view for view in views)
        return mg.sum(dy * ttt.primal(x @ W_q, k, v, eta, matrix(W), batch_size=x.shape[-2])[0])

    return mg.grad(objective, argnums=(0, 1))(W_k, W_v), (0 * W_k, 0 * W_v)


@identity(
    "One step on the token's own loss multiplies its error by 1 − η‖k‖²: it falls for η‖k‖² < 2",
    source=f"{SUN}, figure 4, made precise",
    exact=True,
)
def own_loss_falls(k: Key, v: Value, eta: Beta, state: State):
    row = k[..., None, :]
    y, _ = ttt.primal(row, row, v[..., None, :], eta[..., None], matrix(state))
    factor = 1 - eta[..., None] * namespace(k).sum(k * k, axis=-1, keepdims=True)
    return y[..., 0, :] - v, factor * ((row @ state)[..., 0, :] - v)

"""Recurrent networks: what becomes of the gradient through time, with and without gates.

The gradient of a simple network is a product of Jacobians, whose norm is bounded by a power; in an LSTM the cell
carries it through the forget gates alone. Norms are ‖v‖₁ = Σ|vₙ| of a cotangent and, of W, the greatest row sum of |W|:
then ‖Wᵀv‖₁ ≤ ‖W‖ ‖v‖₁. Deviation: the paper takes the spectral norm; its argument holds for every operator norm.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import minigrad as mg
from minigrad import namespace
from models.recurrent import lstm, rnn
from models.ssm import lti
from proofs.checker.statements import bounded, converges, identity, refuted
from proofs.checker.strategies import LARGE, POSITIVE, SMALL, Strategy, elements
from proofs.layers import sigmoid

CHAPTER = 19

ELMAN, PASCANU = "elman1990", "pascanu2013"
HOCHREITER, GERS = "hochreiter1997", "gers2000"
VALUES_AND_GRADIENTS = ("float64", "float32", "gradient")

Inputs = Annotated[Any, Strategy("*batch T N", LARGE)]
Weights = Annotated[Any, Strategy("N N", SMALL)]
LargeWeights = Annotated[Any, Strategy("N N", elements(2, 3, "5/3", "7/5"))]
Start = Annotated[Any, Strategy("*batch N", LARGE)]
Drive = Annotated[Any, Strategy("*batch T 1", LARGE)]  # one channel, whose system has the weights as A
Column = Annotated[Any, Strategy("N", SMALL)]
LinearStart = Annotated[Any, Strategy("*batch 1 N", LARGE)]
Tangent = Annotated[Any, Strategy("", SMALL)]  # of half an angle
Plane = Annotated[Any, Strategy("*batch 1 2", LARGE)]
Cotangent = Annotated[Any, Strategy("*batch N", SMALL)]
PositiveCotangent = Annotated[Any, Strategy("*batch N", POSITIVE)]

Tokens = Annotated[Any, Strategy("*batch T D", LARGE)]
InputWeights = Annotated[Any, Strategy("4*H D", SMALL)]
RecurrentWeights = Annotated[Any, Strategy("4*H H", SMALL)]
Bias = Annotated[Any, Strategy("4*H", SMALL)]
Cell = Annotated[Any, Strategy("*batch H", LARGE)]

# Simple recurrent networks


@identity(
    "Each unit is hₙ = tanh(Σₘ Wₙₘ hₘ + xₙ), token by token",
    source=f"{ELMAN}; {PASCANU}, eq. 2 and footnote 1",
    only=VALUES_AND_GRADIENTS,
)
def network_unit_by_unit(x: Inputs, W: Weights, h: Start):
    start, y = h, []
    for t in range(x.shape[-2]):
        rows = [mg.sum(W[n] * h, axis=-1, keepdims=True) + x[..., t, n : n + 1] for n in range(W.shape[0])]
        h = mg.concat([mg.tanh(row) for row in rows], axis=-1)
        y.append(h)
    return rnn.recurrent(x, W, state=start), (mg.stack(y, axis=-2), h)


def gradient_through_time(x: Any, W: Any, h: Any, v: Any) -> Any:
    """Return the gradient of v · h_T for the state h₀ = h."""
    return mg.grad(lambda h: mg.sum(v * rnn.recurrent(x, W, state=h)[1]))(h)


@identity("The gradient through T steps is a product of Jacobians Wᵀ diag(1 − h²)", source=f"{PASCANU}, eq. 5; {ELMAN}")
def product_of_jacobians(x: Inputs, W: Weights, h: Start, v: Cotangent):
    y, _ = rnn.recurrent(x, W, state=h)
    product = v
    for t in range(x.shape[-2] - 1, -1, -1):
        product = (product * (1 - y[..., t, :] ** 2)) @ W
    return gradient_through_time(x, W, h, v), product


@bounded(
    "‖∂h_T/∂h₀‖ ≤ Π γₜ‖W‖, with γₜ ≤ 1 the greatest tanh′ of a step",
    source=f"{PASCANU}, section 2.1, made precise",
)
def gradient_is_bounded(x: Inputs, W: Weights, h: Start, v: Cotangent):
    xp = namespace(x, W)
    y, _ = rnn.recurrent(x, W, state=h)
    limit = xp.sum(abs(v), axis=-1)
    for t in range(x.shape[-2]):
        limit = limit * xp.max(1 - y[..., t, :] ** 2, axis=-1) * norm(W)
    return xp.sum(abs(gradient_through_time(x, W, h, v)), axis=-1), limit


@converges(
    "With γ‖W‖ ≤ ½ the gradient vanishes as 2⁻ᵀ, whatever the inputs",
    source=f"{PASCANU}, section 2.1: λ₁ < 1/γ is sufficient",
)
def gradient_vanishes(x: Inputs, W: Weights, h: Start, v: Cotangent):
    xp, W = namespace(x, W), W / (2 * W.shape[-1])
    lengths, scale = range(1, 9), xp.sum(abs(v), axis=-1)
    x = xp.concat([x] * 8, axis=-2)
    norms = [xp.sum(abs(gradient_through_time(x[..., :T, :], W, h, v)), axis=-1) for T in lengths]
    return xp.stack(norms, axis=-1), xp.stack([scale / 2**T for T in lengths], axis=-1)


@refuted(
    "With W > 0 of row sums above 1 the gradient of a positive sum grows (it shrinks where tanh saturates)",
    source=f"{PASCANU}, section 2.1: λ₁ > 1/γ is necessary, not sufficient",
    relation="≤",
    instead="recurrent.gradient_grows_near_zero",
)
def gradient_explodes(x: Inputs, W: LargeWeights, h: Start, v: PositiveCotangent):
    xp = namespace(x, W)
    return xp.sum(abs(v), axis=-1), xp.sum(abs(gradient_through_time(x, W, h, v)), axis=-1)


@bounded(
    "It can explode: near 0, where tanh′ = 1, W > 0 of row sums of at least r makes that of a positive sum rᵀ as large",
    source=f"{PASCANU}, section 2.1; book-ssm, RNN: gradients vanish or explode",
)
def gradient_grows_near_zero(x: Inputs, W: LargeWeights, v: PositiveCotangent):
    xp = namespace(x, W)
    least = xp.min(xp.sum(W, axis=-1))
    gradient = gradient_through_time(0 * x, W, 0 * v, v)
    return xp.sum(v, axis=-1) * least ** x.shape[-2], xp.sum(gradient, axis=-1)


# Without tanh


def linear_gradient(u: Any, W: Any, B: Any, h: Any, v: Any) -> Any:
    """Return the gradient of v · h_T for the state h₀ = h of hₜ = W hₜ₋₁ + B uₜ."""
    return mg.grad(lambda h: mg.sum(v * lti.recurrent(u, W, B, B, state=h)[1]))(h)


@identity(
    "Without tanh the gradient through T steps is the power Wᵀ of the weights, whatever the inputs",
    source=f"{PASCANU}, section 2.1 and supplementary material: the linear case",
    exact=True,
)
def linear_gradient_is_a_power(u: Drive, W: Weights, B: Column, h: LinearStart, v: LinearStart):
    product = v
    for _ in range(u.shape[-2]):
        product = product @ W
    return linear_gradient(u, W, B, h, v), product


@identity(
    "A rotation, whose norm is 1, keeps the norm of the linear network's gradient at any distance",
    source=f"{PASCANU}, section 2.1, at λ₁ = 1",
    exact=True,
)
def rotation_keeps_the_gradient(u: Drive, t: Tangent, h: Plane, v: Plane):
    xp = namespace(t, v)
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    W = xp.stack([xp.stack([cos, -sin]), xp.stack([sin, cos])])
    gradient = linear_gradient(u, W, 0 * W[0], h, v)
    return xp.sum(gradient * gradient, axis=-1), xp.sum(v * v, axis=-1)


@refuted(
    "A spectral radius below 1 keeps the gradient from growing at first (below the diagonal, with radius 0, it can)",
    source=f"{PASCANU}, section 2.1, where λ₁ is read as an eigenvalue: it is the largest singular value",
    exact=True,
    relation="≤",
)
def radius_bounds_the_gradient(u: Drive, W: LargeWeights, B: Column, h: LinearStart, v: LinearStart):
    xp = namespace(u, W)
    gradient = linear_gradient(u[..., :1, :], xp.tril(W, k=-1), B, h, v)
    return xp.sum(abs(gradient), axis=-1), xp.sum(abs(v), axis=-1)


def norm(W: Any) -> Any:
    """Return the greatest row sum of |W|."""
    xp = namespace(W)
    return xp.max(xp.sum(abs(W), axis=-1))


# The LSTM


@identity(
    "i, f, o = σ(W x + U h + b), g = tanh(W x + U h + b), c = f c + i g, h = o tanh c, rows in the order i, f, g, o",
    source=f"{GERS}, section 3; {HOCHREITER}, section 4, without squashing functions of their own; "
    "minigrad, models/recurrent/lstm.py: the order is PyTorch's",
    only=VALUES_AND_GRADIENTS,
)
def lstm_gate_by_gate(x: Tokens, W: InputWeights, U: RecurrentWeights, b: Bias, h: Cell, c: Cell):
    return lstm.recurrent(x, W, U, b, state=(h, c)), gate_by_gate(x, W, U, b, h, c)


@identity(
    "Where there is no state an LSTM starts from h = c = 0",
    source=f"{GERS}, section 3; minigrad, models/recurrent/lstm.py",
    only=VALUES_AND_GRADIENTS,
)
def lstm_starts_from_zero(x: Tokens, W: InputWeights, U: RecurrentWeights, b: Bias):
    zero = 0 * (x[..., 0, :] @ W[: U.shape[-1]].mT)
    return lstm.recurrent(x, W, U, b), gate_by_gate(x, W, U, b, zero, zero)


def gate_by_gate(x: Any, W: Any, U: Any, b: Any, h: Any, c: Any) -> tuple[Any, tuple[Any, Any]]:
    """Return the outputs and (h, c) of an LSTM, each gate written out."""
    y, H = [], c.shape[-1]
    for t in range(x.shape[-2]):
        rows = [slice(n * H, (n + 1) * H) for n in range(4)]
        i, f, g, o = (x[..., t, :] @ W[part].mT + h @ U[part].mT + b[part] for part in rows)
        c = sigmoid(f) * c + sigmoid(i) * mg.tanh(g)
        h = sigmoid(o) * mg.tanh(c)
        y.append(h)
    return mg.stack(y, axis=-2), (h, c)


@identity(
    "With f = 1 and i = 0 the cell keeps c: c_T = c₀ and ∂c_T/∂c₀ = 1, whatever else the network does",
    source=f"{HOCHREITER}, section 3.2: the constant error carousel",
)
def cell_is_kept(x: Tokens, W: InputWeights, U: RecurrentWeights, b: Bias, c: Cell):
    b = with_bias(b, i=-math.inf, f=math.inf)

    def last_cell(c: Any) -> Any:
        return lstm.recurrent(x, W, U, b, state=(0 * c, c))[1][1]

    return (last_cell(c), mg.grad(lambda c: mg.sum(last_cell(c)))(c)), (c, 1 + 0 * c)


@identity(
    "With f = 1 and no recurrent weights the cell is the sum of all that was written: c_T = c₀ + Σ iₜ gₜ",
    source=f"{HOCHREITER}, section 4, which has no forget gate",
)
def cell_sums_writes(x: Tokens, W: InputWeights, U: RecurrentWeights, b: Bias, c: Cell):
    b = with_bias(b, f=math.inf)
    i, _, g, _ = gates(x, W, b)
    written = namespace(x).sum(mg.sigmoid(i) * mg.tanh(g), axis=-2)
    return lstm.recurrent(x, W, 0 * U, b, state=(0 * c, c))[1][1], c + written


@identity(
    "Without recurrent weights ∂c_T/∂c₀ is the product of the forget gates",
    source=f"{GERS}, section 3",
)
def product_of_forget_gates(x: Tokens, W: InputWeights, U: RecurrentWeights, b: Bias, c: Cell):
    _, f, _, _ = gates(x, W, b)
    product = 1 + 0 * c
    for t in range(x.shape[-2]):
        product = product * mg.sigmoid(f[..., t, :])
    return mg.grad(lambda c: mg.sum(lstm.recurrent(x, W, 0 * U, b, state=(0 * c, c))[1][1]))(c), product


@refuted(
    "With recurrent weights too ∂c_T/∂c₀ is the product of the forget gates (h carries c into all gates)",
    source=f"{HOCHREITER}, section 4, whose learning truncates that part",
)
def product_of_forget_gates_with_recurrent_weights(x: Tokens, W: InputWeights, U: RecurrentWeights, b: Bias, c: Cell):
    h, cells, product = 0 * c, c, 1 + 0 * c
    for t in range(x.shape[-2]):
        f = (x[..., t, :] @ W.mT + h @ U.mT + b)[..., c.shape[-1] : 2 * c.shape[-1]]
        product = product * mg.sigmoid(f)
        _, (h, cells) = lstm.recurrent(x[..., t : t + 1, :], W, U, b, state=(h, cells))
    return mg.grad(lambda c: mg.sum(lstm.recurrent(x, W, U, b, state=(0 * c, c))[1][1]))(c), product


def gates(x: Any, W: Any, b: Any) -> tuple[Any, ...]:
    """Return the pre-activations of i, f, g and o without recurrent weights."""
    a, size = x @ W.mT + b, W.shape[0] // 4
    return tuple(a[..., n * size : (n + 1) * size] for n in range(4))


def with_bias(b: Any, **biases: float) -> Any:
    """Return the bias with that of the gates named replaced."""
    xp, size = namespace(b), b.shape[0] // 4
    parts = [b[n * size : (n + 1) * size] for n in range(4)]
    return xp.concat([part + biases.get(gate, 0) for gate, part in zip("ifgo", parts, strict=True)])

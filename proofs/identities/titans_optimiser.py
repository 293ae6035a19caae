"""Momentum and weight decay of Titans: decay as a term of the loss, stability, surprise. Talk on Titans, 49:16–53:47.

For one key of length 1, read at every token, the memory is a linear recurrence of second order in η, α and θ, whose
stability is elementary: it is stable for θ up to (1 + η)(2 − α). Momentum widens that range, decay narrows it.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.memory import inner, linear_attention, titans
from proofs.checker.forms import WITHOUT_JAX
from proofs.checker.statements import bounded, identity, refuted
from proofs.checker.strategies import (
    LARGE,
    MILD,
    POSITIVE,
    SMALL,
    Betas,
    Key,
    Keys,
    LogDecay,
    Queries,
    ShutGates,
    Strategy,
    UnitKey,
    Value,
    Values,
    elements,
)
from proofs.identities.titans import BEHROUZ, State, run_matrix

CHAPTER = 8

Rates = Annotated[Any, Strategy("*batch T", POSITIVE)]
# of one token
Rate = Annotated[Any, Strategy("*batch 1", POSITIVE)]
Share = Annotated[Any, Strategy("*batch 1", elements(1, "1/3", "2/3", 0, "1/7", "6/7"))]
Gate = Annotated[Any, Strategy("*batch 1", MILD, logarithm=True)]
OpenGate = Annotated[Any, Strategy("*batch 1", elements(1), logarithm=True, differentiable=False)]
ShutGate = Annotated[Any, Strategy("*batch 1", elements(0), logarithm=True, differentiable=False)]
Surprise = Annotated[Any, Strategy("*batch K V", LARGE)]
OneKey = Annotated[Any, Strategy("1 K", SMALL, sizes={"K": st.just(1), "V": st.just(2), "D": st.just(2)})]
OneValue = Annotated[Any, Strategy("1 V", LARGE)]
OneRate = Annotated[Any, Strategy("1 1", elements(1))]
OneGate = Annotated[Any, Strategy("1 1", elements(1), logarithm=True)]
Down = Annotated[Any, Strategy("K D", SMALL)]
Up = Annotated[Any, Strategy("D V", SMALL)]

# Weight decay


@identity(
    "Without momentum, in batches of one token, decay is a cost in the loss: descent on ℓ + ½λ‖M‖² with α = θλ",
    source="talk-titans, 49:16: 'weight decay in the loss term', made precise",
    exact=True,
    derivatives=False,
    only=WITHOUT_JAX,
)
def decay_in_the_loss(
    q: Queries, k: Keys, v: Values, theta: Rates, log_eta: ShutGates, log_decay: LogDecay, state: State
):
    return with_cost_in_the_loss(q, k, v, theta, log_eta, log_decay, state)


@refuted(
    "With momentum too (S would then carry the decay on)",
    source=f"talk-titans, 49:16; {BEHROUZ}, eq. 13, which decays M apart from S",
    exact=True,
    instead="titans_optimiser.decay_in_the_loss",
)
def decay_in_the_loss_with_momentum(
    q: Queries, k: Keys, v: Values, theta: Rates, log_eta: LogDecay, log_decay: LogDecay, state: State
):
    return with_cost_in_the_loss(q, k, v, theta, log_eta, log_decay, state)


def with_cost_in_the_loss(q: Any, k: Any, v: Any, theta: Any, log_eta: Any, log_decay: Any, state: Any) -> Any:
    """Return M of Titans, and of momentum on the gradient of ℓ + ½λ‖M‖² with λ = α/θ and no decay."""
    xp, M, S = namespace(q), state, 0 * state
    _, computed, _ = run_matrix(titans.chunkwise, q, k, v, theta, log_eta, log_decay, state, batch_size=1)
    rates, etas, costs = (x[..., None, None] for x in (theta, xp.exp(log_eta), (1 - xp.exp(log_decay)) / theta))
    for t in range(q.shape[-2]):
        now, cost = slice(t, t + 1), costs[..., t, :, :]

        def loss(M: Any, now: slice = now, cost: Any = cost) -> Any:
            return mg.sum((k[..., now, :] @ M - v[..., now, :]) ** 2) / 2 + mg.sum(cost * M * M) / 2

        S = etas[..., t, :, :] * S - rates[..., t, :, :] * mg.grad(loss)(M)
        M = M + S
    return computed, M


@bounded(
    "Decay bounds the memory by the surprises, entry by entry: |M_T| ≤ Π(1 − α) |M₀| + Σ Π(1 − α) |Sₜ|",
    source="talk-titans, 50:21: 'for stable learning', made precise",
    exact=True,
    only=WITHOUT_JAX,
)
def memory_is_bounded_by_surprises(
    q: Queries, k: Keys, v: Values, theta: Betas, log_eta: LogDecay, log_decay: LogDecay, state: State
):
    form, limit, M, after = cast(Any, titans.chunkwise), abs(state), ((state,),), None
    for t in range(q.shape[-2]):
        rows = (x[..., t : t + 1, :] for x in (q, k, v))
        gates = (x[..., t : t + 1] for x in (theta, log_eta, log_decay))
        _, after = form(*rows, *gates, M, state=after, batch_size=1)
        limit = namespace(q).exp(log_decay)[..., t, None, None] * limit + abs(after.surprise[0][0])
    assert after is not None
    return abs(after.memory[0][0]), limit


# Stability


def answers(k: Any, theta: Any, log_eta: Any, log_decay: Any, state: Any, surprise: Any, count: int) -> list[Any]:
    """Return what the memory answers to k, (*batch, 1, V), after 1, 2, … tokens that all write v = 0 under k."""
    row, gates, M = k[..., None, :], (theta, log_eta, log_decay), ((state,),)
    after, y = titans.State(M, M, ((surprise,),), 1), []
    for _ in range(count):
        y_t, after = titans.chunkwise(row, row, 0 * (row @ state), *gates, M, state=after, batch_size=1)
        y.append(y_t)
    return y


@identity(
    "One unit key with v = 0: its answers obey yₜ₊₂ = (1 + η − α − θ) yₜ₊₁ − η(1 − α) yₜ",
    source="talk-titans, 50:21, made precise",
    exact=True,
    derivatives=False,
    only=WITHOUT_JAX,
)
def answers_of_one_key(k: UnitKey, theta: Rate, log_eta: Gate, log_decay: Gate, state: State, surprise: Surprise):
    first, second, third = answers(k, theta, log_eta, log_decay, state, surprise, 3)
    trace, determinant = characteristic(theta, log_eta, log_decay)
    return third, trace * second - determinant * first


@identity(
    "With τ = 1 + η − α − θ and δ = η(1 − α) a token changes the energy (1 + δ)(δ²yₜ² + yₜ₊₁²) − 2τδ yₜ yₜ₊₁ by "
    "−(1 − δ)(α(1 − η) + θ)((1 + η)(2 − α) − θ) yₜ₊₁², so that it falls up to θ = (1 + η)(2 − α) and rises beyond",
    source="talk-titans, 50:21, made precise (the form of Schur and Cohn for two eigenvalues)",
    exact=True,
    derivatives=False,
    only=WITHOUT_JAX,
)
def energy_of_a_token(k: UnitKey, theta: Rate, log_eta: Gate, log_decay: Gate, state: State, surprise: Surprise):
    first, second, third = answers(k, theta, log_eta, log_decay, state, surprise, 3)
    coefficients = characteristic(theta, log_eta, log_decay)
    eta, keep = (namespace(x).exp(x)[..., None] for x in (log_eta, log_decay))
    rate = theta[..., None]
    loss = (1 - eta * keep) * ((1 - keep) * (1 - eta) + rate) * ((1 + eta) * (1 + keep) - rate) * second * second
    return energy(second, third, *coefficients), energy(first, second, *coefficients) - loss


@bounded(
    "Momentum widens the range of stable rates: up to θ‖k‖² = (1 + η)(2 − α) that energy is at least 0 and never grows",
    source="talk-titans, 50:21: 'for stable learning', made precise",
    exact=True,
    only=("fractions",),
)
def stable_rates(k: UnitKey, share: Share, log_eta: Gate, log_decay: Gate, state: State, surprise: Surprise):
    exp = namespace(k).exp
    theta = share * (1 + exp(log_eta)) * (1 + exp(log_decay))
    first, second, third = answers(k, theta, log_eta, log_decay, state, surprise, 3)
    coefficients = characteristic(theta, log_eta, log_decay)
    before, after = energy(first, second, *coefficients), energy(second, third, *coefficients)
    return (0 * after, after), (after, before)


@refuted(
    "Decay makes more rates stable: without momentum, what is stable at α = 0, θ‖k‖² ≤ 2, is stable at every α",
    source="talk-titans, 50:21: 'for stable learning'",
    exact=True,
    relation="≤",
    instead="titans_optimiser.stable_rates",
)
def stable_rates_under_decay(k: UnitKey, share: Share, log_eta: ShutGate, log_decay: Gate, state: State):
    first, second = answers(k, 2 * share, log_eta, log_decay, state, 0 * state, 2)
    return abs(second), abs(first)


def characteristic(theta: Any, log_eta: Any, log_decay: Any) -> tuple[Any, Any]:
    """Return the trace 1 + η − α − θ and the determinant η(1 − α) of the recurrence, (*batch, 1, 1)."""
    eta, keep = (namespace(x).exp(x)[..., None] for x in (log_eta, log_decay))
    return keep + eta - theta[..., None], eta * keep


def energy(before: Any, now: Any, trace: Any, determinant: Any) -> Any:
    """Return (1 + δ)(δ²y₁² + y₂²) − 2τδ y₁y₂, which a step lowers by (1 − δ)((1 + δ)² − τ²) y₂²."""
    squares = (1 + determinant) * (determinant * determinant * before * before + now * now)
    return squares - 2 * trace * determinant * before * now


# Surprise


@identity(
    "A matrix, ½L2: the momentary surprise has the length ‖k‖ √(2ℓ), so that the greater the loss the more is written",
    source="talk-titans, 51:04, made precise",
    exact=True,
)
def surprise_is_the_loss(k: Key, v: Value, theta: Rate, gate: OpenGate, state: State):
    xp, error = namespace(k), (k[..., None, :] @ state)[..., 0, :] - v
    ((S,),) = first_surprise(k, v, theta, gate, ((state,),))
    loss = xp.sum(error * error, axis=-1, keepdims=True) / 2
    squared = theta * theta * xp.sum(k * k, axis=-1, keepdims=True) * 2 * loss
    return xp.sum(S * S, axis=(-2, -1), keepdims=True), squared[..., None]


@identity(
    "With the dot product it is ‖k‖ ‖v‖, whatever is stored",
    source="talk-titans, 51:04 and 21:08, made precise",
    exact=True,
)
def surprise_of_the_dot_product(k: Key, v: Value, state: State):
    xp, row = namespace(k), k[..., None, :]
    written = linear_attention.recurrent(row, row, v[..., None, :], state=state)[1] - state
    return xp.sum(written * written, axis=(-2, -1)), xp.sum(k * k, axis=-1) * xp.sum(v * v, axis=-1)


@refuted(
    "With an MLP too a greater loss writes more (its hidden layer is moved by a part of the error alone)",
    source="talk-titans, 51:04: 'the loss becomes very large, and so much is updated'",
    relation="≤",
    instead="titans_optimiser.surprise_is_the_loss",
)
def surprise_of_an_mlp(k: OneKey, v: OneValue, other: OneValue, theta: OneRate, gate: OneGate, W1: Down, W2: Up):
    xp, memory = namespace(k), ((W1,), (W2,))
    losses = [xp.sum((inner.apply_model(memory, None, k) - x) ** 2, axis=-1) for x in (v, other)]
    surprises = [first_surprise(k, x, theta, gate, memory) for x in (v, other)]
    lengths = [sum(xp.sum(S * S, axis=(-2, -1)) for (S,) in layers) for layers in surprises]
    first_is_less = losses[0] <= losses[1]
    return xp.where(first_is_less, *lengths), xp.where(first_is_less, *lengths[::-1])


@refuted(
    "A pair that the memory knows, v = kM, writes nothing, with momentum too",
    source="talk-titans, 51:04: 'then this is no surprising information'",
    exact=True,
    instead="titans_optimiser.known_pair_writes_past_surprise",
)
def known_pair_writes_nothing(
    k: Key, theta: Rate, log_eta: Gate, log_decay: OpenGate, state: State, surprise: Surprise
):
    return after_a_known_pair(k, theta, log_eta, log_decay, state, surprise)[0], state


@identity(
    "It writes ηS, the past surprise: α = 0 gives M + ηS",
    source="talk-titans, 51:04–53:08, made precise",
    exact=True,
    derivatives=False,
    only=WITHOUT_JAX,
)
def known_pair_writes_past_surprise(
    k: Key, theta: Rate, log_eta: Gate, log_decay: OpenGate, state: State, surprise: Surprise
):
    faded = namespace(log_eta).exp(log_eta)[..., None] * surprise
    return after_a_known_pair(k, theta, log_eta, log_decay, state, surprise), (state + faded, faded)


def after_a_known_pair(k: Any, theta: Any, log_eta: Any, log_decay: Any, M: Any, S: Any) -> tuple[Any, Any]:
    """Return the memory and the surprise after k with v = kM."""
    row, before = k[..., None, :], titans.State(((M,),), ((M,),), ((S,),), 1)
    form = titans.recurrent
    _, M, S = run_matrix(form, row, row, row @ M, theta, log_eta, log_decay, M, state=before, batch_size=1)
    return M, S


def first_surprise(k: Any, v: Any, theta: Any, gate: Any, memory: Any) -> Any:
    """Return the surprise S of one token, from none: −θ∇ℓ of each layer."""
    row, target = k[..., None, :], v[..., None, :]
    _, state = titans.recurrent(row, row, target, theta, gate, gate, memory, batch_size=1)
    return state.surprise

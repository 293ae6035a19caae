"""Titans: momentum and weight decay, unrolled into two triangular products. Talk on Titans, 48:58 to 59:16."""

from __future__ import annotations

from typing import Annotated, Any, cast

from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention, online_learner, titans, ttt
from models.memory.inner import map_layers
from models.memory.online_learner import POINTS
from models.sequences import initial_memory
from proofs.checker.forms import WITHOUT_JAX
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import (
    BETAS,
    LARGE,
    MILD,
    SMALL,
    Betas,
    ChunkSize,
    Cut,
    Keys,
    LogDecay,
    OpenGates,
    Queries,
    ShutGates,
    Strategy,
    Values,
    constant,
    gates,
)
from proofs.identities.ttt import Bias, Down, DownBias, Gamma, Shift, Tokens, Up

CHAPTER = 8

State = Annotated[Any, Strategy("*batch K V", LARGE, sizes={"T": st.integers(1, 5)})]  # two batches and a rest are in 5
Evenly = Annotated[Any, Strategy("*batch T", constant("1/2", "1/3", "9/10"), logarithm=True, differentiable=False)]
FixedKeys = Annotated[Any, Strategy("S K", SMALL)]
FixedValues = Annotated[Any, Strategy("S V", LARGE)]
FixedBetas = Annotated[Any, Strategy("S", BETAS)]
FixedDecay = Annotated[Any, Strategy("S", gates, logarithm=True)]
MildDecay = Annotated[Any, Strategy("*batch T", MILD, logarithm=True)]
Steadily = Annotated[Any, Strategy("*batch T", constant("1/5", "3/4", "1"), logarithm=True, differentiable=False)]

BEHROUZ = "behrouz2025titans"
PLAIN = "Titans with neither momentum nor forgetting"


def run_matrix(form: Any, *arguments: Any, **options: Any) -> Any:
    """Return (y, M, S) of a form whose memory is one matrix, the last argument."""
    *tokens, M = arguments
    y, state = form(*tokens, ((M,),), **options)
    return y, state.memory[0][0], state.surprise[0][0]


# What it contains


@identity(f"{PLAIN} is test-time training", source=f"{BEHROUZ}, section 3.1; talk-titans, 49:16–50:21", exact=True)
def without_momentum_or_forgetting(
    q: Queries,
    k: Keys,
    v: Values,
    theta: Betas,
    log_eta: ShutGates,
    log_decay: OpenGates,
    state: State,
    chunk_size: ChunkSize,
):
    y, M, _ = run_matrix(titans.chunkwise, q, k, v, theta, log_eta, log_decay, state, batch_size=chunk_size)
    z, after = ttt.dual(q, k, v, theta, ttt.Weights(((state,),)), batch_size=chunk_size)
    return (y, M), (z, after.start[0][0] - after.total[0][0])


@identity(f"{PLAIN}, in batches of one token: the delta rule", source=f"{BEHROUZ}, section 3.1", exact=True)
def delta_rule_inside(
    q: Queries, k: Keys, v: Values, theta: Betas, log_eta: ShutGates, log_decay: OpenGates, state: State
):
    y, M, _ = run_matrix(titans.recurrent, q, k, v, theta, log_eta, log_decay, state, batch_size=1)
    return (y, M), delta_rule.recurrent(q, k, v, theta, state=state)


@refuted(
    "Titans without momentum, in batches of one token: the gated delta rule (whose gradient is taken at the "
    "decayed memory)",
    source=f"{BEHROUZ}, eq. 13–14 against yang2025gated, eq. 10",
    exact=True,
)
def gated_delta_rule_inside(
    q: Queries, k: Keys, v: Values, theta: Betas, log_eta: ShutGates, log_decay: LogDecay, state: State
):
    y, M, _ = run_matrix(titans.recurrent, q, k, v, theta, log_eta, log_decay, state, batch_size=1)
    return (y, M), gated_delta_rule.recurrent(q, k, v, theta, log_decay, state=state)


# Within a norm


@identity(
    "With a norm and a residual the closed form is still the recurrence",
    source=f"{BEHROUZ}, section 3.2; sun2024ttt, section 2.7",
    only=WITHOUT_JAX,
)
def within_a_norm(
    q: Tokens,
    k: Tokens,
    v: Tokens,
    theta: Betas,
    log_eta: MildDecay,
    log_decay: MildDecay,
    W1: Down,
    b1: DownBias,
    W2: Up,
    b2: Bias,
    gamma: Gamma,
    beta: Shift,
):
    memory, norm = ((W1, b1), (W2 / 8, b2)), (gamma / 8, beta)
    arguments = q, k, v, theta / 8, log_eta, log_decay, memory
    return [form(*arguments, norm=norm, batch_size=2) for form in (titans.chunkwise, titans.recurrent)]


@identity(
    f"{PLAIN}, with a norm and a residual: TTT-MLP",
    source=f"{BEHROUZ}, section 3.1; sun2024ttt, section 2.7",
    only=WITHOUT_JAX,
)
def ttt_mlp_inside(
    q: Tokens,
    k: Tokens,
    v: Tokens,
    theta: Betas,
    log_eta: ShutGates,
    log_decay: OpenGates,
    W1: Down,
    b1: DownBias,
    W2: Up,
    b2: Bias,
    gamma: Gamma,
    beta: Shift,
):
    memory, norm = ((W1, b1), (W2 / 8, b2)), (gamma / 8, beta)
    y, state = titans.chunkwise(q, k, v, theta / 8, log_eta, log_decay, memory, norm=norm, batch_size=2)
    z, after = ttt.primal(q, k, v, theta / 8, ttt.Weights(memory, norm), batch_size=2)
    return (y, state.memory), (z, map_layers(lambda W, G: W - G, after.start, after.total))


@identity(
    "With a norm and a residual: the point of the online learner whose memory has them",
    source="talk-titans, 47:08",
    only=WITHOUT_JAX,
)
def point_within_a_norm(
    q: Tokens,
    k: Tokens,
    v: Tokens,
    theta: Betas,
    log_eta: MildDecay,
    log_decay: MildDecay,
    W1: Down,
    b1: DownBias,
    W2: Up,
    b2: Bias,
    gamma: Gamma,
    beta: Shift,
):
    memory, norm, point = ((W1, b1), (W2 / 8, b2)), (gamma / 8, beta), POINTS["Titans"]
    y, state = titans.chunkwise(q, k, v, theta / 8, log_eta, log_decay, memory, norm=norm, batch_size=2)
    gates = {"rate": theta / 8, "log_momentum": log_eta, "log_keep": log_decay}
    return (y, state.memory), online_learner.run(
        q, k, v, gates, memory, loss=point.loss, optimiser=point.optimiser, batch=2, norm=norm
    )


# Unrolled


def gate_product(log_gates: Any, after: int, upto: int) -> Any:
    """Return the product of the gates of tokens after < r ≤ upto, (*batch, 1, 1)."""
    gates = namespace(log_gates).exp(log_gates)[..., None, None]
    product = namespace(gates).ones_like(gates[..., 0, :, :])
    for r in range(after + 1, upto + 1):
        product = product * gates[..., r, :, :]
    return product


def negative_gradients(k: Any, v: Any, theta: Any, state: Any) -> list[Any]:
    """Return −θₛ ∇ℓₛ for every token, all at the same memory."""
    rows = range(k.shape[-2])

    def loss(M: Any, s: int) -> Any:
        return mg.sum((k[..., s : s + 1, :] @ M - v[..., s : s + 1, :]) ** 2) / 2

    return [-theta[..., s, None, None] * mg.grad(loss)(state, s) for s in rows]


@identity("Momentum unrolled: Sₜ = −Σ (Πη) θₛ ∇ℓₛ", source=f"{BEHROUZ}, eq. 10; talk-titans, 51:04–53:08", exact=True)
def momentum_unrolled(
    q: Queries, k: Keys, v: Values, theta: Betas, log_eta: LogDecay, log_decay: LogDecay, state: State
):
    T = q.shape[-2]
    _, _, S = run_matrix(titans.chunkwise, q, k, v, theta, log_eta, log_decay, state, batch_size=T + 1)
    return S, sum(gate_product(log_eta, s, T - 1) * u for s, u in enumerate(negative_gradients(k, v, theta, state)))


@identity(
    "The memory unrolled: each surprise is weighted by the product of both triangular matrices, Π(1 − α) · Πη",
    source=f"{BEHROUZ}, section 3.2, eq. 16; talk-titans, 58:43",
    exact=True,
)
def memory_unrolled(q: Queries, k: Keys, v: Values, theta: Betas, log_eta: LogDecay, log_decay: LogDecay, state: State):
    T = q.shape[-2]
    _, M, _ = run_matrix(titans.chunkwise, q, k, v, theta, log_eta, log_decay, state, batch_size=T + 1)
    unrolled = gate_product(log_decay, -1, T - 1) * state
    for s, u in enumerate(negative_gradients(k, v, theta, state)):
        for r in range(s, T):
            unrolled = unrolled + gate_product(log_decay, r, T - 1) * gate_product(log_eta, s, r) * u
    return M, unrolled


@identity(
    "α = 1 replaces the memory by the surprise Sₜ, in which past surprise and the gradient at the old memory are left",
    source=f"{BEHROUZ}, section 3.1; talk-titans, 53:47",
    exact=True,
    only=WITHOUT_JAX,
)
def forgetting_everything(
    q: Queries,
    k: Keys,
    v: Values,
    theta: Betas,
    log_eta: LogDecay,
    log_decay: ShutGates,
    state: State,
    chunk_size: ChunkSize,
):
    y, M, S = run_matrix(titans.chunkwise, q, k, v, theta, log_eta, log_decay, state, batch_size=chunk_size)
    return (y[..., -1:, :], M), (q[..., -1:, :] @ S, S)


@identity(
    "Constant gates 1 − α = a and η = b, dot-product loss: (a·A − b·B)/(a − b), linear attentions with the "
    "decays a and b",
    source=f"{BEHROUZ}, section 3.2, its end (a geometric sum)",
    exact=True,
)
def linear_attention_with_momentum(q: Queries, k: Keys, v: Values, theta: Betas, log_eta: Evenly, log_decay: Steadily):
    # From an empty memory and in one batch the gradient of ½‖kM − v‖² is −kᵀv, that of the dot product.
    memory = initial_memory(None, k, v)
    y, _, _ = run_matrix(titans.chunkwise, q, k, v, theta, log_eta, log_decay, memory, batch_size=q.shape[-2])
    A, B = (gated_linear_attention.recurrent(q, k, theta[..., None] * v, gates)[0] for gates in (log_decay, log_eta))
    a, b = (namespace(x).exp(x[..., :1])[..., None] for x in (log_decay, log_eta))
    return y, (a * A - b * B) / (a - b)


@identity(
    "Persistent tokens before the memory's input are another learned initial memory: they give the same one for "
    "any input",
    source=f"{BEHROUZ}, section 3.3, eq. 19, 26 and 29, made precise",
    exact=True,
    only=WITHOUT_JAX,
)
def persistent_tokens_as_a_start(
    q: Queries,
    k: Keys,
    v: Values,
    theta: Betas,
    log_eta: LogDecay,
    log_decay: LogDecay,
    state: State,
    p_k: FixedKeys,
    p_v: FixedValues,
    p_theta: FixedBetas,
    p_decay: FixedDecay,
    chunk_size: ChunkSize,
):
    xp, memory, form = namespace(q), ((state,),), cast(Any, titans.chunkwise)
    fixed = [xp.broadcast_to(p, (*q.shape[:-2], *p.shape)) for p in (p_k, p_k, p_v)]
    fixed += [xp.broadcast_to(p, (*q.shape[:-2], *p.shape)) for p in (p_theta, p_decay, p_decay)]
    tokens = (q, k, v, theta, log_eta, log_decay)
    both = [xp.concat([p, x], axis=-2 if i < 3 else -1) for i, (p, x) in enumerate(zip(fixed, tokens, strict=True))]
    y, after = form(*both, memory, batch_size=chunk_size)
    _, start = form(*fixed, memory, batch_size=chunk_size)
    return (y[..., p_k.shape[0] :, :], after), form(*tokens, memory, state=start, batch_size=chunk_size)


# Batches and scans


@identity(
    "Batches of one token are the online rule: every gradient is taken at the memory before the token",
    source=f"{BEHROUZ}, eq. 13–14; talk-titans, 57:49–58:43",
    exact=True,
    only=WITHOUT_JAX,
)
def online_rule(q: Queries, k: Keys, v: Values, theta: Betas, log_eta: LogDecay, log_decay: LogDecay, state: State):
    xp, M, S, y = namespace(q), state, 0 * state, []
    for t in range(q.shape[-2]):
        (surprise,) = negative_gradients(k[..., t : t + 1, :], v[..., t : t + 1, :], theta[..., t : t + 1], M)
        S = gate_product(log_eta, t - 1, t) * S + surprise
        M = gate_product(log_decay, t - 1, t) * M + S
        y.append(q[..., t : t + 1, :] @ M)
    forms = [
        run_matrix(form, q, k, v, theta, log_eta, log_decay, state, batch_size=1)
        for form in (titans.recurrent, titans.chunkwise)
    ]
    return forms, [(xp.concat(y, axis=-2), M, S)] * 2


@refuted(
    "Gradients at the memory before the batch give the same result as online ones",
    source=f"{BEHROUZ}, section 3.2",
    exact=True,
    instead="titans.online_rule",
)
def anchored_is_online(
    q: Queries, k: Keys, v: Values, theta: Betas, log_eta: LogDecay, log_decay: LogDecay, state: State
):
    online, batched = (
        run_matrix(titans.chunkwise, q, k, v, theta, log_eta, log_decay, state, batch_size=n) for n in (1, 3)
    )
    return online, batched


@identity(
    "(M, S) is one linear recurrence with 2 × 2 blocks, whose steps compose associatively: a scan",
    source=f"{BEHROUZ}, section 3.2: momentum by parallel scan",
    exact=True,
    only=WITHOUT_JAX,
)
def one_linear_recurrence(
    q: Queries,
    k: Keys,
    v: Values,
    theta: Betas,
    log_eta: LogDecay,
    log_decay: LogDecay,
    state: State,
    surprise: State,
    cut: Cut,
):
    T, computed = q.shape[-2], []
    for form in (titans.recurrent, titans.chunkwise):
        initial = titans.State(((state,),), ((state,),), ((surprise,),), T)
        _, M, S = run_matrix(form, q, k, v, theta, log_eta, log_decay, state, state=initial)
        computed.append((M, S))
    u = negative_gradients(k, v, theta, state)
    steps = [step(gate_product(log_decay, t - 1, t), gate_product(log_eta, t - 1, t), u[t]) for t in range(T)]
    first_part, second_part = steps[0], steps[cut]  # the later tokens are composed on their own
    for t in range(1, cut):
        first_part = compose(steps[t], first_part)
    for t in range(cut + 1, T):
        second_part = compose(steps[t], second_part)
    (a, b, c, d), (m, s) = compose(second_part, first_part)
    return computed, [(a * state + b * surprise + m, c * state + d * surprise + s)] * 2


def step(alpha: Any, eta: Any, u: Any) -> Any:
    """Return the affine map (M, S) ↦ (alpha M + eta S + u, eta S + u): its 2 × 2 matrix and its offset."""
    return (alpha, eta, 0 * eta, eta), (u, u)


def compose(later: Any, earlier: Any) -> Any:
    """Compose two affine maps."""
    (a, b, c, d), (m, s) = later
    (e, f, g, h), (n, r) = earlier
    return (a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h), (a * n + b * r + m, c * n + d * r + s)

"""Memories of keys and values as instances of one online learner: a memory, a loss, an optimiser, a batch."""

from __future__ import annotations

from typing import Annotated, Any

from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention, inner, linear_attention, titans, ttt
from models.memory.online_learner import POINTS, run
from models.recurrent import rwkv7
from proofs.checker.forms import WITHOUT_JAX
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import (
    LARGE,
    MILD,
    POSITIVE,
    SMALL,
    Beta,
    Betas,
    ChannelLogDecay,
    ChunkSize,
    FullBetas,
    Key,
    Keys,
    LogDecay,
    LogGate,
    Queries,
    ShutGates,
    State,
    Strategy,
    Value,
    Values,
)
from proofs.identities.ttt import Bias, Gamma, Shift, Square, Tokens
from proofs.identities.ttt import Down as Inward
from proofs.identities.ttt import DownBias as InwardBias
from proofs.identities.ttt import Up as Outward

CHAPTER = 10

MIRAS = "behrouz2025miras"
FewQueries = Annotated[Any, Strategy("*batch T K", LARGE, sizes={"T": st.integers(1, 3)})]
MildDecay = Annotated[Any, Strategy("*batch T", MILD, logarithm=True)]
Positive = Annotated[Any, Strategy("*batch K V", POSITIVE)]
WITHOUT_ROUNDING = ("fractions", "exact gradient")  # where a step jumps, roundings could fall on either side
Rates = Annotated[Any, Strategy("*batch T K", SMALL)]
Down = Annotated[Any, Strategy("K D", SMALL)]
Up = Annotated[Any, Strategy("D V", SMALL)]


def run_point(name: str, q: Any, k: Any, v: Any, memory: Any, batch: int = 1, norm: Any = None, **gates: Any) -> Any:
    """Run the learner with a mechanism's choices: (y, final matrix), or (y, final layers)."""
    point = POINTS[name]
    layers = memory if isinstance(memory, tuple) else ((memory,),)
    y, final = run(q, k, v, gates, layers, loss=point.loss, optimiser=point.optimiser, batch=batch, norm=norm)
    return (y, final) if isinstance(memory, tuple) else (y, final[0][0])


@identity("Matrix, dot product, descent at rate 1: linear attention", source="talk-titans, 41:06", exact=True)
def is_linear_attention(q: Queries, k: Keys, v: Values, rate: FullBetas, state: State):
    return run_point("linear attention", q, k, v, state, rate=rate), linear_attention.recurrent(q, k, v, state=state)


@identity("… with decay: gated linear attention, a gate per token (Mamba-2)", source="talk-titans, 1:21:15", exact=True)
def is_gated_by_token(q: Queries, k: Keys, v: Values, rate: FullBetas, log_decay: LogDecay, state: State):
    result = run_point("Mamba-2 (SSD)", q, k, v, state, rate=rate, log_keep=log_decay)
    return result, gated_linear_attention.recurrent(q, k, v, log_decay, state=state)


@identity(
    "… with the same decay at every token: RetNet without its rotations, S ← γS + kᵀv",
    source="sun2023retnet, section 2.1, recurrent representation",
    exact=True,
)
def is_retnet(q: Queries, k: Keys, v: Values, rate: FullBetas, log_gamma: LogGate, state: State):
    xp, S, y = namespace(q), state, []
    for t in range(q.shape[-2]):
        now = slice(t, t + 1)
        S = xp.exp(log_gamma)[..., None, None] * S + k[..., now, :].mT @ v[..., now, :]
        y.append(q[..., now, :] @ S)
    always = xp.broadcast_to(log_gamma[..., None], rate.shape)
    return run_point("RetNet", q, k, v, state, rate=rate, log_keep=always), (xp.concat(y, axis=-2), S)


@identity("… with a decay per key channel: GLA", source="yang2024gla, section 4.1", exact=True)
def is_gla(q: Queries, k: Keys, v: Values, rate: FullBetas, log_decay: ChannelLogDecay, state: State):
    result = run_point("GLA", q, k, v, state, rate=rate, log_keep=log_decay)
    return result, gated_linear_attention.recurrent(q, k, v, log_decay, state=state)


@identity("Matrix, ½ L2, descent: the delta rule", source="talk-titans, 22:34, 41:53", exact=True)
def is_delta_rule(q: Queries, k: Keys, v: Values, beta: Betas, state: State):
    return run_point("delta rule", q, k, v, state, rate=beta), delta_rule.recurrent(q, k, v, beta, state=state)


@identity("… with decay first: the gated delta rule", source="yang2025gated, section 3.1", exact=True)
def is_gated_delta_rule(q: Queries, k: Keys, v: Values, beta: Betas, log_decay: LogDecay, state: State):
    result = run_point("gated delta rule", q, k, v, state, rate=beta, log_keep=log_decay)
    return result, gated_delta_rule.recurrent(q, k, v, beta, log_decay, state=state)


@identity(
    "… with an implicit step: Longhorn, the delta rule of rate θ / (1 + θ‖k‖²), one θ for all value channels",
    source="liu2024longhorn, theorem 3.1 (place not verified); yang2025gated, table 1",
    exact=True,
)
def is_longhorn(q: Queries, k: Keys, v: Values, theta: Betas, state: State):
    beta = theta / (1 + theta * namespace(k).sum(k * k, axis=-1))
    return run_point("Longhorn", q, k, v, state, rate=theta), delta_rule.recurrent(q, k, v, beta, state=state)


@identity(
    "Longhorn's write is M − θ∇ℓ at the memory after the write, the minimum of ½‖M′ − M‖² + θℓ(M′)",
    source="liu2024longhorn, the objective of theorem 3.1 (place not verified)",
    exact=True,
)
def longhorn_is_implicit(k: Key, v: Value, theta: Beta, state: State):
    row, target = k[..., None, :], v[..., None, :]
    _, after = run_point("Longhorn", row, row, target, state, rate=theta[..., None])
    gradient = mg.grad(lambda M: mg.sum((row @ M - target) ** 2) / 2)(after)
    return after, state - theta[..., None, None] * gradient


@identity(
    "… with a rate and a decay per key channel: RWKV-7's S ← diag(w)S − (a∘k)ᵀ(kS) + (a∘k)ᵀv",
    source="peng2025rwkv7, eq. 17, with the write key a∘k",
    exact=True,
)
def is_rwkv7(q: Queries, k: Keys, v: Values, a: Rates, log_decay: ChannelLogDecay, state: State):
    write = a * k
    result = run_point("RWKV-7", q, k, v, state, rate=a, log_keep=log_decay)
    return result, rwkv7.recurrent(q, write, v, -k, write, log_decay, state=state)


@identity("Matrix, ½ L2, descent in mini-batches: TTT-Linear without its norm", source="talk-titans, 42:30", exact=True)
def is_ttt_linear(q: Queries, k: Keys, v: Values, eta: Betas, state: State, chunk_size: ChunkSize):
    y, after = ttt.primal(q, k, v, eta, ttt.Weights(((state,),)), batch_size=chunk_size)
    return run_point("TTT-Linear", q, k, v, state, chunk_size, rate=eta), (y, after.start[0][0] - after.total[0][0])


@identity("MLP, ½ L2, descent in mini-batches: TTT-MLP without its norm", source="talk-titans, 44:14", only=WITHOUT_JAX)
def is_ttt_mlp(q: Keys, k: Keys, v: Values, eta: Betas, W1: Down, W2: Up):
    layers = ((W1,), (W2 / 4,))
    y, after = ttt.primal(q, k, v, eta / 8, ttt.Weights(layers), batch_size=4)
    now = inner.map_layers(lambda W, G: W - G, after.start, after.total)
    return run_point("TTT-MLP", q, k, v, layers, 4, rate=eta / 8), (y, now)


@identity(
    "… and with layer norm and residual, as published: TTT-Linear",
    source="sun2024ttt, section 2.7",
    only=WITHOUT_JAX,
)
def is_ttt_linear_with_norm(q: Tokens, k: Tokens, v: Tokens, eta: Betas, W: Square, b: Bias, gamma: Gamma, beta: Shift):
    return with_norm("TTT-Linear", q, k, v, eta / 8, ((W / 8, b),), (gamma / 8, beta))


@identity("… and TTT-MLP", source="sun2024ttt, section 2.7", only=WITHOUT_JAX)
def is_ttt_mlp_with_norm(
    q: Tokens,
    k: Tokens,
    v: Tokens,
    eta: Betas,
    W1: Inward,
    b1: InwardBias,
    W2: Outward,
    b2: Bias,
    gamma: Gamma,
    beta: Shift,
):
    return with_norm("TTT-MLP", q, k, v, eta / 8, ((W1, b1), (W2 / 8, b2)), (gamma / 8, beta))


def with_norm(name: str, q: Any, k: Any, v: Any, eta: Any, layers: Any, norm: Any) -> Any:
    """Return (y, weights) of the learner, and of the mechanism with batches of 2."""
    y, after = ttt.primal(q, k, v, eta, ttt.Weights(layers, norm), batch_size=2)
    now = inner.map_layers(lambda W, G: W - G, after.start, after.total)
    return run_point(name, q, k, v, layers, 2, norm, rate=eta), (y, now)


@identity(
    "Matrix, ½ L2, momentum and decay in batches: Titans",
    source="behrouz2025titans, section 3.1",
    exact=True,
    only=WITHOUT_JAX,
)
def is_titans(
    q: Queries,
    k: Keys,
    v: Values,
    theta: Betas,
    log_eta: LogDecay,
    log_decay: LogDecay,
    state: State,
    chunk_size: ChunkSize,
):
    y, after = titans.chunkwise(q, k, v, theta, log_eta, log_decay, ((state,),), batch_size=chunk_size)
    gates = {"rate": theta, "log_momentum": log_eta, "log_keep": log_decay}
    return run_point("Titans", q, k, v, state, chunk_size, **gates), (y, after.memory[0][0])


@identity("… and with an MLP", source="behrouz2025titans, section 3.1", only=WITHOUT_JAX)
def is_titans_mlp(
    q: FewQueries, k: Keys, v: Values, theta: Betas, log_eta: MildDecay, log_decay: MildDecay, W1: Down, W2: Up
):
    layers = ((W1,), (W2 / 4,))
    y, after = titans.chunkwise(q, k, v, theta / 8, log_eta, log_decay, layers, batch_size=2)
    gates = {"rate": theta / 8, "log_momentum": log_eta, "log_keep": log_decay}
    return run_point("Titans", q, k, v, layers, 2, **gates), (y, after.memory)


@refuted(
    "α = 1 forgets everything: from any two memories Titans then has the same one (gradients are taken at the old one)",
    source="talk-titans, 53:47: 'flushed'",
    exact=True,
    instead="online_learner.dot_product_forgets_everything",
)
def titans_forgets_everything(
    q: Queries, k: Keys, v: Values, rate: Betas, eta: LogDecay, alpha: ShutGates, state: State, other: State
):
    gates = {"rate": rate, "log_momentum": eta, "log_keep": alpha}
    return tuple(run_point("Titans", q, k, v, memory, **gates)[1] for memory in (state, other))


@identity(
    "With the dot product as its loss and η = 0 it does: what is left is θkᵀv of the last token",
    source="talk-titans, 53:47, made precise",
    exact=True,
)
def dot_product_forgets_everything(
    q: Queries, k: Keys, v: Values, rate: Betas, eta: ShutGates, alpha: ShutGates, state: State
):
    gates = {"rate": rate, "log_momentum": eta, "log_keep": alpha}
    _, memory = run(q, k, v, gates, ((state,),), loss="dot product", optimiser="momentum + decay")
    return memory[0][0], k[..., -1:, :].mT @ (rate[..., -1:, None] * v[..., -1:, :])


@identity(
    "Matrix, ℓ₃, decay, a link through the ℓ₄ norm: Moneta's A ← αA − 3θ kᵀ(e∘|e|) with W = A / ‖A‖₄²",
    source=f"{MIRAS}, eq. 10 and 24–25, p = 3, q = 4",
    only=WITHOUT_JAX,
)
def is_moneta(q: FewQueries, k: Keys, v: Values, theta: Betas, log_decay: MildDecay, state: Positive):
    def normalise(A: Any) -> Any:
        return A / namespace(A).sqrt(namespace(A).sum(A**4, axis=(-2, -1), keepdims=True))

    def write(A: Any, k_t: Any, v_t: Any, theta_t: Any, kept_t: Any) -> Any:
        error = k_t @ normalise(A) - v_t
        return kept_t * A - 3 * theta_t * k_t.mT @ (error * abs(error))

    result = run_point("Moneta (MIRAS)", q, k, v, state, rate=theta / 8, log_keep=log_decay)
    return result, run_closed_form(normalise, write, q, k, v, theta / 8, log_decay, state)


@identity(
    "Matrix, Huber, decay: Yaad's W ← αW − θ kᵀe where ‖e‖ ≤ 1, and θ kᵀ sign e beyond",
    source=f"{MIRAS}, eq. 16 and 26, δ = 1",
    exact=True,
    only=WITHOUT_ROUNDING,
)
def is_yaad(q: FewQueries, k: Keys, v: Values, theta: Betas, log_decay: LogDecay, state: State):
    def write(W: Any, k_t: Any, v_t: Any, theta_t: Any, kept_t: Any) -> Any:
        error = k_t @ W - v_t
        sign = mg.where(error < 0, 0 * error - 1, mg.where(error > 0, 0 * error + 1, 0 * error))
        clipped = mg.where(namespace(error).sum(error * error, axis=-1, keepdims=True) <= 1, error, sign)
        return kept_t * W - theta_t * k_t.mT @ clipped

    result = run_point("Yaad (MIRAS)", q, k, v, state, rate=theta, log_keep=log_decay)
    return result, run_closed_form(lambda W: W, write, q, k, v, theta, log_decay, state)


@identity(
    "Matrix, ½ L2, decay, a softmax link: Memora's W ← softmax(α log W − θ ∇ℓ)",
    source=f"{MIRAS}, eq. 21 and 27",
    only=WITHOUT_JAX,
)
def is_memora(q: FewQueries, k: Keys, v: Values, theta: Betas, log_decay: MildDecay, state: State):
    def write(W: Any, k_t: Any, v_t: Any, theta_t: Any, kept_t: Any) -> Any:
        return mg.softmax(kept_t * namespace(W).log(W) - theta_t * k_t.mT @ (k_t @ W - v_t), axis=-2)

    y, final = run_point("Memora (MIRAS)", q, k, v, state, rate=theta, log_keep=log_decay)
    first = mg.softmax(state, axis=-2)
    return (y, mg.softmax(final, axis=-2)), run_closed_form(lambda W: W, write, q, k, v, theta, log_decay, first)


def run_closed_form(readout: Any, write: Any, q: Any, k: Any, v: Any, theta: Any, log_decay: Any, memory: Any) -> Any:
    """Run a memory whose update is given in closed form, without `grad`: (y, final matrix)."""
    xp, y, decays = namespace(q, memory), [], namespace(log_decay).exp(log_decay)
    for t in range(q.shape[-2]):
        now = slice(t, t + 1)
        gates = (x[..., t, None, None] for x in (theta, decays))
        memory = write(memory, k[..., now, :], v[..., now, :], *gates)
        y.append(q[..., now, :] @ readout(memory))
    return xp.concat(y, axis=-2), memory

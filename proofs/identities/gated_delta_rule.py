"""The gated delta rule: decay the memory, then apply the delta rule."""

from __future__ import annotations

from typing import Any

import minigrad as mg
from minigrad import namespace
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import (
    Beta,
    Betas,
    ChunkSize,
    FullBetas,
    Key,
    Keys,
    LogDecay,
    LogGate,
    OpenGates,
    OrthonormalKeys,
    Queries,
    ShutGates,
    State,
    UnitKeys,
    Value,
    Values,
)
from proofs.identities.delta_rule import square, transition

CHAPTER = 6

YANG = "yang2025gated"


def write_token(k: Any, v: Any, beta: Any, log_gate: Any, state: Any) -> Any:
    """Return the memory after one token k (*batch, K), v (*batch, V)."""
    row = k[..., None, :]
    return gated_delta_rule.recurrent(row, row, v[..., None, :], beta[..., None], log_gate[..., None], state=state)[1]


@identity("With all gates 1 it is the delta rule", source=f"{YANG}, eq. 10", exact=True)
def open_gates(q: Queries, k: Keys, v: Values, beta: Betas, log_decay: OpenGates, state: State, chunk_size: ChunkSize):
    gated = gated_delta_rule.chunkwise(q, k, v, beta, log_decay, state=state, chunk_size=chunk_size)
    return gated, delta_rule.recurrent(q, k, v, beta, state=state)


@identity(
    "A gate of 0 resets the memory: every token writes into an empty memory", source=f"{YANG}, section 3.1", exact=True
)
def shut_gates(q: Queries, k: Keys, v: Values, beta: Betas, log_decay: ShutGates, state: State, chunk_size: ChunkSize):
    y, _ = gated_delta_rule.chunkwise(q, k, v, beta, log_decay, state=state, chunk_size=chunk_size)
    return y, namespace(q).sum(q * k, axis=-1, keepdims=True) * beta[..., None] * v


@identity("S = α(I − βkᵀk)S + βkᵀv: the gate decays the memory, not the write", source=f"{YANG}, eq. 10", exact=True)
def gated_transition(k: Key, v: Value, beta: Beta, log_gate: LogGate, state: State):
    gate = namespace(log_gate).exp(log_gate)[..., None, None]
    write = beta[..., None, None] * k[..., :, None] * v[..., None, :]
    return write_token(k, v, beta, log_gate, state), gate * transition(k, beta, state) + write


@identity(
    "The write is one step of gradient descent, rate β, on ½‖kS − v‖² at the decayed memory",
    source=f"{YANG}, section 3.1; talk-titans, 22:34",
    exact=True,
)
def gated_write_is_a_gradient_step(k: Key, v: Value, beta: Beta, log_gate: LogGate, state: State):
    decayed = namespace(log_gate).exp(log_gate)[..., None, None] * state
    gradient = mg.grad(lambda S: square(k, v)(S) / 2)(decayed)
    return write_token(k, v, beta, log_gate, state), decayed - beta[..., None, None] * gradient


@refuted(
    "The correction may be taken before the decay: αS + βkᵀ(v − kS)",
    source="fla, the order of decay and delta",
    exact=True,
)
def correction_before_fading(k: Key, v: Value, beta: Beta, log_gate: LogGate, state: State):
    gate = namespace(log_gate).exp(log_gate)[..., None, None]
    correction = v[..., None, :] - k[..., None, :] @ state
    return write_token(k, v, beta, log_gate, state), gate * state + beta[..., None, None] * k[..., :, None] * correction


@refuted(
    "The memory may be decayed after the write: α(S + βkᵀ(v − kS))",
    source="minigrad, the order of decay and delta",
    exact=True,
)
def fading_after_the_write(k: Key, v: Value, beta: Beta, log_gate: LogGate, state: State):
    gate = namespace(log_gate).exp(log_gate)[..., None, None]
    write = beta[..., None, None] * k[..., :, None] * v[..., None, :]
    return write_token(k, v, beta, log_gate, state), gate * (transition(k, beta, state) + write)


@refuted(
    "beta and log_decay may be given in either order (both are (*batch, T): no shape tells them apart)",
    source="fla, whose two forms differ in the order",
)
def swapped_gates(q: Queries, k: Keys, v: Values, beta: Betas, log_decay: LogDecay):
    return gated_delta_rule.recurrent(q, k, v, beta, log_decay), gated_delta_rule.recurrent(q, k, v, log_decay, beta)


@identity(
    "β = 1 and ‖k‖ = 1: reading k right after the write gives v, whatever the decay",
    source="talk-titans, 21:43 with decay",
    exact=True,
)
def reading_what_was_written(
    k: UnitKeys, v: Values, beta: FullBetas, log_decay: LogDecay, state: State, chunk_size: ChunkSize
):
    y, _ = gated_delta_rule.chunkwise(k, k, v, beta, log_decay, state=state, chunk_size=chunk_size)
    return y, v


@identity(
    "Orthonormal keys, β = 1, empty memory: it is gated linear attention", source=f"{YANG}, section 3.1", exact=True
)
def orthonormal_keys(q: Queries, k: OrthonormalKeys, v: Values, beta: FullBetas, log_decay: LogDecay):
    return gated_delta_rule.recurrent(q, k, v, beta, log_decay), gated_linear_attention.recurrent(q, k, v, log_decay)

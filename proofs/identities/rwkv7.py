"""RWKV-7's memory: the generalised delta rule, of which the other matrix memories are cases."""

from __future__ import annotations

from typing import Annotated, Any

from hypothesis import strategies as st

from minigrad import namespace
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention
from models.recurrent import rwkv7
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import (
    BETAS,
    SMALL,
    Betas,
    ChannelLogDecay,
    ChunkSize,
    Key,
    Keys,
    Queries,
    State,
    Strategy,
    UnitKey,
    Value,
    Values,
    elements,
    gates,
)

CHAPTER = 21

PENG = "peng2025rwkv7"
WKV = f"{PENG}, eq. 17"

Rate = Annotated[Any, Strategy("*batch K", BETAS)]
ScalarRate = Annotated[Any, Strategy("*batch", BETAS)]
ChannelLogGate = Annotated[Any, Strategy("*batch K", gates, logarithm=True)]
Reads = Annotated[Any, Strategy("*batch T K", SMALL)]
OpenChannels = Annotated[Any, Strategy("*batch T K", elements(1), logarithm=True, differentiable=False)]
OpenGate = Annotated[Any, Strategy("*batch K", elements(1), logarithm=True, differentiable=False)]
ShutChannels = Annotated[Any, Strategy("*batch T K", elements(0), logarithm=True, differentiable=False)]
SeveralRows = Annotated[Any, Strategy("*batch K V", SMALL, sizes={"K": st.integers(2, 4)})]


def write_token(k: Any, v: Any, a: Any, b: Any, log_gate: Any, state: Any) -> Any:
    """Return the memory after one token k, a, b, log_gate (*batch, K), v (*batch, V)."""
    k, v, a, b, log_gate = (x[..., None, :] for x in (k, v, a, b, log_gate))
    return rwkv7.recurrent(k, k, v, a, b, log_gate, state=state)[1]


@identity(
    "RWKV-7 is the generalised delta rule: S ← S (diag(w) − κ̂ᵀ (a ∘ κ̂)) + vᵀ k̃, S being V × K", source=WKV, exact=True
)
def generalised_delta_rule(kappa: Key, rate: Rate, k: Key, v: Value, log_gate: ChannelLogGate, state: State):
    xp = namespace(kappa, log_gate)
    diagonal = xp.eye(kappa.shape[-1], dtype=kappa.dtype) * xp.exp(log_gate)[..., None, :]
    transition = diagonal - kappa[..., :, None] * (rate * kappa)[..., None, :]
    paper = state.mT @ transition + v[..., :, None] * k[..., None, :]
    return write_token(k, v, -kappa, kappa * rate, log_gate, state), paper.mT


@identity(
    "With a = −α∘k, b = βk and the key βk it is the gated delta rule with a gate per channel",
    source=f"{PENG}, section 2; yang2025gated, eq. 10",
    exact=True,
)
def is_the_gated_delta_rule(
    q: Queries, k: Keys, v: Values, beta: Betas, log_decay: ChannelLogDecay, state: State, chunk_size: ChunkSize
):
    write, read = beta[..., None] * k, -namespace(log_decay).exp(log_decay) * k
    general = rwkv7.chunkwise(q, write, v, read, write, log_decay, state=state, chunk_size=chunk_size)
    return general, gated_delta_rule.recurrent(q, k, v, beta, log_decay, state=state)


@identity(
    "With all gates 1, a = −k, b = βk and the key βk it is the delta rule",
    source=f"{PENG}, section 2; yang2024deltanet, section 3",
    exact=True,
)
def is_the_delta_rule(q: Queries, k: Keys, v: Values, beta: Betas, log_decay: OpenChannels, state: State):
    write = beta[..., None] * k
    general = rwkv7.recurrent(q, write, v, -k, write, log_decay, state=state)
    return general, delta_rule.recurrent(q, k, v, beta, state=state)


@identity(
    "Without a write back, b = 0, it is gated linear attention with a gate for each channel",
    source="yang2024gla, section 4.1",
    exact=True,
)
def is_gated_linear_attention(
    q: Queries, k: Keys, v: Values, a: Reads, log_decay: ChannelLogDecay, state: State, chunk_size: ChunkSize
):
    general = rwkv7.chunkwise(q, k, v, a, 0 * a, log_decay, state=state, chunk_size=chunk_size)
    return general, gated_linear_attention.recurrent(q, k, v, log_decay, state=state)


@identity(
    "The state is a product of transitions diagonal plus rank one, whatever a and b",
    source=WKV,
    exact=True,
)
def product_of_transitions(
    k: Keys, v: Values, a: Reads, b: Reads, log_decay: ChannelLogDecay, state: State, chunk_size: ChunkSize
):
    xp = namespace(k, v, a, b, log_decay)
    S, eye = state, xp.eye(k.shape[-1], dtype=k.dtype)
    for t in range(k.shape[-2]):
        transition = eye * xp.exp(log_decay[..., t, :, None]) + b[..., t, :, None] * a[..., t, None, :]
        S = transition @ S + k[..., t, :, None] * v[..., t, None, :]
    return rwkv7.chunkwise(k, k, v, a, b, log_decay, state=state, chunk_size=chunk_size)[1], S


@identity(
    "Without decay, and with one rate a, the removal key keeps 1 − a of its value: κ̂S ← (1 − a) κ̂S",
    source=f"{PENG}, eq. 17",
    exact=True,
)
def eigenvalue_of_the_removal(kappa: UnitKey, rate: ScalarRate, v: Value, log_gate: OpenGate, state: State):
    none = 0 * kappa
    S = write_token(none, v, -kappa, kappa * rate[..., None], log_gate, state)
    read = kappa[..., None, :]
    return read @ S, (1 - rate[..., None, None]) * (read @ state)


@identity(
    "It can exchange two rows of the memory: Diag(1) − (e₁ − e₂)ᵀ(e₁ − e₂)",
    source=f"{PENG}, the appendix on expressivity",
    exact=True,
)
def exchange_of_rows(log_gate: OpenGate, state: SeveralRows):
    xp = namespace(state)
    eye = xp.eye(state.shape[-2], dtype=state.dtype)
    difference, none = eye[0] - eye[1] + 0 * state[..., 0], 0 * state[..., 0]
    exchanged = xp.concat([state[..., 1:2, :], state[..., :1, :], state[..., 2:, :]], axis=-2)
    return write_token(none, 0 * state[..., 0, :], -difference, difference, log_gate, state), exchanged


@refuted(
    "A gate of 0 resets the memory, as in the gated delta rule (a reads the memory before its decay)",
    source=WKV,
    exact=True,
)
def shut_gates(q: Queries, k: Keys, v: Values, a: Reads, b: Reads, log_decay: ShutChannels, state: State):
    y, _ = rwkv7.recurrent(q, k, v, a, b, log_decay, state=state)
    return y, namespace(q).sum(q * k, axis=-1, keepdims=True) * v


@refuted("a and b may be exchanged (both are (*batch, T, K): no shape tells them apart)", source=WKV, exact=True)
def swapped(q: Queries, k: Keys, v: Values, a: Reads, b: Reads, log_decay: ChannelLogDecay, state: State):
    return rwkv7.recurrent(q, k, v, a, b, log_decay, state=state), rwkv7.recurrent(
        q, k, v, b, a, log_decay, state=state
    )

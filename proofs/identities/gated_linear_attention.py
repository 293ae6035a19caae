"""Gated linear attention: linear attention with a decay of the state."""

from __future__ import annotations

from typing import Annotated, Any

import minigrad as mg
from minigrad import namespace
from models.memory import gated_linear_attention, linear_attention
from models.ssm import selective_scan
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import (
    LARGE,
    POSITIVE,
    RATES,
    SMALL,
    ChannelLogDecay,
    ChunkSize,
    Key,
    Keys,
    LogDecay,
    LogGate,
    OpenGates,
    Queries,
    ShutGates,
    State,
    Strategy,
    Value,
    Values,
)

CHAPTER = 4

Inputs = Annotated[Any, Strategy("*batch T D", LARGE)]
Steps = Annotated[Any, Strategy("*batch T D", POSITIVE)]
Rates = Annotated[Any, Strategy("D N", RATES)]
Enter = Annotated[Any, Strategy("*batch T N", SMALL)]
Leave = Annotated[Any, Strategy("*batch T N", LARGE)]
Skip = Annotated[Any, Strategy("D", LARGE)]
ChannelState = Annotated[Any, Strategy("*batch D N", LARGE)]

YANG = "yang2024gla"


@identity("With all gates 1 it is linear attention", source=f"{YANG}, section 4.1", exact=True)
def open_gates(q: Queries, k: Keys, v: Values, log_decay: OpenGates, state: State, chunk_size: ChunkSize):
    gated = gated_linear_attention.chunkwise(q, k, v, log_decay, state=state, chunk_size=chunk_size)
    return gated, linear_attention.recurrent(q, k, v, state=state)


@identity(
    "A gate of 0 resets the memory: the output is (q·k) v, of the token alone",
    source=f"{YANG}, section 4.1",
    exact=True,
)
def shut_gates(q: Queries, k: Keys, v: Values, log_decay: ShutGates, state: State, chunk_size: ChunkSize):
    y, _ = gated_linear_attention.chunkwise(q, k, v, log_decay, state=state, chunk_size=chunk_size)
    return y, namespace(q).sum(q * k, axis=-1, keepdims=True) * v


@identity("One gate per token equals the same gate in every key channel", source=f"{YANG}, section 4.1", exact=True)
def one_gate_for_all_channels(q: Queries, k: Keys, v: Values, log_decay: LogDecay, state: State):
    channels = namespace(log_decay).stack([log_decay] * k.shape[-1], axis=-1)
    per_token = gated_linear_attention.parallel(q, k, v, log_decay, state=state)
    return per_token, gated_linear_attention.parallel(q, k, v, channels, state=state)


@identity(
    "Unrolled: oₜ = qₜ Diag(α₁ ⋯ αₜ) S₀ + Σ qₜ Diag(αₛ₊₁ ⋯ αₜ) kₛᵀ vₛ over s ≤ t",
    source=f"{YANG}, section 4.1",
    exact=True,
)
def unrolled(q: Queries, k: Keys, v: Values, log_decay: ChannelLogDecay, state: State):
    xp = namespace(q, log_decay)
    gates, y = xp.exp(log_decay), []
    for t in range(q.shape[-2]):
        memory = apply_gates(state, gates[..., : t + 1, :])
        for s in range(t + 1):
            memory = memory + apply_gates(k[..., s, :, None] * v[..., s, None, :], gates[..., s + 1 : t + 1, :])
        y.append((q[..., t, None, :] @ memory)[..., 0, :])
    return gated_linear_attention.recurrent(q, k, v, log_decay, state=state)[0], xp.stack(y, axis=-2)


@identity(
    "The write is one step of gradient descent, rate 1, on −⟨kS, v⟩, from the decayed memory",
    source="talk-titans, 14:50 with decay",
    exact=True,
)
def gated_write_is_a_gradient_step(k: Key, v: Value, log_gate: LogGate, state: State):
    def loss(S: Any) -> Any:
        return -mg.sum((k[..., None, :] @ S)[..., 0, :] * v)

    row, gate = k[..., None, :], namespace(log_gate).exp(log_gate)[..., None, None]
    _, new_state = gated_linear_attention.recurrent(row, row, v[..., None, :], log_gate[..., None], state=state)
    return new_state, gate * state - mg.grad(loss)(gate * state)


@identity(
    "Mamba's selective scan is gated linear attention, a head a channel, with values of one feature: q = C, k = B, "
    "v = Δu, log α = ΔA; its skip Du comes on top",
    source="talk-titans, 1:21:15, made precise; gu2023mamba, eq. 2",
)
def mamba_is_gated_linear_attention(
    u: Inputs, delta: Steps, A: Rates, B: Enter, C: Leave, D: Skip, state: ChannelState
):
    xp = namespace(u, delta, A, B, C, D)
    y, S = [], []
    for d in range(u.shape[-1]):
        v, log_decay = (delta * u)[..., d : d + 1], delta[..., d : d + 1] * A[d]
        head = gated_linear_attention.recurrent(C, B, v, log_decay, state=state[..., d, :, None])
        y.append(head[0] + D[d] * u[..., d : d + 1])
        S.append(head[1][..., 0])
    return selective_scan.recurrent(u, delta, A, B, C, D, state=state), (xp.concat(y, axis=-1), xp.stack(S, axis=-2))


@refuted(
    "Decay before the write and decay after it are the same",
    source="titans-code, #6 (where is the forgetting?)",
    exact=True,
)
def fading_after_the_write(k: Key, v: Value, log_gate: LogGate, state: State):
    row, gate = k[..., None, :], namespace(log_gate).exp(log_gate)[..., None, None]
    _, new_state = gated_linear_attention.recurrent(row, row, v[..., None, :], log_gate[..., None], state=state)
    return new_state, gate * (state + row.mT @ v[..., None, :])


def apply_gates(memory: Any, gates: Any) -> Any:
    """Multiply the memory (*batch, K, V) by the gates (*batch, n, K), one after the other."""
    for i in range(gates.shape[-2]):
        memory = gates[..., i, :, None] * memory
    return memory

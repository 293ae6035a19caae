"""The gated delta rule, with a gate per token or per channel: decay the memory, then apply the delta rule."""

from __future__ import annotations

from typing import Any

import minigrad as mg
from minigrad import namespace
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import (
    Beta,
    Betas,
    ChannelLogDecay,
    ChannelLogGate,
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
KIMI = "kimi2025"


def write_token(k: Any, v: Any, beta: Any, log_gate: Any, state: Any) -> Any:
    """Return the memory after one token k (*batch, K), v (*batch, V), with one gate (*batch) or K of them."""
    row, gates = k[..., None, :], log_gate[..., None, :] if log_gate.ndim == k.ndim else log_gate[..., None]
    return gated_delta_rule.recurrent(row, row, v[..., None, :], beta[..., None], gates, state=state)[1]


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


# A gate for each channel: Kimi Delta Attention


@identity("One gate per token equals the same gate in every key channel", source=f"{KIMI}, section 3", exact=True)
def one_gate_for_all_channels(q: Queries, k: Keys, v: Values, beta: Betas, log_decay: LogDecay, state: State):
    channels = namespace(log_decay).stack([log_decay] * k.shape[-1], axis=-1)
    per_token = gated_delta_rule.recurrent(q, k, v, beta, log_decay, state=state)
    return per_token, gated_delta_rule.recurrent(q, k, v, beta, channels, state=state)


@identity("S = (I − βkᵀk) Diag(α) S + βkᵀv: each row decays by its own gate", source=f"{KIMI}, eq. 1", exact=True)
def channel_transition(k: Key, v: Value, beta: Beta, log_gate: ChannelLogGate, state: State):
    decayed = namespace(log_gate).exp(log_gate)[..., :, None] * state
    write = beta[..., None, None] * k[..., :, None] * v[..., None, :]
    return write_token(k, v, beta, log_gate, state), transition(k, beta, decayed) + write


@identity(
    "The transition is diagonal plus low rank, Diag(α) − aᵀb with a = βk and b = α ⊙ k",
    source=f"{KIMI}, section 3.2",
    exact=True,
)
def diagonal_plus_low_rank(k: Key, v: Value, beta: Beta, log_gate: ChannelLogGate, state: State):
    gate = namespace(log_gate).exp(log_gate)
    a, b = beta[..., None] * k, gate * k
    transitioned = gate[..., :, None] * state - a[..., :, None] * (b[..., None, :] @ state)
    return write_token(k, v, beta, log_gate, state), transitioned + a[..., :, None] * v[..., None, :]


@refuted(
    "With a gate per channel, too, the state may decay after the delta rule: Diag(α)(I − βkᵀk) S + βkᵀv",
    source=f"{KIMI}, eq. 1 with its factors exchanged",
    exact=True,
)
def channels_decay_after_the_delta_rule(k: Key, v: Value, beta: Beta, log_gate: ChannelLogGate, state: State):
    gate = namespace(log_gate).exp(log_gate)[..., :, None]
    write = beta[..., None, None] * k[..., :, None] * v[..., None, :]
    return write_token(k, v, beta, log_gate, state), gate * transition(k, beta, state) + write


@identity(
    "Its write, too, is one step of gradient descent, rate β, on ½‖kS − v‖² at the memory Diag(α) S",
    source=f"{KIMI}, section 3",
    exact=True,
)
def write_at_decayed_rows_is_a_gradient_step(k: Key, v: Value, beta: Beta, log_gate: ChannelLogGate, state: State):
    decayed = namespace(log_gate).exp(log_gate)[..., :, None] * state
    gradient = mg.grad(lambda S: square(k, v)(S) / 2)(decayed)
    return write_token(k, v, beta, log_gate, state), decayed - beta[..., None, None] * gradient


@identity(
    "It is gated linear attention to the update vectors "
    "uₜ = βₜ (vₜ − kₜ Diag(α₁ ⋯ αₜ) S₀ − Σ kₜ Diag(αₛ₊₁ ⋯ αₜ) kₛᵀ uₛ over s < t)",
    source=f"{KIMI}, section 3.1 (UT transform)",
    exact=True,
)
def attention_to_update_vectors(
    q: Queries, k: Keys, v: Values, beta: Betas, log_decay: ChannelLogDecay, state: State, chunk_size: ChunkSize
):
    xp = namespace(q, k, v, beta, log_decay)
    gates = xp.exp(log_decay)
    U: list[Any] = []
    for t in range(k.shape[-2]):
        key, u = k[..., t, None, :], v[..., t, None, :]
        for s in range(t - 1, -1, -1):
            key = key * gates[..., s + 1, None, :]
            u = u - (key @ k[..., s, :, None]) * U[s]
        U.append(beta[..., t, None, None] * (u - (key * gates[..., 0, None, :]) @ state))
    attention = gated_linear_attention.recurrent(q, k, xp.concat(U, axis=-2), log_decay, state=state)
    return gated_delta_rule.chunkwise(q, k, v, beta, log_decay, state=state, chunk_size=chunk_size), attention


@refuted(
    "Orthonormal keys, β = 1, empty memory: with a gate per channel, too, it is gated linear attention",
    source="minigrad, keys do not stay orthogonal when their channels decay",
    exact=True,
)
def orthonormal_keys_with_channel_gates(
    q: Queries, k: OrthonormalKeys, v: Values, beta: FullBetas, log_decay: ChannelLogDecay
):
    return gated_delta_rule.recurrent(q, k, v, beta, log_decay), gated_linear_attention.recurrent(q, k, v, log_decay)

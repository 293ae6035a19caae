"""Titans: a memory trained by gradient descent with momentum, which keeps surprises, and weight decay, which forgets.

    ℓₜ(M) = ½ ‖M(kₜ) − vₜ‖²                              the inner loss        Behrouz et al. 2025, eq. 12
    Sₜ    = ηₜ Sₜ₋₁ − θₜ ∇ℓₜ(M′)                         past and momentary surprise        eq. 10, 14
    Mₜ    = (1 − αₜ) Mₜ₋₁ + Sₜ                           forget and write      eq. 13
    oₜ    = Mₜ(qₜ)                                       the read              eq. 15

M′ is the memory before the batch (section 3.2: "mini-batch gradient descent"); with a batch of 1 it is Mₜ₋₁. Unrolled
in a batch that starts from M and S, with the lower triangular Γ[t, s] = Π (1 − α) and H[t, s] = Π η over s < r ≤ t:

    Mₜ = γₜ M + (Γ h)ₜ S − Σₛ (Γ H)[t, s] θₛ ∇ℓₛ(M′)      γ, h: products since the batch began
    Sₜ = hₜ S − Σₛ H[t, s] θₛ ∇ℓₛ(M′)

    q, k, v     query, key and value of a token, as rows.
    theta       θ ≥ 0, the inner rate, (*batch, T).
    log_eta     log η ≤ 0, what is kept of past surprise, (*batch, T). −∞ forgets it.
    log_decay   log(1 − α) ≤ 0, what is kept of the memory, (*batch, T). −∞ is α = 1: only Sₜ is left.
    memory      M₀, as `models.memory.inner` has it: one layer is a matrix, more are an MLP. Learned outside.
    norm        γ and β of a layer norm around the memory, which then answers M(x) = x + LN(g(x)), g its layers. Learned
                outside too. Without one M = g.
    state       the memory before the batch under way, M and S now, and how many of its tokens are left.

What the paper leaves open, and what we take: ½ of the squared error, so that θ is the β of the delta rule (the paper
prints no ½; titans-pytorch takes the mean over V, which is 2/V of ours). Forgetting comes after the gradient, which is
taken at the whole memory, and before the write, as eq. 13 and 14 read (lucidrains/titans-pytorch #6 asks). Reading
comes after the write, as everywhere here; eq. 15 has no index (#6 asks). Between layers stands a GELU, theirs too, and
around the memory, where one is given, TTT's norm and residual (Sun et al. 2024, section 2.7): theirs by default, with a
γ that learns inside and no β.

`batch_size` is a part of the mechanism and not of a form: another one learns something else. For real numbers; S starts
at 0. What does not fit raises TypeError or ValueError, as `models.forms` says; a gate outside its range ValueError, and
an inner loss that is not finite FloatingPointError, both with the token.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from minigrad.engine import unwrap
from models.forms import Array, form
from models.kernels import compiled
from models.memory import inner
from models.memory.chunks import segment_sums, tokens
from models.memory.inner import Layers, Norm, each

T = Float[Array, "*batch T"]
TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]


class State(NamedTuple):
    """Where a sequence stands: inside a batch whose gradients are taken at `start`, with `left` tokens to come."""

    start: Layers
    memory: Layers
    surprise: Layers
    left: int


@form
def recurrent(
    q: TK, k: TK, v: TV, theta: T, log_eta: T, log_decay: T, memory: Layers, *, state: State | None = None,
    batch_size: int = 16, norm: Norm | None = None,
) -> tuple[TV, State]:  # fmt: skip
    """One token after the other, every gradient from `grad`: O(T·K·V), and b copies of the memory for the gradients."""
    xp = inner.library(q, k, v, theta, log_eta, log_decay, memory, state, norm)
    start, M, S, left = _begun("titans.recurrent", q, k, v, theta, log_eta, log_decay, memory, state, batch_size, norm)
    of_copies = None if norm is None else tuple(x[..., None, :, :] for x in norm)
    y, first = [], 0
    for Q, K, V, *gates in inner.batches(left, batch_size, q, k, v, *_columns(theta, log_eta, log_decay)):
        C = Q.shape[-2]
        (_, losses), gradients = mg.value_and_grad(_loss, has_aux=True)(inner.copies(start, C), of_copies, K, V)
        inner.converging("titans.recurrent", losses, first)
        for t, (q_t, theta_t, log_eta_t, log_decay_t) in enumerate(tokens(Q, *gates)):
            eta_t, kept_t = xp.exp(log_eta_t), xp.exp(log_decay_t)
            u_t = each(lambda g, t=t: g[..., t, :, :], gradients)
            S = each(lambda S, u, eta=eta_t, theta=theta_t: eta * S - theta * u, S, u_t)
            M = each(lambda M, S, kept=kept_t: kept * M + S, M, S)
            y.append(inner.model(M, norm, q_t))
        left, first = left - C, first + C
        if left == 0:
            start, left = M, batch_size
    return xp.concat(y, axis=-2), State(start, M, S, left)


@form
def chunkwise(
    q: TK, k: TK, v: TV, theta: T, log_eta: T, log_decay: T, memory: Layers, *, state: State | None = None,
    batch_size: int = 16, norm: Norm | None = None,
) -> tuple[TV, State]:  # fmt: skip
    """Gradients by hand and a batch of b tokens at once: O(T·(b² + b·(K + V) + K·V))."""
    xp = inner.library(q, k, v, theta, log_eta, log_decay, memory, state, norm)
    start, M, S, left = _begun("titans.chunkwise", q, k, v, theta, log_eta, log_decay, memory, state, batch_size, norm)
    y, first = [], 0
    for Q, K, V, rate, log_h, log_g in inner.batches(left, batch_size, q, k, v, *_columns(theta, log_eta, log_decay)):
        inputs, outputs = inner.forward(start, K)
        error, slope = inner.missed(norm, K, V, outputs[-1])
        inner.converging("titans.chunkwise", xp.sum(unwrap(error) ** 2, axis=-1), first)
        slopes = inner.backward(start, outputs, slope)

        gamma, h = xp.exp(xp.cumulative_sum(log_g, axis=-2)), xp.exp(xp.cumulative_sum(log_h, axis=-2))  # (C, 1)
        Gamma, H = (xp.tril(xp.exp(segment_sums(x))[..., 0]) for x in (log_g, log_h))  # (C, C)
        mix, past = Gamma @ H * rate.mT, Gamma @ h
        mix = xp.tril(mix)  # an infinite rate times 0 is NaN
        z = Q
        for i, layer in enumerate(start):
            x = z if i == 0 else inner.gelu(z)
            z = gamma * inner.apply(M[i], x) + past * inner.apply(S[i], x)
            z = z - inner.moved(layer, x, inputs[i], slopes[i], mix)
        y.append(inner.answer(norm, Q, z))

        into_M, into_S = (inner.written(start, inputs, slopes, share[..., -1:, :].mT) for share in (mix, H * rate.mT))
        M = each(lambda M, S, u, g=gamma, p=past: g[..., -1:, :] * M + p[..., -1:, :] * S - u, M, S, into_M)
        S = each(lambda S, u, h=h: h[..., -1:, :] * S - u, S, into_S)
        left, first = left - Q.shape[-2], first + Q.shape[-2]
        if left == 0:
            start, left = M, batch_size
    return xp.concat(y, axis=-2), State(start, M, S, left)


@form
def fused(
    q: TK, k: TK, v: TV, theta: T, log_eta: T, log_decay: T, memory: Layers, *, state: State | None = None,
    batch_size: int = 16, norm: Norm | None = None,
) -> tuple[TV, State]:  # fmt: skip
    """`chunkwise` with its adjoint by hand, for NumPy's float32 and float64: no graph, and one memory in 8 is kept."""
    given = _begun("titans.fused", q, k, v, theta, log_eta, log_decay, memory, state, batch_size, norm)
    matrices = [inner.one_matrix(layer) for layers in given[:3] for layer in layers]
    of_norm = [] if norm is None else [namespace(v, x).broadcast_to(x, (*v.shape[:-2], 1, v.shape[-1])) for x in norm]
    y, *matrices = _compiled(
        q, k, v, theta, log_eta, log_decay, *matrices, *of_norm, batch_size=batch_size, left=given.left,
        on_losses=lambda losses: inner.converging("titans.fused", losses, 0),
    )  # fmt: skip
    start, M, S = _models(matrices, k.shape[-1])
    read = q.shape[-2] - given.left
    return y, State(start, M, S, -read if read < 0 else batch_size - read % batch_size)


def _in_batches(
    q: Array, k: Array, v: Array, theta: Array, log_eta: Array, log_decay: Array, *matrices: Array,
    batch_size: int, left: int, on_losses: Callable[[Array], None],
) -> tuple[Array, ...]:  # fmt: skip
    matrices, norm = (matrices[:-2], matrices[-2:]) if len(matrices) % 3 else (matrices, None)
    start, M, S = _models(matrices, k.shape[-1])
    state = State(start, M, S, left)
    y, state = chunkwise(q, k, v, theta, log_eta, log_decay, start, state=state, batch_size=batch_size, norm=norm)
    return (y, *(inner.one_matrix(layer) for layers in state[:3] for layer in layers))


_compiled = compiled("titans", _in_batches)


def _models(matrices: Sequence[Array], features: int) -> list[Layers]:
    """Three models of this many inputs from the layers of all, each one matrix: one row too many is a bias."""
    depth, models = len(matrices) // 3, []
    for i in range(0, len(matrices), depth):
        layers, width = [], features
        for A in matrices[i : i + depth]:
            layers.append(inner.one_layer(A, width))
            width = A.shape[-1]
        models.append(tuple(layers))
    return models


def _loss(memory: Layers, norm: Norm | None, k: Array, v: Array) -> tuple[Array, Array]:
    """Σ ℓ, and each ℓ, (*batch, b), for keys and values (*batch, b, ·), each with a memory of its own."""
    error = inner.model(memory, norm, k[..., None, :]) - v[..., None, :]
    losses = mg.sum(error * error, axis=(-2, -1)) / 2
    return mg.sum(losses), losses


def _columns(*gates: Array) -> tuple[Array, ...]:
    """Gates (*batch, T) as columns."""
    return tuple(gate[..., None] for gate in gates)


def _begun(
    form: str, q: Array, k: Array, v: Array, theta: Array, log_eta: Array, log_decay: Array, memory: Layers,
    state: State | None, batch_size: int, norm: Norm | None,
) -> State:  # fmt: skip
    """The state to begin with, once gates are seen to be in their range and the memory to fit."""
    inner.within(f"{form}: theta", theta, 0, math.inf, "")
    inner.within(f"{form}: log_eta", log_eta, -math.inf, 0, "(η at most 1)")
    inner.within(f"{form}: log_decay", log_decay, -math.inf, 0, "(α at least 0)")
    inner.normed(form, "norm", norm, k, v)
    layers = inner.placed(f"{form}: memory", memory, k, v)
    if state is None:
        return State(layers, layers, inner.nothing(layers), batch_size)
    if not isinstance(state, State):
        came = type(state).__name__
        raise TypeError(f"{form}: state is of type {came}, expected State(start, memory, surprise, left)")
    left = inner.counted(f"{form}: state.left", state.left)
    start, M, S = (inner.placed(f"{form}: state.{x}", getattr(state, x), k, v) for x in State._fields[:3])
    return State(start, M, S, left)

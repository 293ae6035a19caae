"""Titans: a memory model trained token by token by gradient descent with momentum and weight decay.

    ℓₜ(M) = ½ ‖M(kₜ) − vₜ‖²                              the inner loss        Behrouz et al. 2025, eq. 12
    Sₜ    = ηₜ Sₜ₋₁ − θₜ ∇ℓₜ(M′)                         past and momentary surprise        eq. 10, 14
    Mₜ    = (1 − αₜ) Mₜ₋₁ + Sₜ                           decay and update      eq. 13
    oₜ    = Mₜ(qₜ)                                       the output            eq. 15

M′ is the memory before the batch (section 3.2: "mini-batch gradient descent"); with a batch of 1 it is Mₜ₋₁. Unrolled
in a batch that starts from M and S, with the lower triangular Γ[t, s] = Π (1 − α) and H[t, s] = Π η over s < r ≤ t:

    Mₜ = γₜ M + (Γ h)ₜ S − Σₛ (Γ H)[t, s] θₛ ∇ℓₛ(M′)      γ, h: products since the batch began
    Sₜ = hₜ S − Σₛ H[t, s] θₛ ∇ℓₛ(M′)

    q, k, v     query, key and value of a token, as rows.
    theta       θ ≥ 0, the inner rate, (*batch, T).
    log_eta     log η ≤ 0, the logarithm of the momentum coefficient, (*batch, T). −∞ resets the momentum.
    log_decay   log(1 − α) ≤ 0, the logarithm of the weight decay factor, (*batch, T). −∞ is α = 1: Mₜ = Sₜ.
    memory      M₀, as in `models.memory.inner`: one layer is a matrix, more are an MLP. The outer loss learns it.
    norm        γ and β of a layer norm around the memory: M(x) = x + LN(g(x)), with g its layers. The outer loss learns
                them too. Without a norm M = g.
    state       the memory before the current batch, M and S now, and how many tokens of the batch are left.

Choices where the paper says nothing: ½ of the squared error, so that θ is the β of the delta rule (the paper
prints no ½; titans-pytorch takes the mean over V, which is 2/V of ours). Forgetting comes after the gradient, which is
taken at the whole memory, and before the write, as eq. 13 and 14 read (lucidrains/titans-pytorch #6 asks). Reading
comes after the write, as everywhere here; eq. 15 has no index (#6 asks). Between layers is a GELU, theirs too, and
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
from gpu.inner_model import WeightLayout
from minigrad import namespace
from minigrad.engine import unwrap
from models.forms import Array, form
from models.kernels.dispatch import with_kernel
from models.mechanism import Domain, Layout, Mechanism
from models.memory import inner
from models.memory.inner import Layers, Norm, map_layers
from models.sequences import check_positive_int, segment_sums, tokens

T = Float[Array, "*batch T"]
TK = Float[Array, "*batch T K"]
TV = Float[Array, "*batch T V"]

MECHANISM = Mechanism(
    arguments={
        "q": Domain.ANY,
        "k": Domain.KEYS,
        "v": Domain.ANY,
        "theta": Domain.NONNEGATIVE,
        "log_eta": Domain.LOG_GATE,
        "log_decay": Domain.LOG_GATE,
        "memory": Domain.SMALL,
    },
    state=Domain.SMALL,
    rational=True,
    large_workspace=True,
    layouts={"matrix": Layout((("K V",),)), "mlp": Layout((("K D",), ("D V", "1 V")), rational=False)},
    blocks={
        "titans": "models.blocks.titans.TitansBlock",
        "titans_mac": "models.blocks.titans.TitansMACBlock",
        "titans_mag": "models.blocks.titans.TitansMAGBlock",
        "titans_mal": "models.blocks.titans.TitansMALBlock",
    },
)


class State(NamedTuple):
    """State within a batch: `start`, at which gradients are taken, M, the momentum S, and the number of tokens left."""

    start: Layers
    memory: Layers
    surprise: Layers
    left: int


@form
def recurrent(
    q: TK,
    k: TK,
    v: TV,
    theta: T,
    log_eta: T,
    log_decay: T,
    memory: Layers,
    *,
    state: State | None = None,
    batch_size: int = 16,
    norm: Norm | None = None,
) -> tuple[TV, State]:
    """Compute token after token, gradients by autodiff: O(T·K·V), with b copies of the memory for the gradients."""
    xp = inner.common_namespace(q, k, v, theta, log_eta, log_decay, memory, state, norm)
    arguments = q, k, v, theta, log_eta, log_decay, memory, state, batch_size, norm
    start, M, S, left = _prepare("titans.recurrent", *arguments)
    norm_of_copies = None if norm is None else tuple(x[..., None, :, :] for x in norm)
    y, first = [], 0
    for Q, K, V, *gates in inner.mini_batches(left, batch_size, q, k, v, *_columns(theta, log_eta, log_decay)):
        C = Q.shape[-2]
        copies = inner.broadcast_per_token(start, C)  # (*batch, C, K, V): one memory per token
        (_, losses), gradients = mg.value_and_grad(_loss, has_aux=True)(copies, norm_of_copies, K, V)
        inner.check_finite_loss("titans.recurrent", losses, first)
        for t, (q_t, theta_t, log_eta_t, log_decay_t) in enumerate(tokens(Q, *gates)):
            eta_t, decay_t = xp.exp(log_eta_t), xp.exp(log_decay_t)
            u_t = map_layers(lambda g, t=t: g[..., t, :, :], gradients)
            S = map_layers(lambda S, u, eta=eta_t, theta=theta_t: eta * S - theta * u, S, u_t)
            M = map_layers(lambda M, S, decay=decay_t: decay * M + S, M, S)
            y.append(inner.apply_model(M, norm, q_t))
        left, first = left - C, first + C
        if left == 0:
            start, left = M, batch_size
    return xp.concat(y, axis=-2), State(start, M, S, left)


@form
def chunkwise(
    q: TK,
    k: TK,
    v: TV,
    theta: T,
    log_eta: T,
    log_decay: T,
    memory: Layers,
    *,
    state: State | None = None,
    batch_size: int = 16,
    norm: Norm | None = None,
) -> tuple[TV, State]:
    """Compute a batch of b tokens at once in the dual form, inner gradients by hand: O(T·(b² + b·(K + V) + K·V))."""
    xp = inner.common_namespace(q, k, v, theta, log_eta, log_decay, memory, state, norm)
    arguments = q, k, v, theta, log_eta, log_decay, memory, state, batch_size, norm
    start, M, S, left = _prepare("titans.chunkwise", *arguments)
    gates, y, first = _columns(theta, log_eta, log_decay), [], 0
    for Q, K, V, rate, log_h, log_g in inner.mini_batches(left, batch_size, q, k, v, *gates):
        X, Z = inner.forward(start, K)
        error, grad_l_wrt_Z_last = inner.inner_loss_grad(norm, K, V, Z[-1])  # (C, V)
        inner.check_finite_loss("titans.chunkwise", xp.sum(unwrap(error) ** 2, axis=-1), first)
        grad_l_wrt_Z = inner.backward(start, Z, grad_l_wrt_Z_last)

        gamma, h = xp.exp(xp.cumulative_sum(log_g, axis=-2)), xp.exp(xp.cumulative_sum(log_h, axis=-2))  # (C, 1)
        Gamma, H = (xp.tril(xp.exp(segment_sums(x))[..., 0]) for x in (log_g, log_h))  # (C, C)
        mix, past = Gamma @ H * rate.mT, Gamma @ h  # (C, C): (Γ H)[t, s] θₛ; (C, 1): (Γ h)ₜ
        mix = xp.tril(mix)  # an infinite rate times 0 is NaN
        Z_bar = Q
        for i, layer in enumerate(start):
            X_bar = Z_bar if i == 0 else inner.gelu(Z_bar)
            Z_bar = gamma * inner.apply_layer(M[i], X_bar) + past * inner.apply_layer(S[i], X_bar)
            Z_bar = Z_bar - inner.dual_update(layer, X_bar, X[i], grad_l_wrt_Z[i], mix)
        y.append(inner.add_residual(norm, Q, Z_bar))

        # both sums of gradients at the end of the batch have the coefficients of its last token
        into_M, into_S = (
            inner.accumulated_update(start, X, grad_l_wrt_Z, P[..., -1:, :].mT) for P in (mix, H * rate.mT)
        )
        M = map_layers(lambda M, S, u, g=gamma, p=past: g[..., -1:, :] * M + p[..., -1:, :] * S - u, M, S, into_M)
        S = map_layers(lambda S, u, h=h: h[..., -1:, :] * S - u, S, into_S)
        left, first = left - Q.shape[-2], first + Q.shape[-2]
        if left == 0:
            start, left = M, batch_size
    return xp.concat(y, axis=-2), State(start, M, S, left)


@form(compiled=True)
def fused(
    q: TK,
    k: TK,
    v: TV,
    theta: T,
    log_eta: T,
    log_decay: T,
    memory: Layers,
    *,
    state: State | None = None,
    batch_size: int = 16,
    norm: Norm | None = None,
) -> tuple[TV, State]:
    """Compute `chunkwise` by a kernel with a hand-written backward pass, for NumPy's float32 and float64.

    It records no graph and saves one memory in 8; the backward pass recomputes the others.
    """
    initial = _prepare("titans.fused", q, k, v, theta, log_eta, log_decay, memory, state, batch_size, norm)
    layout = inner.layout_of(initial.start, norm)
    matrices = [inner.pack_layer(layer) for layers in initial[:3] for layer in layers]
    row = *v.shape[:-2], 1, v.shape[-1]
    gamma_beta = [] if norm is None else [namespace(v, x).broadcast_to(x, row) for x in norm]
    y, *matrices = _compiled(
        q,
        k,
        v,
        theta,
        log_eta,
        log_decay,
        *matrices,
        *gamma_beta,
        layout=layout,
        batch_size=batch_size,
        left=initial.left,
        on_losses=lambda losses: inner.check_finite_loss("titans.fused", losses, 0),
    )
    start, M, S = _unpack_models(matrices, layout)
    tokens_after = q.shape[-2] - initial.left  # after the initial state's batch is full
    left = -tokens_after if tokens_after < 0 else batch_size - tokens_after % batch_size
    return y, State(start, M, S, left)


def _in_batches(
    q: Array,
    k: Array,
    v: Array,
    theta: Array,
    log_eta: Array,
    log_decay: Array,
    *weights: Array,
    layout: WeightLayout,
    batch_size: int,
    left: int,
    on_losses: Callable[[Array], None],
) -> tuple[Array, ...]:
    matrices, norm = (weights[:-2], weights[-2:]) if layout.norm else (weights, None)
    start, M, S = _unpack_models(matrices, layout)
    state = State(start, M, S, left)
    y, state = chunkwise(q, k, v, theta, log_eta, log_decay, start, state=state, batch_size=batch_size, norm=norm)
    return (y, *(inner.pack_layer(layer) for layers in state[:3] for layer in layers))


_compiled = with_kernel("memory.titans", _in_batches)


def _unpack_models(matrices: Sequence[Array], layout: WeightLayout) -> list[Layers]:
    """Return start, M and S from a matrix for each of their layers."""
    return [inner.unpack_model(matrices[i * layout.depth :][: layout.depth], layout) for i in range(3)]


def _loss(memory: Layers, norm: Norm | None, k: Array, v: Array) -> tuple[Array, Array]:
    """Return Σ ℓ and each ℓ, (*batch, b), for keys and values (*batch, b, ·), each with a memory of its own."""
    error = inner.apply_model(memory, norm, k[..., None, :]) - v[..., None, :]
    losses = mg.sum(error * error, axis=(-2, -1)) / 2
    return mg.sum(losses), losses


def _columns(*gates: Array) -> tuple[Array, ...]:
    """Return gates (*batch, T) as columns (*batch, T, 1)."""
    return tuple(gate[..., None] for gate in gates)


def _prepare(
    form: str,
    q: Array,
    k: Array,
    v: Array,
    theta: Array,
    log_eta: Array,
    log_decay: Array,
    memory: Layers,
    state: State | None,
    batch_size: int,
    norm: Norm | None,
) -> State:
    """Check gates, memory and state, and return the initial state."""
    inner.check_gate_range(f"{form}: theta", theta, 0, math.inf, "")
    inner.check_gate_range(f"{form}: log_eta", log_eta, -math.inf, 0, "(η at most 1)")
    inner.check_gate_range(f"{form}: log_decay", log_decay, -math.inf, 0, "(α at least 0)")
    inner.validate_norm(form, "norm", norm, k, v)
    layers = inner.validate_layers(f"{form}: memory", memory, k, v)
    if state is None:
        return State(layers, layers, inner.zeros_like(layers), batch_size)
    if not isinstance(state, State):
        came = type(state).__name__
        raise TypeError(f"{form}: state is of type {came}, expected State(start, memory, surprise, left)")
    left = check_positive_int(f"{form}: state.left", state.left)
    start, M, S = (inner.validate_layers(f"{form}: state.{x}", getattr(state, x), k, v) for x in State._fields[:3])
    return State(start, M, S, left)

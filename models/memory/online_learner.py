"""Recurrent mechanisms as one online learner: a choice of memory, loss, optimiser and mini-batch size.

    ∇ₜ      = ∂/∂W ℓ(W(kₜ), vₜ) at W = link(M′)        the gradient, by `grad`, at the optimiser's M′
    Mₜ, Sₜ  = optimiser(Mₜ₋₁, Sₜ₋₁, ∇ₜ, gatesₜ)        the update
    oₜ      = link(Mₜ)(qₜ)                             the output

Sun et al. 2024 (section 2.6) name model and optimiser, with mini-batches, Titans adds momentum and decay, and MIRAS
(Behrouz et al. 2025b) makes the choices a table: its attentional bias is the loss here, its retention gate a part of
the optimiser. A retention other than ℓ₂ keeps sums of gradients M and reads them through a link, as mirror descent
does; where nothing is said of a link, W is M.
`POINTS` has the mechanisms that are points of this space; `proofs.identities.online_learner` and
`proofs.identities.online_learner_map` show for each that `run` computes it. `NO_POINTS` has those that are none, with
the reason and the statement that shows it. `python -m models map` prints both.

State spaces have a memory for each channel, with q = C, k = B̄ᴴ and v = u: the write is linear attention's. The map
from the old memory to what is kept of it is diagonal in S4D and Mamba, where it is a decay, complex in S4D, and a
matrix Ā in LTI, LSSL and S4. It is part of the optimiser, and no step on a loss unless Ā is Hermitian, as S4D's complex
decay is not.
Means are memories of the key 1: softmax attention has one a query, RWKV-4 one a channel.

    memory     layers, as `models.memory.inner` has them: a matrix or an MLP.
    gates      by name, (*batch, T) or, for a matrix, (*batch, T, K): `rate` θ, and `log_keep` and `log_momentum` where
               the optimiser has them; `transition` Ā is (*batch, T, K, K).
    batch      gradients of that many tokens are taken at the memory before the first of them.
    norm       γ and β of a layer norm on what the memory gives, to which its input is added; not trained inside.

It runs token by token, with gradients by autodiff: a reference to read; to compute, use the mechanisms' modules. State
and output are those of the mechanisms, but for a state space's skip D u and the real part, twice it in S4D, and for
RWKV-4, whose output is read after a write with u in place of w. Raises KeyError for a gate that is missing, with the
gate's name, and ValueError for a loss or an optimiser that there is not, a batch below 1, or sizes that do not fit.

Deviations: Longhorn is the closed form of its objective; the released model takes the diagonal approximation 1 − Δk⊙²
with a Δ for each channel. MIRAS' points have batches of 1 (paper: 16 and 64), and Yaad one threshold for all channels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import minigrad as mg
from minigrad import namespace
from models.errors import known_name
from models.forms import Array
from models.memory import inner
from models.memory.inner import Layers, Norm, apply_model, map_layers
from models.sequences import check_positive_int, tokens

Gates: TypeAlias = Mapping[str, Array]  # of one token, (*batch, 1, 1), (*batch, K, 1) or (*batch, K, K)
Step: TypeAlias = Callable[[Layers, Layers, Layers, Gates], tuple[Layers, Layers]]


# Losses ℓ(M(k), v), summed over the batch


def dot(answer: Array, v: Array) -> Array:
    """Return −⟨M(k), v⟩, of a complex memory its real part."""
    return -mg.sum(mg.real(answer) * v)


def square(answer: Array, v: Array) -> Array:
    """Return ½ ‖M(k) − v‖²."""
    return mg.sum((answer - v) ** 2) / 2


def huber(answer: Array, v: Array) -> Array:
    """Return ½ ‖e‖² for an error of norm at most 1, else Σ |e|, whose gradient in every feature is at most 1.

    Of the three ways that MIRAS has to take Huber's loss (eq. 14–16) this is the one of Yaad, with its threshold at 1.
    """
    error = answer - v
    near = namespace(error).sum(error * error, axis=-1, keepdims=True) <= 1
    return mg.sum(mg.where(near, error * error, 2 * mg.abs(error))) / 2


def cube(answer: Array, v: Array) -> Array:
    """Return Σ |M(k) − v|³, the ℓₚ loss with the p = 3 of Moneta's experiments."""
    return mg.sum(mg.abs(answer - v) ** 3)


# Links: the weights W = link(M) that are read


def itself(M: Array) -> Array:
    """Return M."""
    return M


def normalised(M: Array) -> Array:
    """Return M / ‖M‖_q^(q − 2) with the q = 4 of Moneta's experiments, for M ≠ 0."""
    return M / namespace(M).sqrt(mg.sum(M**4, axis=(-2, -1), keepdims=True))


def shares(M: Array) -> Array:
    """Return the softmax of every column of M: weights are positive, and those of an output feature sum to one."""
    return mg.softmax(M, axis=-2)


# Optimisers


@dataclass(frozen=True)
class Optimiser:
    """An update rule: the step, whether its gradient is taken at the decayed memory, and the link."""

    step: Step
    gradient_at_decayed: bool = False
    implicit: bool = False
    link: Callable[[Array], Array] = itself


def descent(M: Layers, S: Layers, gradient: Layers, gates: Gates) -> tuple[Layers, Layers]:
    """Return M − θ ∇."""
    return map_layers(lambda M, g: M - gates["rate"] * g, M, gradient), S


def decay(M: Layers, S: Layers, gradient: Layers, gates: Gates) -> tuple[Layers, Layers]:
    """Return (1 − α) M − θ ∇."""
    return descent(map_layers(lambda M: gates["keep"] * M, M), S, gradient, gates)


def transition(M: Layers, S: Layers, gradient: Layers, gates: Gates) -> tuple[Layers, Layers]:
    """Return Ā M − θ ∇."""
    return descent(map_layers(lambda M: gates["transition"] @ M, M), S, gradient, gates)


def momentum(M: Layers, S: Layers, gradient: Layers, gates: Gates) -> tuple[Layers, Layers]:
    """Return ((1 − α) M + S, S) with S ← η S − θ ∇."""
    S = map_layers(lambda S, g: gates["momentum"] * S - gates["rate"] * g, S, gradient)
    return map_layers(lambda M, S: gates["keep"] * M + S, M, S), S


OPTIMISERS = {
    "descent": Optimiser(descent),
    "descent, implicit": Optimiser(descent, implicit=True),
    "descent + decay": Optimiser(decay),
    "decay, then descent": Optimiser(decay, gradient_at_decayed=True),
    "descent + transition": Optimiser(transition),
    "momentum + decay": Optimiser(momentum),
    "descent + decay, ℓ₄": Optimiser(decay, link=normalised),
    "descent + decay, KL": Optimiser(decay, link=shares),
}
LOSSES = {"dot product": dot, "½ L2": square, "Huber": huber, "ℓ₃": cube}


def run(
    q: Array,
    k: Array,
    v: Array,
    gates: Mapping[str, Array],
    memory: Layers,
    *,
    loss: str,
    optimiser: str,
    batch: int = 1,
    norm: Norm | None = None,
) -> tuple[Array, Layers]:
    """Train the memory on a sequence, token by token; return (y, final memory), y (*batch, T, V)."""
    method = OPTIMISERS[known_name(optimiser, "online_learner.run: optimiser", OPTIMISERS)]
    objective = LOSSES[known_name(loss, "online_learner.run: loss", LOSSES)]
    check_positive_int("online_learner.run: batch", batch)
    for name, x in {"k": k, "v": v, **gates}.items():
        if x.shape[: q.ndim - 1] != q.shape[:-1]:
            actual = f"online_learner.run: {name} has shape {tuple(x.shape)}"
            raise ValueError(f"{actual}, expected one that begins with {tuple(q.shape[:-1])} as that of q does")
    M = inner.validate_layers("online_learner: memory", memory, k, v)
    S, start, link, y = inner.zeros_like(M), M, method.link, []
    for t, (q_t, k_t, v_t) in enumerate(tokens(q, k, v)):
        now = _gates_at(gates, t, k_t, method.implicit)
        start = M if t % batch == 0 else start
        at = map_layers(lambda W, now=now: now["keep"] * W, start) if method.gradient_at_decayed else start
        loss_grad = mg.grad(lambda W, k_t=k_t, v_t=v_t: objective(apply_model(W, norm, k_t), v_t))
        gradient = loss_grad(map_layers(link, at))
        M, S = method.step(M, S, gradient, now)
        y.append(apply_model(map_layers(link, M), norm, q_t))
    return namespace(*y).concat(y, axis=-2), M


def _gates_at(gates: Mapping[str, Array], t: int, k_t: Array, implicit: bool) -> dict[str, Array]:
    """Return the gates of a token, (*batch, 1, 1), (*batch, K, 1) or (*batch, K, K), with log gates exponentiated.

    The implicit step M − θ ∇ℓ(M_new) on ½ ‖k M − v‖² is the explicit one with the rate θ / (1 + θ ‖k‖²).
    """
    rank, now = len(k_t.shape) - 1, {}
    for name, gate in gates.items():
        axes = len(gate.shape) - rank  # after time
        row = gate[(..., t, *[slice(None)] * axes)]
        row = namespace(row).exp(row) if name.startswith("log_") else row
        now[name.removeprefix("log_")] = row[(..., *[None] * (2 - axes))]
    if implicit:
        length = namespace(k_t).sum(k_t * k_t, axis=-1)[..., None]
        now["rate"] = now["rate"] / (1 + now["rate"] * length)
    return now


@dataclass(frozen=True)
class Point:
    """The choices that define a mechanism."""

    memory: str
    loss: str
    optimiser: str
    batch: str
    source: str  # a key of models/references.bib
    gates: str = "a token"  # granularity of the gates: none, per token, per key channel


@dataclass(frozen=True)
class NoPoint:
    """The reason for which a mechanism is no point of the map, and the statement that shows it."""

    reason: str
    statement: str  # of `proofs`, which refutes that it is one
    source: str  # a key of models/references.bib


POINTS = {
    "linear attention": Point("matrix", "dot product", "descent", "1", "katharopoulos2020", "none: θ = 1"),
    "RetNet": Point("matrix", "dot product", "descent + decay", "1", "sun2023retnet", "none: θ = 1, α fixed"),
    "Mamba (S6)": Point("matrix, V = 1", "dot product", "descent + decay", "1", "gu2023mamba", "a key channel"),
    "Mamba-2 (SSD)": Point("matrix", "dot product", "descent + decay", "1", "dao2024mamba2"),
    "GLA": Point("matrix", "dot product", "descent + decay", "1", "yang2024gla", "a key channel"),
    "S4D": Point("matrix, V = 1", "dot product", "descent + decay", "1", "gu2022s4d", "none: θ = 1, α fixed"),
    "S4": Point("matrix, V = 1", "dot product", "descent + transition", "1", "gu2022s4", "none: θ = 1, Ā fixed"),
    "LSSL": Point("matrix, V = 1", "dot product", "descent + transition", "1", "gu2021lssl", "none: θ = 1, Ā fixed"),
    "LTI": Point("matrix, V = 1", "dot product", "descent + transition", "1", "gu2022s4", "none: θ = 1, Ā fixed"),
    "delta rule": Point("matrix", "½ L2", "descent", "1", "schlag2021"),
    "Longhorn": Point("matrix", "½ L2", "descent, implicit", "1", "liu2024longhorn"),
    "gated delta rule": Point("matrix", "½ L2", "decay, then descent", "1", "yang2025gated"),
    "RWKV-4": Point("mean, a channel", "½ L2", "descent", "1", "peng2023rwkv", "a token: its share"),
    "RWKV-7": Point("matrix", "½ L2", "descent + decay", "1", "peng2025rwkv7", "a key channel"),
    "TTT-Linear": Point("matrix, norm", "½ L2", "descent", "b", "sun2024ttt"),
    "TTT-MLP": Point("MLP, norm", "½ L2", "descent", "b", "sun2024ttt"),
    "Titans": Point("matrix or MLP", "½ L2", "momentum + decay", "b", "behrouz2025titans"),
    "Moneta (MIRAS)": Point("MLP, norm", "ℓ₃", "descent + decay, ℓ₄", "1", "behrouz2025miras"),
    "Yaad (MIRAS)": Point("MLP, norm", "Huber", "descent + decay", "1", "behrouz2025miras"),
    "Memora (MIRAS)": Point("MLP, norm", "½ L2", "descent + decay, KL", "1", "behrouz2025miras"),
    "softmax attention": Point("mean, a query", "½ L2", "descent", "T", "nadaraya1964", "a token: its share"),
}
NO_POINTS = {
    "RNN": NoPoint(
        "its step is neither a descent, whose Jacobian is symmetric as diag(1 − h²) W is not, nor linear in the state",
        "online_learner_map.units_step_by_descent",
        "elman1990",
    ),
    "LSTM": NoPoint(
        "its gates read the state: only without recurrent weights is the cell a memory with decay and a write",
        "online_learner_map.gates_that_read_the_state",
        "hochreiter1997",
    ),
}

"""The rest of the online learner's map: state spaces, means such as softmax attention, and what is no point of it."""

from __future__ import annotations

import math
from typing import Annotated, Any

from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.attention import softmax
from models.recurrent import lstm, rnn, rwkv4
from models.ssm import discretize, lssl, lti, s4, s4d, selective_scan
from proofs.checker.statements import FLOATS, identity, refuted
from proofs.checker.strategies import BETAS, LARGE, SMALL, Keys, State, Strategy, Values, elements
from proofs.identities import lti as systems
from proofs.identities import recurrent, selective
from proofs.identities import s4 as conjugates
from proofs.identities.online_learner import run_point
from proofs.identities.s4 import both_halves

CHAPTER = 10

FEW = {"T": st.integers(1, 4)}
Starts = Annotated[Any, Strategy("*batch T V", LARGE)]
Exponents = Annotated[Any, Strategy("*batch T D", SMALL, sizes=FEW)]
Means = Annotated[Any, Strategy("*batch T D", LARGE, sizes=FEW)]
Mean = Annotated[Any, Strategy("*batch D", LARGE)]
Rates = Annotated[Any, Strategy("D", BETAS)]
Bonus = Annotated[Any, Strategy("D", SMALL)]
Kept = Annotated[Any, Strategy("K K", SMALL)]
Unit = Annotated[Any, Strategy("*batch 1", LARGE)]
Nonzero = Annotated[Any, Strategy("1 1", elements(1, -1, "1/2", "-2/3", 2))]
TwoUnits = Annotated[Any, Strategy("2", SMALL)]
TwoByTwo = Annotated[Any, Strategy("2 2", SMALL)]


# State spaces: a memory a channel


def run_system(name: str, u: Any, B: Any, C: Any, state: Any, **gates: Any) -> tuple[Any, Any]:
    """Run a point with q = C, k = B̄ᴴ and v = u in each channel: y (*batch, T, D) and the memory (*batch, D, N).

    B̄, C (D, N) and gates (D, N) or (D, N, N) are those of every token.
    """
    xp, v = namespace(u, B, C, *gates.values()), u.mT[..., None]
    q, k = (at_every_token(x, v) for x in (C, xp.conj(B)))
    gates = {gate: at_every_token(x, v) for gate, x in gates.items()}
    y, M = run_point(name, q, k, v, state[..., None], rate=0 * v[..., 0] + 1, **gates)
    return y[..., 0].mT, M[..., 0]


def at_every_token(x: Any, v: Any) -> Any:
    """Return x (D, …) with the axes (*batch, D, T, …) of v (*batch, D, T, 1)."""
    return namespace(x).broadcast_to(x[:, None], (*v.shape[:-1], *x.shape[1:]))


@identity(
    "Matrix, dot product, descent and a transition, q = C, k = B̄, v = u: the linear time-invariant system",
    source="gu2022s4, eq. 3",
    exact=True,
)
def is_lti(u: systems.Inputs, A: systems.System, B: systems.Enter, C: systems.Leave, state: systems.Start):
    A_each, B_each, C_each = (namespace(x).stack([x] * u.shape[-1], axis=0) for x in (A, B, C))
    return run_system("LTI", u, B_each, C_each, state, transition=A_each), lti.recurrent(u, A, B, C, state=state)


@identity(
    "The time-invariant system of the bilinear rule, with a step for each channel: LSSL",
    source="gu2021lssl, eq. 4–5",
    exact=True,
)
def is_lssl(
    u: systems.Inputs,
    A: systems.Stable,
    B: systems.Enter,
    C: systems.LeaveEach,
    D: systems.Skip,
    delta: systems.Steps,
    state: systems.Start,
):
    A_bar, B_bar = discretize.bilinear(A, B, delta[:, None, None])
    y, h = run_system("LSSL", u, B_bar, C, state, transition=A_bar)
    return (y + D * u, h), lssl.recurrent(u, A, B, C, D, delta, state=state)


@identity("The time-invariant system of A = Λ − PPᴴ: S4", source="gu2022s4, eq. 3 and theorem 1", only=FLOATS)
def is_s4(
    u: conjugates.Inputs,
    Lambda: conjugates.Eigenvalues,
    P: conjugates.Low,
    B: conjugates.Enter,
    C: conjugates.Leave,
    D: conjugates.Skip,
    delta: conjugates.Steps,
    state: conjugates.Start,
):
    xp, (full, low, enter, leave) = namespace(Lambda, P), map(both_halves, (Lambda, P, B, C))
    A = full[..., None] * xp.eye(full.shape[-1], dtype=full.dtype) - low[..., :, None] * xp.conj(low)[..., None, :]
    each = [discretize.bilinear(A[i], enter[i], delta[i]) for i in range(delta.shape[0])]
    A_bar, B_bar = (xp.stack(part, axis=0) for part in zip(*each, strict=True))
    y, h = run_system("S4", u, B_bar, leave, both_halves(state), transition=A_bar)
    expected, final = s4.recurrent(u, Lambda, P, B, C, D, delta, state=state)
    return (xp.real(y) + D * u, h), (expected, both_halves(final))


@identity("Matrix, dot product, a complex decay: S4D, which is diagonal", source="gu2022s4d, section 3", only=FLOATS)
def is_s4d(
    u: conjugates.Inputs,
    Lambda: conjugates.Eigenvalues,
    B: conjugates.Enter,
    C: conjugates.Leave,
    D: conjugates.Skip,
    delta: conjugates.Steps,
    state: conjugates.Start,
):
    _, B_bar = discretize.zoh(Lambda, B, delta[:, None])
    y, h = run_system("S4D", u, B_bar, C, state, log_keep=delta[:, None] * Lambda)
    return (2 * namespace(y).real(y) + D * u, h), s4d.recurrent(u, Lambda, B, C, D, delta, state=state)


@identity(
    "A real diagonal transition, and B, C and Δ of the token: Mamba's selective scan, with k = B, v = Δu, log α = ΔA",
    source="gu2023mamba, eq. 2; talk-titans, 1:21:15",
)
def is_mamba(
    u: selective.Inputs,
    delta: selective.Steps,
    A: selective.Rates,
    B: selective.Enter,
    C: selective.Leave,
    D: selective.Skip,
    state: selective.Start,
):
    xp, v = namespace(u, delta, A, B, C), (delta * u).mT[..., None]
    q, k = (xp.broadcast_to(x[..., None, :, :], (*v.shape[:-1], A.shape[-1])) for x in (C, B))
    log_keep = delta.mT[..., None] * A[:, None]
    y, M = run_point("Mamba (S6)", q, k, v, state[..., None], rate=0 * v[..., 0] + 1, log_keep=log_keep)
    return (y[..., 0].mT + D * u, M[..., 0]), selective_scan.recurrent(u, delta, A, B, C, D, state=state)


@identity(
    "A symmetric transition is a step of descent too, at rate 1 on ½⟨M, (I − Ā)M⟩",
    source="minigrad, Ā = I − ∇²ℓ; behrouz2025miras, section 3, on retention",
    exact=True,
)
def symmetric_transition_is_descent(A: Kept, state: State):
    return descent_to(A + A.mT, state), (A + A.mT) @ state


@refuted(
    "So is any transition (the Jacobian of a step of descent, I − ∇²ℓ, is symmetric; S4's and LSSL's Ā is not)",
    source="minigrad, second derivatives commute",
    exact=True,
    instead="online_learner_map.symmetric_transition_is_descent",
)
def transition_is_descent(A: Kept, state: State):
    return descent_to(A, state), A @ state


def descent_to(A: Any, M: Any) -> Any:
    """Return M − ∇ℓ of ℓ = ½⟨M, (I − A)M⟩."""
    return M - mg.grad(lambda M: mg.sum(M * (M - A @ M)) / 2)(M)


# Means: memories of the key 1


@identity(
    "A mean a query, ½ L2, one batch of T at rates softmax(qkᵀ/√K): softmax attention, whatever the first memory",
    source="sun2024ttt, theorem 2; nadaraya1964",
)
def is_softmax_attention(q: Keys, k: Keys, v: Values, start: Starts):
    xp, T = namespace(q), q.shape[-2]
    weight = xp.tril(xp.exp(q @ k.mT / math.sqrt(q.shape[-1])))
    rate = weight / xp.sum(weight, axis=-1, keepdims=True)  # (*batch, queries, T)
    keys = 0 * rate[..., None] + 1
    values = xp.broadcast_to(v[..., None, :, :], (*v.shape[:-2], T, *v.shape[-2:]))
    y, mean = run_point("softmax attention", keys, keys, values, start[..., None, :], T, rate=rate)
    attended = softmax.quadratic(q, k, v)[0]
    return (y[..., -1, :], mean[..., 0, :]), (attended, attended)


@identity(
    "Softmax attention is one Newton step from ŷ = 0, to the minimum of Σₛ ½ exp(q·kₛ/√K) ‖ŷ − vₛ‖² over pairs s ≤ t",
    source="sun2024ttt, theorem 2",
)
def softmax_attention_is_a_newton_step(q: Keys, k: Keys, v: Values):
    xp = namespace(q)
    weight = xp.tril(xp.exp(q @ k.mT / math.sqrt(q.shape[-1])))

    def loss(answer: Any) -> Any:  # Σ weight ½ ‖answer of the query − value‖²
        return mg.sum(weight * mg.sum((answer[..., :, None, :] - v[..., None, :, :]) ** 2, axis=-1)) / 2

    curvature = xp.sum(weight, axis=-1, keepdims=True)
    return -mg.grad(loss)(xp.zeros_like(v)) / curvature, softmax.quadratic(q, k, v)[0]


@identity(
    "A mean a channel, ½ L2, token by token at rates e^k / Σ e^k, decayed: RWKV-4, which reads what a write with u in "
    "place of w would leave",
    source="peng2023rwkv, eq. 16 and appendix D; talk-titans, 1:21:15",
)
def is_rwkv4(k: Exponents, v: Means, w: Rates, u: Bonus, mean: Mean, lse: Mean):
    xp, after = namespace(k, v, w, u, mean, lse), lse
    shares: dict[str, list[Any]] = {"write": [], "read": []}
    for t in range(k.shape[-2]):
        shares["read"].append(1 / (1 + xp.exp(after - u - k[..., t, :])))
        shares["write"].append(1 / (1 + xp.exp(after - w - k[..., t, :])))
        after = k[..., t, :] - xp.log(shares["write"][-1])
    write, read = (xp.stack(share, axis=-1) for share in shares.values())  # (*batch, D, T)
    values, keys = v.mT[..., None], 0 * write[..., None] + 1
    means, last = run_point("RWKV-4", keys, keys, values, mean[..., None, None], rate=write)
    before = xp.concat([mean[..., None], means[..., :-1, 0]], axis=-1)[..., None, None]  # a memory a token
    one = keys[..., None, :]
    wkv, _ = run_point("RWKV-4", one, one, values[..., None, :], before, rate=read[..., None])
    result = wkv[..., 0, 0].mT, (last[..., 0, 0], after)
    return result, rwkv4.recurrent(k, v, w, u, state=(mean, lse))


# What is no point


@identity(
    "A recurrent network of one unit is descent at rate 1 on ½h² − log cosh(wh + x)/w",
    source="elman1990; minigrad, by differentiation",
)
def unit_steps_by_descent(x: Unit, W: Nonzero, h: Unit):
    def loss(h: Any) -> Any:
        z = h @ W + x
        log_cosh = mg.log(mg.exp(z) + mg.exp(-z)) - math.log(2)
        return mg.sum(h * h / 2 - log_cosh / W[0, 0])

    return h - mg.grad(loss)(h), rnn.recurrent(x[..., None, :], W, state=h)[1]


@refuted(
    "So is one of two units, whose Jacobian ∂h/∂h = diag(1 − h²) W then is symmetric (as that of any step of descent)",
    source="elman1990; minigrad, second derivatives commute",
    instead="online_learner_map.unit_steps_by_descent",
)
def units_step_by_descent(x: TwoUnits, W: TwoByTwo, h: TwoUnits):
    def unit_of(i: int, h: Any) -> Any:
        return rnn.recurrent(x[None, :], W, state=h)[1][i]

    jacobian = namespace(h).stack([mg.grad(lambda h, i=i: unit_of(i, h))(h) for i in range(2)], axis=0)
    return jacobian, jacobian.mT


@identity(
    "Without recurrent weights the cell of an LSTM is such a memory, with a decay a key channel: log keep = log σ(aᶠ), "
    "k = i ∘ g, v = 1",
    source="gers2000, section 3",
)
def cell_without_recurrent_weights(
    x: recurrent.Tokens, W: recurrent.InputWeights, U: recurrent.RecurrentWeights, b: recurrent.Bias, c: recurrent.Cell
):
    i, f, g, _ = recurrent.gates(x, W, b)
    k, log_keep = mg.sigmoid(i) * mg.tanh(g), mg.log_sigmoid(f)
    v = 0 * k[..., :1] + 1
    _, memory = run_point("GLA", k, k, v, c[..., None], rate=v[..., 0], log_keep=log_keep)
    return memory[..., 0], lstm.recurrent(x, W, 0 * U, b, state=(0 * c, c))[1][1]


@refuted(
    "With recurrent weights its gates are known from the tokens too (they read h, which holds the cell)",
    source="hochreiter1997, section 4; gers2000, section 3",
    instead="online_learner_map.cell_without_recurrent_weights",
)
def gates_that_read_the_state(
    x: recurrent.Tokens, W: recurrent.InputWeights, U: recurrent.RecurrentWeights, b: recurrent.Bias, c: recurrent.Cell
):
    h = mg.tanh(c)
    _, f, _, _ = recurrent.gates(x[..., :1, :], W, b)
    return mg.sigmoid(f[..., 0, :]), mg.grad(
        lambda c: mg.sum(lstm.recurrent(x[..., :1, :], W, U, b, state=(h, c))[1][1])
    )(c)

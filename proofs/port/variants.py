"""Variants of forms that make one mistake each, written out token by token.

`VARIANTS` is the data: for each mistake, the mechanisms that it is made in, and a function (form, tokens, state, chunk)
that returns y and the arrays of the state. Tokens are the arguments of the form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minigrad as mg
from minigrad import namespace
from models.sequences import decay_rows, initial_memory, tokens
from models.ssm import discretize
from proofs.checker.forms import Form
from proofs.port import learners
from proofs.port.learners import Tokens, Variant
from proofs.port.reference import leaves

LINEAR = ("memory.linear_attention",)
GATED = ("memory.gated_linear_attention", "memory.gated_delta_rule")
DELTA = ("memory.delta_rule", "memory.gated_delta_rule")
MEMORIES = (*LINEAR, "memory.gated_linear_attention", *DELTA)
SCANS = ("ssm.selective_scan", "ssm.ssd")
SYSTEMS = ("ssm.s4", "ssm.s4d")
LEARNERS = ("memory.titans", "memory.ttt")

ORDER = ("decay", "predict", "write", "read")


def memory(
    *order: str,
    update: Callable[[Any, Any, Any], Any] = lambda beta, v, p: beta * (v - p),
    decay: Callable[[Any], Any] = mg.exp,
    denominator: bool = False,
) -> Variant:
    """Return the recurrence of a matrix memory whose steps are in this order; `update(β, v, k S)` is written."""

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        q, k, v = x["q"], x["k"], x["v"]
        xp, S, y = namespace(q, k, v), initial_memory(state, k, v), []
        gates = [decay_rows(x["log_decay"], k)] if "log_decay" in x else []
        rates = [x["beta"][..., None]] if "beta" in x else []
        z = k[..., :1, :] * 0
        for q_t, k_t, v_t, *rest in tokens(q, k, v, *gates, *rates):
            z = z + k_t
            p, u = v_t * 0, v_t
            for step in order or ORDER:
                if step == "decay" and gates:
                    S = decay(rest[0]).mT * S
                elif step == "predict" and rates:
                    p = k_t @ S
                elif step == "write":
                    u = update(rest[-1], v_t, p) if rates else v_t
                    S = S + k_t.mT @ u
                elif step == "read":
                    o = q_t @ S
                    y.append(o / xp.sum(q_t * z, axis=-1, keepdims=True) if denominator else o)
        return [xp.concat(y, axis=-2), S]

    return variant


def masks(*, own: bool = False, following: bool = False) -> Variant:
    """Return a chunkwise memory whose tokens predict with their own write too, or read that of the next token too."""

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        q, k, v = x["q"], x["k"], x["v"]
        xp, S = namespace(q, k, v), initial_memory(state, k, v)
        y: list[Any] = []
        gates = decay_rows(x["log_decay"], k) if "log_decay" in x else q[..., :1] * 0
        rates = x["beta"][..., None] if "beta" in x else q[..., :1] * 0
        for t, (q_t, k_t, v_t, g_t, beta_t) in enumerate(tokens(q, k, v, gates, rates)):
            S = xp.exp(g_t).mT * S
            u = beta_t * (v_t - k_t @ S) if "beta" in x else v_t
            u = u / (1 + beta_t * (k_t @ k_t.mT)) if own else u
            S = S + k_t.mT @ u
            if following and t % chunk:  # the token before is of the same chunk
                y[-1] = y[-1] + (q[..., t - 1 : t, :] @ k_t.mT) @ u
            y.append(q_t @ S)
        return [xp.concat(y, axis=-2), S]

    return variant


def softmax(
    offset: int = 0, axis: int = -1, *, causal: bool = True, ignore_past: bool = False, normalise: bool = True
) -> Variant:
    """Return softmax attention with a mask that is `offset` off, or that takes the queries for the first ones."""

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        q, k, v = x["q"], x["k"], x["v"]
        xp = namespace(q, k, v)
        if state is not None:
            k, v = xp.concat([state[0], k], axis=-2), xp.concat([state[1], v], axis=-2)
        T, past = q.shape[-2], k.shape[-2] - q.shape[-2]
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        visible = None
        if causal:
            ones = mg.ones((T, k.shape[-2]), dtype=bool)
            visible = mg.tril(ones, k=offset + (0 if ignore_past else past))
        if normalise:
            weights = mg.softmax(scores, axis=axis, where=visible)
        else:
            weights = xp.exp(scores) if visible is None else xp.where(visible, xp.exp(scores), 0)
        return [weights @ v, k, v]

    return variant


def scan(drive: str = "ΔBu", *, read_first: bool = False, sign: float = 1.0) -> Variant:
    """Return the selective scan, or SSD, with another drive: "ΔBu", "Bu" or zero-order hold's, "zoh"."""

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        heads = "x" in x  # SSD: the state is N × P, A a number
        u = x["x"] if heads else x["u"]
        delta = x["delta"][..., None] if heads else x["delta"]
        A, B, C = x["A"], x["B"], x["C"]
        xp, y = namespace(u, delta, A, B, C), []
        h = state if state is not None else (u[..., 0, :, None] * B[..., 0, None, :]) * 0
        h = h.mT if heads and state is not None else h  # (D or P, N)
        for u_t, delta_t, B_t, C_t in tokens(u, delta, B, C):
            rate = sign * delta_t.mT * A  # (D, N), or (1, 1)
            weight = {"ΔBu": delta_t.mT, "Bu": delta_t.mT * 0 + 1, "zoh": (xp.exp(rate) - 1) / A}[drive]
            read = h
            h = xp.exp(rate) * h + weight * (u_t.mT @ B_t)
            y.append(C_t @ (read if read_first else h).mT)
        out = xp.concat(y, axis=-2)
        if "D" in x:
            out = out + x["D"] * u
        return [out, h.mT if heads else h]

    return variant


def diagonal(rule: str) -> Variant:
    """Return S4D by a rule of discretisation."""

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        A, B = discretize.METHODS[rule](x["Lambda"], x["B"], x["delta"][..., None])
        u, xp, y = x["u"], namespace(x["u"], A, B), []
        h = state if state is not None else (u[..., 0, :, None] * B) * 0
        for (u_t,) in tokens(u):
            h = A * h + B * u_t.mT
            y.append(mg.sum(x["C"] * h, axis=-1))
        return [2 * mg.real(xp.stack(y, axis=-2)) + x["D"] * u, h]

    return variant


def half_of_the_pairs(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
    """Return a system whose output lacks the conjugate of each pair."""
    y, h = form(x, state, chunk)
    return [(y + x["D"] * x["u"]) / 2, h]


def with_argument(name: str, change: Callable[[Any], Any]) -> Variant:
    """Return the form with an argument changed."""

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        y, after = form({**x, name: change(x[name])}, state, chunk)
        return [y, *leaves(after)]

    return variant


def rwkv7(*order: str, sign: float = 1.0) -> Variant:
    """Return RWKV-7's memory with its steps in this order: "ask" reads z = a S."""

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        r, k, v, a, b = (x[name] for name in "rkvab")
        xp, S, y = namespace(r, k, v), initial_memory(state, k, v), []
        for r_t, k_t, v_t, a_t, b_t, g_t in tokens(r, k, v, a, b, x["log_decay"]):
            for step in order:
                if step == "ask":
                    z = a_t @ S
                elif step == "decay":
                    S = xp.exp(g_t).mT * S
                elif step == "write":
                    S = S + sign * (b_t.mT @ z) + k_t.mT @ v_t
                elif step == "read":
                    y.append(r_t @ S)
        return [xp.concat(y, axis=-2), S]

    return variant


def gate_order(order: tuple[int, int, int, int]) -> Variant:
    """Return the LSTM with its gates in another order than i, f, g, o."""

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        H = x["b"].shape[0] // 4
        changed = {name: mg.concat([x[name][i * H : (i + 1) * H] for i in order], axis=0) for name in "WUb"}
        y, (h, c) = form({**x, **changed}, state, chunk)
        return [y, h, c]

    return variant


VARIANTS: dict[str, tuple[tuple[str, ...], Variant]] = {
    # matrix memories
    "decay after the write, before it is right": (GATED, memory("predict", "write", "decay", "read")),
    "decay after the read, at the end of a token": (GATED, memory("predict", "write", "read", "decay")),
    "read before the write": (MEMORIES, memory("decay", "predict", "read", "write")),
    "read before the decay and the write": (GATED, memory("read", "decay", "predict", "write")),
    "the prediction is that of the state before its decay": (
        ("memory.gated_delta_rule",),
        memory("predict", "decay", "write", "read"),
    ),
    "the decay is not exponentiated: the logarithm for the factor": (GATED, memory(decay=lambda g: g)),
    "the decay is 1 − exp(log_decay)": (GATED, memory(decay=lambda g: 1 - mg.exp(g))),
    "the prediction is missing: β v is written": (DELTA, memory(update=lambda beta, v, p: beta * v)),
    "β weights the value alone: β v − k S": (DELTA, memory(update=lambda beta, v, p: beta * v - p)),
    "β weights the prediction alone: v − β k S": (DELTA, memory(update=lambda beta, v, p: v - beta * p)),
    "the prediction is added: v + k S": (DELTA, memory(update=lambda beta, v, p: beta * (v + p))),
    "β is squared": (DELTA, memory(update=lambda beta, v, p: beta * beta * (v - p))),
    "mask off by one: A has its diagonal, a token's prediction reads its own write": (DELTA, masks(own=True)),
    "mask off by one: in a chunk a query sees the next key": ((*LINEAR, "memory.delta_rule"), masks(following=True)),
    "the output is divided by q Σ k, which is not a part of the form": (LINEAR, memory(denominator=True)),
    # softmax
    "mask off by one: a query does not see its own key": (("attention.softmax",), softmax(-1)),
    "mask off by one: a query sees the next key": (("attention.softmax",), softmax(1)),
    "the causal mask is missing": (("attention.softmax",), softmax(causal=False)),
    "the softmax is over the queries": (("attention.softmax",), softmax(axis=-2)),
    "the mask takes the first query for that of the first key of the state": (
        ("attention.softmax",),
        softmax(ignore_past=True),
    ),
    "the weights are not divided by their sum": (("attention.softmax",), softmax(normalise=False)),
    # state spaces
    "zero-order hold for B̄ = ΔB": (SCANS, scan("zoh")),
    "Δ is missing in B̄ = ΔB": (SCANS, scan("Bu")),
    "read before the write (the state of the token before)": (SCANS, scan(read_first=True)),
    "A has the other sign: exp(−ΔA)": (SCANS, scan(sign=-1.0)),
    "B̄ = ΔB for zero-order hold": (("ssm.s4d",), diagonal("mamba")),
    "the bilinear rule for zero-order hold": (("ssm.s4d",), diagonal("bilinear")),
    "Euler's rule for zero-order hold": (("ssm.s4d",), diagonal("euler")),
    "the conjugate of each pair is missing: y is 2 Re(C h)": (SYSTEMS, half_of_the_pairs),
    "C is conjugated": (SYSTEMS, with_argument("C", mg.conj)),
    "B is conjugated": (SYSTEMS, with_argument("B", mg.conj)),
    "P is conjugated": (("ssm.s4",), with_argument("P", mg.conj)),
    # learners
    "gradient at the wrong weights: at those before each token, not before each mini-batch": (
        LEARNERS,
        learners.in_batches(1),
    ),
    "gradient at the wrong weights: always at the first ones": (LEARNERS, learners.in_batches(0)),
    "decay after the write: (1 − α)(M + S)": (
        ("memory.titans",),
        learners.titans("surprise", "write", "decay", "read"),
    ),
    "read before the write of the memory": (("memory.titans",), learners.titans("read", "surprise", "decay", "write")),
    "the momentum is missing": (
        ("memory.titans",),
        learners.titans("surprise", "decay", "write", "read", momentum=False),
    ),
    "layer-norm gradient: ẑ mean(g ẑ) is outside the parenthesis, not divided by the deviation": (
        LEARNERS,
        learners.layer_norm(learners.outside_the_parenthesis),
    ),
    "layer-norm gradient: what goes through the variance is missing": (
        LEARNERS,
        learners.layer_norm(learners.without_variance),
    ),
    "layer-norm gradient: γ is missing": (LEARNERS, learners.layer_norm(learners.without_gamma)),
    "layer-norm gradient: it is that of the plain model, f(k) − v": (
        LEARNERS,
        learners.layer_norm(learners.of_the_plain_model),
    ),
    # recurrent
    "a reads the state after its decay": (("recurrent.rwkv7",), rwkv7("decay", "ask", "write", "read")),
    "r reads before the write": (("recurrent.rwkv7",), rwkv7("read", "ask", "decay", "write")),
    "the removed part has the other sign": (("recurrent.rwkv7",), rwkv7("ask", "decay", "write", "read", sign=-1)),
    "w is taken as its logarithm: exp(w)": (("recurrent.rwkv4",), with_argument("w", mg.exp)),
    "w has the other sign": (("recurrent.rwkv4",), with_argument("w", lambda w: -w)),
    "gates in the order i, f, o, g": (("recurrent.lstm",), gate_order((0, 1, 3, 2))),
    "gates in the order f, i, g, o": (("recurrent.lstm",), gate_order((1, 0, 2, 3))),
    "gates in the order i, g, f, o": (("recurrent.lstm",), gate_order((0, 2, 1, 3))),
}

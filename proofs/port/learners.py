"""Variants of test-time training and Titans that make one mistake each, for `proofs.port.variants`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import minigrad as mg
from minigrad import namespace
from models.memory import inner
from models.sequences import tokens
from proofs.checker.forms import Form

Tokens = Mapping[str, Any]
Variant = Callable[[Form, Tokens, Any, int], list[Any]]


def in_batches(size: int) -> Variant:
    """Return a learner whose gradients are taken at the weights before every `size` tokens; 0: before the first."""

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        if state is not None:
            raise ValueError("the state holds the weights of the batch")
        return [form(x, None, size or x["q"].shape[-2] + 1)[0]]

    return variant


def titans(*order: str, momentum: bool = True) -> Variant:
    """Return Titans with a matrix memory, batches of `chunk` tokens, and the steps of a token in this order."""

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        if state is not None or "memory.W1" not in x or "memory.W2" in x:
            raise ValueError("a matrix memory from its own start")
        q, k, v = x["q"], x["k"], x["v"]
        xp, y = namespace(q, k, v), []
        zeros = k[..., :1, :].mT @ v[..., :1, :] * 0
        M = start = x["memory.W1"] + zeros
        S = zeros
        gates = [x[name][..., None] for name in ("theta", "log_eta", "log_decay")]
        for t, (q_t, k_t, v_t, theta, log_eta, log_decay) in enumerate(tokens(q, k, v, *gates)):
            gradient = k_t.mT @ (k_t @ start - v_t)
            for step in order:
                if step == "surprise":
                    S = (xp.exp(log_eta) * S if momentum else 0) - theta * gradient
                elif step == "decay":
                    M = xp.exp(log_decay) * M
                elif step == "write":
                    M = M + S
                elif step == "read":
                    y.append(q_t @ M)
            if (t + 1) % chunk == 0:
                start = M
        return [xp.concat(y, axis=-2)]

    return variant


def layer_norm(vjp: Callable[..., Any]) -> Variant:
    """Return a learner of one layer whose layer norm has another gradient: `vjp(ẑ, deviation, γ, error)`.

    Without mean g it would give the same outputs: the norm takes off a number that is the same for all features.
    """

    def variant(form: Form, x: Tokens, state: Any, chunk: int) -> list[Any]:
        layer = [x[name] for name in form.axes if name.endswith((".W1", ".b1"))]
        if "norm.gamma" not in x or len(x) != len(layer) + 2 + (4 if "eta" in x else 6):
            raise ValueError("one layer with a norm")
        q, k, v, gamma, beta = x["q"], x["k"], x["v"], x["norm.gamma"], x["norm.beta"]
        xp, y = namespace(q, k, v), []
        zeros = [k[..., :1, :].mT @ v[..., :1, :] * 0, v[..., :1, :] * 0][: len(layer)]
        start = [w + zero for w, zero in zip(layer, zeros, strict=True)]
        now, surprise, left = start, zeros, chunk
        if state is not None:
            *models, left = state
            start, *others = ([*model[0]] for model in models)
            now, surprise = (
                others if len(others) == 2 else ([w - G for w, G in zip(start, *others, strict=True)], zeros)
            )
        gates = [x[name][..., None] for name in ("eta", "theta", "log_eta", "log_decay") if name in x]
        for q_t, k_t, v_t, rate, *logs in tokens(q, k, v, *gates):
            eta, decay = map(xp.exp, logs) if logs else (0, 1)
            unit, deviation = inner.standardise(inner.apply_layer(tuple(start), k_t))
            g = vjp(unit, deviation, gamma, k_t + gamma * unit + beta - v_t)
            gradients = [k_t.mT @ g, g][: len(layer)]
            surprise = [eta * s - rate * d for s, d in zip(surprise, gradients, strict=True)]
            now = [decay * w + s for w, s in zip(now, surprise, strict=True)]
            y.append(inner.add_residual((gamma, beta), q_t, inner.apply_layer(tuple(now), q_t)))
            left -= 1
            if left == 0:
                start, left = now, chunk
        return [xp.concat(y, axis=-2)]

    return variant


# Gradients of ½ ‖x + γ ẑ + β − v‖² with respect to z, from ẑ, the deviation d, γ and the error e.


def outside_the_parenthesis(unit: Any, d: Any, gamma: Any, e: Any) -> Any:
    g = gamma * e
    return (g - _mean(g)) / d - unit * _mean(g * unit)


def without_variance(unit: Any, d: Any, gamma: Any, e: Any) -> Any:
    return (gamma * e - _mean(gamma * e)) / d


def without_gamma(unit: Any, d: Any, gamma: Any, e: Any) -> Any:
    return (e - _mean(e) - unit * _mean(e * unit)) / d


def of_the_plain_model(unit: Any, d: Any, gamma: Any, e: Any) -> Any:
    return e


def _mean(x: Any) -> Any:
    return mg.mean(x, axis=-1, keepdims=True)

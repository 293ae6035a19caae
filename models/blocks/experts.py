"""A mixture of experts: MLPs, of which each token goes through a few, as DeepSeek-V3 routes it (2024, section 2.1.2).

    s   = σ(x W_g)                                    eq. 15: the affinity to each of E experts
    I   = the k experts of largest s + b              eq. 16: the bias b takes part in the choice alone
    g   = factor · s_I / Σ s_I                        eq. 13: their weights, with `renormalise`; else factor · s_I
    y   = shared(x) + Σᵢ gᵢ expertᵢ(x),  i ∈ I        eq. 12, without its residual u

With groups of experts, I comes from the groups whose two largest s + b have the largest sums. Deviations, as in the
published code: where M groups may be chosen the paper sums the k/M largest, and it has no factor.

The choice is constant for gradients, and so is b, which DeepSeek-V3 moves by the loads of the experts (section 2.1.2).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

import minigrad as mg
from minigrad import namespace
from minigrad.conversion import to_library_of
from minigrad.engine import unwrap
from minigrad.namespace import to_numpy
from minigrad.nn import Linear, Module
from models.forms import Array

TINY = 1e-20  # scores that are all 0 have weights of 0


@dataclass(frozen=True)
class Routing:
    """The choice of `count` of `experts` experts, within `kept_groups` of `groups` groups, and the scale of weights."""

    experts: int
    count: int
    groups: int = 1
    kept_groups: int = 1
    renormalise: bool = True
    factor: float = 1.0


@dataclass(frozen=True)
class ExpertsConfig:
    """The sizes of a mixture: hidden channels of each expert and of the MLP for every token, and the routing."""

    width: int
    hidden: int
    shared_hidden: int
    routing: Routing


def largest(x: Float[Array, "*batch N"], count: int) -> Int[Array, "*batch count"]:
    """Return the places of the largest numbers along the last axis, in descending order; of equal ones the first."""
    return mg.argsort(x, axis=-1, descending=True)[..., :count]


def route(
    scores: Float[Array, "*batch E"], bias: Float[Array, " E"], routing: Routing
) -> tuple[Int[Array, "*batch k"], Float[Array, "*batch k"]]:
    """Return the chosen experts of each token and their weights, from scores of at least 0."""
    xp = namespace(scores, bias)
    choice = scores + bias
    if routing.kept_groups < routing.groups:
        grouped = xp.reshape(choice, (*choice.shape[:-1], routing.groups, choice.shape[-1] // routing.groups))
        best = xp.sum(mg.take_along_axis(grouped, largest(grouped, 2), axis=-1), axis=-1)
        groups = to_library_of(scores, np.arange(routing.groups))
        kept = xp.any(largest(best, routing.kept_groups)[..., None] == groups, axis=-2)
        choice = xp.reshape(xp.where(kept[..., None], grouped, -math.inf), choice.shape)
    chosen = largest(choice, routing.count)
    weights = mg.take_along_axis(scores, chosen, axis=-1)
    if routing.renormalise:
        weights = weights / (xp.sum(weights, axis=-1, keepdims=True) + TINY)
    return chosen, weights * routing.factor


def mixture(
    x: Float[Array, "*batch D"],
    chosen: Int[Array, "*batch k"],
    weights: Float[Array, "*batch k"],
    experts: Sequence[Callable[[Any], Any]],
) -> Float[Array, "*batch D"]:
    """Return Σᵢ weightsᵢ expertᵢ(x) over the chosen experts of each token; an expert runs once, on its own tokens.

    The pairs of a token and an expert are put in order of the experts, and their outputs back in order of the tokens.
    """
    xp, count = namespace(x, weights), chosen.shape[-1]
    expert_of = to_numpy(unwrap(chosen)).reshape(-1)  # of each pair
    order = np.argsort(expert_of, kind="stable")
    inputs = mg.take(xp.reshape(x, (-1, x.shape[-1])), order // count, axis=0)
    ends = np.cumsum(np.bincount(expert_of, minlength=len(experts))).tolist()
    outputs = [
        expert(inputs[start:end])
        for expert, start, end in zip(experts, [0, *ends[:-1]], ends, strict=True)
        if start < end
    ] or [inputs]
    y = mg.take(xp.concat(outputs, axis=0), np.argsort(order), axis=0)
    return xp.sum(weights[..., None] * xp.reshape(y, (*chosen.shape, y.shape[-1])), axis=-2)


class SwiGLU(Module):
    """The MLP (SiLU(a) ⊙ b) W_down,  [a ‖ b] = x W_gate_up (Shazeer 2020, eq. 6)."""

    def __init__(self, width: int, hidden: int, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.gate_up_proj = Linear(width, 2 * hidden, bias=False, rng=rng, dtype=dtype)
        self.down_proj = Linear(hidden, width, bias=False, rng=rng, dtype=dtype)

    def __call__(self, x: Any) -> Any:
        return self.down_proj(mg.swiglu(self.gate_up_proj(x)))


class Router(Module):
    """Parameters of the routing, W_g and b of eq. 15 and 16, under published names."""

    def __init__(self, width: int, experts: int, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.weight = Linear(width, experts, bias=False, rng=rng, dtype=dtype).weight
        self.e_score_correction_bias = np.zeros(experts, dtype)


class MixtureOfExperts(Module):
    """Routed experts and one for every token, all SwiGLU; parameters are float32 unless `dtype` says otherwise."""

    def __init__(self, config: ExpertsConfig, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.routing = config.routing
        self.gate = Router(config.width, config.routing.experts, rng, dtype)
        self.experts = [SwiGLU(config.width, config.hidden, rng, dtype) for _ in range(config.routing.experts)]
        self.shared_experts = SwiGLU(config.width, config.shared_hidden, rng, dtype)

    def __call__(self, x: Any) -> Any:
        """Return y `(*batch, T, width)` as x is."""
        scores = mg.sigmoid(x @ self.gate.weight.mT)
        chosen, weights = route(scores, self.gate.e_score_correction_bias, self.routing)
        return self.shared_experts(x) + mixture(x, chosen, weights, self.experts)

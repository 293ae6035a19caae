"""Modern Hopfield networks: attention as one retrieval step, which decreases an energy."""

from __future__ import annotations

import math
from typing import Annotated, Any

from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.attention import softmax
from models.memory import hopfield
from proofs.checker.statements import bounded, converges, identity, refuted
from proofs.checker.strategies import SMALL, Keys, OrthonormalKeys, Queries, Strategy

CHAPTER = 11

RAMSAUER = "ramsauer2021"
Patterns = Annotated[Any, Strategy("*batch S K", SMALL)]
Map = Annotated[Any, Strategy("K V", SMALL)]
Beta = Annotated[float, Strategy(number=lambda draw, sizes: draw(st.sampled_from([1.0, 0.25, 2.0, 8.0])))]


@identity(
    "One retrieval with β = 1/√K is softmax attention with the patterns as keys and as values",
    source=f"{RAMSAUER}, eq. 10; talk-titans, 1:22:42",
)
def retrieval_is_attention(query: Queries, patterns: Keys):
    attention, _ = softmax.quadratic(query, patterns, patterns, causal=False)
    return hopfield.retrieve(query, patterns, beta=query.shape[-1] ** -0.5), attention


@identity(
    "With other values it is a retrieval followed by a linear map: values XW give what is retrieved, times W",
    source=f"{RAMSAUER}, eq. 10; talk-titans, 1:22:42, made precise",
)
def values_are_a_map_of_patterns(query: Queries, patterns: Keys, W: Map):
    attention, _ = softmax.quadratic(query, patterns, patterns @ W, causal=False)
    return attention, hopfield.retrieve(query, patterns, beta=query.shape[-1] ** -0.5) @ W


@identity("A retrieval is a step of gradient descent on the energy, rate 1", source=f"{RAMSAUER}, eq. 2–3")
def retrieval_is_a_step(query: Keys, patterns: Patterns, beta: Beta):
    gradient = mg.grad(lambda x: mg.sum(hopfield.energy(x, patterns, beta=beta)))(query)
    return hopfield.retrieve(query, patterns, beta=beta), query - gradient


@bounded("Each retrieval lowers the energy by at least ½‖step‖²", source=f"{RAMSAUER}, theorem 1, made precise")
def energy_falls(query: Keys, patterns: Patterns, beta: Beta):
    xp, after = namespace(query), hopfield.retrieve(query, patterns, beta=beta)
    step = xp.sum((after - query) ** 2, axis=-1) / 2
    return hopfield.energy(after, patterns, beta=beta) + step, hopfield.energy(query, patterns, beta=beta)


@refuted(
    "Attention to values that are not the patterns lowers the energy too",
    source="talk-titans, 1:22:42: 'softmax attention is a special case of Hopfield networks'",
    relation="≤",
    instead="hopfield.energy_falls",
)
def energy_falls_with_other_values(query: Keys, patterns: Patterns, values: Patterns, beta: Beta):
    after = hopfield.weights(query, patterns, beta=beta) @ values
    return hopfield.energy(after, patterns, beta=beta), hopfield.energy(query, patterns, beta=beta)


@bounded("The energy is never negative", source=f"{RAMSAUER}, section 2: 0 ≤ E")
def energy_is_not_negative(query: Keys, patterns: Patterns, beta: Beta):
    energy = hopfield.energy(query, patterns, beta=beta)
    return 0 * energy, energy


@bounded(
    "A stored pattern is a fixed point within 2(N − 1) M exp(−βΔ), with Δ its separation",
    source=f"{RAMSAUER}, theorem 5, at the pattern itself",
)
def patterns_are_nearly_fixed(patterns: Patterns, beta: Beta):
    xp, N = namespace(patterns), patterns.shape[-2]
    displacement = hopfield.retrieve(patterns, patterns, beta=beta) - patterns
    largest = xp.max(xp.sum(abs(patterns), axis=-1))  # at least M, the greatest length
    limit = 2 * (N - 1) * largest * xp.exp(-beta * hopfield.separation(patterns))
    return abs(displacement), limit[..., None] + 0 * displacement


@converges(
    "As β grows, retrieval from a stored pattern returns it: e^−β for orthonormal patterns",
    source=f"{RAMSAUER}, theorem 4",
)
def sharp_retrieval(k: OrthonormalKeys):
    xp, betas = namespace(k), [2.0**n for n in range(6)]
    errors = [abs(hopfield.retrieve(k, k, beta=beta) - k) for beta in betas]
    limits = [2 * (k.shape[-2] - 1) * math.exp(-beta) + 0 * errors[0] for beta in betas]
    return xp.stack(errors, axis=-1), xp.stack(limits, axis=-1)


@refuted(
    "A stored pattern is a fixed point at any β (at a small β the fixed point is a mean of several)",
    source=f"{RAMSAUER}, section 2: metastable states",
)
def patterns_are_fixed(patterns: Patterns, beta: Beta):
    return hopfield.retrieve(patterns, patterns, beta=beta), patterns

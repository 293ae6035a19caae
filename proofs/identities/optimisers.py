"""Optimisers, clipping and schedules, written out from their papers: there is one form of each.

Deviations are to 10⁻¹² of numbers of size 1.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

from minigrad import nn, optim
from proofs.checker.statements import Instance, bounded
from proofs.checker.strategies import Strategy

CHAPTER = 18

Seed = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 2**32 - 1)))]
ADAM: dict[str, dict[str, Any]] = {
    "defaults": {},
    "others": {"betas": (0.8, 0.9), "eps": 0.1, "weight_decay": 0.5},
}
STEPS = 3


def drawn(seed: int) -> tuple[nn.Linear, list[nn.Linear]]:
    """Return a layer of normal parameters, and gradients for each step as layers."""
    rng = np.random.default_rng(seed)

    def layer() -> nn.Linear:
        drawn = nn.Linear(3, 2, rng=rng, dtype=np.float64)
        drawn.weight, drawn.bias = rng.standard_normal((2, 3)), rng.standard_normal(2)
        return drawn

    return layer(), [layer() for _ in range(STEPS)]


def close(ours: list[np.ndarray], theirs: list[Any]) -> tuple[Any, Any]:
    errors = [np.atleast_1d(abs(a - b)) for a, b in zip(ours, theirs, strict=True)]
    return errors, [np.full(error.shape, 1e-12) for error in errors]


def parameters(layer: nn.Linear) -> list[np.ndarray]:
    assert layer.bias is not None
    return [layer.weight.copy(), layer.bias.copy()]


def trained(optimiser: Any, layer: nn.Linear, gradients: list[nn.Linear]) -> list[np.ndarray]:
    """Return the parameters of the layer after a step with each of the gradients."""
    for gradient in gradients:
        optimiser.step(layer, gradient)
    return parameters(layer)


@bounded(
    "AdamW: m = β₁ m + (1 − β₁) g, v = β₂ v + (1 − β₂) g², p = p − γ (m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε) + λ p); by "
    "default 0.9, 0.999, 10⁻⁸ and 0.01; vectors do not decay",
    source="loshchilov2019, algorithm 2; minigrad, minigrad/optim.py, for vectors and λ",
    over=[Instance(name, {"options": options}, {}) for name, options in ADAM.items()],
    only=("float64",),
)
def adamw(seed: Seed, options: dict[str, Any]):
    layer, gradients = drawn(seed)
    (b1, b2), eps, decay = (
        options.get(name, value) for name, value in (("betas", (0.9, 0.999)), ("eps", 1e-8), ("weight_decay", 0.01))
    )
    expected = []
    for i, p in enumerate(parameters(layer)):
        m = v = 0 * p
        for t, g in enumerate((parameters(gradient)[i] for gradient in gradients), start=1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            p = p - 0.1 * (step + (decay * p if p.ndim > 1 else 0))
        expected.append(p)
    return close(trained(optim.AdamW(0.1, **options), layer, gradients), expected)


@bounded(
    "Gradient descent with momentum: v = μ v + g, p = p − γ v",
    source="minigrad, minigrad/optim.py, as PyTorch has it",
    only=("float64",),
)
def momentum(seed: Seed):
    layer, gradients = drawn(seed)
    expected = []
    for i, p in enumerate(parameters(layer)):
        v = 0 * p
        for gradient in gradients:
            v = 0.75 * v + parameters(gradient)[i]
            p = p - 0.1 * v
        expected.append(p)
    return close(trained(optim.SGD(0.1, momentum=0.75), layer, gradients), expected)


@bounded(
    "Clipping scales all gradients to the norm c where Σ g² > c², and leaves smaller ones alone",
    source="pascanu2013, algorithm 1",
    only=("float64",),
)
def clipping(seed: Seed):
    _, (gradient, *_) = drawn(seed)
    norm = math.sqrt(sum((g**2).sum() for g in parameters(gradient)))
    below, _ = optim.clip_by_global_norm(gradient, norm / 4)
    above, measured = optim.clip_by_global_norm(gradient, 2 * norm)
    ours = [*parameters(below), *parameters(above), np.array(measured)]
    return close(ours, [*(g / 4 for g in parameters(gradient)), *parameters(gradient), norm])


@bounded(
    "The rate rises by peak/warmup a step, then is floor + (peak − floor)(1 + cos πp)/2, p from 0 to 1",
    source="loshchilov2017, eq. 5; minigrad, minigrad/optim.py, for the warm-up",
    only=("float64",),
)
def cosine_schedule():
    ours = [optim.cosine(step, steps=12, warmup=4, peak=2.0, floor=0.5) for step in range(14)]
    falling = [0.5 + 1.5 * math.cos(math.pi * min(i, 8) / 16) ** 2 for i in range(10)]
    return close([np.array(ours)], [np.array([0.5, 1.0, 1.5, 2.0, *falling])])

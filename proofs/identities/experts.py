"""Mixtures of experts: what the choice decides, what the weights are, and that each expert sees its own tokens only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

from minigrad import namespace
from minigrad.conversion import to_library_of
from minigrad.engine import unwrap
from minigrad.namespace import to_numpy
from models.blocks import experts
from models.blocks.experts import Routing
from proofs.checker.statements import identity
from proofs.checker.strategies import LARGE, POSITIVE, SMALL, Queries, Strategy

CHAPTER = 22

DEEPSEEK = "deepseek2024v3"
EXPERTS, COUNT = 4, 2


def _draw_choice(draw: Any, sizes: Any) -> np.ndarray:
    shape = sizes.shape(f"*batch T {COUNT}")
    drawn = draw(st.binary(min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    return (np.frombuffer(drawn, dtype=np.uint8) % EXPERTS).astype(np.int64).reshape(shape)


Chosen = Annotated[Any, Strategy(number=_draw_choice)]
Weights = Annotated[Any, Strategy(f"*batch T {COUNT}", LARGE)]
Matrices = Annotated[Any, Strategy(f"{EXPERTS} K V", SMALL)]
Matrix = Annotated[Any, Strategy("K V", SMALL)]
Scores = Annotated[Any, Strategy(f"*batch T {EXPERTS}", POSITIVE)]
Bias = Annotated[Any, Strategy(f"{EXPERTS}", SMALL)]


def for_each_expert(chosen: Any, weights: Any) -> Any:
    """Return the weights of all experts, (*batch, T, E): 0 for those that were not chosen."""
    xp, chosen = namespace(weights), to_numpy(unwrap(chosen))
    of_each = [xp.where(to_library_of(weights, chosen == e), weights, 0 * weights) for e in range(EXPERTS)]
    return xp.stack([xp.sum(x, axis=-1) for x in of_each], axis=-1)


def linear(W: Any) -> Callable[[Any], Any]:
    """Return the expert x → x W, which is rational."""
    return lambda x: x @ W


def numbers(like: Any, *values: int) -> Any:
    """Return an array of these numbers, of the library and the dtype of another."""
    return namespace(like).asarray(list(values), dtype=like.dtype)


@identity(
    "The sum over the chosen experts is the sum over all, with weights of 0 for the others",
    source=f"{DEEPSEEK}, eq. 12 and 16",
    exact=True,
)
def a_mixture_is_a_weighted_sum(x: Queries, chosen: Chosen, weights: Weights, W: Matrices):
    chosen = np.asarray(chosen)
    y = experts.mixture(x, chosen, weights, [linear(W[e]) for e in range(EXPERTS)])
    of_all = for_each_expert(chosen, weights)
    return y, sum(of_all[..., e : e + 1] * (x @ W[e]) for e in range(EXPERTS))


@identity(
    "Equal experts are one expert, times the sum of the weights",
    source=f"{DEEPSEEK}, eq. 12",
    exact=True,
)
def equal_experts_are_one(x: Queries, chosen: Chosen, weights: Weights, W: Matrix):
    y = experts.mixture(x, np.asarray(chosen), weights, [linear(W)] * EXPERTS)
    return y, namespace(weights).sum(weights, axis=-1, keepdims=True) * (x @ W)


@identity("Weights are divided by their sum", source=f"{DEEPSEEK}, eq. 13")
def weights_are_divided_by_their_sum(scores: Scores, bias: Bias):
    xp = namespace(scores, bias)
    chosen, weights = experts.route(scores, bias, Routing(EXPERTS, COUNT, factor=3.0))
    as_they_come = experts.route(scores, bias, Routing(EXPERTS, COUNT, renormalise=False))[1]
    total = xp.sum(as_they_come, axis=-1, keepdims=True)
    return (xp.sum(weights, axis=-1), weights * total), (3 + 0 * total[..., 0], 3 * as_they_come)


@identity(
    "The bias decides which experts are chosen, and has no part in their weights",
    source=f"{DEEPSEEK}, eq. 16, and after it: the gating value is derived from the affinity",
)
def the_bias_only_chooses(scores: Scores, bias: Bias):
    preferred = numbers(scores, 0, 100, 0, 100)
    chosen, weights = experts.route(scores, bias + preferred, Routing(EXPERTS, COUNT, renormalise=False))
    of_all = experts.route(scores, bias, Routing(EXPERTS, EXPERTS, renormalise=False))
    kept = numbers(scores, 0, 1, 0, 1)
    return (for_each_expert(chosen, weights), for_each_expert(*of_all)), (scores * kept, scores)


@identity(
    "Experts come from the groups whose two best have the largest sum, wherever the best expert is",
    source=f"{DEEPSEEK}, section 2.1.2: node-limited routing",
)
def groups_are_chosen_by_their_two_best(scores: Scores):
    # no score exceeds 2: the second group has the best expert, the first the better two; none of the sums is positive
    bias = numbers(scores, -50, -50, -10, -100)
    chosen, weights = experts.route(scores, bias, Routing(EXPERTS, COUNT, groups=2, kept_groups=1, renormalise=False))
    kept = numbers(scores, 1, 1, 0, 0)
    return for_each_expert(chosen, weights), scores * kept

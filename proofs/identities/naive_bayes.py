"""Naive Bayes: the probability of a class c, from features that are taken to be independent of each other given it.

    p(c | x₁, x₂) = p(c) p(x₁ | c) p(x₂ | c) / Σ over classes         where they are independent given c

The talk on Mamba begins with it: "naive", for its assumption. All probabilities come from one table p(c, x₁, x₂).
"""

from __future__ import annotations

from typing import Annotated, Any

from hypothesis import strategies as st

from minigrad import namespace
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import POSITIVE, Strategy

CHAPTER = 26

TALK = "talk-mamba, slide 4"
SIZES = {"C": st.integers(2, 3), "E": st.integers(2, 3), "F": st.integers(2, 3)}

Classes = Annotated[Any, Strategy("C", POSITIVE, sizes=SIZES)]
First = Annotated[Any, Strategy("C E", POSITIVE, sizes=SIZES)]  # of the first feature, given the class
Second = Annotated[Any, Strategy("C F", POSITIVE, sizes=SIZES)]
Table = Annotated[Any, Strategy("C E F", POSITIVE, sizes=SIZES)]


@identity(
    "Where the features are independent given the class, p(c) Π p(xᵢ | c), divided by its sum, is the posterior",
    source=f"{TALK}, made precise",
    exact=True,
)
def posterior_under_independence(prior: Classes, first: First, second: Second):
    table = prior[:, None, None] * normalised(first, 1)[:, :, None] * normalised(second, 1)[:, None, :]
    return naive_bayes(table), normalised(table, 0)


@refuted(
    "It is for any features",
    source=f"{TALK}: 'the assumption is unrealistic'",
    exact=True,
    instead="naive_bayes.posterior_by_the_chain_rule",
)
def posterior_of_any_features(table: Table):
    return naive_bayes(table), normalised(table, 0)


@identity(
    "For any features it is with p(x₂ | c, x₁) in the place of p(x₂ | c): the chain rule",
    source=f"{TALK}, made precise",
    exact=True,
)
def posterior_by_the_chain_rule(table: Table):
    xp = namespace(table)
    of_two = xp.sum(table, axis=2)
    prior = xp.sum(of_two, axis=1)
    product = prior[:, None, None] * (of_two / prior[:, None])[:, :, None] * (table / of_two[:, :, None])
    return normalised(product, 0), normalised(table, 0)


@identity(
    "A feature that is there twice counts twice: the naive posterior is p(c) p(x | c)² over its sum",
    source=f"{TALK}, made precise",
    exact=True,
)
def a_copied_feature_counts_twice(prior: Classes, first: First):
    xp = namespace(prior, first)
    given = normalised(first, 1)
    copied = (prior[:, None] * given)[:, :, None] * xp.eye(first.shape[1], dtype=first.dtype)
    naive = naive_bayes(copied)
    diagonal = xp.stack([naive[:, i, i] for i in range(first.shape[1])], axis=1)
    return diagonal, normalised(prior[:, None] * given * given, 0)


def naive_bayes(table: Any) -> Any:
    """Return p(c) p(x₁ | c) p(x₂ | c) over its sum, (C, E, F), of a table p(c, x₁, x₂) of any sum."""
    xp = namespace(table)
    prior = xp.sum(xp.sum(table, axis=2), axis=1)
    first, second = (xp.sum(table, axis=axis) / prior[:, None] for axis in (2, 1))
    return normalised(prior[:, None, None] * first[:, :, None] * second[:, None, :], 0)


def normalised(x: Any, axis: int) -> Any:
    """Return x over its sum along an axis."""
    return x / namespace(x).sum(x, axis=axis, keepdims=True)

"""Evaluate both sides of a statement at one example, or their derivatives, in any number system.

A second derivative differentiates a recorded pass, one that can be differentiated again. The gradients of that pass
are returned opposite to those of the ordinary pass, so that whoever compares the two lists compares the passes too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.conversion import to_library_of
from minigrad.engine import unwrap
from proofs.checker.rounding import Rounded
from proofs.checker.statements import Statement
from proofs.checker.strategies import Exact, Strategy, tree_map


def evaluate(
    statement: Statement, example: Mapping[str, Any], convert: Callable[[Exact, bool], Any], order: int
) -> tuple[list, list]:
    """Return two lists of arrays that should be equal, in the number system that `convert(value, is_logarithm)` makes.

    `example` has an array of exact numbers for each strategy; complex ones have their real and imaginary parts on the
    last axis. Order 0 returns the two sides, order 1 their gradients, and order 2 the gradients of the recorded pass
    opposite to those of the ordinary one, for both sides, followed by the second derivatives of the sides.
    """
    leaves: list[Any] | None = [] if order else None
    left, right = (flatten(side) for side in results(statement, example, convert, leaves))
    if leaves is None:
        return left, right
    first = [_gradients(side, leaves, record=False) for side in (left, right)]
    if order == 1:
        return first[0], first[1]
    recorded = [_gradients(side, leaves, record=True) for side in (left, right)]
    second = [_gradients(gradient, leaves, record=False) for gradient in recorded]
    (left, right), (left_first, right_first) = ([unwrap(g) for g in side] for side in recorded), first
    return [*left, *right, *second[0]], [*left_first, *right_first, *second[1]]


def results(
    statement: Statement,
    example: Mapping[str, Any],
    convert: Callable[[Exact, bool], Any],
    leaves: list[Any] | None = None,
) -> tuple[Any, Any]:
    """Return the two sides as the statement returns them; with `leaves`, Tensors that depend on those put there."""

    def converted(strategy: Strategy, value: Any) -> Any:
        if strategy.fill is None:  # an option, no array
            return value
        if strategy.complex:
            array = convert(value[..., 0], False) + 1j * convert(value[..., 1], False)
        else:
            array = convert(value, strategy.logarithm)
        if leaves is not None and strategy.differentiable:
            array = mg.Tensor(array)
            leaves.append(array)
        return array

    left, right = statement(**tree_map(converted, statement.strategies, example))
    return left, right


def _gradients(results: list[Any], leaves: list[Any], record: bool) -> list[Any]:
    """Return the gradient of Re Σ r c, over the numbers r of all results, with respect to every leaf.

    c is random and drawn alike for both sides, for constant results too, so that the draws stay in step.
    """
    rng, terms = np.random.default_rng(0), []
    for result in results:
        c = rng.choice([-2, -1, 1, 2], size=(result.size, 1))
        if _is_complex(result):  # a real c would ignore the imaginary part of r
            c = c + 1j * rng.choice([-2, -1, 1, 2], size=c.shape)
        if _is_rounded(result):  # as `Rounded`, so that the rounding of r c counts
            c = elementwise(Rounded.of)(c)
        elif result.dtype == object and not _is_complex(result):  # a quotient of integers would be a float
            c = elementwise(lambda x: Fraction(int(x)))(c)
        if isinstance(result, mg.Tensor):
            terms.append(mg.reshape(result, (1, -1)) @ to_library_of(result, c.astype(result.dtype)))
    if not terms:  # no result is a Tensor, so that none depends on a leaf
        zeros = [np.zeros_like(leaf.value) for leaf in leaves]
        return [mg.Tensor(zero) for zero in zeros] if record else zeros
    total = mg.sum(mg.concat(terms, axis=0), axis=0)
    return list(mg.gradients(total, leaves, to_library_of(total, np.ones(1, dtype=total.dtype)), record=record))


def _is_complex(result: Any) -> bool:
    kind = result.dtype.kind
    return kind == "c" or kind == "O" and any(isinstance(getattr(x, "value", x), complex) for x in unwrap(result).flat)


def _is_rounded(result: Any) -> bool:
    return result.dtype.kind == "O" and any(isinstance(x, Rounded) for x in unwrap(result).flat)


def flatten(result: Any) -> list[Any]:
    """Return the arrays of nested tuples, lists and mappings, the latter sorted by key; None is left out."""
    if isinstance(result, Mapping):
        return [leaf for key in sorted(result) for leaf in flatten(result[key])]
    if isinstance(result, (tuple, list)):
        return [leaf for item in result for leaf in flatten(item)]
    return [] if result is None else [np.array(result) if isinstance(result, int) else result]


def elementwise(function: Callable[[Any], Any]) -> Callable[[Exact], Any]:
    """Return the function that applies `function` to every entry of an array, and makes an array of objects."""

    def apply(array: Exact) -> Any:
        return np.fromiter(map(function, array.flat), dtype=object).reshape(array.shape)

    return apply

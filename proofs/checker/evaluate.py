"""Evaluate both sides of a statement at one example, or their derivatives, in any number system.

Second derivatives are taken through a recorded pass, whose first gradients are compared with the ordinary pass's too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """Return the arrays of both results, or of their derivatives, in the number system that `convert` converts to."""
    leaves: list[Any] = []

    def converted(strategy: Strategy, value: Any) -> Any:
        if strategy.fill is None:
            return value
        if strategy.complex:
            array = convert(value[..., 0], False) + 1j * convert(value[..., 1], False)
        else:
            array = convert(value, strategy.logarithm)
        if order and strategy.differentiable:
            array = mg.Tensor(array)
            leaves.append(array)
        return array

    left, right = (flatten(side) for side in statement(**tree_map(converted, statement.strategies, example)))
    if order == 0:
        return left, right
    first = [_gradients(side, leaves, record=False) for side in (left, right)]
    if order == 1:
        return first[0], first[1]
    recorded = [_gradients(side, leaves, record=True) for side in (left, right)]
    second = [_gradients(gradient, leaves, record=False) for gradient in recorded]
    raw = [[unwrap(g) for g in gradient] for gradient in recorded]  # equal to `first`, side by side
    return raw[0] + raw[1] + second[0], first[0] + first[1] + second[1]


def _gradients(results: list[Any], leaves: list[Any], record: bool) -> list[Any]:
    """Return the gradient of Σ ⟨c, result⟩, for fixed random c, with respect to every leaf."""
    rng, terms = np.random.default_rng(0), []
    for result in results:
        c = rng.choice([-2, -1, 1, 2], size=(result.size, 1))
        if _is_complex(result):  # for a real c, Re c̄ r would ignore the imaginary part of r
            c = c + 1j * rng.choice([-2, -1, 1, 2], size=c.shape)
        if _is_rounded(result):  # so that the rounding of the products with c is counted
            c = elementwise(Rounded.of)(c)
        if isinstance(result, mg.Tensor):
            terms.append(mg.reshape(result, (1, -1)) @ to_library_of(result, c.astype(result.dtype)))
    if not terms:  # no result depends on a leaf: the gradients are 0
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
    """Return the arrays of nested tuples, lists and mappings, in order."""
    if isinstance(result, Mapping):
        return [leaf for key in sorted(result) for leaf in flatten(result[key])]
    if isinstance(result, (tuple, list)):
        return [leaf for item in result for leaf in flatten(item)]
    return [] if result is None else [np.array(result) if isinstance(result, int) else result]


def elementwise(function: Callable[[Any], Any]) -> Callable[[Exact], Any]:
    """Return the function that applies `function` to every entry of an object array."""

    def apply(array: Exact) -> Any:
        return np.fromiter(map(function, array.flat), dtype=object).reshape(array.shape)

    return apply

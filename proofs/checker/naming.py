"""Names for what a failed statement compares: its two sides, and the result or the gradient that differs.

A statement ends with `return left, right`. The two expressions, read from its source, say what is compared, and where
they call forms, which pair of them; a form's result is (y, state).
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from models.forms import FormFunction
from proofs.checker.forms import Form
from proofs.checker.statements import Statement
from proofs.checker.strategies import Maybe, Strategy


class Side(NamedTuple):
    """One side of a statement: its expression, and whether that is a form's (y, state)."""

    text: str
    of_form: bool


@functools.lru_cache(maxsize=64)
def sides(statement: Statement) -> tuple[Side, Side]:
    """Return the expressions of the left and the right side, with the forms that a general statement is about."""
    function = inspect.unwrap(statement.function)
    expressions = _returned(function)
    if len(expressions) != 2:
        whole = f"{expressions[0]}" if expressions else statement.name
        return Side(f"the first result of {whole}", False), Side(f"the second result of {whole}", False)
    left, right = (_side(statement, function.__globals__, expression) for expression in expressions)
    return left, right


def _returned(function: Any) -> list[str]:
    """Return the source of the two items of the last `return`, of its one expression, or nothing without a source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):
        return []
    definition = tree.body[0]
    body = definition.body if isinstance(definition, ast.FunctionDef) else []
    value = body[-1].value if body and isinstance(body[-1], ast.Return) else None
    if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == 2:
        return [ast.unparse(item) for item in value.elts]
    return [] if value is None else [ast.unparse(value)]


def _side(statement: Statement, names: Mapping[str, Any], expression: str) -> Side:
    tree = ast.parse(expression, mode="eval").body
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    fixed = {name: _name(x) for name, x in statement.fixed.items() if name in used and callable(x)}
    where = f"   where {', '.join(f'{name} = {text}' for name, text in fixed.items())}" if fixed else ""
    of_form = isinstance(tree, ast.Call) and _is_form(tree.func, {**names, **statement.fixed})
    return Side(expression + where, of_form)


def _name(function: Any) -> str:
    return function.name if isinstance(function, Form) else getattr(function, "__qualname__", repr(function))


def _is_form(node: ast.expr, names: Mapping[str, Any]) -> bool:
    """Return whether an expression such as `form` or `delta_rule.chunkwise` names a form."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        called = getattr(names.get(node.value.id), node.attr, None)
    else:
        called = names.get(node.id) if isinstance(node, ast.Name) else None
    return isinstance(called, Form) or isinstance(called, FormFunction)


# Results, and arguments


def result_names(result: Any, side: Side) -> list[str]:
    """Return a name for each array in a side, in the order of `flatten`: "y", "state[1]", "result[0]"."""
    if side.of_form:
        y, state = result
        return [*_paths(y, "y"), *_paths(state, "state")]
    return list(_paths(result, "result"))


def _paths(tree: Any, name: str) -> Iterator[str]:
    if isinstance(tree, Mapping):
        for key in sorted(tree):
            yield from _paths(tree[key], f"{name}[{key!r}]")
    elif isinstance(tree, (tuple, list)):
        for i, item in enumerate(tree):
            yield from _paths(item, f"{name}[{i}]")
    elif tree is not None:
        yield name


def derivative_names(statement: Statement, example: Mapping[str, Any], order: int) -> list[str]:
    """Return a name for each array that `evaluate` returns at this example for derivatives of this order."""
    leaves = [name for name, strategy in arguments(statement.strategies, example) if strategy.differentiable]
    gradients = [f"gradient of {name}" for name in leaves]
    if order == 1:
        return gradients
    passes = "in a recorded pass (left) and an ordinary one (right)"
    return [
        *(f"{name}, of the {side} side, {passes}" for side in ("left", "right") for name in gradients),
        *(f"second derivative by {name}" for name in leaves),
    ]


def arguments(strategies: Any, example: Any, name: str = "") -> Iterator[tuple[str, Strategy]]:
    """Yield the name and the strategy of each array of an example, in the order of conversion."""
    if isinstance(strategies, Maybe):
        if example is not None:
            yield from arguments(strategies.strategy, example, name)
    elif isinstance(strategies, Strategy):
        if strategies.fill is not None:
            yield name, strategies
    elif isinstance(strategies, Mapping):
        for key, item in strategies.items():
            yield from arguments(item, example[key], key)
    else:
        for i, (item, value) in enumerate(zip(strategies, example, strict=True)):
            yield from arguments(item, value, f"{name}[{i}]")


def encodings(statement: Statement, example: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each argument that a counterexample does not show as it is."""
    sentences = []
    for name, strategy in arguments(statement.strategies, example):
        if strategy.logarithm:
            sentences.append(
                f"{name}: a number a stands for its logarithm, which is the argument: floats are log a, rounded to "
                f"float32; over fractions and modulo a prime exp({name}) is a itself, and no rounding comes between"
            )
        if strategy.complex:
            sentences.append(f"{name}: a pair [x, y] stands for x + iy")
    return sentences


def number(x: Any) -> str:
    """Return an entry of an array as text: an exact number whole, others with 6 digits."""
    return f"{x:.6g}" if isinstance(x, (float, complex, np.inexact)) else str(x)

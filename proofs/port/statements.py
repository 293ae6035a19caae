"""The statements that a form takes part in, checked with a port in the form's place.

Of the number systems of the checker a port knows float64 and float32, and its own gradients in float64. Examples are
drawn as for the form, but for gates, which are 0, 1 or not far from it: where they underflow, a port that subtracts
sums of logarithms loses digits. The bound is the statement's own, with more roundings (`proofs.port.stand_in`).
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.forms import FormFunction
from models.references import cited
from proofs.checker import measuring
from proofs.checker.forms import Form
from proofs.checker.run import Search, SystemResult
from proofs.checker.statements import STATEMENTS, Statement
from proofs.checker.strategies import Maybe, Strategy, elements, gates
from proofs.checker.systems import SYSTEMS
from proofs.port.running import Port
from proofs.port.stand_in import stand_in
from proofs.port.substitution import Unsuitable, calls, form_function, forms_called, substituted

SECONDS = 20.0  # of the processor, for all statements together
SHRINK_SECONDS = 3.0
EXAMPLES = {"float64": 8, "gradient": 4, "float32": 4}  # the number systems in their order, with the examples in each
JAX_EXAMPLES = {"float64": 2, "gradient": 1, "float32": 1}
JAX_SIZES = {"*batch": (2,), "T": 3, **dict.fromkeys("KVSDNHP", 2)}  # it compiles for every shape
GATES = elements("1/2", 1, "2/3", "1/5", "6/7", 0)
NO_STATE = Strategy(number=lambda draw, sizes: None)

HOLDS, FAILS, LEFT_OUT = "holds", "fails", "left out"


@dataclass(frozen=True)
class Stated:
    """A statement with a port in the form's place: whether it holds, or why it was left out."""

    name: str
    sentence: str
    source: str
    status: str
    reason: str = ""  # why it was left out
    examples: int = 0
    system: str = ""  # the number system in which it fails
    failure: str = ""
    left: str = ""  # the expression of the left side, and the forms that it leads to
    right: str = ""
    counterexample: str = ""  # assignments of plain numbers


class _OutOfTimeError(BaseException):
    """Raised at an example where the time is over; no `Exception`, which would be a failure of the statement."""


def check_statements(port: Port, chunk: int, precisions: Sequence[str], seconds: float = SECONDS) -> Iterator[Stated]:
    """Yield every statement that the port's form takes part in, the general ones first, with the port in its place.

    `chunk` is the size of the port's mini-batches where it takes none. After the first failure the others are tried in
    float64 only, without shrinking.
    """
    importlib.import_module("proofs.identities")
    taking_part = [s for s in STATEMENTS.values() if calls(s, port.form)]
    taking_part.sort(
        key=lambda s: (s.chapter != "every_mechanism", not s.chapter.startswith(port.form.name.split(".")[0]))
    )
    function, deadline, failed = stand_in(port, chunk), time.process_time() + seconds, False
    for statement in taking_part:
        if reason := _reason(statement, port):
            yield Stated(statement.name, statement.sentence, cited(statement.source), LEFT_OUT, reason)
            continue
        stated = _check(port, chunk, statement, function, precisions, deadline, first=not failed)
        failed = failed or stated.status == FAILS
        yield stated


def _reason(statement: Statement, port: Port) -> str:
    """Return why a statement cannot take a port at all; empty where it can."""
    if statement.kind == "grows":
        return "counts operations, memory or steps"
    if statement.kind in measuring.KINDS:
        return "measures a limit"
    if statement.kind == "refuted" and port.framework.name == "jax":
        return "has a counterexample of some other shape, which JAX would compile"
    if statement.only and not set(statement.only) & set(EXAMPLES):
        return "in exact numbers only"
    if any(isinstance(x, Form) and x.name != port.form.name and x.compiled for x in statement.fixed.values()):
        return "is about a kernel"
    return ""


def _check(
    port: Port,
    chunk: int,
    statement: Statement,
    function: FormFunction,
    precisions: Sequence[str],
    deadline: float,
    *,
    first: bool,
) -> Stated:
    stated = functools.partial(Stated, statement.name, statement.sentence, cited(statement.source))
    strategies = {name: _adapted(x, name, port, chunk) for name, x in statement.strategies.items()}
    inserted = replace(substituted(statement, port.form, function), strategies=strategies, exact=False)
    tried, calls_before, refused = 0, vars(function)["calls"], ""
    try:
        for name in _systems(inserted, port, precisions)[: None if first else 1]:
            try:
                result = _search(port, inserted, name, deadline, SHRINK_SECONDS if first else 0.0)
            except Unsuitable as error:  # values may be suited where derivatives are not
                refused = str(error)
                continue
            if result.failure.startswith("no counterexample: "):  # an error is none, whoever makes it
                return stated(LEFT_OUT, "its examples have no value")
            if result.status == "failed" and not result.failure.startswith("no example had a finite bound"):
                left, right = sides(statement, port.form)
                text = "" if statement.kind == "refuted" else _assignments(strategies, result.counterexample)
                return stated(
                    FAILS,
                    examples=tried + result.examples,
                    system=name,
                    failure=result.failure,
                    left=left,
                    right=right,
                    counterexample=text,
                )
            tried += result.examples if result.status == "passed" else 0
    except _OutOfTimeError:
        return stated(HOLDS, examples=tried) if tried else stated(LEFT_OUT, "the time was over")
    if refused and not tried:
        return stated(LEFT_OUT, refused)
    if vars(function)["calls"] == calls_before:
        return stated(LEFT_OUT, "never calls the form on floats")
    return stated(HOLDS, examples=tried) if tried else stated(LEFT_OUT, "no example had a finite bound")


def _systems(statement: Statement, port: Port, precisions: Sequence[str]) -> list[str]:
    """Return the number systems that a statement and a port have in common."""
    known = {"float64": "float64" in precisions, "float32": "float32" in precisions}
    known["gradient"] = known["float64"] and port.differentiates
    return [name for name in EXAMPLES if known[name] and SYSTEMS[name].applies_to(statement)]


def _search(port: Port, statement: Statement, name: str, deadline: float, shrink_seconds: float) -> SystemResult:
    """Check a statement in one number system. Raises _OutOfTimeError where no time is left for it."""
    jax = port.framework.name == "jax"

    def compare(example: Mapping[str, Any]) -> Any:
        if time.process_time() > deadline:
            raise _OutOfTimeError
        return SYSTEMS[name].compare(statement, example)

    examples = (JAX_EXAMPLES if jax else EXAMPLES)[name]
    search = Search(statement, compare, examples, shrink_seconds, JAX_SIZES if jax else None)
    result = search.run()
    if result.status == "failed" and search.failed is not None:
        compared, example = search.failed
        result.failure = SYSTEMS[name].describe(statement, example, compared)
    return result


def _adapted(tree: Any, name: str, port: Port, chunk: int) -> Any:
    """Return how an argument is drawn for a port: no state where it takes none, chunks of a size it has, mild gates."""
    if isinstance(tree, Maybe):
        return Maybe(_adapted(tree.strategy, name, port, chunk)) if port.signature.takes("state") else NO_STATE
    if isinstance(tree, Mapping):
        return {key: _adapted(item, key, port, chunk) for key, item in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_adapted(item, name, port, chunk) for item in tree)
    if tree.fill is gates:
        tree = replace(tree, fill=GATES)
    jax = port.framework.name == "jax"
    if (
        name in ("chunk_size", "batch_size")
        and tree.number is not None
        and (jax or not port.signature.takes("chunk_size"))
    ):
        fixed = 2 if port.signature.takes("chunk_size") else chunk
        return replace(tree, number=lambda draw, sizes: fixed)
    return replace(tree, sizes={axis: n for axis, n in tree.sizes.items() if axis != "T"}) if jax else tree


# What is shown of a failure


def sides(statement: Statement, form: Form) -> tuple[str, str]:
    """Return the expressions of both sides, each with the forms that it leads to, one of which is the port."""
    function = inspect.unwrap(statement.function)
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, SyntaxError):
        return "the first result", "the second result"
    returned = [node.value for node in ast.walk(body) if isinstance(node, ast.Return)]
    both = next((x.elts for x in returned[::-1] if isinstance(x, ast.Tuple) and len(x.elts) == 2), None)
    if both is None:
        return "the first result", "the second result"
    left, right = (_shown(statement, function.__globals__, body, side, form) for side in both)
    return left, right


def _shown(statement: Statement, scope: Mapping[str, Any], body: ast.AST, side: ast.expr, form: Form) -> str:
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(body):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for name in (x.id for target in targets for x in ast.walk(target) if isinstance(x, ast.Name)):
            assigned.setdefault(name, []).append(node.value)  # type: ignore[attr-defined]
        if isinstance(node, ast.FunctionDef) and node is not body:
            assigned.setdefault(node.name, []).extend(x for x in ast.walk(node) if isinstance(x, ast.expr))
    found: dict[str, None] = {}
    queue, seen = [side], set()
    while queue:
        for node in ast.walk(queue.pop()):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                value = getattr(scope.get(node.value.id), node.attr, None)
            elif isinstance(node, ast.Name):
                value = statement.fixed.get(node.id, scope.get(node.id))
                if node.id not in seen:
                    seen.add(node.id)
                    queue += assigned.get(node.id, [])
            else:
                continue
            if isinstance(value, Form):
                found["the port" if value.name == form.name else value.name] = None
            elif callable(value):
                for called in forms_called(value):
                    found[_called(called, form)] = None
    return f"{ast.unparse(side)}   ({', '.join(found) or 'no form'})"


def _called(function: FormFunction, form: Form) -> str:
    module = function.__module__.rpartition(".")[2]
    return "the port" if function is form_function(form) else f"{module}.{function.__name__}"


def _assignments(strategies: Mapping[str, Any], encoded: Mapping[str, Any]) -> str:
    """Return lines such as `k = [[1, -1/3]]`, of the arguments as they were drawn."""
    lines: list[str] = []

    def add(name: str, tree: Any, value: Any) -> None:
        if isinstance(tree, Maybe) and value is not None:
            add(name, tree.strategy, value)
        elif isinstance(tree, Mapping):
            for key, item in tree.items():
                add(key if name in ("", "tokens") else f"{name}_{key}", item, value[key])
        else:
            text = re.sub(r"'(-?\d+/\d+)'", r"\1", repr(value))
            logarithm = isinstance(tree, Strategy) and tree.logarithm
            pairs = isinstance(tree, Strategy) and tree.complex
            lines.append(f"{name} = {f'log of {text}' if logarithm else text}{'  # pairs (x, y): x + iy' * pairs}")

    add("", strategies, encoded)
    return "\n".join(lines)

"""Statements with another function in the place of a form.

A statement's code names forms, `delta_rule.chunkwise`, itself or in helpers among the statements. `substituted` returns
the statement on copies of these functions that have other globals, so that nothing else sees the function.
"""

from __future__ import annotations

import dis
import functools
import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from models.forms import FormFunction
from proofs.checker.forms import Form
from proofs.checker.statements import Statement


class Unsuitable(BaseException):
    """Raised where a port cannot be called as a statement calls the form.

    It is no `Exception`, which the checker would take for a failure of the statement.
    """


class _Absent:
    """The final state of a port that returns none. What computes with it, or continues from it, is not suited."""

    __array_ufunc__ = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("dtype", "shape"):
            raise AttributeError(name)
        raise Unsuitable("the port returns no state")

    def _refuse(self, *_: Any) -> Any:
        raise Unsuitable("the port returns no state")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __matmul__ = __rmatmul__ = __getitem__ = _refuse


ABSENT = _Absent()


def without_absent(left: Any, right: Any) -> tuple[Any, Any]:
    """Return two sides without what stands for, or beside, the final state of a port that returns none."""
    if left is ABSENT or right is ABSENT:
        return None, None
    if isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right):
        pairs = [without_absent(x, y) for x, y in zip(left, right, strict=True)]
        return tuple(x for x, _ in pairs), tuple(y for _, y in pairs)
    return left, right


def form_function(form: Form) -> FormFunction:
    """Return the function of a form's module, as statements call it."""
    module = inspect.getmodule(inspect.unwrap(form.function))
    return typing.cast(FormFunction, getattr(module, form.function.__name__))


def calls(statement: Statement, form: Form) -> bool:
    """Return whether a statement calls a form, by the arguments that are bound to it or by its code."""
    bound = [x for x in statement.fixed.values() if isinstance(x, Form)]
    if bound:
        return any(x.name == form.name for x in bound)
    functions = [statement.function, *(x for x in statement.fixed.values() if callable(x))]
    return any(form_function(form) in forms_called(f) for f in functions)


@functools.cache
def forms_called(function: Any) -> frozenset[FormFunction]:
    """Return the forms that a function is, or that its code names, itself or in helpers among the statements."""
    found, seen, queue = set(), set(), [function]
    while queue:
        value = queue.pop()
        if isinstance(value, FormFunction):
            found.add(value)
        elif _is_helper(value) and value not in seen:
            seen.add(value)
            queue += _globals(value).values()
    return frozenset(found)


def _is_helper(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and value.__module__.startswith("proofs.identities.")


def _globals(function: types.FunctionType) -> dict[tuple[str, str], Any]:
    """Return the globals that a function's code names, and the attributes of modules, by (name, attribute or "")."""
    found: dict[tuple[str, str], Any] = {}
    for code in _codes(function.__code__):
        instructions = [*dis.get_instructions(code), None]
        for instruction, following in zip(instructions, instructions[1:], strict=False):
            if instruction is None or instruction.opname not in ("LOAD_GLOBAL", "LOAD_NAME"):
                continue
            name = instruction.argval
            value = function.__globals__.get(name)
            if isinstance(value, types.ModuleType):
                if following is not None and following.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                    found[name, following.argval] = getattr(value, following.argval, None)
            elif value is not None:
                found[name, ""] = value
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def substituted(statement: Statement, form: Form, function: FormFunction) -> Statement:
    """Return the statement with this function wherever it calls the form."""
    target = form_function(form)
    copies: dict[Any, types.FunctionType] = {}

    def changed(value: Any) -> Any:
        if value is target:
            return function
        if isinstance(value, Form):
            return replace(value, function=function) if value.name == form.name else value
        return _copy(value, target, function, copies) if _is_helper(value) else value

    claim = changed(statement.function)

    @functools.wraps(claim)
    def pruned(**arguments: Any) -> Any:
        return without_absent(*claim(**arguments))

    return replace(statement, function=pruned, fixed={name: changed(x) for name, x in statement.fixed.items()})


def _copy(
    helper: types.FunctionType, target: FormFunction, function: FormFunction, copies: dict[Any, Any]
) -> types.FunctionType:
    """Return a helper that calls the function for the form, as do the helpers that it calls."""
    if helper in copies:
        return typing.cast(types.FunctionType, copies[helper])
    scope = dict(helper.__globals__)
    copies[helper] = copy = types.FunctionType(
        helper.__code__, scope, helper.__name__, helper.__defaults__, helper.__closure__
    )
    copy.__kwdefaults__, copy.__dict__ = helper.__kwdefaults__, dict(vars(helper))
    copy.__annotations__, copy.__module__ = helper.__annotations__, helper.__module__
    for (name, attribute), value in _globals(helper).items():
        if value is target:
            scope[name] = types.SimpleNamespace(**{**vars(scope[name]), attribute: function}) if attribute else function
        elif not attribute and _is_helper(value):
            scope[name] = _copy(value, target, function, copies)
    return copy

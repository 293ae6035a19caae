"""Copies of a mechanism with one thing wrong, to see that the proofs notice."""

import dataclasses
import importlib
import inspect
import types
from collections.abc import Container
from pathlib import Path
from typing import Any

from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.checker.forms import Form
from proofs.checker.systems import SYSTEMS


def copy_of(name: str, text: str = "", instead: str = "") -> types.ModuleType:
    """Return the module `models.<name>` from its own source, with one piece of text replaced.

    Raises AssertionError where the source no longer has that text.
    """
    original = importlib.import_module(f"models.{name}")
    assert original.__file__
    source = Path(original.__file__).read_text(encoding="utf-8")
    assert text in source, f"{name} no longer says {text!r}"
    module = types.ModuleType(f"copies.{name}")
    exec(compile(source.replace(text, instead), original.__file__, "exec"), vars(module))
    return module


def statement_fails(name: str) -> bool:
    """Return whether a statement fails now, in its first number system; its bounds are computed anew."""
    stated = dataclasses.replace(STATEMENTS[name])
    return check_system(stated, systems_of(stated)[0]).status == "failed"


def first_failure(chapter: str) -> str | None:
    """Return the name of the first statement of a chapter that fails now, as `statement_fails` judges; None if none."""
    names = (name for name, statement in STATEMENTS.items() if statement.chapter == chapter)
    return next((STATEMENTS[name].name for name in names if statement_fails(name)), None)


def has_code_of_original(copy: types.ModuleType, name: str) -> bool:
    """Return whether each function of a copy compiled to the bytecode of the same function of `models.<name>`."""
    original = vars(importlib.import_module(f"models.{name}"))
    functions = [key for key, x in original.items() if inspect.isfunction(x) and x.__module__ == f"models.{name}"]
    return bool(functions) and all(_code(getattr(copy, key)) == _code(original[key]) for key in functions)


def _code(function: Any) -> types.CodeType:
    return inspect.unwrap(function).__code__


def verdicts(mechanism: str, form: str, module: types.ModuleType, systems: Container[str] = SYSTEMS) -> list[str]:
    """Return the verdicts on the statements about the form with a copy in its place, up to the first failure."""
    result: list[str] = []
    for statement in STATEMENTS.values():
        arguments = {
            role: dataclasses.replace(f, function=getattr(module, form))
            for role, f in statement.fixed.items()
            if isinstance(f, Form) and f.name.startswith(f"{mechanism}.{form}")
        }
        if arguments and statement.kind == "identity":
            stated = dataclasses.replace(statement, fixed={**statement.fixed, **arguments})
            for system in systems_of(stated):
                if system in systems and not SYSTEMS[system].library:  # what NumPy alone can tell
                    result.append(check_system(stated, system).status)
                    if result[-1] == "failed":
                        return result
    return result

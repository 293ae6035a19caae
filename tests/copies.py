"""Copies of a mechanism with one thing wrong, to see that the proofs notice."""

import importlib
import inspect
import types
from pathlib import Path
from typing import Any


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


def has_code_of_original(copy: types.ModuleType, name: str) -> bool:
    """Return whether each function of a copy compiled to the bytecode of the same function of `models.<name>`."""
    original = vars(importlib.import_module(f"models.{name}"))
    functions = [key for key, x in original.items() if inspect.isfunction(x) and x.__module__ == f"models.{name}"]
    return bool(functions) and all(_code(getattr(copy, key)) == _code(original[key]) for key in functions)


def _code(function: Any) -> types.CodeType:
    return inspect.unwrap(function).__code__

"""Copies of a mechanism with one thing wrong, to see that the proofs notice."""

import dataclasses
import importlib
import importlib.util
import inspect
import math
import sys
import types
from collections.abc import Container
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.checker.forms import Form
from proofs.checker.systems import SYSTEMS


def copy_of(name: str, text: str = "", instead: str = "") -> types.ModuleType:
    """Return the module `models.<name>`, or `minigrad.…`, from its own source, with one piece of text replaced.

    Raises AssertionError where the source no longer has that text.
    """
    original = importlib.import_module(name if name.startswith("minigrad.") else f"models.{name}")
    assert original.__file__
    source = Path(original.__file__).read_text(encoding="utf-8")
    assert text in source, f"{name} no longer says {text!r}"
    module = types.ModuleType(f"copies.{name}")
    exec(compile(source.replace(text, instead), original.__file__, "exec"), vars(module))
    return module


def copied_mixers(name: str = "", text: str = "", instead: str = "") -> dict[str, type]:
    """Return `models.blocks.MIXERS` of a new import of all blocks, the source of `models.blocks.<name>` changed.

    Configurations stay the original classes. Raises AssertionError where the source does not have the text once.
    """
    package, finder = "models.blocks", _ChangedSource(name, text, instead)
    originals = {key: sys.modules.pop(key) for key in list(sys.modules) if f"{key}.".startswith(f"{package}.")}
    finder.originals = originals
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(package).MIXERS
    finally:
        sys.meta_path.remove(finder)
        for key in [key for key in sys.modules if f"{key}.".startswith(f"{package}.")]:
            del sys.modules[key]
        sys.modules |= originals
        importlib.import_module("models").blocks = originals[package]  # type: ignore[attr-defined]


class _ChangedSource:
    """A finder of the modules in `models.blocks`, which changes the text of one."""

    def __init__(self, name: str, text: str, instead: str):
        self.name, self.text, self.instead = name, text, instead
        self.originals: dict[str, types.ModuleType] = {}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname not in self.originals:
            return None
        file, finder = self.originals[fullname].__file__, self
        assert file

        class Loader(SourceFileLoader):
            def get_code(self, fullname: str) -> types.CodeType:
                source = Path(self.path).read_text(encoding="utf-8")
                if finder.name and fullname == f"models.blocks.{finder.name}":
                    assert source.count(finder.text) == 1, f"{finder.name} does not have {finder.text!r} once"
                    source = source.replace(finder.text, finder.instead)
                return compile(source, self.path, "exec")

            def exec_module(self, module: types.ModuleType) -> None:
                super().exec_module(module)
                for key, original in vars(finder.originals[module.__name__]).items():
                    if dataclasses.is_dataclass(original):
                        setattr(module, key, original)

        return importlib.util.spec_from_file_location(fullname, file, loader=Loader(fullname, file))


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


def verdicts(
    mechanism: str, form: str, module: types.ModuleType, systems: Container[str] = SYSTEMS, most: float = math.inf
) -> list[str]:
    """Return the verdicts on the statements about the form with a copy in its place, up to the first failure.

    At most so many are given.
    """
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
                    if result[-1] == "failed" or len(result) >= most:
                        return result
    return result

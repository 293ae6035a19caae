"""The modules that a statement is about, so that it is found by the name of a mechanism or the path of a file.

They are the modules of `models`, `minigrad` and `gpu` to which its function, the helpers in `proofs` that it calls and
its bound arguments refer, and those that have its chapter's, its instance's or its own name.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proofs.checker.statements import Statement

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "minigrad", "gpu")
WILD = "*?"


def matches(pattern: str, names: frozenset[str]) -> bool:
    """Return whether one of these is the name, or matches it where it has wildcards; brackets are no wildcards."""
    if not any(character in pattern for character in WILD):
        return pattern in names
    literal = pattern.replace("[", "[[]")
    return any(fnmatchcase(name, literal) for name in names)


def normalized(name: str) -> str:
    """Return a path relative to the repository, that of a folder with "/*" after it; and another name as it is.

    Relative paths are those of the working directory, or else of the repository.
    """
    if "/" not in name and not name.endswith(".py"):
        return name
    path = next((p for p in (Path(name).absolute(), ROOT / name) if p.exists() and p.is_relative_to(ROOT)), None)
    if path is None:
        return name.removeprefix("./")
    relative = path.relative_to(ROOT).as_posix()
    return f"{relative}/*" if path.is_dir() else relative


@functools.cache
def names_of(statement: Statement) -> frozenset[str]:
    """Return all names by which `select` finds a statement: its own, its mechanisms' and its files'."""
    files = {path for name in statement.names for path in _files().get(name, ())}
    files |= {path for module in modules(statement) for path in _files().get(f"{module}.", ())}
    mechanisms = {".".join(path.removesuffix(".py").split("/")[1:]) for path in files if path.startswith("models/")}
    forms = {f"{name}.{'.'.join(parts)}" for name in mechanisms for parts in _forms(statement, name)}
    return frozenset({*statement.names, *files, *mechanisms, *forms, statement.place[0]})


def _forms(statement: Statement, mechanism: str) -> Iterator[list[str]]:
    """Yield what follows the name of a mechanism in an instance: a form, and a form with its shapes."""
    name, *rest = statement.instance.split(".")
    if name == mechanism.rpartition(".")[2]:
        yield from (rest[: i + 1] for i in range(len(rest)))


@functools.cache
def _files() -> dict[str, list[str]]:
    """Return the files of the packages by the last part of their names, and by module name with a point after it."""
    files: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            relative = path.relative_to(ROOT).as_posix()
            module = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for key in (f"{module}.", module.rpartition(".")[2]):
                files.setdefault(key, []).append(relative)
    return files


def modules(statement: Statement) -> set[str]:
    """Return the names of the modules that a statement's function, its helpers and its bound arguments refer to."""
    found, seen = set(), set()
    queue: list[Any] = [statement.function, *(getattr(x, "function", x) for x in statement.fixed.values())]
    while queue:
        item = inspect.unwrap(queue.pop())
        name = item.__name__ if inspect.ismodule(item) else getattr(item, "__module__", None)
        if not isinstance(name, str) or id(item) in seen:
            continue
        seen.add(id(item))
        if name.startswith("proofs.") and inspect.isfunction(item):
            queue += _globals(item.__code__, item.__globals__)
        found.add(name)
    return found


def _globals(code: types.CodeType, names: dict[str, Any]) -> list[Any]:
    """Return the global objects that a function, and the functions in it, refer to."""
    inner = [x for x in code.co_consts if isinstance(x, types.CodeType)]
    return [names[name] for name in code.co_names if name in names] + [x for c in inner for x in _globals(c, names)]

"""Statements that a change in a file can affect: their chapter or form imports it, the nearest first."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections import deque
from collections.abc import Container, Mapping
from pathlib import Path

from models.forms import mechanisms
from models.kernels.dispatch import KERNELS
from proofs.checker.statements import Statement
from proofs.mutate.placing import ROOT, module_name
from proofs.mutate.verdicts import Mutant

IMPORT = re.compile(r"^ *(?:from ([\w.]+) import (\([^)]*\)|.*)|import ([\w.]+))", re.MULTILINE)
STRING = re.compile(r'"([\w.: ]+)"')


@functools.cache
def imports() -> dict[str, set[str]]:
    """Return the modules that each module of the project imports or names in a string, as the table of kernels does."""
    files = [p for package in ("minigrad", "models", "proofs") for p in (ROOT / package).rglob("*.py")]
    paths = {module_name(p.relative_to(ROOT).as_posix()): p for p in files}
    graph = {name: named(path, paths) for name, path in paths.items()}
    for name in paths:
        if (package := name.rpartition(".")[0]) in graph:
            graph[package].add(name)
    return graph


def named(path: Path, modules: Container[str]) -> set[str]:
    """Return the modules, of these, that a file imports or names in a string."""
    text, found = path.read_text(encoding="utf-8"), set[str]()
    for package, names, plain in IMPORT.findall(text):
        found |= {package, plain} | {f"{package}.{name}" for name in re.findall(r"\w+", names)}
    for string in STRING.findall(text) if path.name != "dispatch.py" else ():
        kernel = KERNELS.get(string)
        found.add(kernel.numba if kernel else string)
    return {name for name in found if name in modules}


@functools.cache
def _distances(module: str) -> dict[str, int]:
    """Return how many imports lead from each module to this one."""
    importers: dict[str, set[str]] = {}
    for name, imported in imports().items():
        for other in imported:
            importers.setdefault(other, set()).add(name)
    distances, queue = {module: 0}, deque([module])
    while queue:
        name = queue.popleft()
        for importer in importers.get(name, set()) - set(distances):
            distances[importer] = distances[name] + 1
            queue.append(importer)
    return distances


def importers(module: str) -> set[str]:
    """Return the modules that import a module."""
    return {name for name, distance in _distances(module).items() if distance == 1}


def related(mutant: Mutant, statements: Mapping[str, Statement]) -> list[str]:
    """Return the names of the statements that may run code of the mutant's file, the likeliest to notice first.

    These name its function and its file, for instance `forms_agree[delta_rule.chunkwise]`; the others are as near as
    the fewest imports lead from them to the file.
    """
    distances, words = _distances(module_name(mutant.file)), {Path(mutant.file).stem, mutant.function}
    ranks = {}
    for name, statement in statements.items():
        far = min((distances.get(module, math.inf) for module in _modules(statement)), default=math.inf)
        if far < math.inf:
            ranks[name] = -len(words & set(re.split(r"[.\[\], ]", name))), far, statement.kind == "grows"
    return sorted(ranks, key=lambda name: ranks[name])


def _modules(statement: Statement) -> set[str]:
    """Return the modules that a statement calls: those of its forms, or its chapter."""
    names = {getattr(x, "name", "").partition(".")[0] for x in statement.fixed.values() if hasattr(x, "mechanism")}
    found = {f"models.{name}" for name in _mechanisms() if name.rpartition(".")[2] in names} if names else set()
    return found or {inspect.unwrap(statement.function).__module__}


@functools.cache
def _mechanisms() -> list[str]:
    return list(mechanisms())

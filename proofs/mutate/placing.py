"""Put a mutant in place of its module, in this process.

Where only functions change that did not run while modules were imported, they are given new code, which takes no time.
Otherwise the project is imported anew, with the changed text in place of the file's.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Container, Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("minigrad", "models", "gpu", "proofs")
VARIABLE = "PROOFS_MUTANT"  # in the environment of a process with a mutant: the module, and the file of its text


def module_name(file: str) -> str:
    """Return the import path of a file of the repository."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Finder:
    """A finder that reads one module from another file."""

    def __init__(self, module: str, file: str) -> None:
        self.module, self.file = module, file

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Return a spec of the module from the other file; None for all other modules."""
        if fullname != self.module:
            return None
        folder = [os.path.dirname(path)] if (path := _original(fullname)).endswith("__init__.py") else None
        loader = SourceFileLoader(fullname, self.file)
        return importlib.util.spec_from_file_location(
            fullname, self.file, loader=loader, submodule_search_locations=folder
        )


def _original(module: str) -> str:
    path = ROOT.joinpath(*module.split("."))
    return str(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))


def place_from_environment() -> None:
    """Put the mutant in place that the environment names, before its module is imported; pytest calls this."""
    module, _, file = os.environ[VARIABLE].partition("=")
    sys.meta_path.insert(0, Finder(module, file))


class Loaded:
    """The functions and the caches of the project in this process."""

    def __init__(self, ran_at_import: Container[types.CodeType] = ()) -> None:
        """Look them up among all objects; the functions that `ran_at_import` of modules keep their code."""
        self.ran_at_import = ran_at_import
        self.functions: dict[str, list[types.FunctionType]] = {}
        self.caches: list[Any] = []
        for x in gc.get_objects():
            if type(x) is types.FunctionType and x.__code__.co_filename.startswith(f"{ROOT}/"):
                self.functions.setdefault(x.__code__.co_filename, []).append(x)
            elif type(x) is functools._lru_cache_wrapper and x.__module__.partition(".")[0] in PACKAGES:
                self.caches.append(x)

    def replace_code(self, file: str, before: str, after: str) -> bool:
        """Give functions of a file the code of its changed text; return False, changing nothing, where it takes more.

        That is where what changes is outside functions, compiled by Numba, or ran when modules were imported.
        """
        module, path = sys.modules.get(module_name(file)), str(ROOT / file)
        if module is None or any(hasattr(x, "py_func") for x in vars(module).values()):
            return False
        codes = (compile(text, path, "exec", dont_inherit=True) for text in (before, after))
        changed = list(_changed(*codes))
        if not changed or any(old is None for old, _ in changed):
            return False
        pairs = [(f, new) for old, new in changed for f in self.functions.get(path, ()) if _same(f.__code__, old)]
        exists = any(_same(f.__code__, changed[0][0]) for f, _ in pairs)
        fits = all(len(f.__code__.co_freevars) == len(new.co_freevars) for f, new in pairs)
        if not exists or not fits or any(f.__code__ in self.ran_at_import for f, _ in pairs):
            return False
        for function, code in pairs:
            function.__code__ = code
        self.forget()
        return True

    def forget(self) -> None:
        """Empty the caches: they were filled by the code that was there before."""
        for cache in self.caches:
            cache.cache_clear()


def _changed(old: types.CodeType, new: types.CodeType, *, outside: bool = True) -> Iterator[tuple[Any, Any]]:
    """Yield the codes that differ, of a function before those inside it; (None, None) for one outside functions."""
    inner = [[c for c in code.co_consts if isinstance(c, types.CodeType)] for code in (old, new)]
    if old == new:
        return
    if not outside:
        yield old, new
    elif not _alike(old, new) or len(inner[0]) != len(inner[1]):
        yield None, None
        return
    for a, b in zip(*inner, strict=True) if len(inner[0]) == len(inner[1]) else ():
        yield from _changed(a, b, outside=outside and _is_class(a))


def _is_class(code: types.CodeType) -> bool:
    return not code.co_flags & 0x2  # CO_NEWLOCALS: functions, lambdas and comprehensions have it


def _alike(old: types.CodeType, new: types.CodeType) -> bool:
    """Return whether two codes do the same, but for the codes inside them."""
    plain = [[repr(c) for c in x.co_consts if not isinstance(c, types.CodeType)] for x in (old, new)]
    return old.co_code == new.co_code and plain[0] == plain[1] and old.co_names == new.co_names


def _same(one: types.CodeType, other: types.CodeType) -> bool:
    """Return whether two codes are of the same place: two lambdas on a line differ in their columns only."""
    return one == other and list(one.co_positions()) == list(other.co_positions())


def import_anew(module: str, file: str, loaded: Loaded) -> None:
    """Import the statements, and all that they need of the project, again, with a module from another file.

    What Numba compiles is read from its cache where it fits, and never written there.
    """
    loaded.forget()
    kept = ("minigrad.compiled.", "proofs.mutate") + (() if module.startswith("minigrad") else ("minigrad",))
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        if name == module or not name.startswith(kept):
            del sys.modules[name]
    sys.meta_path.insert(0, Finder(module, file))
    compilation: Any = importlib.import_module("minigrad.compiled.compilation")
    compilation._Cache.save_overload = lambda *_: None
    importlib.import_module("proofs.identities")


if os.environ.get(VARIABLE):
    place_from_environment()

"""Load a port from `FILE.py:FUNCTION` or `package.module:FUNCTION`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from _ctypes import CFuncPtr
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from models.errors import UserError, known_name
from proofs.port.locating import described


class CannotImport(UserError):
    """The module of a port raises an exception when it is imported."""


WRAPPER = "a function of NumPy arrays that calls the library by ctypes (CONTRIBUTING.md, Check a port, has an example)"


def load(place: str) -> tuple[Callable[..., Any], str]:
    """Return the function at a place, and the line that imports it.

    Raises UserError where there is no such file, module or function, CannotImport where the module raises when it is
    imported.
    """
    path, colon, name = place.rpartition(":")
    if not colon or not path or not name:
        raise UserError(f"port: expected FILE.py:FUNCTION, got '{place}'")
    if not path.endswith(".py") and Path(path).is_file():
        raise UserError(f"port: {path} is no Python file, expected one with {WRAPPER}")
    if not path.endswith(".py") and Path(path).name != path:
        raise UserError(f"port: expected FILE.py:FUNCTION, got '{place}'")
    module, shown = _from_file(Path(path)) if path.endswith(".py") else (_imported(path), path)
    functions = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
    if not hasattr(module, name):
        if not functions:
            raise UserError(f"port: {path} has no function {name}")
        known_name(name, f"port: function of {path}", functions)
    function = getattr(module, name)
    if not callable(function):
        raise UserError(f"port: {name} of {path} is of type {type(function).__name__}, expected a function")
    if isinstance(function, CFuncPtr):
        raise UserError(f"port: {name} of {path} is a function of a C library, expected {WRAPPER}")
    return function, f"from {shown} import {name}"


def _from_file(path: Path) -> tuple[ModuleType, str]:
    if not path.is_file():
        raise UserError(f"port: there is no file {path}")
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == path.resolve():
        return known, name
    spec = importlib.util.spec_from_file_location(name if known is None else f"port_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python FILE.py` does: for modules beside it, when it is imported and later
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the port's own code
        sys.modules.pop(spec.name)
        raise CannotImport(f"port: {path} cannot be imported: {described(error, str(path))}") from None
    return module, name


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the port's own code
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"port: there is no module {error.name}") from None
        raise CannotImport(f"port: {name} cannot be imported: {described(error)}") from None

"""Recognition of the framework that a port is written in: its compiler's, or that which its module imports."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from models.errors import UserError
from proofs.port.frameworks import CuPy, DLPack, Framework, Jax, Mlx, Numba, Tinygrad, Torch

KNOWN = {
    "numpy": Framework,
    "numba": Numba,
    "torch": Torch,
    "jax": Jax,
    "cupy": CuPy,
    "mlx.core": Mlx,
    "tinygrad": Tinygrad,
}
OTHERS = ("dpctl", "array_api_strict")  # recognised, so that nobody takes them for NumPy
FULL_NAMES = {"mlx": "mlx.core"}


def framework(name: str | None, function: Callable[..., Any]) -> Framework:
    """Return the framework of this name, or that of the modules which the function's own module imports.

    Raises UserError where these are several, and where the framework cannot be imported or is no library of arrays.
    """
    name = name or recognise(function)
    name = FULL_NAMES.get(name, name)
    found = KNOWN.get(name, DLPack)(name)
    if name not in KNOWN and not hasattr(found.module, "from_dlpack"):
        raise UserError(f"framework: {name} has no from_dlpack, expected {', '.join(KNOWN)} or one that has")
    return found


def recognise(function: Callable[..., Any]) -> str:
    """Return the framework that a function was compiled by, or that its globals name; NumPy where they name none.

    A module that imports Numba beside no other library has functions of NumPy's arrays.

    Raises UserError where they name several.
    """
    while isinstance(function, functools.partial):
        function = function.func
    libraries = {*KNOWN, *FULL_NAMES, *OTHERS} - {"numpy"}
    compiler = _root(type(function))
    if compiler in libraries:
        return FULL_NAMES.get(compiler, compiler)
    function = inspect.unwrap(function)
    scope = getattr(function, "__globals__", None) or vars(sys.modules[type(function).__module__])
    found = {_root(value) for value in scope.values()} & libraries
    if len(found) > 1:
        found.discard("numba")
    if len(found) > 1:
        raise UserError(f"framework: the port's module imports {' and '.join(sorted(found))}; choose by --framework")
    name = found.pop() if found else "numpy"
    return FULL_NAMES.get(name, name)


def _root(x: Any) -> str:
    """Return the package that a module is of, or that any other object comes from."""
    name = x.__name__ if isinstance(x, types.ModuleType) else getattr(x, "__module__", None)
    return str(name).partition(".")[0]

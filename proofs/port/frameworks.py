"""The array libraries of ports: arrays to them and back, and gradients by their own automatic differentiation.

    numpy, cupy     no automatic differentiation: gradients by the port's `backward`
    torch           torch.autograd.grad
    jax             jax.vjp, with 64-bit numbers enabled while the port runs
    others          by name, `mlx.core`; arrays go over by DLPack, gradients by the port's `backward`

The gradient of a complex argument is Jᴴ g, as in minigrad and PyTorch; JAX returns its conjugate, which is undone here.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from models.errors import UserError

PRECISIONS = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8}  # with their unit roundoffs
COMPLEX = {"float64": "complex128", "float32": "complex64"}

Function = Callable[[list[Any]], Sequence[Any]]  # of arrays, to arrays


class Framework:
    """NumPy, and what other libraries do otherwise."""

    precisions: tuple[str, ...] = ("float64", "float32")
    differentiates = False

    def __init__(self, name: str = "numpy"):
        self.name = name
        try:
            self.module = importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"framework: {name} cannot be imported ({error})") from None

    @property
    def context(self) -> AbstractContextManager[Any]:
        """Return the context in which arrays are made and the port runs."""
        return nullcontext()

    def array(self, x: np.ndarray, precision: str) -> Any:
        """Return an array of this library with numbers of this precision."""
        return self.module.asarray(cast(x, precision))

    def numpy(self, x: Any) -> np.ndarray:
        """Return a NumPy array of float64 or complex128 with the numbers of x."""
        x = np.asarray(x)
        return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)

    def is_array(self, x: Any) -> bool:
        return hasattr(x, "shape") and hasattr(x, "dtype")

    def precision_of(self, x: Any) -> str:
        """Return the name of its dtype, that of the parts if it is complex."""
        name = str(x.dtype).rpartition(".")[2]
        return {complex_name: real for real, complex_name in COMPLEX.items()}.get(name, name)

    def gradients(
        self, function: Function, arrays: list[Any], cotangents: Sequence[np.ndarray], precision: str
    ) -> list[Any]:
        """Return Jᴴ g for each array, by the library's automatic differentiation; None where no result depends on it.

        `function` returns as many results as there are cotangents.
        """
        raise NotImplementedError

    def literal(self, x: np.ndarray, precision: str) -> str:
        """Return an expression that makes this array."""
        return f"np.array({plain(x)}, dtype=np.{dtype_name(x, precision)})"

    imports: tuple[str, ...] = ("import numpy as np",)


class CuPy(Framework):
    """CuPy, which has NumPy's interface on a GPU."""

    imports = ("import cupy",)

    def numpy(self, x: Any) -> np.ndarray:
        return super().numpy(self.module.asnumpy(x))

    def literal(self, x: np.ndarray, precision: str) -> str:
        return f"cupy.array({plain(x)}, dtype=cupy.{dtype_name(x, precision)})"


class Torch(Framework):
    """PyTorch."""

    precisions = ("float64", "float32", "bfloat16")
    differentiates = True
    imports = ("import torch",)

    def array(self, x: np.ndarray, precision: str) -> Any:
        return self.module.from_numpy(np.array(x)).to(getattr(self.module, dtype_name(x, precision)))

    def numpy(self, x: Any) -> np.ndarray:
        x = x.detach().resolve_conj().cpu()
        return super().numpy((x if x.is_complex() else x.double()).numpy())

    def gradients(
        self, function: Function, arrays: list[Any], cotangents: Sequence[np.ndarray], precision: str
    ) -> list[Any]:
        leaves = [x.clone().requires_grad_() for x in arrays]
        results = zip(function(leaves), cotangents, strict=True)
        pairs = [(r, self.array(c, precision).to(r.dtype)) for r, c in results if r.requires_grad]
        if not pairs:
            return [None] * len(leaves)
        outputs, weights = zip(*pairs, strict=True)
        return list(self.module.autograd.grad(outputs, leaves, weights, allow_unused=True))

    def literal(self, x: np.ndarray, precision: str) -> str:
        return f"torch.tensor({plain(x)}, dtype=torch.{dtype_name(x, precision)})"


class Jax(Framework):
    """JAX."""

    precisions = ("float64", "float32", "bfloat16")
    differentiates = True
    imports = ("import jax", "", 'jax.config.update("jax_enable_x64", True)')

    @property
    def context(self) -> AbstractContextManager[Any]:
        return self.module.enable_x64(True)

    def array(self, x: np.ndarray, precision: str) -> Any:
        """Return an array that NumPy has cast: JAX would compile a cast for each shape."""
        return self.module.numpy.asarray(np.asarray(x).astype(self.module.numpy.dtype(dtype_name(x, precision))))

    def gradients(
        self, function: Function, arrays: list[Any], cotangents: Sequence[np.ndarray], precision: str
    ) -> list[Any]:
        results, pull = self.module.vjp(lambda *leaves: list(function(list(leaves))), *arrays)
        weights = [
            self.module.numpy.asarray(c.conj().astype(r.dtype)) for r, c in zip(results, cotangents, strict=True)
        ]
        return [np.asarray(x).conj() for x in pull(weights)]

    def literal(self, x: np.ndarray, precision: str) -> str:
        return f'jax.numpy.array({plain(x)}, dtype="{dtype_name(x, precision)}")'


class DLPack(Framework):
    """A library of which only its `from_dlpack` is known, and that its arrays export themselves likewise."""

    def __init__(self, name: str):
        super().__init__(name)
        if not hasattr(self.module, "from_dlpack"):
            raise UserError(f"framework: {name} has no from_dlpack, expected numpy, torch, jax, cupy or one that has")

    @property
    def imports(self) -> tuple[str, ...]:  # type: ignore[override]
        return "import numpy as np", f"import {self.name}"

    def array(self, x: np.ndarray, precision: str) -> Any:
        return self.module.from_dlpack(cast(x, precision))

    def numpy(self, x: Any) -> np.ndarray:
        return super().numpy(np.from_dlpack(x))

    def literal(self, x: np.ndarray, precision: str) -> str:
        return f"{self.name}.from_dlpack({super().literal(x, precision)})"


KNOWN = {"numpy": Framework, "torch": Torch, "jax": Jax, "cupy": CuPy}
OTHERS = ("mlx", "tinygrad", "dpctl", "array_api_strict")  # recognised, so that nobody takes them for NumPy


def framework(name: str | None, function: Callable[..., Any]) -> Framework:
    """Return the framework of this name, or that of the modules which the function's own module imports.

    Raises UserError where these are several, or the framework cannot be imported.
    """
    name = name or recognise(function)
    return KNOWN[name](name) if name in KNOWN else DLPack(name)


def recognise(function: Callable[..., Any]) -> str:
    """Return the framework that the globals of a function name; NumPy where they name none.

    Raises UserError where they name several.
    """
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    found = set()
    for value in getattr(function, "__globals__", {}).values():
        module = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        root = str(module).partition(".")[0]
        if root in ("torch", "jax", "cupy", *OTHERS):
            found.add({"mlx": "mlx.core"}.get(root, root))
    if len(found) > 1:
        raise UserError(f"framework: the port's module imports {' and '.join(sorted(found))}; choose by --framework")
    return found.pop() if found else "numpy"


def cast(x: np.ndarray, precision: str) -> np.ndarray:
    """Return a contiguous copy in this precision."""
    return np.array(x, dtype=dtype_name(x, precision), order="C")


def dtype_name(x: np.ndarray, precision: str) -> str:
    """Return the name of the dtype that the array has in this precision."""
    return COMPLEX[precision] if x.dtype.kind == "c" else precision


def plain(x: np.ndarray) -> str:
    """Return nested lists of plain numbers."""
    return repr(np.asarray(x).tolist()).replace("-inf", "-float('inf')").replace("nan", "float('nan')")

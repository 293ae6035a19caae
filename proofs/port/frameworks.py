"""The array libraries of ports: arrays to them and back, and gradients by their own automatic differentiation.

    numpy, cupy     no automatic differentiation: gradients by the port's `backward`
    numba           NumPy's arrays, as in C behind ctypes; gradients by the port's `backward`
    torch           torch.autograd.grad
    jax             jax.vjp, with 64-bit numbers enabled while the port runs
    mlx.core        mx.vjp, on the CPU, which alone has float64
    tinygrad        Tensor.gradient; no complex numbers
    others          by name; arrays go over by DLPack, gradients by the port's `backward`

The gradient of a complex argument is Jᴴ g, as in minigrad and PyTorch; JAX returns its conjugate, which is undone here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import UserError

PRECISIONS = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8}  # with their unit roundoffs
COMPLEX = {"float64": "complex128", "float32": "complex64"}

Function = Callable[[list[Any]], Sequence[Any]]  # of arrays, to arrays


@dataclass(frozen=True)
class Call:
    """A call of a port in code: its expression, the names of its arrays, what is assigned, and each result."""

    expression: str
    arrays: Sequence[str]
    returned: str
    results: Sequence[str]


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

    def gradient_code(self, call: Call, argument: str, cotangents: Sequence[np.ndarray], precision: str) -> list[str]:
        """Return lines that print the gradient of Σ c r for one argument, the results r and their cotangents c."""
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


class Numba(Framework):
    """Numba, whose functions take NumPy's arrays."""

    def array(self, x: np.ndarray, precision: str) -> Any:
        return cast(x, precision)


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

    def gradient_code(self, call: Call, argument: str, cotangents: Sequence[np.ndarray], precision: str) -> list[str]:
        weights = ", ".join(self.literal(c, precision) for c in cotangents)
        results = f"[{', '.join(call.results)}], {argument}, [{weights}]"
        return [
            f"for x in [{', '.join(call.arrays)}]:",
            "    x.requires_grad_()",
            f"{call.returned} = {call.expression}",
            f"print(torch.autograd.grad({results}, allow_unused=True)[0])",
        ]


class Jax(Framework):
    """JAX."""

    precisions = ("float64", "float32", "bfloat16")
    differentiates = True
    imports = ("import jax", "", 'jax.config.update("jax_enable_x64", True)')

    def __init__(self, name: str = "jax"):
        super().__init__(name)
        self._compiled: dict[Function, Callable[..., Any]] = {}

    @property
    def context(self) -> AbstractContextManager[Any]:
        return self.module.enable_x64(True)

    def array(self, x: np.ndarray, precision: str) -> Any:
        """Return an array that NumPy has cast: JAX would compile a cast for each shape."""
        return self.module.numpy.asarray(np.asarray(x).astype(self.module.numpy.dtype(dtype_name(x, precision))))

    def gradients(
        self, function: Function, arrays: list[Any], cotangents: Sequence[np.ndarray], precision: str
    ) -> list[Any]:
        """Compile the pass once for each function and shape; what cannot be traced runs operation by operation."""

        def pull(arrays: list[Any], weights: list[Any]) -> Any:
            results, vjp = self.module.vjp(lambda *leaves: list(function(list(leaves))), *arrays)
            return vjp([c.astype(r.dtype) for r, c in zip(results, weights, strict=True)])

        compiled = self._compiled.setdefault(function, self.module.jit(pull))
        weights = [self.array(c.conj(), precision) for c in cotangents]
        try:
            pulled = compiled(arrays, weights)
        except Exception:  # as where values decide what is done; what else is wrong is raised again
            pulled = pull(arrays, weights)
            self._compiled[function] = pull
        return [np.asarray(x).conj() for x in pulled]

    def literal(self, x: np.ndarray, precision: str) -> str:
        return f'jax.numpy.array({plain(x)}, dtype="{dtype_name(x, precision)}")'

    def gradient_code(self, call: Call, argument: str, cotangents: Sequence[np.ndarray], precision: str) -> list[str]:
        weights = ", ".join(self.literal(c.conj(), precision) for c in cotangents)
        return [
            *_as_function(call, argument),
            f"_, pull = jax.vjp(results, {argument})",
            f"print(pull([{weights}])[0].conj())",
        ]


class Mlx(Framework):
    """MLX, on the CPU."""

    precisions = ("float64", "float32", "bfloat16")
    differentiates = True
    imports = ("import mlx.core as mx", "", "mx.set_default_device(mx.cpu)")

    @property
    def context(self) -> AbstractContextManager[Any]:
        return self.module.stream(self.module.cpu)

    def array(self, x: np.ndarray, precision: str) -> Any:
        if dtype_name(x, precision) == "complex128":
            raise UserError("precisions: mlx.core has no complex128, expected float32")
        return self.module.array(x, dtype=getattr(self.module, dtype_name(x, precision)))

    def numpy(self, x: Any) -> np.ndarray:
        return super().numpy(x.astype(self.module.float32) if x.dtype == self.module.bfloat16 else x)

    def gradients(
        self, function: Function, arrays: list[Any], cotangents: Sequence[np.ndarray], precision: str
    ) -> list[Any]:
        weights = [self.array(c, precision) for c in cotangents]
        return list(self.module.vjp(lambda *leaves: list(function(list(leaves))), arrays, weights)[1])

    def literal(self, x: np.ndarray, precision: str) -> str:
        return f"mx.array({plain(x)}, dtype=mx.{dtype_name(x, precision)})"

    def gradient_code(self, call: Call, argument: str, cotangents: Sequence[np.ndarray], precision: str) -> list[str]:
        weights = ", ".join(self.literal(c, precision) for c in cotangents)
        return [*_as_function(call, argument), f"print(mx.vjp(results, [{argument}], [{weights}])[1][0])"]


class Tinygrad(Framework):
    """tinygrad."""

    differentiates = True
    imports = ("from tinygrad import Tensor",)

    def __init__(self, name: str = "tinygrad"):
        super().__init__(name)
        try:
            _ = self.module.Device.DEFAULT
        except RuntimeError as error:
            needed = "on a CPU it needs clang or LLVM, or the environment variable DEV=PYTHON"
            raise UserError(f"framework: tinygrad has {error}: {needed}") from None

    def array(self, x: np.ndarray, precision: str) -> Any:
        """Return a tensor with a buffer, which for a number tinygrad makes a constant."""
        if x.dtype.kind == "c":
            raise UserError("framework: tinygrad has no complex numbers")
        return self.module.Tensor(np.atleast_1d(cast(x, precision))).reshape(x.shape)

    def numpy(self, x: Any) -> np.ndarray:
        return super().numpy(x.numpy())

    def precision_of(self, x: Any) -> str:
        names = {getattr(self.module.dtypes, name): name for name in PRECISIONS}
        return names.get(x.dtype, str(x.dtype))

    def gradients(
        self, function: Function, arrays: list[Any], cotangents: Sequence[np.ndarray], precision: str
    ) -> list[Any]:
        total = sum((r * self.array(c, precision)).sum() for r, c in zip(function(arrays), cotangents, strict=True))
        return [None if x.device is None else x for x in total.gradient(*arrays)]  # 0 of no device: none flows

    def literal(self, x: np.ndarray, precision: str) -> str:
        return f'Tensor({plain(x)}, dtype="{precision}")'

    def gradient_code(self, call: Call, argument: str, cotangents: Sequence[np.ndarray], precision: str) -> list[str]:
        weights = [self.literal(c, precision) for c in cotangents]
        total = " + ".join(f"({r} * {c}).sum()" for r, c in zip(call.results, weights, strict=True))
        return [f"{call.returned} = {call.expression}", f"print(({total}).gradient({argument})[0].numpy())"]


class DLPack(Framework):
    """A library of which only its `from_dlpack` is known, and that its arrays export themselves likewise."""

    @property
    def imports(self) -> tuple[str, ...]:  # type: ignore[override]
        return "import numpy as np", f"import {self.name}"

    def array(self, x: np.ndarray, precision: str) -> Any:
        return self.module.from_dlpack(cast(x, precision))

    def numpy(self, x: Any) -> np.ndarray:
        return super().numpy(np.from_dlpack(x))

    def literal(self, x: np.ndarray, precision: str) -> str:
        return f"{self.name}.from_dlpack({super().literal(x, precision)})"


def _as_function(call: Call, argument: str) -> list[str]:
    """Return lines that define the results as a function of one argument."""
    return [
        f"def results({argument}):",
        f"    {call.returned} = {call.expression}",
        f"    return [{', '.join(call.results)}]",
        "",
    ]


def cast(x: np.ndarray, precision: str) -> np.ndarray:
    """Return a contiguous copy in this precision."""
    return np.array(x, dtype=dtype_name(x, precision), order="C")


def dtype_name(x: np.ndarray, precision: str) -> str:
    """Return the name of the dtype that the array has in this precision."""
    return COMPLEX[precision] if x.dtype.kind == "c" else precision


def plain(x: np.ndarray) -> str:
    """Return nested lists of plain numbers."""
    return repr(np.asarray(x).tolist()).replace("-inf", "-float('inf')").replace("nan", "float('nan')")

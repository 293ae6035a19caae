"""Operators and methods of Tensor, defined by the primitives."""

from __future__ import annotations

from typing import Any

from minigrad.engine import Tensor, constant, unwrap
from minigrad.interop import ClassOnlyMethod, array_function, array_ufunc
from minigrad.primitives import elementwise, indexing, linalg, nondifferentiable, reductions, shapes


def _binary(f: Any) -> tuple[Any, Any]:
    """Return the operator and its reflected version."""
    return (lambda x, y: f(x, y)), (lambda x, y: f(y, x))


for _name, _function in {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "pow": elementwise.pow,
    "matmul": linalg.matmul,
    "mod": elementwise.remainder,
    "floordiv": nondifferentiable.floor_divide,
    "divmod": lambda x, y: (x // y, x % y),
}.items():
    _left, _right = _binary(_function)
    setattr(Tensor, f"__{_name}__", _left)
    setattr(Tensor, f"__r{_name}__", _right)

_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_BITWISE = ("and", "or", "xor", "lshift", "rshift")
for _name in (*_COMPARISONS, *_BITWISE, *(f"r{name}" for name in _BITWISE)):  # constants for gradients

    def _compare(x: Any, y: Any, _name: str = f"__{_name}__") -> Any:
        result = getattr(unwrap(x), _name)(unwrap(y))
        return result if result is NotImplemented else constant(result)

    setattr(Tensor, f"__{_name}__", _compare)

for _name, _function in {
    "__neg__": elementwise.negative,
    "__abs__": elementwise.abs,
    "__getitem__": indexing.getitem,
    "conj": elementwise.conj,
    "astype": elementwise.astype,
    "sum": reductions.sum,
    "mean": reductions.mean,
    "max": reductions.max,
    "min": reductions.min,
    "prod": reductions.prod,
    "permute_dims": shapes.permute_dims,
    "swapaxes": shapes.swapaxes,
}.items():
    setattr(Tensor, _name, _function)


def _round(x: Any, digits: int = 0) -> Any:
    scale = 10.0**digits
    return nondifferentiable.round(x * scale) / scale if digits else nondifferentiable.round(x)


def _reshape(x: Any, *shape: Any) -> Any:
    return shapes.reshape(x, shape[0] if len(shape) == 1 and not hasattr(shape[0], "__index__") else shape)


def _invert(x: Any) -> Any:
    return constant(~unwrap(x))


Tensor.reshape = _reshape  # type: ignore[attr-defined]
Tensor.__invert__ = _invert  # type: ignore[operator]
Tensor.__pos__ = lambda x: x  # type: ignore[operator]
Tensor.real = property(elementwise.real)  # type: ignore[attr-defined]
Tensor.imag = property(elementwise.imag)  # type: ignore[attr-defined]
Tensor.mT = property(shapes.matrix_transpose)  # type: ignore[attr-defined]
Tensor.T = property(lambda x: shapes.permute_dims(x, tuple(reversed(range(x.ndim)))))  # type: ignore[attr-defined]
Tensor.__round__ = _round  # type: ignore[attr-defined]
Tensor.__array_ufunc__ = ClassOnlyMethod(array_ufunc)  # type: ignore[attr-defined]
Tensor.__array_function__ = array_function  # type: ignore[attr-defined]

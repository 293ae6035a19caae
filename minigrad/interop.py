"""NumPy's dispatch protocols: its functions called with Tensors run minigrad's counterpart, or raise TypeError.

    np.concatenate([x, x])      minigrad.concat([x, x])         np.exp(x)       minigrad.exp(x)
    np.add.reduce(x, axis=0)    minigrad.sum(x, axis=0)         np.median(x)    TypeError

A function without a counterpart runs on the values if no argument is differentiated.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine import Tensor, constant, unwrap
from minigrad.numpy_signatures import ADAPTED
from minigrad.pytree import arrays_of, map_arrays

_RENAMED = {  # NumPy's name: minigrad's, where they differ
    "absolute": "abs",
    "amax": "max",
    "amin": "min",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "around": "round",
    "conjugate": "conj",
    "fabs": "abs",
    "power": "pow",
    "rint": "round",
}
_REDUCTIONS = {
    "add": "sum",
    "logaddexp": "logsumexp",
    "logical_and": "all",
    "logical_or": "any",
    "maximum": "max",
    "minimum": "min",
    "multiply": "prod",
}
_ACCUMULATIONS = {"add": "cumulative_sum", "maximum": "cumulative_max", "multiply": "cumulative_prod"}
_OPTIONS = {"ddof": "correction"}  # NumPy's name of an option: minigrad's
_NONDIFFERENTIABLE = frozenset(  # functions without a derivative
    "allclose array2string array_equal array_equiv array_repr array_str can_cast common_type iscomplex iscomplexobj "
    "isclose isreal isrealobj may_share_memory min_scalar_type ndim result_type shape shares_memory size".split()
)
_OPERATORS: dict[Any, Callable] = {  # applied to the values
    np.bitwise_and: operator.and_,
    np.bitwise_or: operator.or_,
    np.bitwise_xor: operator.xor,
    np.equal: operator.eq,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
    np.invert: operator.invert,
    np.left_shift: operator.lshift,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.not_equal: operator.ne,
    np.right_shift: operator.rshift,
}


class ClassOnlyMethod:
    """A descriptor that is the method on the class, where NumPy looks it up, and None on an instance, where CuPy does.

    CuPy's operators defer to those of Tensor only if the instance's `__array_ufunc__` is None.
    """

    def __init__(self, method: Callable):
        self.method = method

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self.method if instance is None else None


def array_ufunc(_: Tensor, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
    """Implement `__array_ufunc__`: evaluate a ufunc, or one of its methods, for Tensors."""
    counterpart = _counterpart(ufunc)
    if method == "__call__" and counterpart is not None and not options:
        return counterpart(*inputs)
    numpy_name = f"numpy.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
    if not _tracked(inputs):
        return _on_values(getattr(ufunc, method), inputs, options)
    if options.get("out") is not None:
        raise TypeError(f"{numpy_name}: out= would write a Tensor into an array{_suggestion(ufunc, counterpart)}")
    if method == "outer" and counterpart is not None and not options:
        x, y = (a if hasattr(a, "shape") else np.asarray(a) for a in inputs)
        return counterpart(x.reshape((*x.shape, *(1 for _ in y.shape))), y)
    table = {"reduce": _REDUCTIONS, "accumulate": _ACCUMULATIONS}.get(method, {})
    name = table.get(ufunc.__name__)
    if name is not None and set(options) <= {"axis", "keepdims"}:
        return getattr(sys.modules["minigrad"], name)(inputs[0], **{"axis": 0, **options})
    if counterpart is not None and method == "__call__":
        raise TypeError(
            f"{numpy_name}: got {', '.join(options)}, no option for a Tensor{_suggestion(ufunc, counterpart)}"
        )
    raise TypeError(f"{numpy_name}: not available for a Tensor; use functions of minigrad, or `.value` for no gradient")


def array_function(_: Tensor, function: Callable, __: Any, args: tuple, options: dict) -> Any:
    """Implement `__array_function__`: evaluate any other function of NumPy's for Tensors."""
    numpy_name, counterpart = f"{function.__module__}.{function.__name__}", _counterpart(function)
    adapted: Any = ADAPTED.get(function)
    if function.__name__ in _NONDIFFERENTIABLE:
        return _on_values(function, args, options)
    if adapted is None and counterpart is None:
        if _tracked((args, options)):
            raise TypeError(
                f"{numpy_name}: not available for a Tensor; use functions of minigrad, or `.value` for no gradient"
            )
        return _on_values(function, args, options)
    options = {name: value for name, value in options.items() if value is not None or name == "axis"}
    try:
        if adapted is not None:
            return adapted(*args, **options)
        positional, keywords = _translate_arguments(function, counterpart, args, options)
        inspect.signature(counterpart).bind(*positional, **keywords)
    except TypeError as error:
        raise TypeError(f"{numpy_name}: for a Tensor, {error}{_suggestion(function, counterpart)}") from None
    return counterpart(*positional, **keywords)


def _translate_arguments(function: Callable, counterpart: Callable, args: tuple, options: dict) -> tuple[list, dict]:
    """Return positional and keyword arguments for minigrad's function, given those for NumPy's."""
    parameters = inspect.signature(function).parameters
    accepted = inspect.signature(counterpart).parameters
    positional: list = []
    keywords: dict = {}
    for name, value in inspect.signature(function).bind(*args, **options).arguments.items():
        option = _OPTIONS.get(name, name)
        if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            positional.extend(value)
        elif parameters[name].default is not inspect.Parameter.empty and value is parameters[name].default:
            continue
        elif option in accepted and positional:
            keywords[option] = value
        elif parameters[name].default is inspect.Parameter.empty:
            positional.append(value)
        else:
            raise TypeError(f"there is no option {name}=")
    return positional, keywords


@functools.cache
def _counterpart(function: Any) -> Any:
    """Return minigrad's counterpart of a function of NumPy's, or None."""
    if (operation := _OPERATORS.get(function)) is not None:
        return lambda *inputs: _on_values(operation, inputs, {})
    if function in (np.positive, np.divmod):
        return operator.pos if function is np.positive else lambda x, y: (x // y, x % y)
    module = getattr(function, "__module__", None) or "numpy"  # a ufunc has none, or NumPy's
    scope: Any = sys.modules["minigrad"]
    names = module.split(".")
    if names[0] != "numpy" or (isinstance(function, np.ufunc) and getattr(np, function.__name__, None) is not function):
        special = sys.modules.get("scipy.special")
        return scope.erf if special and function is special.erf else None
    for name in names[1:]:
        scope = getattr(scope, name, None)
    match = getattr(scope, _RENAMED.get(function.__name__, function.__name__), None)
    return match if callable(match) else None


def _suggestion(function: Any, counterpart: Any) -> str:
    """Return the end of an error message that names minigrad's counterpart."""
    name = getattr(counterpart, "__name__", "<lambda>")
    scope = ".".join(["minigrad", *(getattr(function, "__module__", None) or "numpy").split(".")[1:]])
    return "" if name == "<lambda>" else f"; use {scope}.{name}"


def _tracked(arguments: Any) -> bool:
    return any(isinstance(x, Tensor) and x._node is not None for x in arrays_of(arguments))


def _on_values(function: Callable, args: Any, options: dict) -> Any:
    """Return NumPy's result for the values, as constant Tensors."""
    result = function(*map_arrays(unwrap, args), **map_arrays(unwrap, options))
    return result if options.get("out") is not None else map_arrays(constant, result)

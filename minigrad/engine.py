"""Reverse-mode automatic differentiation: a Tensor is a value and the graph node that computed it.

`minigrad.backward` propagates cotangents through the graph. A primitive is a function on raw arrays with one rule
for each differentiable argument, its vector–Jacobian product g ↦ Jᴴ g, where J is the derivative with respect to the
argument: Re⟨g, J v⟩ = Re⟨Jᴴ g, v⟩. For complex arguments this is PyTorch's convention: descend along −grad.

    @primitive(x=lambda g, y: g * conj(y), y=lambda g, x: g * conj(x))
    def multiply(_, x, y):
        return x * y

The parameters of a rule say what it needs, and only that is saved: the cotangent `g`, arguments of the primitive, its
result `out`, or the `shape` of the argument it differentiates. Rules are polymorphic: an ordinary backward pass calls
them with raw arrays, and they run as plain NumPy; a recorded one calls them with Tensors, and its results can be
differentiated again.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.conversion import argument, as_array, copy_if_mutable, differentiable, is_complex, to_common_library
from minigrad.namespace import namespace, to_numpy

_node_counter = itertools.count()
_NUMBER_TYPES = frozenset({float, int, complex, bool})
_PLAIN_OPTION_TYPES = frozenset({int, bool, float, str, type(None)})  # immutable, and no rule converts them


class Node:
    """A vertex of the computation graph: its parents, and the shape and dtype of its value.

    Nodes refer to their parents only, so there are no reference cycles and a graph is freed with the last Tensor that
    refers to it. Nodes are numbered as they are created, so the order of the numbers is a topological order.
    """

    __slots__ = ("dtype", "number", "parents", "shape")

    def __init__(self, parents: Sequence, shape: Any, dtype: Any):
        self.parents, self.shape, self.dtype, self.number = parents, shape, dtype, next(_node_counter)

    def vjp(self, g: Any, needs_grad: Sequence[bool], record: bool) -> Sequence[Any]:
        """Return the cotangents of the parents that need one, else None, given the cotangent g of this node."""
        raise AssertionError("a leaf has no parents")

    def unbroadcast_and_cast(self, g: Any) -> Any:
        """Return a cotangent in this node's shape and dtype: the adjoint of implicit broadcasting and promotion."""
        if type(g) is SparseCotangent:
            return g
        if not hasattr(g, "shape"):
            g = np.array(g, dtype=object)
        if g.dtype is self.dtype and g.shape == self.shape:
            return g
        if g.shape != self.shape:
            xp, lead = namespace(g), len(g.shape) - len(self.shape)
            ones = [lead + i for i, n in enumerate(self.shape) if n == 1 and g.shape[lead + i] != 1]
            axes = (*range(lead), *ones)
            total = g.sum(axis=axes) if xp is np else xp.sum(g, axis=axes)  # a method spares NumPy's dispatch
            g = xp.reshape(total, self.shape)
        if g.dtype != self.dtype and self.dtype != object:
            xp = namespace(g)
            g = xp.real(g) if is_complex(g.dtype) and not is_complex(self.dtype) else g
            g = xp.astype(g, self.dtype)
        return g

    def accumulate(self, contributions: list) -> Any:
        """Return the sum of the cotangents that this node received, one from each use of its value."""
        if len(contributions) == 1 and type(contributions[0]) is not SparseCotangent:
            return contributions[0]
        dense = [c for c in contributions if type(c) is not SparseCotangent]
        if len(dense) < len(contributions):
            sparse = [c for c in contributions if type(c) is SparseCotangent]
            dense.append(sys.modules["minigrad"].to_dense(sparse, shape=self.shape, dtype=self.dtype))
        total = functools.reduce(operator.add, dense)
        return total if hasattr(total, "shape") else np.array(total, dtype=object)  # NumPy unboxes 0-d object arrays


class SparseCotangent:
    """The cotangent of an indexed array: g at the index, zero elsewhere.

    They are summed into one dense array once all are known, so that T slices of an array cost one array and not T.
    """

    __slots__ = ("g", "index")

    def __init__(self, g: Any, index: Any):
        self.g, self.index = g, index


class Operation(Node):
    """The application of a primitive, with the arguments and the result that its rules need."""

    __slots__ = ("options", "out", "primitive", "saved")

    def __init__(self, primitive: Primitive, parents: list, saved: list, result: Any, out: Any, options: dict):
        # As Node.__init__ does, without the cost of a call.
        self.parents, self.shape, self.dtype, self.number = parents, result.shape, result.dtype, next(_node_counter)
        self.primitive, self.saved, self.out, self.options = primitive, saved, out, options

    def vjp(self, g: Any, needs_grad: Sequence[bool], record: bool) -> Sequence[Any]:
        saved, out, rules = self.saved, self.out, self.primitive.rules
        if record:
            saved = [v if p is None else wrap(v, p) for v, p in itertools.zip_longest(saved, self.parents)]
            out = None if out is None else wrap(out, self)
        variadic, cotangents = self.primitive.variadic, []
        for i, is_needed in enumerate(needs_grad):
            cotangents.append(rules[0 if variadic else i](self, i, g, saved, out) if is_needed else None)
        return cotangents


class Primitive:
    """A function on raw arrays and the rules of its arguments; a call with a tracked Tensor is recorded in the graph.

    The function's first parameter is the namespace of the arrays; it is named `_` where it is not used.
    """

    __name__: str

    def __init__(self, function: Callable, rules: dict[str, Callable]):
        signature = inspect.signature(function)
        namespace_parameter, *parameters = signature.parameters.values()
        self.takes_namespace = namespace_parameter.name != "_"
        self.function = function
        self.positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        self.defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        self.variadic = parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
        self.differentiable = len(rules)  # the number of differentiable arguments, which come first
        self.rules = [self._compile_rule(rule) for rule in rules.values()]
        self.rule_parameters = [set(inspect.signature(rule).parameters) for rule in rules.values()]
        self.residuals: dict[Any, tuple[bool, list[int]]] = {}  # by the set of tracked arguments: what rules need
        assert list(rules) == self.positional[: len(rules)], f"{function.__name__}: rules for {list(rules)}"
        functools.update_wrapper(self, function)
        vars(self).pop("__wrapped__")  # whose signature has the namespace
        self.__signature__ = signature.replace(parameters=parameters)
        self.__doc__ = function.__doc__ or f"Return the array library's own {function.__name__}; differentiable."

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind to an instance, as functions do, so that a primitive can be a method of Tensor."""
        return self if instance is None else types.MethodType(self, instance)

    def _find_residuals(self, parents: list) -> tuple[bool, list[int]]:
        """Return whether the rules of the tracked arguments use the result, and the positions of those they use."""
        if self.variadic:
            (names,) = self.rule_parameters
            return "out" in names, list(range(len(parents))) if self.positional[0] in names else []
        names = {name for rule, p in zip(self.rule_parameters, parents, strict=True) if p is not None for name in rule}
        return "out" in names, [j for j, name in enumerate(self.positional) if name in names]

    def _compile_rule(self, rule: Callable) -> Callable:
        """Return the rule with the uniform signature (node, i, g, saved, out), whatever its own parameters are."""
        sources = {"g": "g", "out": "out", "i": "i", "shape": "node.parents[i].shape"}
        sources |= {name: f"node.options[{name!r}]" for name in self.defaults}
        sources |= {name: f"saved[{j}]" for j, name in enumerate(self.positional)}
        if self.variadic:
            sources[self.positional[0]] = "saved"
        values = ", ".join(sources[name] for name in inspect.signature(rule).parameters)
        return eval(f"lambda node, i, g, saved, out: rule({values})", {"rule": rule})

    def __call__(self, *args: Any, **options: Any) -> Any:
        if options:
            if len(args) < len(self.positional) and not self.variadic:
                args += tuple([options.pop(name) for name in self.positional[len(args) :] if name in options])
            for name, value in options.items():
                if type(value) not in _PLAIN_OPTION_TYPES:
                    options[name] = _normalize_option(value, f"{self.__name__}: option {name}")
        values, parents, any_tensor = [], [], False
        tracked = 0  # bits of the arguments that have a node
        for a in args:
            kind = type(a)
            if kind is Tensor:
                any_tensor = True
                values.append(a._value)
                parents.append(a._node)
                if a._node is not None:
                    tracked |= 1 << len(values)
                continue
            if not a.dtype.isnative if kind is np.ndarray else kind not in _NUMBER_TYPES:
                n = len(values)
                if (n < self.differentiable or self.variadic) and (converted := self._argument(a, n)) is not a:
                    return self(*args[:n], converted, *args[n + 1 :], **options)
            values.append(a)
            parents.append(None)
        count = len(values) if self.variadic else self.differentiable
        try:
            result = self.function(namespace(*values[:count]) if self.takes_namespace else None, *values, **options)
        except (TypeError, ArithmeticError):  # raised by Python for numbers, by libraries for arrays of other libraries
            if _NUMBER_TYPES.issuperset(map(type, values)):
                return self(np.asarray(values[0]), *values[1:], **options)
            if (in_one_library := to_common_library(values)) is None:
                raise
            values = in_one_library
            result = self.function(namespace(*values[:count]) if self.takes_namespace else None, *values, **options)
        try:
            dtype = result.dtype
        except AttributeError:  # all arguments are numbers, or NumPy unboxed a 0-d object array
            if _NUMBER_TYPES.issuperset(map(type, values)):
                return self(np.asarray(values[0]), *values[1:], **options)
            result, dtype = np.array(result, dtype=object), np.dtype(object)
        if tracked and differentiable(dtype):
            return wrap(result, self._record(args, values, parents[:count], tracked, result, options))
        return wrap(result, None) if any_tensor else result

    def _argument(self, value: Any, n: int) -> Any:
        """Convert positional argument n to a Tensor, a number or an array in native byte order, if it is none yet."""
        return argument(value, f"{self.__name__}: argument {self.positional[0 if self.variadic else n]}")

    def _record(self, args: tuple, values: list, parents: list, tracked: int, result: Any, options: dict) -> Operation:
        key = (tracked, len(values)) if self.variadic else tracked
        if key not in self.residuals:
            self.residuals[key] = self._find_residuals(parents)
        uses_out, positions = self.residuals[key]
        saved: list = [None] * len(values)
        for j in positions:  # the caller's arrays are copied: they may be changed in place
            saved[j] = values[j] if type(args[j]) is Tensor else copy_if_mutable(values[j])
        if options:
            options = {name: copy_if_mutable(value) for name, value in options.items()}
        if self.defaults:
            options = {**self.defaults, **options}
        return Operation(self, parents, saved, result, result if uses_out else None, options)


def _normalize_option(value: Any, label: str) -> Any:
    """Convert an option, so that rules see no NumPy integers, lists or Tensors.

    Raises TypeError for a Tensor that is differentiated.
    """
    if isinstance(value, (list, tuple)):
        converted = type(value) is tuple and _PLAIN_OPTION_TYPES.issuperset(map(type, value))
        return value if converted else tuple([int(v) if isinstance(v, np.integer) else v for v in value])
    if isinstance(value, np.integer):
        return int(value)
    if type(value) is not Tensor:
        return value
    if value._node is not None:
        raise TypeError(f"{label} is a Tensor that is differentiated, expected a constant: use its `.value`")
    return value._value


def primitive(**rules: Callable) -> Callable[[Callable], Primitive]:
    """Declare a primitive by the rule of each differentiable argument, as the module's docstring describes."""
    return lambda function: Primitive(function, rules)


class Tensor:
    """An immutable array that records how it was computed; one constructed by the user is a leaf of the graph.

    The value is copied, and `value` is a read-only view, so that nothing saved in a graph changes in place.
    Raises TypeError when the value is not an array or a number.
    """

    __slots__ = ("__weakref__", "_node", "_value")
    __hash__ = object.__hash__

    _value: Any
    _node: Any  # a Node, or None for a constant

    def __init__(self, value: Any):
        raw = value._value if isinstance(value, Tensor) else copy_if_mutable(as_array(value, "Tensor"))
        self._value = raw
        self._node = Node((), tuple(raw.shape), raw.dtype) if differentiable(raw.dtype) else None

    @property
    def value(self) -> Any:
        """The raw array, as a read-only view where it is NumPy's."""
        if not isinstance(self._value, np.ndarray):
            return self._value
        view = self._value.view()
        view.flags.writeable = False
        return view

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._value.shape)

    @property
    def ndim(self) -> int:
        return len(self._value.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def dtype(self) -> Any:
        return self._value.dtype

    @property
    def device(self) -> Any:
        return getattr(self._value, "device", "cpu")

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        if self._node is not None:
            raise TypeError("Tensor: NumPy asks for a plain array, to which no gradient would flow: use `.value`")
        return np.array(self._value, dtype=dtype) if copy or dtype is not None else np.asarray(self.value)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return sys.modules["minigrad"]

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("Tensor: items were assigned, expected no change in place (a graph may need them): use where")

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self._value)))  # type: ignore[index]

    def __bool__(self) -> bool:
        return bool(self._value)

    def __float__(self) -> float:
        return float(self._untracked_value("float"))

    def __int__(self) -> int:
        return int(self._untracked_value("int"))

    def __complex__(self) -> complex:
        return complex(self._untracked_value("complex"))

    def _untracked_value(self, kind: str) -> Any:
        """Return the value for a conversion to a number. Raises TypeError for a Tensor that is differentiated.

        NumPy converts to float when an element of an array is assigned, which would lose the gradient silently.
        """
        if self._node is not None:
            raise TypeError(f"Tensor: a {kind} was asked for, to which no gradient would flow: use `.item()`")
        return self._value

    def __index__(self) -> int:
        return operator.index(self._value)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.ndim == 0 else super().__format__(spec)

    def item(self) -> Any:
        return self._value.item()

    def __repr__(self) -> str:
        return f"Tensor({np.array2string(to_numpy(self._value), separator=', ', prefix='Tensor(')})"


def wrap(value: Any, node: Node | None) -> Tensor:
    """Return a Tensor with the given value and node, neither copied nor checked."""
    tensor = object.__new__(Tensor)
    tensor._value, tensor._node = value, node
    return tensor


def unwrap(value: Any) -> Any:
    """Return the raw array of a Tensor; anything else unchanged."""
    return value._value if type(value) is Tensor else value


def constant(value: Any) -> Tensor:
    """Return a Tensor without a node: no gradient flows to it."""
    return wrap(unwrap(value), None)

"""Counts of operations: scalars that add one to a shared tally for each, and the longest path of a graph of arrays."""

from __future__ import annotations

import cmath
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine import Node, Operation, Tensor


class Counted:
    """A number that adds one to its tally for every operation with it; a real or imaginary part counts as none."""

    __slots__ = ("tally", "value")

    def __init__(self, value: complex, tally: list[int]):
        self.value, self.tally = value, tally

    def _count(self, value: complex) -> Counted:
        self.tally[0] += 1
        return Counted(value, self.tally)

    def exp(self) -> Counted:
        return self._count(_real_of_real(cmath.exp(self.value), self.value))

    def sqrt(self) -> Counted:
        return self._count(_real_of_real(cmath.sqrt(self.value), self.value))

    def tanh(self) -> Counted:
        return self._count(math.tanh(self.value.real))

    def log(self) -> Counted:
        return self._count(math.log(self.value.real))

    def log1p(self) -> Counted:
        return self._count(math.log1p(self.value.real))

    def __pow__(self, power: float) -> Counted:
        return self._count(self.value**power)

    def __neg__(self) -> Counted:
        return self._count(-self.value)

    def __abs__(self) -> Counted:
        return self._count(abs(self.value))

    def conjugate(self) -> Counted:
        return Counted(self.value.conjugate(), self.tally)

    @property
    def real(self) -> Counted:
        return Counted(self.value.real, self.tally)

    @property
    def imag(self) -> Counted:
        return Counted(self.value.imag, self.tally)

    def __float__(self) -> float:
        return float(self.value.real)

    __hash__ = None  # type: ignore[assignment]


def _real_of_real(result: complex, argument: complex) -> complex:
    """Return the result as a real number where the argument is one."""
    return result if isinstance(argument, complex) else result.real


def _operator(name: str) -> Callable[[Counted, Any], Any]:
    reflected = name.startswith("r")
    function = getattr(operator, name.removeprefix("r") if reflected else name)

    def apply(self: Counted, other: Any) -> Any:
        other = other.value if type(other) is Counted else other
        result = function(other, self.value) if reflected else function(self.value, other)
        self.tally[0] += 1  # a comparison is an operation too
        return result if type(result) in (bool, np.bool_) else Counted(result, self.tally)

    return apply


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Counted, f"__{_name}__", _operator(_name))


def counted(array: np.ndarray, tally: list[int]) -> np.ndarray:
    """Return the array as an object array of `Counted` numbers that share `tally`."""
    return np.fromiter((Counted(x, tally) for x in array.ravel().tolist()), dtype=object).reshape(array.shape)


def sequential_steps(result: Tensor) -> int:
    """Return the number of operations on arrays that wait for one another: the longest path to a result in its graph.

    An operation on whole arrays is one step, a product of matrices, a sum and a Fourier transform included. A scan
    takes as many as its axis is long, as its kernel does.
    """
    nodes, stack = {}, [result._node]
    while stack:
        node = stack.pop()
        if node is not None and node.number not in nodes:
            nodes[node.number] = node
            stack.extend(node.parents)
    steps: dict[int, int] = {}
    for number, node in sorted(nodes.items()):  # parents first
        steps[number] = _own_steps(node) + max((steps[p.number] for p in node.parents if p is not None), default=0)
    return max(steps.values(), default=0)


def _own_steps(node: Node) -> int:
    """Return the steps of one operation; an input of the graph takes none."""
    if not isinstance(node, Operation):
        return 0
    return node.shape[node.options["axis"]] if node.primitive.__name__ == "_scan" else 1

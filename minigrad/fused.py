"""Hand-written kernels, and recomputation in the backward pass; both can be differentiated to any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minigrad.conversion import argument, copy_if_mutable
from minigrad.engine import Node, Tensor, constant, wrap
from minigrad.namespace import namespace
from minigrad.pytree import arrays_of, map_arrays, replace_arrays
from minigrad.transforms import gradients, identity


class _Kernel(Node):
    """The call of a fused function; its value is a tuple of results, its cotangent a list of theirs."""

    __slots__ = ("backward", "inputs", "outputs", "reference", "saved", "single")

    def __init__(self, backward: Callable, reference: Callable, parents: list, inputs: list, result: Any, saved: Any):
        super().__init__(tuple(parents), None, None)
        self.backward, self.reference, self.inputs, self.saved = backward, reference, inputs, saved
        self.single = not isinstance(result, tuple)
        self.outputs = [(namespace(y), tuple(y.shape), y.dtype) for y in ((result,) if self.single else result)]

    def unbroadcast_and_cast(self, g: Any) -> Any:
        return g

    def accumulate(self, contributions: list) -> Any:
        received = dict(contributions)
        return [received[i] if i in received else xp.zeros(s, dtype=d) for i, (xp, s, d) in enumerate(self.outputs)]

    def vjp(self, g: Any, needs_grad: Sequence[bool], record: bool) -> Sequence[Any]:
        g = g[0] if self.single else tuple(g)
        if not record:
            cotangents = self.backward(self.saved, g)
            return [d if is_needed else None for d, is_needed in zip(cotangents, needs_grad, strict=True)]
        # Partial derivatives are wanted, and one input may depend on another: each gets a node of its own.
        inputs = [x if p is None else identity(wrap(x, p)) for x, p in zip(self.inputs, self.parents, strict=True)]
        targets = [x for x, is_needed in zip(inputs, needs_grad, strict=True) if is_needed]
        queue = iter(gradients(self.reference(*inputs), targets, g, record=True))
        return [next(queue) if is_needed else None for is_needed in needs_grad]


class _Output(Node):
    """One result of a fused function."""

    __slots__ = ("position",)

    def __init__(self, kernel: _Kernel, position: int):
        super().__init__((kernel,), *kernel.outputs[position][1:])
        self.position = position

    def vjp(self, g: Any, needs_grad: Sequence[bool], record: bool) -> Sequence[Any]:
        return [(self.position, g)]


def fused(forward: Callable, backward: Callable, reference: Callable) -> Callable:
    """Return a differentiable function computed by a hand-written kernel, y = fused(forward, backward, reference)(*x).

    `forward(*inputs)` returns (result, saved), the result an array or a tuple of arrays;
    `backward(saved, cotangent)` returns one cotangent for each input (None where there is none). Both get raw arrays.
    An ordinary backward pass runs `backward`; a recorded one differentiates `reference(*inputs)`, which computes the
    same result from primitives.
    """

    def call(*inputs: Any) -> Any:
        inputs = tuple(argument(x, f"input {n}") for n, x in enumerate(inputs))
        nodes = [x._node if isinstance(x, Tensor) else None for x in inputs]
        tracked = any(nodes)  # then the kernel saves arrays, and those that the caller may change are copied
        values = [x._value if isinstance(x, Tensor) else copy_if_mutable(x) if tracked else x for x in inputs]
        result, saved = forward(*values)
        if not tracked:
            return map_arrays(constant, result) if Tensor in map(type, inputs) else result
        kernel = _Kernel(backward, reference, nodes, values, result, saved)
        if kernel.single:
            return wrap(result, _Output(kernel, 0))
        return tuple(wrap(y, _Output(kernel, i)) for i, y in enumerate(result))

    return call


def checkpoint(f: Callable) -> Callable:
    """Return f without saved intermediate values: the backward pass recomputes them (Chen et al. 2016).

    Arguments and results are arrays or containers of arrays (`nn.Module`s too). Raises ValueError when f uses a
    Tensor that is not among its arguments, because no gradient could reach it.
    """

    def call(*args: Any) -> Any:
        arrays = arrays_of(args)
        template: list = []

        def run(*xs: Any) -> Any:
            result = f(*replace_arrays(args, list(xs)))
            template[:] = [result]
            return tuple(arrays_of(result))

        def forward(*xs: Any) -> Any:
            result = run(*xs)
            if any(isinstance(y, Tensor) for y in result):
                raise ValueError(
                    "checkpoint: the function uses a Tensor from outside, expected all among its arguments"
                )
            return tuple(result), xs

        def backward(xs: Any, cotangents: tuple) -> Any:
            leaves = [Tensor(x) for x in xs]
            inputs = [x for x in leaves if x._node is not None]
            queue = iter(gradients(run(*leaves), inputs, cotangents, record=False))
            return [next(queue) if x._node is not None else None for x in leaves]

        result = fused(forward, backward, run)(*arrays)
        return replace_arrays(template[0], list(result))

    return call

"""A function of arrays as a workload, in each framework: forward alone, or forward and backward.

Backward means y and the gradients of Σ weights ∘ y for every input. The value and all gradients that a step makes are
what implementations are compared by, under the names of the inputs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.workload import Implementation, Run, Workload

InputsAndWeights = tuple[dict[str, np.ndarray], np.ndarray]  # the inputs by name, and the weights of y
Draw = Callable[..., InputsAndWeights]


@dataclass(frozen=True)
class Work:
    """The inputs of a function, the weights of its outputs in the loss, and whether to differentiate."""

    inputs: Mapping[str, np.ndarray]
    weights: np.ndarray
    backward: bool

    def run(self, step: Callable[[], Iterable[Any]]) -> Run:
        """Return the run of a step that computes y and, with `backward`, the gradients in the order of the inputs."""
        names = ["y", *(f"gradient of {name}" for name in self.inputs)][: 1 + self.backward * len(self.inputs)]
        return Run(step, lambda: {name: np.asarray(x) for name, x in zip(names, step(), strict=True)})


def single_precision(weights: np.ndarray, **inputs: np.ndarray) -> InputsAndWeights:
    """Return weights and inputs in single precision."""
    return {name: np.asarray(x, np.float32) for name, x in inputs.items()}, np.asarray(weights, np.float32)


def minigrad(function: Callable[..., Any], work: Work) -> Run:
    """Set up a function of ours, in a process that keeps freed memory as `models.train` does; of a form, y alone."""
    import minigrad as mg

    mg.keep_freed_memory()
    inputs = list(work.inputs.values())

    def value(*inputs: Any) -> Any:
        result = function(*inputs)
        return result[0] if isinstance(result, tuple) else result

    def value_and_gradients() -> tuple[Any, ...]:
        y, pull = mg.vjp(value, *inputs)
        return y, *pull(work.weights)

    return work.run(value_and_gradients if work.backward else lambda: (value(*inputs),))


def pytorch(function: Callable[..., Any], work: Work) -> Run:
    """Set up a function in PyTorch, eager."""
    import torch

    inputs = [torch.tensor(x, requires_grad=work.backward) for x in work.inputs.values()]
    weights = torch.tensor(work.weights)

    def value_and_gradients() -> tuple[Any, ...]:
        y = function(*inputs)
        return y.detach(), *torch.autograd.grad(y, inputs, weights)

    def forward() -> tuple[Any, ...]:
        with torch.no_grad():
            return (function(*inputs),)

    return work.run(value_and_gradients if work.backward else forward)


def jax(function: Callable[..., Any], work: Work) -> Run:
    """Set up a function in JAX, compiled whole."""
    import jax

    inputs, weights = [jax.numpy.asarray(x) for x in work.inputs.values()], jax.numpy.asarray(work.weights)

    @jax.jit
    def step(weights: Any, *inputs: Any) -> tuple[Any, ...]:
        if not work.backward:
            return (function(*inputs),)
        y, pull = jax.vjp(function, *inputs)
        return y, *pull(weights)

    return work.run(lambda: jax.block_until_ready(step(weights, *inputs)))


@dataclass(frozen=True)
class Side:
    """One implementation of a function: its `module:name`, and its framework."""

    name: str
    framework: Callable[[Callable[..., Any], Work], Run]
    function: str
    needs: tuple[str, ...] = ()
    peer: bool = True

    def implementation(self, draw: Draw, options: Sequence[str]) -> Implementation:
        """Return the implementation, whose inputs `draw` makes from the workload's sizes."""
        needs = {"pytorch": ("torch",), "jax": ("jax",)}.get(self.framework.__name__, ("numba",))
        return Implementation(self.name, partial(self.setup, draw, options), (*needs, *self.needs), self.peer)

    def setup(self, draw: Draw, options: Sequence[str], *, backward: bool, **sizes: int) -> Run:
        """Import the function and give it its inputs."""
        module, _, name = self.function.partition(":")
        function = partial(getattr(importlib.import_module(module), name), **{name: sizes[name] for name in options})
        return self.framework(function, Work(*draw(**sizes), backward))


def ours(name: str, function: str) -> Side:
    """Return another form of ours, shown for comparison and not counted as a peer."""
    return Side(name, minigrad, function, peer=False)


def workload(
    name: str,
    title: str,
    draw: Draw,
    sides: Sequence[Side],
    floor: Callable[..., Mapping[str, float]],
    sizes: Mapping[str, int],
    *,
    backward: bool,
    tolerance: float = 1e-4,
    options: Sequence[str] = (),
) -> Workload:
    """Return the workload `<name>_forward`, or `<name>` where it is differentiated; the first side is ours.

    `options` names the sizes that the functions take by keyword.
    """
    return Workload(
        name=name if backward else f"{name}_forward",
        title=f"{title}, {'forward and backward' if backward else 'forward'}",
        sizes={**sizes, "backward": backward},
        implementations=tuple(side.implementation(draw, options) for side in sides),
        tolerance=tolerance,
        memory=True,
        floor=floor(backward=backward, **sizes),
    )


def forward_and_backward(*arguments: Any, **options: Any) -> tuple[Workload, Workload]:
    """Return both workloads of a function."""
    return workload(*arguments, backward=False, **options), workload(*arguments, backward=True, **options)

"""Overhead of one recorded operation on tiny arrays: forward and backward through a chain.

The chain is x ← exp(x·a + b), `rounds` times over 8×8 float64 arrays, then a sum: three primitives a round, and the
time is divided by their number. It is differentiated for x, a and b (every rule of mul and add runs, and the gradients
of a and b accumulate), and for x alone. NumPy's forward pass is the floor that no engine can go below.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workload import Implementation, Run, Workload

ROUNDS = 20


def chain(xp: Any, x: Any, a: Any, b: Any, rounds: int) -> Any:
    """Return Σ of x ← exp(x·a + b) after `rounds` rounds, in any framework."""
    for _ in range(rounds):
        x = xp.exp(x * a + b)
    return xp.sum(x)


def inputs(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, a, b such that the chain stays near 0.4 and its gradients do not vanish."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, size)), rng.uniform(0.5, 1.0, (size, size)), rng.uniform(-1.5, -1.0, (size, size))


def _run(differentiate: Any, value: Any, wanted: tuple[int, ...]) -> Run:
    def results() -> dict[str, Any]:
        gradients = dict(zip([f"gradient of {'xab'[i]}" for i in wanted], differentiate(), strict=True))
        return {"value": value(), **gradients}

    return Run(differentiate, results)


def minigrad(*, size: int, rounds: int, wanted: tuple[int, ...]) -> Run:
    """Set up our engine."""
    import minigrad as mg

    arrays = inputs(size)
    gradient = mg.grad(lambda x, a, b: chain(mg, x, a, b, rounds), argnums=wanted)
    return _run(lambda: gradient(*arrays), lambda: chain(np, *arrays, rounds), wanted)


def autograd(*, size: int, rounds: int, wanted: tuple[int, ...]) -> Run:
    """Set up HIPS autograd."""
    import autograd.numpy as anp
    from autograd import grad

    arrays = inputs(size)
    gradient = grad(lambda x, a, b: chain(anp, x, a, b, rounds), argnum=wanted)
    return _run(lambda: gradient(*arrays), lambda: chain(anp, *arrays, rounds), wanted)


def pytorch(*, size: int, rounds: int, wanted: tuple[int, ...]) -> Run:
    """Set up PyTorch, eager."""
    import torch

    x, a, b = (torch.tensor(array, requires_grad=i in wanted) for i, array in enumerate(inputs(size)))
    targets = [(x, a, b)[i] for i in wanted]
    return _run(
        lambda: torch.autograd.grad(chain(torch, x, a, b, rounds), targets),
        lambda: chain(torch, x, a, b, rounds).detach(),
        wanted,
    )


def numpy_forward(*, size: int, rounds: int, wanted: tuple[int, ...]) -> Run:
    """Set up the forward pass alone, with nothing recorded."""
    arrays = inputs(size)
    return Run(lambda: chain(np, *arrays, rounds), lambda: {"value": chain(np, *arrays, rounds)})


def _workload(name: str, title: str, wanted: tuple[int, ...]) -> Workload:
    return Workload(
        name=name,
        title=title,
        sizes={"size": 8, "rounds": ROUNDS, "wanted": wanted},
        implementations=(
            Implementation("minigrad", minigrad),
            Implementation("HIPS autograd", autograd, needs=("autograd",)),
            Implementation("PyTorch eager", pytorch, needs=("torch",)),
            Implementation("NumPy, forward alone", numpy_forward, peer=False),
        ),
        tolerance=1e-12,
        unit="µs",
        operations=3 * ROUNDS,
        per="primitive",
        steps=200,
    )


WORKLOADS = (
    _workload("primitives", "A primitive, forward and backward: gradients of every input of a chain", (0, 1, 2)),
    _workload("primitives_one_input", "A primitive, forward and backward: gradient of one input of a chain", (0,)),
)

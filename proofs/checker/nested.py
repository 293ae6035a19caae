"""Mechanisms whose weights and states are nested tuples of arrays: one `Case` for each layout of the weights.

The statements for every mechanism know arguments that are arrays. A `Case` gives a mechanism's weights as arrays with
names of their own, `weights.W1`, and puts them together again when its form is called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from models.memory import titans, ttt
from proofs.checker.strategies import SMALL, Drawn

Layout = tuple[tuple[str, ...], ...]  # the axes of every array of a model, layer by layer


MATRIX: Layout = (("K V",),)
BIASED: Layout = (("K V", "1 V"),)
MLP: Layout = (("K D", "1 D"), ("D V", "1 V"))
DEEP: Layout = (("K D",), ("D V", "1 V"))
LEFT = Drawn(number=lambda draw, sizes: draw(st.integers(1, sizes["T"] + 1)))  # tokens left of a batch


@dataclass(frozen=True)
class Case:
    """One shape of a mechanism's weights."""

    label: str
    layout: Layout
    argument: str  # which argument they are
    pack: Callable[..., Any]  # the argument, from its layers
    state: Callable[..., Any]  # the state, from its parts
    models: int  # how many models of this layout the state holds
    rational: bool = True
    sizes: Mapping[str, st.SearchStrategy[int]] = field(default_factory=dict)

    def tokens(self) -> dict[str, Drawn]:
        """Return how the arrays of the argument are drawn, by name."""
        names = [f"{'Wb'[j]}{i + 1}" for i, layer in enumerate(self.layout) for j in range(len(layer))]
        axes = dict(zip(names, (x for layer in self.layout for x in layer), strict=True))
        return {f"{self.argument}.{name}": Drawn(x, SMALL, sizes=self.sizes) for name, x in axes.items()}

    def start(self) -> Any:
        """Return how a state is drawn: models, and the number of tokens left in the mini-batch."""
        model = tuple(tuple(Drawn(f"*batch {x}", SMALL) for x in layer) for layer in self.layout)
        return (*[model] * self.models, LEFT)

    def adapt(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the form as a function of arrays: the weights' arrays follow the others, in the order of `tokens`."""
        names = list(self.tokens())

        @functools.wraps(function)
        def call(*arrays: Any, state: Any = None, **options: Any) -> Any:
            given = [options.pop(name) for name in names if name in options]
            arrays, parts = (arrays, given) if given else (arrays[: -len(names)], arrays[-len(names) :])
            options[self.argument] = self.pack(self._layers(parts))
            return function(*arrays, state=None if state is None else self.state(*state), **options)

        return call

    def _layers(self, parts: Any) -> Any:
        queue = iter(parts)
        return tuple(tuple(next(queue) for _ in layer) for layer in self.layout)


FEWER = {"T": st.integers(2, 5)}  # each token has a gradient of its own; two batches and a rest are in 5
SMALLER = {"K": st.integers(1, 3), "T": st.integers(2, 4)}  # what is costly to bound

# Without the layer norm: it divides by a variance, and after a few tokens no bound is left.
# `proofs.identities.ttt` has it.
CASES: dict[str, list[Case]] = {
    "memory.ttt": [
        Case("linear", BIASED, "weights", ttt.Weights, ttt.State, 2, sizes=FEWER),
        Case("mlp", MLP, "weights", ttt.Weights, ttt.State, 2, rational=False, sizes=SMALLER),
    ],
    "memory.titans": [
        Case("matrix", MATRIX, "memory", tuple, titans.State, 3, sizes=FEWER),
        Case("mlp", DEEP, "memory", tuple, titans.State, 3, rational=False, sizes=SMALLER),
    ],
}

"""The cases in which a port is compared with its form: lengths, states, gates and keys at which ports go wrong.

All numbers are multiples of 1/16 of at most 2 (gates at their ends apart), so that they are plain to read and the same
in every precision. No two axes have the same size, so that a wrong order of axes is an error of shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.errors import known_name
from models.forms import axis_factor
from models.mechanism import Domain
from proofs.checker.forms import Form
from proofs.checker.strategies import Strategy

LONG = 131  # tokens: more than two chunks of 64, and no multiple of a power of 2
SIZES = {"K": 4, "V": 5, "D": 5, "N": 4, "H": 4, "P": 5, "S": 3}
GATES = (Domain.LOG_GATE, Domain.NONNEGATIVE)


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call: arrays by name, an initial state or None, and the size of chunks."""

    arrays: Mapping[str, np.ndarray]
    state: Any
    chunk: int

    @property
    def length(self) -> int:
        return int(self.arrays[next(iter(self.arrays))].shape[-2])


@dataclass(frozen=True)
class Case:
    """A case: its length as a function of the chunk size, and what is particular about its inputs."""

    name: str
    length: Callable[[int], int] = lambda chunk: min(chunk + 3, 7)
    gate: float | None = None  # the factor that some gates have, 0 or 1
    repeats: bool = False  # some keys are repeated
    state: bool = False  # starts from a state that is not 0
    batch: bool = True  # has the batch axes of the layout
    large: bool = False  # one sequence of many tokens


CASES = {
    case.name: case
    for case in (
        Case("T = 1", lambda chunk: 1),
        Case("T > chunk", lambda chunk: 2 * chunk),
        Case("T not a multiple", lambda chunk: chunk + 3),
        Case("start state", state=True),
        Case("shut gate", gate=0.0),
        Case("open gate", gate=1.0),
        Case("repeated keys", repeats=True),
        Case("no batch axis", batch=False),
        Case("long", lambda chunk: max(LONG, 2 * chunk + 3), large=True),
    )
}


@dataclass(frozen=True)
class Example:
    """Sampler of inputs of a form: sizes of the axes and of chunks, and the convention of the gates."""

    form: Form
    batch: tuple[int, ...]
    chunk: int
    factors: bool = False  # log gates are given as the factors whose logarithms they are
    sizes: Mapping[str, int] = field(default_factory=lambda: SIZES)
    grain: int = 16  # numbers are multiples of 1/grain

    def draw(self, case: Case, seed: int = 0, length: int | None = None) -> Inputs:
        """Draw the inputs of a case, the same at each call with the same seed."""
        rng = self.generator(seed)
        batch = () if not case.batch else tuple(1 for _ in self.batch) if case.large else self.batch
        T = case.length(self.chunk) if length is None else length
        arrays = {
            name: self._argument(rng, name, strategy, batch, T, case) for name, strategy in self.form.tokens.items()
        }
        state = self._state(rng, self.form.state, batch) if case.state else None
        return Inputs(arrays, state, self.chunk)

    def generator(self, seed: int) -> np.random.Generator:
        """Return what the numbers are drawn with."""
        return np.random.default_rng(seed)

    def gates(self) -> list[str]:
        """Return the gates of a token: the log gates, or else the rates; empty where there are none."""
        found: list[list[str]] = [
            [name for name, d in self.form.domains.items() if d is domain and self.form.time(name) is not None]
            for domain in GATES
        ]
        return found[0] or found[1]

    def applies(self, case: Case, *, takes_state: bool, fixed_batch: bool) -> str:
        """Return why a case says nothing about this port; empty where it does."""
        if case.gate is not None and not self.gates():
            return "there is no gate"
        if case.repeats and Domain.KEYS not in self.form.domains.values():
            return "there are no keys"
        if case.state and not takes_state:
            return "the port takes no state"
        if not case.batch and fixed_batch:
            return "the declared layout has its axes"
        return ""

    def _shape(self, axes: str, batch: tuple[int, ...], T: int) -> tuple[int, ...]:
        shape: list[int] = []
        for axis in axes.split():
            factor, base = axis_factor(axis) if axis != "*batch" else (1, axis)
            sizes = {"T": T, "1": 1, **self.sizes}
            shape += batch if axis == "*batch" else (factor * sizes[base],)
        return tuple(shape)

    def _argument(
        self, rng: np.random.Generator, name: str, strategy: Strategy, batch: tuple[int, ...], T: int, case: Case
    ) -> np.ndarray:
        domain, shape = self.form.domains[name], self._shape(strategy.axes, batch, T)
        x = self._numbers(rng, domain, shape, strategy.complex)
        time = self.form.time(name)
        if case.repeats and domain is Domain.KEYS and time is not None and shape[time] > 1:
            index = np.arange(shape[time])
            x = np.take(x, index // 2, axis=time)
        factors = self.factors and domain is Domain.LOG_GATE
        if factors:
            x = (x + 2.0) * 7 / 16 + 1 / 16  # of −2 … 0, to 1/16 … 15/16
            x = np.rint(x * self.grain) / self.grain
        if case.gate is not None and name in self.gates():
            end = (
                case.gate
                if factors or domain is not Domain.LOG_GATE
                else math.log(case.gate)
                if case.gate
                else -math.inf
            )
            at = np.arange(T) % 3 == (1 if T > 1 else 0) if case.gate == 0.0 else np.ones(T, dtype=bool)
            at = at.reshape((T,) + (1,) * (-1 - time)) if time is not None else at
            x = np.where(at, end, x)
        return x

    def _state(self, rng: np.random.Generator, state: Any, batch: tuple[int, ...]) -> Any:
        if isinstance(state, tuple):
            return tuple(self._state(rng, x, batch) for x in state)
        if state.fill is None:  # the number of tokens left of a mini-batch
            return self.chunk - 1 if self.chunk > 1 else 1
        return self._numbers(rng, self.form.mechanism.state, self._shape(state.axes, batch, 1), state.complex)

    def _numbers(
        self, rng: np.random.Generator, domain: Domain, shape: tuple[int, ...], is_complex: bool
    ) -> np.ndarray:
        """Draw numbers of a domain. A domain of the left half-plane bounds the real part only."""
        low, high = RANGES[domain]
        if (
            domain is Domain.NONNEGATIVE and self.form.layout is not None
        ):  # the rate of an inner model, which may diverge
            low, high = 1 / 16, 3 / 16
        if domain is Domain.STABLE:
            return self._uniform(rng, shape, low, high) - np.eye(shape[-1])
        real = self._uniform(rng, shape, low, high)
        if not is_complex:
            return real
        return real + 1j * self._uniform(rng, shape, *RANGES[Domain.ANY])

    def _uniform(self, rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        grain = max(self.grain, math.ceil(1 / (high - low)))  # so that there is a multiple between
        numbers = rng.integers(math.ceil(low * grain), math.floor(high * grain) + 1, size=shape)
        if low < 0 < high:  # a zero hides mistakes
            numbers = np.where(numbers == 0, 1, numbers)
        return np.asarray(numbers / grain)


RANGES: dict[Domain, tuple[float, float]] = {
    Domain.ANY: (-1.5, 1.5),
    Domain.SMALL: (-0.5, 0.5),
    Domain.KEYS: (-0.5, 0.5),  # rows no longer than 1, so that no memory grows
    Domain.NONNEGATIVE: (0.25, 1.0),
    Domain.POSITIVE: (0.25, 1.0),
    Domain.NEGATIVE: (-1.5, -0.25),
    Domain.LOG_GATE: (-2.0, -0.25),
    Domain.LEFT_HALF_PLANE: (-1.0, -0.25),
    Domain.STABLE: (-0.25, 0.25),
}


def select_cases(names: list[str] | None) -> list[Case]:
    """Return the cases of these names, all by default. Raises UserError for an unknown one."""
    return [CASES[known_name(name, "cases", CASES)] for name in names or CASES]


def smaller(example: Example, batch: tuple[int, ...], size: int, grain: int) -> Example:
    """Return the example with fewer sequences, axes of at most `size`, and coarser numbers."""
    sizes = {axis: min(n, size) for axis, n in example.sizes.items()}
    return replace(example, batch=batch, sizes=sizes, grain=grain)

"""Argument types of statements: annotations that say which values Hypothesis draws.

    def streaming(q: Queries, k: Keys, v: Values, cut: Cut): ...

Axes with the same name get the same size within one example. Whatever is drawn is rational, so that one example goes
into every number system: floats, fractions, residues modulo a prime. A `LogDecay` is drawn as the rational gate whose
logarithm it is. The simplest value of each type, towards which a counterexample shrinks, is not 0: zeros hide mistakes.
"""

from __future__ import annotations

import inspect
import random
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from models.forms import axis_factor
from models.mechanism import Domain

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
Exact: TypeAlias = np.ndarray  # of Fractions

SIZES: dict[str, st.SearchStrategy[Any]] = {
    "*batch": st.sampled_from([(), (2,), (1, 2)]),
    "T": st.integers(1, 9),
    "K": st.integers(1, 4),
    "V": st.integers(1, 3),
    "S": st.integers(1, 3),  # tokens that a softmax remembers
    "D": st.integers(1, 2),  # features of what is raised to high powers, channels of a state space
    "N": st.integers(1, 2),  # the state of a channel
    "H": st.integers(1, 2),  # units of a recurrent network
    "P": st.integers(1, 3),
}
SEVERAL = st.integers(2, 9)  # lengths where a sequence is cut
LONG = st.sampled_from([64, 33, 48])  # lengths of long examples, which have no batch axes


class Sizes(dict[str, Any]):
    """The sizes of one example, drawn when first asked for.

    With a `prime`, values that may differ are integers drawn uniformly from 0 to p − 1, by a generator whose seed
    Hypothesis draws.
    """

    def __init__(self, draw: Draw, prime: int = 0):
        self.draw, self.prime = draw, prime
        self.random = random.Random(draw(st.integers(0, 2**64 - 1))) if prime else None

    def __missing__(self, axis: str) -> Any:
        factor, base = axis_factor(axis)
        if base != axis:
            self[axis] = factor * self[base]
        else:
            self[axis] = int(axis) if axis.isdigit() else self.draw(SIZES[axis])
        return self[axis]

    def shape(self, axes: str) -> tuple[int, ...]:
        """Return the shape of axes such as "*batch T K"."""
        return tuple(n for axis in axes.split() for n in ([*self[axis]] if axis == "*batch" else [self[axis]]))


Fill: TypeAlias = Callable[[Draw, tuple[int, ...], Sizes], Exact]


@dataclass(frozen=True)
class Strategy:
    """Strategy for one argument: `axes` and `fill` of an array, or `number` for a scalar."""

    axes: str = ""
    fill: Fill | None = None
    number: Callable[[Draw, Sizes], Any] | None = None
    differentiable: bool = True
    degree: int = 1  # of the numerator and of the denominator, in the numbers that are drawn for an entry
    logarithm: bool = False  # the argument is the logarithm of what is drawn
    complex: bool = False  # the argument is x + iy where pairs (x, y) are drawn, along one more axis
    sizes: Mapping[str, st.SearchStrategy[int]] = field(default_factory=dict)  # where the argument needs other ones

    def draw(self, draw: Draw, sizes: Sizes) -> Any:
        if self.fill is None:
            assert self.number is not None
            return self.number(draw, sizes)
        return self.fill(draw, sizes.shape(self.axes), sizes)


def elements(*values: Any) -> Fill:
    """Return a fill of these values, the first the simplest. (One draw of n bytes is 3 × as fast as n draws.)"""
    exact = np.array([Fraction(value) for value in values], dtype=object)

    def fill(draw: Draw, shape: tuple[int, ...], sizes: Sizes) -> Exact:
        count = int(np.prod(shape))
        if sizes.random and len(exact) > 1:
            residues = [Fraction(sizes.random.randrange(sizes.prime)) for _ in range(count)]
            return np.array([*residues, None], dtype=object)[:-1].reshape(shape)
        indices = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), dtype=np.uint8)
        return exact[indices % len(exact)].reshape(shape)

    return fill


def constant(*values: Any) -> Fill:
    """Return a fill whose entries are all the same value, one of these."""
    exact = [Fraction(value) for value in values]

    def fill(draw: Draw, shape: tuple[int, ...], sizes: Sizes) -> Exact:
        value = Fraction(sizes.random.randrange(sizes.prime)) if sizes.random else draw(st.sampled_from(exact))
        return np.full(shape, value, dtype=object)

    return fill


def pairs(real: Fill, imag: Fill) -> Fill:
    """Return a fill of complex numbers, with real and imaginary parts along a new last axis."""

    def fill(draw: Draw, shape: tuple[int, ...], sizes: Sizes) -> Exact:
        return np.stack([real(draw, shape, sizes), imag(draw, shape, sizes)], axis=-1)

    return fill


def repeating(rows: Fill) -> Fill:
    """Return a fill of rows along time, some repeated: a memory overwrites what it stored for a key."""

    def fill(draw: Draw, shape: tuple[int, ...], sizes: Sizes) -> Exact:
        values = rows(draw, shape, sizes)
        length = shape[-2]
        sources = (
            draw(st.lists(st.integers(0, length - 1), min_size=length, max_size=length))
            if draw(st.booleans())
            else range(length)
        )
        return values[..., list(sources), :]

    return fill


def gates(draw: Draw, shape: tuple[int, ...], sizes: Sizes) -> Exact:
    """Draw gates in [0, 1], sometimes exactly 0 or 1, or so small that float32 underflows."""
    return (STRONG if draw(st.booleans()) else MILD)(draw, shape, sizes)


def unit_rows(draw: Draw, shape: tuple[int, ...], sizes: Sizes) -> Exact:
    """Draw rational vectors of length exactly 1, by stereographic projection: (2x, |x|² − 1) / (|x|² + 1)."""
    x = SMALL(draw, (*shape[:-1], shape[-1] - 1), sizes)
    square = np.sum(x * x, axis=-1, keepdims=True) + Fraction(0)
    return np.concatenate([2 * x, square - 1], axis=-1) / (square + 1)


def stable(draw: Draw, shape: tuple[int, ...], sizes: Sizes) -> Exact:
    """Draw matrices whose eigenvalues have real parts of at most −1/2: −xxᵀ − 1/2 and something skew-symmetric."""
    x, skew = SMALL(draw, (*shape[:-1], 1), sizes), SMALL(draw, shape, sizes)
    half = np.vectorize(lambda i: Fraction(int(i), 2), otypes=[object])(np.eye(shape[-1], dtype=int))
    return skew - np.swapaxes(skew, -1, -2) - x * np.swapaxes(x, -1, -2) - half


def orthonormal_rows(draw: Draw, shape: tuple[int, ...], sizes: Sizes) -> Exact:
    """Draw rational rows with x·x = 1 and x·y = 0: rows of a product of two reflections I − 2uuᵀ, u of length 1."""
    u, w = np.moveaxis(unit_rows(draw, (2, *shape[:-2], shape[-1]), sizes), 0, 0)
    identity = np.vectorize(Fraction, otypes=[object])(np.eye(shape[-1], dtype=int))
    reflections = [identity - 2 * x[..., :, None] * x[..., None, :] for x in (u, w)]
    return (reflections[0] @ reflections[1])[..., : shape[-2], :]


# Thirds, fifths and sevenths, since halves never round.
SMALL = elements(1, -1, "1/2", 0, "-1/3", "2/3", "-3/5", "1/7", "-6/7")
LARGE = elements(1, -1, 2, 0, "1/3", "-5/3", "7/5", -2, "-2/7")
POSITIVE = elements(1, "1/3", 2, "3/5", "1/7", "5/3")
RATES = elements(-1, "-1/3", -2, "-3/5", "-1/7")
BETAS = elements(1, 0, "1/2", 2, "2/3", "1/5", "11/7")
MILD = elements("1/2", 1, "2/3", "1/5", "6/7")
STRONG = elements("1/2", 0, 1, Fraction(1, 10**6), "2/3", Fraction(1, 10**60))

# How a value of each domain is drawn. The annotation of the argument adds its axes, and whether it is complex.
STRATEGY_OF: dict[Domain, Strategy] = {
    Domain.ANY: Strategy(fill=LARGE),
    Domain.SMALL: Strategy(fill=SMALL),
    Domain.KEYS: Strategy(fill=repeating(SMALL)),
    Domain.NONNEGATIVE: Strategy(fill=BETAS),
    Domain.POSITIVE: Strategy(fill=POSITIVE),
    Domain.NEGATIVE: Strategy(fill=RATES),
    Domain.LOG_GATE: Strategy(fill=gates, logarithm=True),
    Domain.LEFT_HALF_PLANE: Strategy(fill=pairs(RATES, LARGE), complex=True),
    Domain.STABLE: Strategy(fill=stable, degree=2),
}

Queries = Annotated[Any, Strategy("*batch T K", LARGE)]
Keys = Annotated[Any, Strategy("*batch T K", repeating(SMALL))]
Values = Annotated[Any, Strategy("*batch T V", LARGE)]
Betas = Annotated[Any, Strategy("*batch T", BETAS)]
LogDecay = Annotated[Any, Strategy("*batch T", gates, logarithm=True)]
ChannelLogDecay = Annotated[Any, Strategy("*batch T K", gates, logarithm=True)]
State = Annotated[Any, Strategy("*batch K V", LARGE)]

Key = Annotated[Any, Strategy("*batch K", SMALL)]
Value = Annotated[Any, Strategy("*batch V", LARGE)]
Beta = Annotated[Any, Strategy("*batch", BETAS)]
LargeBeta = Annotated[Any, Strategy("*batch", elements(3, 1, 2, "5/2", 0, "1/2"))]
LogGate = Annotated[Any, Strategy("*batch", gates, logarithm=True)]
ChannelLogGate = Annotated[Any, Strategy("*batch K", gates, logarithm=True)]

# These obey a constraint, which a derivative in their direction would leave.
UnitKey = Annotated[Any, Strategy("*batch K", unit_rows, differentiable=False, degree=2)]
UnitKeys = Annotated[Any, Strategy("*batch T K", repeating(unit_rows), differentiable=False, degree=2)]
OrthonormalKeys = Annotated[
    Any,
    Strategy(
        "*batch T K",
        orthonormal_rows,
        differentiable=False,
        degree=8,
        sizes={"T": st.integers(1, 4), "K": st.just(4)},
    ),
]

SmallIntegers = Annotated[Any, Strategy("*batch T K", elements(1, 0, 2, 3))]
Vector = Annotated[Any, Strategy("*batch D", SMALL)]
Vectors = Annotated[Any, Strategy("*batch T D", SMALL)]
PositiveFeatures = Annotated[Any, Strategy("*batch T K", POSITIVE)]
OpenGates = Annotated[Any, Strategy("*batch T", elements(1), logarithm=True, differentiable=False)]
ShutGates = Annotated[Any, Strategy("*batch T", elements(0), logarithm=True, differentiable=False)]
FullBetas = Annotated[Any, Strategy("*batch T", elements(1), differentiable=False)]
Length = Annotated[int, Strategy(number=lambda draw, sizes: sizes["T"])]
ChunkSize = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, sizes["T"] + 2)))]
Cut = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, sizes["T"] - 1)), sizes={"T": SEVERAL})]


def arguments(function: Callable[..., Any], *, omit: Collection[str] = ()) -> dict[str, Strategy]:
    """Return how each argument of a statement is drawn, by name, except those in `omit`.

    Raises TypeError for an argument without one of the types above.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    strategies = {}
    for name in inspect.signature(function).parameters:
        if name in omit:
            continue
        annotated = [x for x in getattr(hints.get(name), "__metadata__", ()) if isinstance(x, Strategy)]
        if not annotated:
            raise TypeError(f"{function.__name__}: {name} has no type of checker.strategies, such as Keys or ChunkSize")
        strategies[name] = annotated[0]
    return strategies


@dataclass(frozen=True)
class Maybe:
    """An argument, or a nested part, that is sometimes None."""

    strategy: Any


def walk(tree: Any) -> Iterator[Strategy]:
    """Yield every `Strategy` in nested mappings and tuples of them."""
    if isinstance(tree, Strategy):
        yield tree
    elif isinstance(tree, Maybe):
        yield from walk(tree.strategy)
    else:
        for item in tree.values() if isinstance(tree, Mapping) else tree:
            yield from walk(item)


def tree_map(function: Callable[..., Any], tree: Any, *values: Any) -> Any:
    """Apply `function(drawn, *values)` to every argument, keeping the nesting; an optional part may be None."""
    if isinstance(tree, Maybe):
        return None if values and values[0] is None else tree_map(function, tree.strategy, *values)
    if isinstance(tree, Strategy):
        return function(tree, *values)
    if isinstance(tree, Mapping):
        return {key: tree_map(function, tree[key], *(value[key] for value in values)) for key in tree}
    return tuple(tree_map(function, *items) for items in zip(tree, *values, strict=True))


def lengthens(tree: Any) -> bool:
    """Return whether long examples may be drawn: some argument has a time axis, and none limits its length."""
    strategies = list(walk(tree))
    return any("T" in x.axes.split() for x in strategies) and all(
        x.sizes.get("T", SEVERAL) is SEVERAL for x in strategies
    )


def example(draw: Draw, tree: Any, fixed: Mapping[str, Any] | None = None, prime: int = 0, long: bool = False) -> Any:
    """Draw one example: a value for each argument, with shared sizes; those in `fixed` are not drawn.

    With a `prime` the values are drawn uniformly modulo it, or are rational functions of such, where an argument obeys
    a constraint. A `long` example has a length of LONG and no batch axes.
    """
    sizes = Sizes(draw, prime)
    sizes.update(fixed or {})
    for strategy in walk(tree):
        for axis, wider in strategy.sizes.items():
            sizes[axis] = draw(wider)
    if long:
        sizes |= {"T": draw(LONG), "*batch": ()}
    return _example(draw, tree, sizes)


def _example(draw: Draw, tree: Any, sizes: Sizes) -> Any:
    if isinstance(tree, Maybe):
        return _example(draw, tree.strategy, sizes) if draw(st.booleans()) else None
    if isinstance(tree, Strategy):
        return tree.draw(draw, sizes)
    if isinstance(tree, Mapping):
        return {name: _example(draw, item, sizes) for name, item in tree.items()}
    return tuple(_example(draw, item, sizes) for item in tree)

"""How the statements that hold for every mechanism call a form whose arguments they do not know."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import namespace
from models.forms import mechanisms
from proofs.statements import Instance
from proofs.strategies import BETAS, LARGE, SMALL, Drawn, Fill, Maybe, gates, repeating

Tokens = Mapping[str, Any]  # the arguments of a form that have a time axis, by name: q, k, v and its gates

TRANSCENDENTAL = ("softmax",)  # mechanisms whose outputs are not rational in their inputs

FILLS: dict[str, Fill] = {
    "q": LARGE,
    "k": repeating(SMALL),
    "v": LARGE,
    "beta": BETAS,
    "log_decay": gates,
    "state": LARGE,
}


@dataclass(frozen=True)
class Form:
    """One form of a mechanism, called alike whatever its mechanism."""

    name: str
    function: Callable[..., Any]
    axes: Mapping[str, str]  # of each argument along time: {"q": "*batch T K", …}
    state: Any  # how a start state is drawn

    def __call__(self, tokens: Tokens, state: Any = None, chunk_size: int = 64) -> Any:
        """(y, state). Forms without chunks have no use for a chunk size."""
        options = {"chunk_size": chunk_size} if "chunk_size" in inspect.signature(self.function).parameters else {}
        return self.function(**tokens, state=state, **options)

    @property
    def drawn(self) -> dict[str, Any]:
        """How to draw the tokens and the state the form starts from."""
        return {"tokens": {name: _drawn(name, axes) for name, axes in self.axes.items()}, "state": Maybe(self.state)}

    @property
    def exact(self) -> bool:
        return self.name.partition(".")[0] not in TRANSCENDENTAL

    @property
    def at_once(self) -> bool:
        return self.name.split(".")[1] in ("quadratic", "parallel")

    @property
    def remembers_all(self) -> bool:
        return self.name.startswith("softmax.")

    def during(self, tokens: Tokens, start: int | None, stop: int | None) -> dict[str, Any]:
        """The tokens from `start` up to, without, `stop`."""
        span = slice(start, stop)
        return {name: x[..., span] if self.time(name) == -1 else x[..., span, :] for name, x in tokens.items()}

    def joined(self, before: Tokens, after: Tokens) -> dict[str, Any]:
        """First the one, then the other."""
        xp = namespace(before["q"], after["q"])
        return {name: xp.concat([before[name], after[name]], axis=self.time(name)) for name in before}

    def time(self, name: str) -> int:
        """Which axis of an argument is time."""
        return -1 if self.axes[name].endswith("T") else -2

    @staticmethod
    def alone(batch: Any, i: int) -> Any:
        """One of a batch of tokens or states."""
        if isinstance(batch, Mapping):
            return {name: x[i] for name, x in batch.items()}
        return None if batch is None else tuple(x[i] for x in batch) if isinstance(batch, tuple) else batch[i]

    def sample(self, length: int) -> dict[str, np.ndarray]:
        """Random tokens of one sequence, with two features each."""
        rng, sizes = np.random.default_rng(0), {"T": length, "K": 2, "V": 2}
        shapes = {name: [sizes[axis] for axis in axes.split()[1:]] for name, axes in self.axes.items()}
        return {
            name: (-1 if name.startswith("log_") else 1) * rng.uniform(0.1, 0.5, shape)
            for name, shape in shapes.items()
        }


def stacked(results: list[Any]) -> Any:
    """Results, arrays or tuples of them, beside each other along a new first axis."""
    if isinstance(results[0], tuple):
        return tuple(stacked(list(parts)) for parts in zip(*results, strict=True))
    return namespace(*results).stack(results, axis=0)


def forms() -> Iterator[Form]:
    """Every form there is. An argument that may have several shapes makes a form of its own for each."""
    for mechanism, functions in mechanisms().items():
        for label, function in functions.items():
            for variant, axes in _variants(function):
                name = ".".join([mechanism.rpartition(".")[2], label, *([variant] if variant else [])])
                yield Form(name, function, axes, _state(function))


def each_form(*twice: str, at_once: bool | None = None, remembers_all: bool | None = None) -> list[Instance]:
    """An instance for each form: `form`, with `tokens` and `state` drawn, and more tokens under the names in `twice`.

    `at_once` selects the forms that compare all tokens with all, `remembers_all` those whose state is the past.
    """
    chosen = [
        form for form in forms() if at_once in (None, form.at_once) and remembers_all in (None, form.remembers_all)
    ]
    return [
        Instance(form.name, {"form": form}, form.drawn | dict.fromkeys(twice, form.drawn["tokens"]), form.exact)
        for form in chosen
    ]


def each_pair() -> list[Instance]:
    """An instance for each form but the first of its mechanism: `form` and the first as `plainest`."""
    first: dict[tuple[str, ...], Form] = {}
    pairs = []
    for form in forms():
        mechanism = (form.name.split(".")[0], *form.axes.values())
        plainest = first.setdefault(mechanism, form)
        if form is not plainest:
            pairs.append(Instance(form.name, {"form": form, "plainest": plainest}, form.drawn, form.exact))
    return pairs


def _drawn(name: str, axes: str) -> Drawn:
    return Drawn(axes, FILLS.get(name, LARGE), logarithm=name.startswith("log_"))


def _members(annotation: Any) -> list[Any]:
    """The alternatives of a union, without None."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return [a for a in (typing.get_args(annotation) if union else (annotation,)) if a is not types.NoneType]


def _variants(function: Callable[..., Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """The axes of the arguments along time, once for each shape the last of them may have."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    axes = {p.name: _members(p.annotation)[0].dim_str for p in positional}
    last = positional[-1]
    alternatives = _members(last.annotation)
    for alternative in alternatives:
        label = f"{last.name} {alternative.dim_str.split()[-1]}" if len(alternatives) > 1 else ""
        yield label, {**axes, last.name: alternative.dim_str}


def _state(function: Callable[..., Any]) -> Any:
    """How to draw a start state: an array, or a tuple of them."""
    (annotation,) = _members(inspect.signature(function).parameters["state"].annotation)
    if typing.get_origin(annotation) is tuple:
        return tuple(_drawn("state", item.dim_str) for item in typing.get_args(annotation))
    return _drawn("state", annotation.dim_str)

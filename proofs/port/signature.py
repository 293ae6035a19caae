"""Signature of a port: order and names of its arguments, layout of its arrays, scale, and convention of its gates.

layout      the axes of arrays of tokens: "b t h k". t is time, b and h are the batch axes, any other letter stands
            for the features; what has none of these axes lacks them: beta is "b t h". None: as the form's own.
arguments   the reference's names in the port's order: "q,k,v,g,beta"; "x=q" passes q by the name x.
state       the axes of the state after the batch axes, where they are others: "v k".
scale       the number that the port multiplies q by, or "1/sqrt(K)". None: as the form's own.
decay       "log", or "factor" where the port takes the decays whose logarithms the form takes.
returns     the port's results in its order: "y,state". None: y, and the state where there are two.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import UserError, known_name
from proofs.checker.forms import Form

# What libraries call the arguments of our forms.
ALIASES: dict[str, tuple[str, ...]] = {
    "log_decay": ("g", "gk", "log_g", "log_alpha", "log_a", "w", "alpha", "decay"),
    "beta": ("b", "betas"),
    "delta": ("dt", "Delta"),
    "state": ("initial_state", "h0", "S0", "S", "h", "initial_states"),
    "chunk_size": ("BT", "chunk", "block_size", "batch_size"),
    "log_eta": ("log_momentum", "momentum", "eta"),
    "theta": ("lr", "rate"),
}
CHUNK = "chunk_size"


@dataclass(frozen=True)
class Signature:
    """The declared signature of a port of a form."""

    form: Form
    arguments: tuple[tuple[str, str], ...]  # (name in the form, keyword of the port or "" for a place)
    layout: tuple[str, ...] | None = None
    state: tuple[int, ...] | None = None  # the order in which the port has the feature axes of the state
    returns: tuple[str, ...] | None = None
    scale: float | str | None = None
    factors: bool = False

    def takes(self, name: str) -> bool:
        """Return whether the port takes this argument of the form."""
        return any(argument == name for argument, _ in self.arguments)

    @property
    def batch_letters(self) -> tuple[str, ...]:
        """Return the batch axes in the order of the form."""
        return ("b", "h") if self.layout is None else tuple(x for x in ("b", "h") if x in self.layout)

    def order(self, axes: str, ndim: int) -> list[int]:
        """Return for each axis of the port's array the axis of the form's; `axes` are those of the form's."""
        features = [axis for axis in axes.split() if axis not in ("*batch", "T")]
        letters = self.batch_letters[: ndim - len(axes.replace("*batch", "").split())] if "*batch" in axes else ()
        own = [*letters, *(["t"] if "T" in axes.split() else []), *map(str, range(len(features)))]
        if self.layout is None:
            return list(range(ndim))
        port: list[str] = []
        for letter in self.layout:
            port += [letter] if letter in ("b", "h", "t") else map(str, range(len(features)))
        if not any(letter not in ("b", "h", "t") for letter in self.layout):
            port += map(str, range(len(features)))
        return [own.index(letter) for letter in port if letter in own]

    def to_port(self, axes: str, x: np.ndarray, *, state: bool = False) -> np.ndarray:
        """Return an array with the axes as the port has them."""
        order = self._state_order(axes, x.ndim) if state else self.order(axes, x.ndim)
        return np.transpose(x, order) if order else x

    def from_port(self, axes: str, x: np.ndarray, *, state: bool = False) -> np.ndarray:
        """Return an array with the axes as the form has them."""
        order = self._state_order(axes, x.ndim) if state else self.order(axes, x.ndim)
        return np.transpose(x, np.argsort(order)) if order else x

    def _state_order(self, axes: str, ndim: int) -> list[int]:
        features = len(axes.replace("*batch", "").split())
        if self.layout is None or "*batch" not in axes:
            batch = list(range(ndim - features))
        else:
            batch = [self.batch_letters.index(x) for x in self.layout if x in self.batch_letters]
        permuted = self.state if self.state is not None and len(self.state) == features else range(features)
        return [*batch, *(len(batch) + i for i in permuted)]

    def scale_of(self, K: int) -> float:
        """Return the number that q is multiplied by before the form, which has a scale of its own or none."""
        if self.scale is None:
            return 1.0
        scale = _number(self.scale, K)
        return scale * K**0.5 if "scale" in inspect.signature(self.form.function).parameters else scale


def declare(
    form: Form,
    port: Callable[..., Any],
    *,
    layout: str | None = None,
    arguments: str | Sequence[str] | None = None,
    scale: float | str | None = None,
    state: str | None = None,
    decay: str = "log",
    returns: str | Sequence[str] | None = None,
) -> Signature:
    """Return the signature of a port as declared, or as its parameters' names say. Raises UserError where it cannot."""
    if decay not in ("log", "factor"):
        raise UserError(f"decay: expected log or factor, got '{decay}'")
    if scale is not None:
        _number(scale, 4)
    named = _declared(form, arguments) if arguments else _inspected(form, port)
    results = None
    if returns:
        results = tuple(returns.replace(" ", "").split(",")) if isinstance(returns, str) else tuple(returns)
        if "y" not in results or not set(results) <= {"y", "state", "_"}:
            raise UserError(
                f"returns: expected y, state and _ (what is left out) in some order, got {','.join(results)}"
            )
    return Signature(form, named, _layout(layout), _state(form, state), results, scale, decay == "factor")


def y_axes(form: Form) -> str:
    """Return the axes of the output."""
    return str(typing.get_args(inspect.signature(form.function).return_annotation)[0].dim_str)


def state_axes(state: Any) -> list[str]:
    """Return the axes of each array of a state, as `Form.state` draws it."""
    if isinstance(state, tuple):
        return [axes for part in state for axes in state_axes(part)]
    return [] if state.fill is None else [state.axes]


def _layout(layout: str | None) -> tuple[str, ...] | None:
    if layout is None:
        return None
    letters = tuple(layout.replace(",", " ").split())
    letters = tuple(layout) if len(letters) == 1 and len(layout) > 1 else letters
    features = [x for x in letters if x not in ("b", "h", "t")]
    if len(set(letters)) < len(letters) or "t" not in letters or len(features) > 1 or any(len(x) > 1 for x in letters):
        expected = "letters as in 'b t h k' (t is time, b and h are batch axes, one other the features)"
        raise UserError(f"layout: expected {expected}, got '{layout}'")
    return letters


def _state(form: Form, state: str | None) -> tuple[int, ...] | None:
    if state is None:
        return None
    axes = state_axes(form.state)
    own = axes[0].lower().split()[1:] if len(axes) == 1 else []
    letters = [x for x in state.lower().replace(",", " ").split() if x not in ("b", "h")]
    if sorted(letters) != sorted(own):
        expected = f"{' '.join(own)} in some order" if own else "none, since the state is no single array"
        raise UserError(f"state: expected {expected}, got '{state}'")
    return tuple(own.index(x) for x in letters)


def _number(scale: float | str, K: int) -> float:
    if isinstance(scale, str) and scale.replace(" ", "") in ("1/sqrt(K)", "K**-0.5", "1/√K"):
        return K**-0.5
    try:
        return float(scale)
    except ValueError:
        raise UserError(f"scale: expected a number or 1/sqrt(K), got '{scale}'") from None


def _names(form: Form) -> list[str]:
    options = [CHUNK] if {CHUNK, "batch_size"} & set(inspect.signature(form.function).parameters) else []
    return [*form.axes, "state", *options]


def _resolve(form: Form, name: str) -> str | None:
    """Return the argument of the form that a port calls so; None where there is none."""
    names = _names(form)
    if name in names:
        return name
    short = {x.partition(".")[2]: x for x in names if "." in x}
    return short.get(name) or next((ours for ours, others in ALIASES.items() if name in others and ours in names), None)


def _declared(form: Form, arguments: str | Sequence[str]) -> tuple[tuple[str, str], ...]:
    items = arguments.replace(" ", "").split(",") if isinstance(arguments, str) else list(arguments)
    named = []
    for item in items:
        keyword, _, name = item.rpartition("=")
        named.append((_resolve(form, name) or known_name(name, "arguments", _names(form)), keyword))
    found = [name for name, _ in named]
    if twice := [name for name in found if found.count(name) > 1]:
        raise UserError(f"arguments: {twice[0]} is there twice")
    if missing := [name for name in form.axes if name not in found]:
        raise UserError(f"arguments: {missing[0]} is missing, expected {', '.join(form.axes)} in the port's order")
    return tuple(named)


def _inspected(form: Form, port: Callable[..., Any]) -> tuple[tuple[str, str], ...]:
    """Return the arguments that the names of the port's parameters say, else the form's own in its order."""
    ours = list(form.axes)
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(port).parameters
    except (TypeError, ValueError):  # compiled
        return tuple((name, "") for name in ours)
    resolved = {name: _resolve(form, name) for name in parameters}
    by_name = {name: argument for name, argument in resolved.items() if argument}
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional if p.default is p.empty]
    found = [by_name.get(name) for name in required]
    options = [(by_name[name], name) for name in by_name if name not in required and by_name[name] in ("state", CHUNK)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
        return (*((name, "") for name in ours), *options)
    if set(ours) <= set(by_name.values()) and None not in found and len(set(by_name.values())) == len(by_name):
        places = [(by_name[name], "") for name in required]
        return (*places, *((by_name[n], n) for n in by_name if n not in required))
    if len(required) != len(ours):
        takes = f"{len(required)} argument{'s' * (len(required) != 1)} ({', '.join(required)})"
        raise UserError(
            f"the port takes {takes}, {form.name} has {len(ours)} ({', '.join(ours)}): declare them by --arguments"
        )
    return (*((name, "") for name in ours), *options)

"""The forms that ports are compared with, by name.

Beside the forms of the general statements these are variants with an inner model within a layer norm, f(x) = x +
LN(g(x)): `"linear, norm"` of test-time training, `"matrix, norm"` of Titans, and those of their MLPs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from models.errors import UserError, known_name
from models.mechanism import Domain
from proofs.checker.forms import Form, forms
from proofs.checker.nested import nested_argument, taking_arrays
from proofs.checker.strategies import STRATEGY_OF

NORM = {"norm.gamma": Domain.POSITIVE, "norm.beta": Domain.SMALL}  # γ and β, (1, V); V = K


def find_form(name: str | Callable[..., Any], variant: str | None = None) -> Form:
    """Return a form by its name or by itself. Raises UserError for another name.

    The name is `"memory.delta_rule.chunkwise"`, or without the family; a mechanism's name, as `python -m models list`
    spells it, is that of its plainest form.
    """
    if callable(name):
        name = f"{name.__module__.removeprefix('models.')}.{name.__name__}"
    name = ".".join(name.split())  # "memory.delta_rule chunkwise", as in a row of the list
    full = next((x for x in _forms_by_name() if name in _spellings(x)), None)
    if full is None:
        near = ", ".join(get_close_matches(name, _forms_by_name(), n=3, cutoff=0.0))
        raise UserError(f"form: there is no {name} (nearest: {near}); `python -m models list` shows all")
    variants = _forms_by_name()[full]
    if variant is None:
        return next(iter(variants.values()))
    if variants.keys() == {""}:
        raise UserError(f"variant: {full} has none, got '{variant}'")
    return variants[known_name(variant, "variant", variants)]


def _spellings(full: str) -> tuple[str, ...]:
    """Return all names of a form: with and without the family, and those of the mechanism alone."""
    mechanism = full.rpartition(".")[0]
    return full, full.partition(".")[2], mechanism, mechanism.partition(".")[2]


@functools.cache
def _forms_by_name() -> dict[str, dict[str, Form]]:
    """Return the forms by name, and those of one name by their variant: {"log_decay T": …, "log_decay T K": …}."""
    found: dict[str, dict[str, Form]] = {}
    for form in all_forms():
        found.setdefault(full_name(form), {})[".".join(form.name.split(".")[2:])] = form
    return found


def full_name(form: Form) -> str:
    """Return the name of a form with that of its family."""
    return f"{form.function.__module__.removeprefix('models.')}.{form.function.__name__}"


def all_forms() -> Iterator[Form]:
    """Yield every form of every mechanism, those with an inner model once more with a norm around it."""
    listed = list(forms())
    yield from listed
    yield from (with_norm(form) for form in listed if form.layout is not None)


def with_norm(form: Form) -> Form:
    """Return a form whose last arguments are γ and β of the norm around its inner model."""
    function, reference = (f.__wrapped__ for f in (form.function, form.reference))  # type: ignore[attr-defined]
    argument = nested_argument(function)
    assert argument is not None
    assert form.layout is not None
    return replace(
        form,
        name=f"{form.name}, norm",
        function=taking_arrays(function, argument, form.layout, NORM),
        reference=taking_arrays(reference, argument, form.layout, NORM),
        domains={**form.domains, **NORM},
        tokens={**form.tokens, **{x: replace(STRATEGY_OF[domain], axes="1 V") for x, domain in NORM.items()}},
    )


def has_norm(form: Form) -> bool:
    """Return whether a form has a norm around its inner model, so that keys and values have as many features."""
    return set(NORM) <= form.axes.keys()

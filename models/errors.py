"""User errors, reported in one line that says what was expected and what was given."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A request that cannot be fulfilled; its message is one line, shown to the user without a traceback."""


def require_counts(config: object, *names: str) -> None:
    """Raise a `UserError` for the first of these attributes that is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"{name}: expected at least 1, got {getattr(config, name)}")


def known_name(name: str, label: str, choices: Iterable[str]) -> str:
    """Return `name` if it is one of `choices`; raises a `UserError` that names the nearest one if it is not."""
    names = list(choices)
    if name in names:
        return name
    near = get_close_matches(name, names, n=1, cutoff=0.0)
    raise UserError(f"{label}: expected one of {', '.join(names)}, got '{name}' (nearest: {near[0]})")

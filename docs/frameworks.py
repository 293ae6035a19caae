"""The forms inside other frameworks: what docs/frameworks.toml says of each, as the table of docs/FRAMEWORKS.md."""

import functools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLUMNS = ("torch eager", "torch grad", "torch vmap", "torch compile", "jax jit", "jax grad", "jax vmap")


@functools.cache
def exceptions() -> list[dict[str, Any]]:
    """Return what does not work, in the order of the file."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["exception"]


def exception(form: Callable[..., Any], column: str) -> dict[str, Any] | None:
    """Return the exception for a form in a column, or None where it works."""
    name = f"{form.__module__.removeprefix('models.')}.{form.__name__}"
    return next((x for x in exceptions() if name in x["forms"] and x["column"] == column), None)


def rows() -> list[list[str]]:
    """Return the rows of the table: a form, and for each column whether it works, or the number of the exception."""
    from models.forms import mechanisms

    table = [["form", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    for mechanism, forms in mechanisms().items():
        for name, form in forms.items():
            if not form.compiled:
                found = [exception(form, column) for column in COLUMNS]
                cells = ["yes" if x is None else f"no ({exceptions().index(x) + 1})" for x in found]
                table.append([f"`{mechanism}` `{name}`", *cells])
    return table


def reasons() -> str:
    """Return the numbered list of exceptions."""
    return "\n".join(f"{i}. {x['column']}: {x['reason']}." for i, x in enumerate(exceptions(), start=1))

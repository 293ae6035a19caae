"""The conventions of our mechanisms, and of the same mechanisms in other libraries: `conventions.toml`.

`[mechanism."NAME"]` says in words what a mechanism here expects: `scale`, `gates`, `state`. A table `[[library]]` is a
function of another library, as the kit checks it:

    package, version   as they are installed
    function           where it is
    port               the name of the function in tests/parity/public_ports.py that calls it as it is
    form               the form that it is compared with
    options            of `proofs.port.check`: layout, arguments, scale, state, decay, returns, variant, …
    wrong              cases in which it is wrong, none where it is right
    slip               how the name begins that the kit gives the mistake
    note               what else a reader must know
    test, verdict      where `check` cannot compare it: the test in tests/parity that does, and what it found
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("conventions.toml")


@dataclass(frozen=True)
class Convention:
    """The conventions of a mechanism of ours, in words."""

    scale: str
    gates: str
    state: str


@dataclass(frozen=True)
class Library:
    """A function of another library, and the verdict on it."""

    package: str
    version: str
    function: str
    form: str
    port: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    slip: str = ""
    note: str = ""
    test: str = ""
    verdict: str = ""

    @property
    def mechanism(self) -> str:
        return self.form.rpartition(".")[0]


@functools.cache
def conventions() -> dict[str, Convention]:
    """Return the conventions of our mechanisms by name."""
    return {name: Convention(**values) for name, values in _data()["mechanism"].items()}


@functools.cache
def libraries() -> list[Library]:
    """Return the functions of other libraries, in the order of the file."""
    return [Library(**{**row, "wrong": tuple(row.get("wrong", ()))}) for row in _data()["library"]]


def _data() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))

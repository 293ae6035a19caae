"""Another declaration under which a port that is wrong would be right: a layout, a scale, a state or gates as factors.

Only what the caller left undeclared is tried, the fewest changes first.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from models.errors import UserError
from models.mechanism import Domain
from proofs.port.cases import CASES
from proofs.port.running import Port
from proofs.port.signature import declare, state_axes

if TYPE_CHECKING:
    from proofs.port.checking import Checker

SECONDS = 5.0  # of the processor
WORDS = {
    "layout": "its arrays are (B, T, H, …) where (B, H, T, …) was given",
    "decay": "it takes the decays where their logarithms were given",
    "scale": "it multiplies {0} by 1/√K",
    "state": "its state has the last axes exchanged",
}


def suspect(checker: Checker, declared: Mapping[str, Any], precision: str) -> str:
    """Return how a wrong port would be right if it were declared so; empty where no declaration is found."""
    deadline = time.process_time() + SECONDS
    first = next(iter(checker.port.form.axes))
    for changes in _changes(checker, declared):
        if time.process_time() > deadline:
            break
        if _right(checker, {**declared, **changes}, precision):
            options = " ".join(f"--{name} {value!r}" for name, value in changes.items())
            words = "; ".join(WORDS[name].format(first) for name in changes)
            return f"in plain cases it is right with {options}: {words}"
    return ""


def _changes(checker: Checker, declared: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    form = checker.port.form
    axes = state_axes(form.state)
    own = axes[0].split()[1:] if len(axes) == 1 else []
    possible = {
        "layout": "b t h k" if declared["layout"] is None else None,
        "decay": "factor" if declared["decay"] == "log" and Domain.LOG_GATE in form.domains.values() else None,
        "scale": "1/sqrt(K)" if declared["scale"] is None and next(iter(form.axes)) in ("q", "r") else None,
        "state": " ".join(own[::-1]).lower() if declared["state"] is None and len(own) == 2 else None,
    }
    found = {name: value for name, value in possible.items() if value}
    for count in range(1, len(found) + 1):
        for names in itertools.combinations(found, count):
            yield {name: found[name] for name in names}


def _right(checker: Checker, options: Mapping[str, Any], precision: str) -> bool:
    """Return whether the results of a port are right in two cases, declared so."""
    port = checker.port
    try:
        signature = declare(port.form, port.function, **options)
    except UserError:
        return False
    batch = tuple({"b": 2, "h": 3}[x] for x in signature.batch_letters)
    example = replace(checker.example, batch=batch, factors=signature.factors)
    other = type(checker)(Port(port.function, signature, port.framework, port.backward), example)
    cases = [CASES["T not a multiple"], *([CASES["start state"]] if signature.takes("state") else [])]
    found = (other.compare(other.inputs(case), precision, gradients=False) for case in cases)
    return all(divergences and not any(divergences.values()) for divergences in found)

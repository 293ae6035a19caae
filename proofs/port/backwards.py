"""Backward passes that make one mistake each: the gradients of all arguments that they give.

`BACKWARDS` is the data: for each mistake a function of a reference, the inputs and the names of the port's results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.engine import unwrap
from models.mechanism import Domain
from proofs.port.cases import Inputs
from proofs.port.reference import Arrays, Reference, leaves, rebuild

Backward = Callable[[Reference, Inputs, Sequence[str]], Arrays]


def _padded(inputs: Inputs) -> int:
    """Return the number of steps that fill the last chunk."""
    return -inputs.length % inputs.chunk


def of_y_alone(reference: Reference, inputs: Inputs, returned: Sequence[str]) -> Arrays:
    """Return the gradients without what comes from the final state."""
    return reference.gradients(inputs, ["y"])


def lost_in_padding(reference: Reference, inputs: Inputs, returned: Sequence[str]) -> Arrays:
    """Return the gradients of a reverse scan whose padded steps, at its start, decay to 0."""
    return reference.gradients(inputs, returned, change=lambda g: g * 0 if _padded(inputs) else g)


def decayed_by_padding(reference: Reference, inputs: Inputs, returned: Sequence[str]) -> Arrays:
    """Return the gradients of a reverse scan whose padded steps have Δ = softplus(0)."""
    rates = reference.form.domains.get("A") is Domain.NEGATIVE  # of channels: other systems have no such steps
    decay = np.exp(_padded(inputs) * math.log(2) * inputs.arrays["A"]) if rates else 1.0
    return reference.gradients(inputs, returned, change=lambda g: g * decay)


def detached_between_chunks(reference: Reference, inputs: Inputs, returned: Sequence[str]) -> Arrays:
    """Return the gradients without what goes from a chunk into the one before it."""

    def results(arrays: Mapping[str, Any], state: Any, chunk: int) -> list[Any]:
        tokens, y = reference.tokens(arrays), []
        for start in range(0, inputs.length, chunk):
            part = reference.form.slice_time(tokens, start, min(start + chunk, inputs.length))
            out, state = reference.form(part, state, chunk)
            y.append(out)
            last, state = state, rebuild(state, [unwrap(x) for x in leaves(state)])
        return [mg.concat(y, axis=-2), *leaves(last)]

    return reference.gradients(inputs, returned, results=results)


BACKWARDS: dict[str, Backward] = {
    "the gradient is that of y alone: what comes from the final state is left out": of_y_alone,
    "padding in the reverse scan: what comes from the final state is lost where T is no multiple of the chunk": (
        lost_in_padding
    ),
    "padding in the reverse scan: its padded steps decay, where softplus(0) = log 2 is their Δ": decayed_by_padding,
    "no gradient goes from a chunk to the one before it": detached_between_chunks,
}

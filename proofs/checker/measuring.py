"""Compare a series of measurements with a claim: convergence under a theorem's bound, or a cost's order of growth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proofs.checker.statements import Statement
from proofs.checker.systems import SYSTEMS, Comparison

KINDS = {"converges": "float64", "grows": "counted"}

# Powers that a claim tells apart differ by at least a logarithm: T against T log T is 0.2 and more at these lengths.
NEXT_ORDER = 0.2


def compare(statement: Statement, example: Mapping[str, Any]) -> Comparison:
    """Compare the measurements of a statement at one example with its claim."""
    return _growth(statement) if statement.kind == "grows" else _limit(statement, example)


def _limit(statement: Statement, example: Mapping[str, Any]) -> Comparison:
    """Check that each error is below its bound plus rounding, and that the bounds fall to 1/100 along the last axis."""
    system = SYSTEMS["float64"]
    compared = system.compare(statement, example)
    if compared.failure:
        return compared
    _, limits = system.evaluate(statement, example)
    first, last = (float(np.max(limits[0][..., i])) for i in (0, -1))
    if last > first / 100:
        return Comparison(float(last), float(first / 100), f"the bounds go from {first:.3g} to {last:.3g}, not to 0")
    return compared


def _growth(statement: Statement) -> Comparison:
    # the longest first: it fills what Python keeps for the next call
    try:
        costs = [statement(length=length) for length in reversed(statement.lengths)][::-1]
    except Exception as raised:  # any exception in a statement is a failure
        return Comparison(math.inf, NEXT_ORDER, f"{type(raised).__name__}: {raised}")
    fitted = order(costs)
    error = abs(fitted - statement.order)
    failure = f"costs {costs} at lengths {statement.lengths}: order {fitted:.2f}, claimed {statement.order:g}"
    return Comparison(error, NEXT_ORDER, failure if error > NEXT_ORDER else "")


def order(costs: Sequence[float]) -> float:
    """Return p of a cost a + b·Tᵖ, from its values at T, 2T and 4T; 0 where it does not change."""
    small, large = costs[1] - costs[0], costs[2] - costs[1]
    if small == large == 0:
        return 0.0
    return math.log2(large / small) if small > 0 and large > 0 else math.nan

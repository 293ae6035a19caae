"""Claims about a series of measurements: errors that go to 0 under a theorem's bound, costs that grow with an order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proofs.checker.statements import Statement
from proofs.checker.systems import SYSTEMS, Judgement

KINDS = {"converges": "float64", "grows": "counted"}

# Powers that a claim tells apart differ by at least a logarithm: T against T log T is 0.2 and more at these lengths.
NEXT_ORDER = 0.2


def judge(statement: Statement, example: Mapping[str, Any]) -> Judgement:
    """What a series of measurements says about a statement at one example."""
    return _growth(statement) if statement.kind == "grows" else _limit(statement, example)


def _limit(statement: Statement, example: Mapping[str, Any]) -> Judgement:
    """Each error is below its bound, rounding allowed for, and the bounds fall along the last axis to a hundredth."""
    system = SYSTEMS["float64"]
    judged = system.judge(statement, example)
    if judged.objection:
        return judged
    _, limits = system.sides(statement, example)
    first, last = (float(np.max(limits[0][..., i])) for i in (0, -1))
    if last > first / 100:
        return Judgement(float(last), float(first / 100), f"the bounds go from {first:.3g} to {last:.3g}, not to 0")
    return judged


def _growth(statement: Statement) -> Judgement:
    # the longest first: it fills what Python keeps for the next call
    costs = [statement(length=length) for length in reversed(statement.lengths)][::-1]
    found = order(costs)
    error = abs(found - statement.order)
    objection = f"costs {costs} at lengths {statement.lengths}: order {found:.2f}, claimed {statement.order:g}"
    return Judgement(error, NEXT_ORDER, objection if error > NEXT_ORDER else "")


def order(costs: Sequence[float]) -> float:
    """p of a cost a + b·Tᵖ from its values at T, 2T and 4T; 0 where it does not change."""
    small, large = costs[1] - costs[0], costs[2] - costs[1]
    if small == large == 0:
        return 0.0
    return math.log2(large / small) if small > 0 and large > 0 else math.nan

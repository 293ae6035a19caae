"""pytest proofs/: every statement in every number system, as a test with its own name.

The profile is `short`; PROOFS_PROFILE=default or deep asks for more. PyTorch and JAX come with the extra `parity` and
carry its marker; where one is missing its tests fail, for a check that did not happen must not look like one that
passed.
"""

from __future__ import annotations

import os

import pytest

from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.checker.statements import CUPY

PROFILE = os.environ.get("PROOFS_PROFILE", "short")
OUTSIDE = {"torch", "jax"}
GPU = set(CUPY)  # checked by `python -m proofs check` where there is one


def cases():
    for statement in STATEMENTS.values():
        for system in systems_of(statement):
            if system not in GPU:
                marks = [pytest.mark.parity] if system in OUTSIDE else []
                yield pytest.param(statement, system, id=f"{statement.name}-{system}", marks=marks)


@pytest.mark.parametrize(("statement", "system"), list(cases()))
def test_statement(statement, system):
    result = check_system(statement, system, PROFILE)
    assert result.status == "passed", f"{statement.sentence}\n{result.failure or result.status}\n{result.snippet}"

"""A sample of the mutants of the calculus, the same each time: the oracle notices nearly every one."""

import os
import subprocess
import sys

import pytest

from tests.oracle import mutants

SAMPLE, RATE = 40, 0.98


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a mutant is judged in a forked process")
def test_a_sample_of_mutants_dies():
    command = [sys.executable, "-m", "tests.oracle.mutants", "--sample", str(SAMPLE)]
    done = subprocess.run(command, cwd=mutants.ROOT, capture_output=True, text=True, timeout=900)
    lines = done.stdout.splitlines()
    assert lines and " killed, " in lines[-1], done.stderr
    known = mutants.explained(mutants.OPEN)
    survivors = [
        line for line in lines if " survived " in line and not any(f" survived {m}  # " in line for m in known)
    ]
    assert len(survivors) <= (1 - RATE) * SAMPLE, "these survive:\n" + "\n".join(survivors)


def test_every_known_survivor_is_a_mutant():
    every = {str(m) for m in mutants.every_mutant()}
    for path in (mutants.SURVIVORS, mutants.OPEN):
        known = mutants.explained(path)
        assert set(known) - every == set(), f"{path.name} is stale"
        assert all(known.values()), f"a mutant of {path.name} has no reason"
    assert not set(mutants.explained()) & set(mutants.explained(mutants.OPEN)), "a mutant stands in both lists"

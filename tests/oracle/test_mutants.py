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
    process = subprocess.run(command, cwd=mutants.ROOT, capture_output=True, text=True, timeout=900)
    lines = process.stdout.splitlines()
    assert lines and " killed, " in lines[-1], process.stderr
    survivors = [line for line in lines if " survived " in line]
    assert len(survivors) <= (1 - RATE) * SAMPLE, "these survive:\n" + "\n".join(survivors)


def test_every_known_survivor_is_a_mutant_and_they_are_few():
    all_mutants, known = {str(m) for m in mutants.every_mutant()}, mutants.explained()
    assert set(known) - all_mutants == set(), "survivors.txt is stale"
    assert all(known.values()), "a mutant of survivors.txt has no reason"
    assert len(known) <= (1 - RATE) * len(all_mutants)

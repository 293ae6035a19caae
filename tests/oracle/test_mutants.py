"""A sample of the mutants of the calculus, the same each time: the oracle notices every one."""

import subprocess
import sys

from tests.oracle import mutants


def test_a_sample_of_mutants_dies():
    command = [sys.executable, "-m", "tests.oracle.mutants", "--sample", "40"]
    done = subprocess.run(command, cwd=mutants.ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (
        "\n".join(line for line in done.stdout.splitlines() if "survived" in line) + done.stderr
    )


def test_every_known_survivor_is_a_mutant():
    assert set(mutants.explained()) <= {str(m) for m in mutants.every_mutant()}
    assert all(mutants.explained().values())

"""Output of the command lines to a terminal whose encoding lacks a character: it is escaped, and no error is raised."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", ["models list", "models map", "proofs list", "proofs talks", "benchmarks list"])
def test_a_terminal_of_ascii(command):
    process = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "200"},
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout and process.stdout.isascii()

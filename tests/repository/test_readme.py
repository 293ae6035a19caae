"""README.md says only what is so: its table is the code's, its commands run, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs import tables

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^(?:\$ )?((?:make|python -m)(?: [^#\s]+)+)", README, flags=re.MULTILINE)))
LINKS = sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README)))


def test_the_table_of_mechanisms_is_the_code_s():
    assert tables.filled(README) == README, "README.md is stale: run `make readme`"


def test_a_missing_marker_is_named():
    with pytest.raises(ValueError, match="README.md has no pair <!-- mechanisms:begin -->"):
        tables.filled("no table here")


def test_the_two_commands_are_there():
    assert {"make study", "make test"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists(command):
    """Make's targets with `make -n`; a program and its subcommand with `--help`, and each option named there."""
    first, *rest = command.split()
    if first == "make":
        done = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    module, *arguments = rest[1:]
    subcommand = [argument for argument in arguments[:1] if not argument.startswith("-")]
    done = subprocess.run(
        [sys.executable, "-m", module, *subcommand, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in done.stdout, f"{command}: --help does not know {option}"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_an_example_runs(code):
    exec(code, {})


@pytest.mark.parametrize("link", LINKS)
def test_a_link_leads_to_a_file(link):
    assert (ROOT / link).exists()

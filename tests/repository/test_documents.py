"""The documents: generated tables are up to date, commands and examples run, links and citations resolve."""

import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report
from docs import tables
from models.references import references

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
README, GLOSSARY = TEXTS[ROOT / "README.md"], TEXTS[ROOT / "docs" / "GLOSSARY.md"]
COMMAND = re.compile(r"^((?:make|python -m)(?: [^#\s]+)+)", re.MULTILINE)
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
COMMANDS = sorted(
    {found for text in TEXTS.values() for block in BLOCK.findall(text) for found in COMMAND.findall(block)}
)
PACKAGES = "minigrad|models|gpu|proofs|benchmarks|tests|docs"
PATH = re.compile(rf"`((?:{PACKAGES})/[\w./*]+|(?:{PACKAGES})(?:\.\w+)+)`")
RELEASE = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1]  # the latest
PATHS = sorted({found for text in (*TEXTS.values(), RELEASE) for found in PATH.findall(text) if "NAME" not in found})
LINKS = sorted({(path, link) for path, text in TEXTS.items() for link in re.findall(r"\]\((?!https?:)([^)#]+)", text)})


@pytest.mark.parametrize("path", tables.TABLES, ids=lambda path: path.name)
def test_generated_tables_are_the_code_s(path):
    assert tables.filled(TEXTS[path], path) == TEXTS[path], f"{path.name} is stale: run `make readme`"


def test_the_rows_of_speed_are_the_records():
    assert report.filled(README, report.load()) == README, "README.md is stale: run `python -m benchmarks table`"


def test_the_readme_fits_three_screens():
    assert len(re.sub(r"<details>.*?</details>", "", README, flags=re.DOTALL).splitlines()) <= 150


def test_a_missing_marker_is_named():
    with pytest.raises(ValueError, match="README.md has no pair <!-- mechanisms:begin -->"):
        tables.filled("no table here")


def test_the_two_commands_are_in_the_readme():
    assert {"make study", "make test"} <= set(COMMAND.findall(README))


@functools.cache
def help_of(module, *subcommand):
    """Return the finished process `python -m MODULE SUBCOMMAND --help`."""
    command = [sys.executable, "-m", module, *subcommand, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists(command):
    """Make's targets with `make -n`; a program and its subcommand with `--help`, and each option named there."""
    first, *rest = command.split()
    if first == "make":
        process = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        return
    module, *arguments = rest[1:]
    if module == "pytest":  # whose --help is long, and known
        assert all((ROOT / argument).exists() for argument in arguments if "/" in argument)
        return
    subcommand = [argument for argument in arguments[:1] if not argument.startswith("-")]
    process = help_of(module, *subcommand)
    assert process.returncode == 0, process.stderr
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in process.stdout, f"{command}: --help does not know {option}"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_an_example_runs(code):
    exec(code, {})


@pytest.mark.parametrize(("path", "link"), LINKS, ids=[f"{path.name}-{link}" for path, link in LINKS])
def test_a_link_leads_to_a_file(path, link):
    assert (path.parent / link).exists()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_in_the_text_exists(path):
    """A file, a pattern of files, or a module and what it defines."""
    if "/" in path:
        assert list(ROOT.glob(path.rstrip("/")))
        return
    *package, last = path.split(".")
    try:
        importlib.import_module(path)
    except ModuleNotFoundError:
        assert hasattr(importlib.import_module(".".join(package)), last)


def test_sources_of_the_glossary_are_in_the_bibliography():
    rows = [line.split("|")[1:-1] for line in GLOSSARY.splitlines() if line.startswith("|")]
    keys = {key for row in rows if len(row) == 4 for key in re.findall(r"`([^`]+)`", row[3])}
    assert keys and keys <= set(references())


def test_a_bar_is_one_code_point():
    for path, text in TEXTS.items():
        assert "\u0305" not in text and "\u0100" not in text, f"{path.name}: a bar is U+0304"

"""Tables keep every word whole at 80 columns and at 60, whether cells wrap or rows stack."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from models import tables
from models.blocks import MIXERS
from models.forms import mechanisms
from models.memory.online_learner import POINTS
from models.references import cited
from models.tasks import TASKS
from proofs import STATEMENTS

ROOT = Path(__file__).parents[2]
CELLS = {
    "list": [*mechanisms(), *(", ".join(forms) for forms in mechanisms().values()), *MIXERS, *TASKS],
    "map": [
        cell
        for name, p in POINTS.items()
        for cell in (name, p.memory, p.loss, p.optimiser, p.batch, p.gates, cited(p.source))
    ],
}


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("command", CELLS)
def test_no_word_is_cut(command, columns):
    process = subprocess.run(
        [sys.executable, "-m", "models", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": str(columns)},
        check=True,
    )
    assert max(map(len, process.stdout.splitlines())) <= columns
    shown = process.stdout.replace(",", " ").split()
    for cell in CELLS[command]:
        for word in cell.replace(",", " ").split():
            assert word in shown, (cell, word)
    assert "…" not in process.stdout


@pytest.mark.parametrize("columns", [60, 80])
def test_statements_are_listed_whole(columns):
    process = subprocess.run(
        [sys.executable, "-m", "proofs", "list", "hopfield"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": str(columns)},
        check=True,
    )
    shown = " ".join(process.stdout.split())
    for statement in (s for s in STATEMENTS.values() if s.chapter == "hopfield"):
        name = statement.name.partition(".")[2]
        source = "; ".join(f"{c.spelled} <{c.url}>" if c.url else c.spelled for c in statement.citations)
        assert f"{statement.relation} {name} {statement.sentence}. {source}." in shown
    assert max(map(len, process.stdout.splitlines())) <= columns


def shown(width: int, *rows: tuple[str, ...]) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    tables.show(console, ("name", "what"), rows)
    return console.file.getvalue().splitlines()


def test_cells_wrap_between_words_and_rows_stack_when_words_do_not_fit():
    row = ("[x] first", "one two three")
    assert shown(40, row) == ["name       what", "[x] first  one two three"]
    assert shown(14, row) == ["name   what", "[x]    one", "first  two", "       three"]
    assert shown(11, row) == ["[x] first", "  what: one", "  two three"]
    assert shown(3, ("unbreakable", "so-and-so")) == ["unbreakable", "  what:", "  so-and-so"]

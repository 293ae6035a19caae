"""The data file of conventions: what it names exists, at the versions that are pinned."""

import re
from pathlib import Path

import pytest

from proofs.port.cases import CASES
from proofs.port.checking import find_form
from proofs.port.conventions import conventions, libraries

ROOT = Path(__file__).parents[2]
PINNED = dict(re.findall(r"^([\w.-]+)==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("row", libraries(), ids=lambda row: row.function)
def test_a_row_names_what_exists(row):
    assert PINNED[row.package] == row.version
    assert row.mechanism in conventions()
    assert find_form(row.form, row.options.get("variant"))
    assert set(row.wrong) <= set(CASES)
    assert bool(row.wrong) == bool(row.slip)
    if row.test:
        file, _, name = row.test.partition(": ")
        text = (ROOT / "tests" / "parity" / file).read_text(encoding="utf-8")
        assert row.verdict and not row.port and f"def {name}" in text
    else:
        text = (ROOT / "tests" / "parity" / "public_ports.py").read_text(encoding="utf-8")
        assert not row.verdict and f"def {row.port}(load" in text


def test_no_port_is_without_a_row():
    text = (ROOT / "tests" / "parity" / "public_ports.py").read_text(encoding="utf-8")
    assert set(re.findall(r"^def ([a-z]\w+)\(load", text, re.MULTILINE)) == {row.port for row in libraries()} - {""}

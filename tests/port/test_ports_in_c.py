"""Ports in C, with backward functions, are right; the slips planted in them are caught, and named."""

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from proofs.__main__ import app
from tests.port import c_ports
from tests.port.planted import rows
from tests.port.ports import PORTS, make, run

CASES = ["T = 1", "T > chunk", "T not a multiple", "start state", "shut gate", "open gate", "no batch axis"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PORTS["c"])
def test_a_port_in_c_is_right_in_two_precisions(name):
    report = run("c", name, cases=CASES)
    assert report.right, str(report)
    assert report.precisions == ["float64", "float32"]
    assert any(result.startswith("gradient of state") for _, _, result in report.cells)


@pytest.mark.parametrize(("framework", "name", "old", "new", "slip"), rows("c"))
def test_a_slip_is_caught_and_named(framework, name, old, new, slip):
    report = run(framework, name, old, new, precisions=["float64"], cases=["T not a multiple", "start state"])
    assert not report.right
    assert report.slips == ([slip] if slip else [])


def test_a_snippet_calls_the_backward_function_with_a_state_of_two_arrays(capsys):
    slip = ("c", "attention", "(dw[s] - mean)", "dw[s]")
    report = run(*slip, precisions=["float64"], cases=["start state"], source="from attention_port import attention")
    assert "from attention_port import attention, attention_backward\n" in report.snippet
    assert "past=(state0, state1)" in report.snippet
    scope = dict(zip(("attention", "attention_backward"), make(*slip), strict=True))
    exec(report.snippet.replace("from attention_port import", "#"), scope)
    printed = np.array(re.findall(r"[-\d.e]+", capsys.readouterr().out), dtype=float)
    got, expected = map(float, re.search(r"got (\S+), expected (\S+);", report.snippet).groups())
    assert np.any(np.isclose(printed, got))
    assert not np.any(np.isclose(printed, expected))


def test_the_example_in_contributing_is_right(tmp_path, monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("\\\n", "")
    (code,) = re.findall(r"```python\n(import ctypes.*?)```", text, re.DOTALL)
    (build,) = re.findall(r"^cc .*$", text, re.MULTILINE)
    (command,) = re.findall(r"^python -m proofs (port c_port.py.*)$", text, re.MULTILINE)
    (tmp_path / "c_port.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    subprocess.run([c_ports.compiler(), *shlex.split(build.replace("tests/", f"{ROOT}/tests/"))[1:]], check=True)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    assert "gradient of state" in result.output

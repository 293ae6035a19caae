"""The command line: exit codes, errors in one line, the report as JSON, and the test file that it writes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proofs.__main__ import app
from proofs.port import CASES, Report, serialize, worker
from proofs.port.checking import Finding
from proofs.port.comparing import Divergence
from tests.port.numpy_ports import PORTS

FORM = "memory.delta_rule.recurrent"
ROOT = Path(__file__).parents[2]
BACKWARD = """
import minigrad as mg
from models.memory import delta_rule

def backward(q, k, v, beta, dy, dS, state=None):
    arrays = [x for x in (q, k, v, beta, state) if x is not None]
    _, pull = mg.vjp(lambda q, k, v, beta, *s: delta_rule.chunkwise(q, k, v, beta, state=s[0] if s else None), *arrays)
    return pull((dy, dS))

def inside(q, k, v, beta, state=None):
    A, S = [], []
    for t in range(0, q.shape[-2], 4):
        keys = k[..., t : t + 4, :]
        A.append(np.tril(beta[..., t : t + 4, None] * (keys @ keys.mT), -1))
        _, state = right(*(x[..., t : t + 4, :] for x in (q, k, v)), beta[..., t : t + 4], state)
        S.append(state)
    return {"A": A, "S": S}
"""


@pytest.fixture
def files(tmp_path):
    right = "import numpy as np\n" + PORTS[FORM].replace("def port", "def right")
    wrong = PORTS[FORM].replace("def port", "def wrong").replace("v_t - k_t @ S", "v_t")
    short = "def short(q, k):\n    return q\n"
    (tmp_path / "delta_port.py").write_text(right + wrong + short + BACKWARD + "\nSIZE = 3\n", encoding="utf-8")
    (tmp_path / "port.c").write_text("void f(void) {}\n", encoding="utf-8")
    loaded = "import ctypes\nabort = ctypes.CDLL(None).abort\n" if sys.platform != "win32" else ""
    (tmp_path / "c_function.py").write_text(loaded, encoding="utf-8")
    (tmp_path / "broken_port.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    return tmp_path


SHORT = ["--cases", "T = 1, T not a multiple", "--precisions", "float64"]


def run(files, *arguments, process=False):
    """Run the command, in this process where a process for the port is not what is tested."""
    given = ["port", *(str(x).replace("PATH", str(files)) for x in arguments)]
    return CliRunner().invoke(app, given if process else [*given, "--in-process"])


@pytest.mark.parametrize("process", [False, True], ids=["in process", "process"])
def test_right_is_0_and_wrong_is_1(files, process):
    right = run(files, "PATH/delta_port.py:right", "--as", FORM, *SHORT, process=process)
    assert right.exit_code == 0, right.output
    assert right.output.startswith("right: right (numpy) as memory.delta_rule.recurrent")
    wrong = run(files, "PATH/delta_port.py:wrong", "--as", FORM, *SHORT, process=process)
    assert wrong.exit_code == 1
    assert "this is the slip: the prediction is missing: β v is written" in wrong.output
    assert "from delta_port import wrong" in wrong.output


def test_the_report_as_json(files):
    """The layout that proofs/port/serialize.py states, in a file beside the text, or alone on standard output."""
    arguments = ["PATH/delta_port.py:wrong", "--as", FORM, *SHORT]
    file = files / "report.json"
    result = run(files, *arguments, "--json", file)
    assert result.exit_code == 1
    assert result.output.startswith("WRONG: ")
    report = json.loads(file.read_text(encoding="utf-8"))
    assert (report["version"], report["verdict"], report["form"], report["port"]) == (1, "wrong", FORM, "wrong")
    assert {tuple(cell.values()) for cell in report["cells"] if cell["case"] == "T = 1"} == {
        ("float64", "T = 1", "y", "right"),
        ("float64", "T = 1", "state", "right"),
    }
    first = report["findings"][report["first"]]
    assert (first["case"], first["result"], first["message"]) == ("T not a multiple", "y", None)
    assert abs(first["got"] - first["expected"]) > first["tolerance"]
    assert report["slips"] == ["the prediction is missing: β v is written"]
    assert report["snippet"].startswith("import numpy as np\n")
    assert all(re.search(rf"(^|, ){field}\b", serialize.__doc__, re.MULTILINE) for field in report)
    printed = run(files, *arguments, "--json", "-", "--adversarial", "--seed", 5)
    assert printed.exit_code == 1
    report = json.loads(printed.output)
    assert report["seed"] == 5
    assert "calls in a row" in report["cases"]


def test_the_report_as_json_where_nothing_can_be_run(files):
    file = files / "report.json"
    result = run(files, "PATH/broken_port.py:right", "--as", FORM, "--json", file)
    assert result.exit_code == 3
    error = result.output.removeprefix("proofs: ").strip()
    report = {"version": 1, "verdict": "not run", "error": error}
    assert json.loads(file.read_text(encoding="utf-8")) == report
    printed = run(files, "PATH/broken_port.py:right", "--as", FORM, "--json", "-")
    assert json.loads(printed.stdout) == report


def test_no_case_that_applies_is_3(files):
    result = run(files, "PATH/delta_port.py:right", "--as", FORM, "--layout", "b h t k", "--cases", "no batch axis")
    assert result.exit_code == 3
    assert result.output.startswith("NOTHING was checked: ")


def test_numbers_that_are_not_finite_are_words_in_json():
    divergence = Divergence("y", "token 0", float("nan"), complex(1, float("inf")), 0.5)
    report = Report(FORM, "port", "numpy", findings=[Finding(CASES["T = 1"], "float64", divergence)])
    (finding,) = serialize.to_json(report)["findings"]
    assert (finding["got"], finding["expected"]) == ("nan", {"real": 1.0, "imag": "inf"})


def test_a_fault_of_the_kit_is_one_line(files, monkeypatch):
    def fails(*arguments, **options):
        raise KeyError("x")

    monkeypatch.setattr(worker, "check", fails)
    given = worker.guarded(worker.Request(f"{files}/delta_port.py:right", FORM, {}), None)
    assert given.code == 3
    assert given.error.startswith("the check itself fails: KeyError: 'x' (test_command.py, line ")


def test_a_backward_function_is_checked(files):
    arguments = ["PATH/delta_port.py:right", "--as", FORM, "--backward", "backward", "--precisions", "float64"]
    result = run(files, *arguments, "--cases", "start state")
    assert result.exit_code == 0, result.output
    assert "gradient of state  ok" in result.output


def test_a_mechanism_s_name_is_that_of_its_plainest_form(files):
    short = ["--cases", "T = 1", "--precisions", "float64"]
    result = run(files, "PATH/delta_port.py:right", "--as", "memory.delta_rule", *short)
    assert result.output.startswith("right: right (numpy) as memory.delta_rule.recurrent")
    assert "statements" not in result.output


def test_intermediates_and_statements_are_options(files):
    short = ["--cases", "T = 1", "--precisions", "float64"]
    chunks = [
        "PATH/delta_port.py:right",
        "--as",
        "memory.delta_rule.chunkwise",
        "--intermediates",
        "inside",
        "--chunk",
        "4",
    ]
    result = run(files, *chunks, *short)
    assert result.exit_code == 0, result.output
    assert "intermediates of two chunks are right: A, S" in result.output
    path = files / "test_statements_of_port.py"
    result = run(files, "PATH/delta_port.py:right", "--as", FORM, *short, "--statements", "--write-test", path)
    assert result.exit_code == 0, result.output
    assert "statements with the port in the form's place: " in result.output
    written = path.read_text(encoding="utf-8")
    compile(written, path.name, "exec")
    statements = written.partition("def test_right_in_the_place_of_the_form():")[2]
    assert "precisions=PRECISIONS," in statements  # a port of float64 alone, as in C, may crash in others


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["PATH/delta_port.py", "--as", FORM], "port: expected FILE.py:FUNCTION, got 'PATH/delta_port.py'"),
        (["PATH/other.py:right", "--as", FORM], "port: there is no file PATH/other.py"),
        (["PATH/delta_port.py:righ", "--as", FORM], "got 'righ' (nearest: right)"),
        (["PATH/delta_port.py:SIZE", "--as", FORM], "port: SIZE of PATH/delta_port.py is of type int"),
        (["PATH:right", "--as", FORM], "port: expected FILE.py:FUNCTION, got 'PATH:right'"),
        (["no.such.module:right", "--as", FORM], "port: there is no module no"),
        (["proofs.no_module:right", "--as", FORM], "port: there is no module proofs.no_module"),
        (
            ["PATH/port.c:f", "--as", FORM],
            "port: PATH/port.c is no Python file, expected one with a function of NumPy",
        ),
        pytest.param(
            ["PATH/c_function.py:abort", "--as", FORM],
            "port: abort of PATH/c_function.py is a function of a C library, expected a function of NumPy arrays",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="no library of the process itself"),
        ),
        (["PATH/delta_port.py:right", "--as", "memory.delta"], "form: there is no memory.delta (nearest: mem"),
        (
            ["PATH/delta_port.py:right", "--as", FORM, "--intermediates", "insid"],
            "got 'insid' (nearest: ",
        ),
        (
            ["PATH/delta_port.py:right", "--as", "memory.delta_rule.chunk"],
            "there is no memory.delta_rule.chunk (nearest: memory.delta_rule.chunkwise, memory",
        ),
        (
            ["PATH/delta_port.py:short", "--as", FORM],
            "the port takes 2 arguments (q, k), delta_rule.recurrent has 4 (q, k, v, beta): declare them by --argu",
        ),
        (["PATH/delta_port.py:right", "--as", FORM, "--backward", "back"], "got 'back' (nearest: backward)"),
        (["PATH/delta_port.py:right", "--as", FORM, "--framework", "numpi"], "framework: numpi cannot be imported"),
        (["PATH/delta_port.py:right", "--as", FORM, "--seed", "1"], "seed: only an adversarial check has one"),
        (["PATH/delta_port.py:right", "--as", FORM, "--json", "PATH/no/x.json"], "there is no folder PATH/no"),
        (["PATH/delta_port.py:right", "--as", FORM, "--json", "PATH"], "PATH cannot be written: it is a folder"),
        (["PATH/delta_port.py:right", "--as", FORM, "--sizes", "K"], "sizes: expected as in K=16,V=16, got 'K'"),
        (["PATH/delta_port.py:right", "--as", FORM, "--write-test", "PATH/no/test.py"], "there is no folder PATH/no"),
    ],
)
def test_bad_input_is_2_and_one_line(files, arguments, words):
    result = run(files, *arguments)
    assert result.exit_code == 2
    assert result.output.startswith("proofs: ")
    assert words.replace("PATH", str(files)) in result.output
    assert len(result.output.splitlines()) == 1


def test_a_file_that_cannot_be_imported_is_3_and_one_line(files):
    result = run(files, "PATH/broken_port.py:right", "--as", FORM)
    assert result.exit_code == 3
    words = "ModuleNotFoundError: No module named 'nothing_of_that_name' (broken_port.py, line 1)"
    assert result.output == f"proofs: port: {files}/broken_port.py cannot be imported: {words}\n"


def test_a_port_that_takes_fewer_arguments_than_declared_is_a_finding(files):
    result = run(files, "PATH/delta_port.py:short", "--as", FORM, "--arguments", "q,k,v,beta", *SHORT)
    assert result.exit_code == 1
    assert (
        "first failure: T = 1, float64: TypeError: short() takes 2 positional arguments but 4 were given"
        in result.output
    )


def test_the_test_file_makes_the_same_check(files):
    path = files / "test_delta_port.py"
    arguments = ["PATH/delta_port.py:wrong", "--as", FORM, "--cases", "T = 1,T > chunk", "--precisions", "float64"]
    assert run(files, *arguments, "--write-test", path).exit_code == 1
    written = path.read_text(encoding="utf-8")
    compile(written, path.name, "exec")
    assert 'CASES = ["T = 1", "T > chunk"]' in written
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path.name],
        cwd=files,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(files)},
        capture_output=True,
        text=True,
    )
    assert "1 failed, 1 passed" in process.stdout, process.stdout + process.stderr


def test_a_test_file_in_another_folder_finds_the_port(files):
    path = files / "tests" / "test_delta_port.py"
    path.parent.mkdir()
    arguments = ["PATH/delta_port.py:right", "--as", FORM, "--cases", "T = 1", "--layout", "b h t k"]
    assert run(files, *arguments, "--precisions", "float64", "--write-test", path).exit_code == 0
    scope = {}
    exec(path.read_text(encoding="utf-8"), scope)
    scope["test_right"]("T = 1", "float64")
    assert "layout" in path.read_text(encoding="utf-8")

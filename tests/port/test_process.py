"""A port in a process of its own: what ends the process, takes too long or prints is a finding, in one line."""

import sys

import pytest

from proofs.port.process import answer_of_process
from proofs.port.worker import RIGHT, UNDECIDED, WRONG, Request

FORM = "memory.delta_rule.recurrent"
PORTS = """
import ctypes, os, sys, time
import numpy as np
from models.memory import delta_rule


def right(q, k, v, beta):
    return delta_rule.recurrent(q, k, v, beta)


def crashes(q, k, v, beta):
    if q.shape[-2] > 1:
        ctypes.string_at(0)  # line 13
    return delta_rule.recurrent(q, k, v, beta)


def hangs(q, k, v, beta):
    while q.shape[-2] > 1:
        time.sleep(0.01)  # line 19
    return delta_rule.recurrent(q, k, v, beta)


def exits(q, k, v, beta):
    return q if q.shape[-2] == 1 else os._exit(7)


def raises(q, k, v, beta):
    if q.shape[-2] == 2:
        raise ValueError("two\\ntokens")  # line 29
    if q.shape[-2] == 4:
        sys.exit("four tokens")  # line 31
    if q.shape[-2] == 131:
        np.ones(2**34)  # line 33
    print("token", q.shape[-2])  # line 34
    return delta_rule.recurrent(q, k, v, beta)


def beside(q, k, v, beta):
    import helper_beside

    return helper_beside.right(q, k, v, beta)


def sleeps(q, k, v, beta):
    time.sleep(60)  # line 44


def corrupts(q, k, v, beta):
    from proofs.port.running import Port

    watch, after = Port.watch, Port.watch.after
    watch.after = lambda outcome: (after(outcome), os._exit(3))  # as free() does in a heap that was written over
    return delta_rule.recurrent(q, k, v, beta)
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "my_port.py").write_text(PORTS, encoding="utf-8")
    return tmp_path / "my_port.py"


def test_a_port_may_import_what_lies_beside_it_when_it_is_called(file):
    (file.parent / "helper_beside.py").write_text(PORTS, encoding="utf-8")
    assert answered(file, "beside").code == RIGHT


def test_a_function_for_intermediates_runs_within_the_time_limit(file):
    options = {"cases": ["T = 1"], "precisions": ["float64"], "chunk": 4, "statements": False}
    request = Request(f"{file}:right", "memory.delta_rule.chunkwise", options, intermediates="sleeps", time_limit=4.0)
    answer = answer_of_process(request)
    assert "does not return within the time limit of 4 s" in str(answer.report or answer.error)


def answered(file, function, **limits):
    options = {"cases": ["T = 1", "T > chunk", "T not a multiple", "long"], "precisions": ["float64"], "chunk": 1}
    return answer_of_process(Request(f"{file}:{function}", FORM, options, **limits))


def messages(answer):
    return [(finding["case"], finding["message"]) for finding in answer.report["findings"]]


def cells(answer):
    return {(cell["case"], cell["result"]): cell["verdict"] for cell in answer.report["cells"]}


def test_a_crash_is_a_finding_with_its_line_and_the_smallest_example(file):
    answer = answered(file, "crashes")
    assert answer.code == WRONG
    crash = "its process crashes: Segmentation fault (my_port.py, line 13)"
    assert messages(answer)[0] == ("T > chunk", crash)
    assert f"first failure: T > chunk, float64: {crash}\n" in answer.text
    assert cells(answer)["T = 1", "y"] == "right"
    assert cells(answer)["long", ""] == "wrong"  # the cases after the crash are run
    assert "beta = np.array([0.25, 0.25], dtype=np.float64)" in answer.report["snippet"]
    assert "this is the slip" not in answer.text


def test_a_run_that_takes_too_long_is_a_finding_and_the_last(file):
    answer = answered(file, "hangs", time_limit=4.0)
    assert answer.code == WRONG
    assert messages(answer) == [("T > chunk", "it does not return within the time limit of 4 s (my_port.py, line 19)")]
    assert cells(answer) == {("T = 1", "y"): "right", ("T = 1", "state"): "right", ("T > chunk", ""): "wrong"}
    assert "the port was not run any more after that" in answer.text


def test_a_port_that_ends_its_process_again_and_again_is_not_run_forever(file, monkeypatch):
    monkeypatch.setattr("proofs.port.process.PROCESSES", 2)
    answer = answered(file, "exits")
    assert answer.code == WRONG
    ended = "it ends its process with exit code 7"
    assert messages(answer)[1:] == [("T > chunk", ended), ("T not a multiple", ended)]
    assert "the port was not run any more after that" in answer.text


def test_a_run_that_ended_its_process_and_is_not_tried_again_stands_in_the_report(file):
    answer = answered(file, "right", ended={"key of another run": ["it crashes", "float64", "7"]})
    assert answer.code == WRONG
    assert "first failure: another run, T = 7, float64: it crashes\n" in answer.text


def test_a_crash_after_a_run_names_the_run_before_it(file):
    """A write outside of an array may crash the process when the run is over."""
    answer = answered(file, "corrupts")
    assert answer.code == UNDECIDED
    assert ", after a run in float64, T = 1: does the port write outside of its arrays? " in answer.error


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit memory")
def test_exceptions_exits_memory_and_output_are_findings_with_their_lines(file):
    answer = answered(file, "raises", memory_limit=4.0)
    assert answer.code == WRONG
    found = messages(answer)
    assert ("T > chunk", "ValueError: two tokens (my_port.py, line 29)") in found
    assert ("T not a multiple", "SystemExit: four tokens (my_port.py, line 31)") in found
    assert ("T = 1", "the port prints 'token 1' (my_port.py, line 34)") in found
    assert any(
        x.startswith("MemoryError: ") and x.endswith("(my_port.py, line 33)") for case, x in found if case == "long"
    )
    assert cells(answer)["T = 1", "y"] == "right"
    assert cells(answer)["T = 1", "output"] == "wrong"
    assert "first failure: T > chunk" in answer.text  # what is printed comes last


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import ctypes\nctypes.string_at(0)\n", "its process crashes: Segmentation fault (my_port.py, line 2)"),
        ("import sys\nsys.exit()\n", "SystemExit (my_port.py, line 2)"),
        (
            "\nimport nothing_of_that_name\n",
            "ModuleNotFoundError: No module named 'nothing_of_that_name' (my_port.py, line 2)",
        ),
        (
            "def f(q):\nreturn q\n",
            "IndentationError: expected an indented block after function definition on line 1 (my_port.py, line 2)",
        ),
    ],
    ids=["crash", "exit", "missing module", "syntax"],
)
def test_a_file_that_cannot_be_imported_is_one_line(file, text, words):
    file.write_text(text, encoding="utf-8")
    answer = answered(file, "f")
    assert answer.code == UNDECIDED
    assert answer.error == f"port: {file} cannot be imported: {words}"

"""The record of memory holds what was measured, and names what was left out and why; memory is made up here."""

import pytest

from benchmarks import memory, report
from benchmarks.__main__ import main
from benchmarks.runner import BenchmarkError
from benchmarks.workload import Implementation, find

LENGTHS = [1024, 2048, 4096]
QUADRATIC, LAZY, FUSED, PEER = memory.GROWTH


@pytest.fixture
def measure(monkeypatch):
    """Measure steps that take 64 bytes a token, or for the quadratic form 256 a pair; the peer dies at 4096 tokens."""

    def step(name, length, threads):
        if name == PEER and length == 4096:
            raise BenchmarkError("peer: the process ended with status -9")
        return {"bytes": 256 * length**2 if name == QUADRATIC else 64 * length, "seconds": 1.0}

    monkeypatch.setattr(memory, "step", step)
    monkeypatch.setattr(Implementation, "missing", lambda self: [])  # so that no peer has to be installed
    return lambda **options: memory.measure(LENGTHS, threads=1, **options)


def test_what_is_measured_and_what_is_left_out(measure):
    record = measure(limit=2.0)
    entries = record["implementations"]
    assert entries[LAZY] == {"measured": {str(T): {"bytes": 64 * T, "seconds": 1.0} for T in LENGTHS}, "missing": {}}
    assert entries[QUADRATIC]["missing"] == {"4096": "a step would take over 2 GiB"}
    assert entries[PEER]["missing"] == {"4096": "peer: the process ended with status -9"}
    assert record["result_bytes"]["1024"] == 4 * 4 * 8 * 1024 * 64
    assert record["command"] == "python -m benchmarks memory 1024 2048 4096 --threads 1 --limit 2"


def test_a_length_above_one_that_was_left_out_is_left_out_too(measure):
    assert measure(limit=0.3)["implementations"][QUADRATIC]["missing"] == dict.fromkeys(
        ("2048", "4096"), "a step would take over 0.3 GiB"
    )


def test_the_first_length_is_judged_too(monkeypatch):
    asked = []

    def step(name, length, threads):
        asked.append((name, length))
        return {"bytes": 256 * length**2, "seconds": 1.0}

    monkeypatch.setattr(memory, "step", step)
    record = memory.measure([4096], threads=1)
    assert record["implementations"][QUADRATIC]["missing"] == {"4096": "a step would take over 2 GiB"}
    assert (QUADRATIC, memory.PROBE) in asked and (QUADRATIC, 4096) not in asked


def test_the_table_says_how_much_of_it_are_results(measure):
    rows = report.memory(measure()).splitlines()
    assert rows[2] == f"| T | results alone, MiB | {' | '.join(f'{name}, MiB' for name in memory.GROWTH)} |"
    assert rows[5] == "| 2,048 | 16 | 1,024 | 0 | 0 | 0 |"
    assert rows[6].startswith("| 4,096 | 32 | a step would take over 2 GiB | 0 |")


def test_the_command_keeps_the_record(measure, tmp_path, capsys):
    assert main(["memory", "1024", "2048", "--threads", "1", "--results", str(tmp_path)]) == 0
    (record,) = report.load(tmp_path)
    assert record["sizes"]["length"] == [1024, 2048] and "at length T" in capsys.readouterr().out


@pytest.mark.parametrize("name", memory.GROWTH)
def test_what_is_measured_is_in_the_workload(name):
    assert find(memory.WORKLOAD).implementation(name)


def test_a_step_holds_its_results_at_least():
    assert memory.step(LAZY, 512, 1)["bytes"] >= 4 * 4 * 8 * 512 * 64

"""The runner measures, names what is missing, and refuses to time implementations that disagree."""

import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import floors, machine, report, runner
from benchmarks.__main__ import main
from benchmarks.runner import POOLS, BenchmarkError, environment, measure
from benchmarks.workload import declared, disagreement, find, workloads


@pytest.fixture
def fake(monkeypatch):
    """Return the fake workloads by name, importable by the worker processes too."""
    here = str(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", [here, *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, str(Path(__file__).parents[2])]))
    return {workload.name: workload for workload in declared(importlib.import_module("fake_benchmark"))}


@pytest.fixture
def record(fake):
    return measure(fake["agreeing"], rounds=3, threads=1)


def test_every_installed_implementation_is_timed_in_every_round(record):
    assert list(record["implementations"]) == ["doubling", "adding"]
    for one in record["implementations"].values():
        seconds = one["seconds"]
        assert len(seconds["samples"]) == record["rounds"] == 3
        assert 0 < seconds["lower"] <= seconds["median"] <= seconds["upper"]
        assert one["memory_bytes"]["peak"] >= one["memory_bytes"]["before"] > 0
    assert record["implementations"]["doubling"]["ours_over_this"]["median"] == 1


def test_a_peer_that_is_not_installed_is_named(record):
    assert record["missing"] == {"absent": ["a_framework_nobody_wrote"]}
    assert "| absent | not installed: a_framework_nobody_wrote |" in report.table(record)


def test_the_thread_setting_reaches_the_workers(record):
    assert record["threads"] == 1
    for one in record["implementations"].values():
        assert set(one["threads"].values()) <= {1}


def test_freed_memory_is_kept_in_every_process():
    """Else PyTorch maps most of its pages anew at every step, and what is measured is the kernel."""
    program = (
        "import numpy as np, resource as r\n"
        "faults = lambda: r.getrusage(r.RUSAGE_SELF).ru_minflt\n"
        "np.ones(2**24); first = faults(); np.ones(2**24); print(faults() - first)"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], env=environment(1), capture_output=True, text=True, check=True
    )
    if Path("/proc/self/clear_refs").exists() and platform.libc_ver()[0] == "glibc":
        assert int(process.stdout) < 50  # of 32,768 pages, or 64 large ones
    assert {environment(3)[pool] for pool in POOLS} == {"3"}


def test_a_record_survives_json_and_says_how_to_repeat_it(record, tmp_path):
    path = report.save(record, tmp_path)
    assert report.load(tmp_path) == [json.loads(path.read_text())]
    assert report.load(tmp_path) == [json.loads(json.dumps(record))]
    assert record["command"] == "python -m benchmarks run agreeing --threads 1 --rounds 3"
    assert {"date", "machine", "python"} <= set(record)
    assert record["command"] in report.table(record)


def test_disagreeing_results_are_an_error(fake):
    with pytest.raises(BenchmarkError, match=r"^disagreeing: doubling and wrong disagree: value differs by 1\.2e-04"):
        measure(fake["disagreeing"], rounds=1, threads=1)


def test_an_implementation_that_raises_is_named(fake):
    with pytest.raises(BenchmarkError, match=r"failing: setup failed: RuntimeError: no such device"):
        measure(fake["failing"], rounds=1, threads=1)


def test_there_is_no_benchmark_without_our_own_implementation(fake):
    with pytest.raises(BenchmarkError, match="ours_absent: absent needs a_framework_nobody_wrote"):
        measure(fake["ours_absent"], rounds=1, threads=1)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({"x": [1.0, 2.0]}, {"x": [1.0, 2.0]}, None),
        ({"x": [0.0, 0.0]}, {"x": [0.0, 0.0]}, None),
        ({"x": [1.0, 2.0]}, {"x": [1.0, 2.1]}, "x differs by 4.8e-02 of its largest entry, expected at most 1e-03"),
        ({"x": [1.0]}, {"x": [np.nan]}, "x differs by nan of its largest entry, expected at most 1e-03"),
        ({"x": [1.0]}, {"x": [1.0, 1.0]}, "x has shape (1,), expected (2,)"),
        ({"x": [1.0]}, {"y": [1.0]}, "nothing to compare: ['x'] against ['y']"),
    ],
)
def test_what_counts_as_disagreement(ours, theirs, message):
    assert disagreement(ours, theirs, 1e-3) == message


def test_every_workload_is_listed(capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in workloads())


def test_who_is_slow_sits_out_the_later_rounds(fake):
    record = measure(fake["agreeing"], rounds=3, threads=1, patience=0)
    ours, peer = (one["seconds"]["samples"] for one in record["implementations"].values())
    assert (len(ours), len(peer)) == (3, 1)
    assert record["implementations"]["adding"]["ours_over_this"]["median"] == ours[0] / peer[0]


def test_what_fails_does_not_keep_the_others_from_being_measured(fake, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("benchmarks.__main__.workloads", lambda: fake)
    monkeypatch.setattr(runner, "ANSWER_TIMEOUT", 8.0)
    assert main(["run", "--rounds", "1", "--threads", "1", "--results", str(tmp_path)]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agreeing.json", "floored.json"]
    message = capsys.readouterr().err
    assert (
        "disagree: value differs by" in message
        and "no such device" in message
        and "a_framework_nobody_wrote" in message
    )
    assert "hanging: setup failed: the process ended with status -9" in message


def test_an_unknown_workload_names_the_nearest(capsys):
    with pytest.raises(LookupError, match="'primitive' is not known; the nearest is 'primitives'"):
        find("primitive")
    assert main(["run", "primitive"]) == 1
    assert capsys.readouterr().err == "benchmarks: workload: 'primitive' is not known; the nearest is 'primitives'\n"


def test_a_workload_imports_no_framework_until_it_is_set_up():
    """A process that times one framework must not hold another's memory."""
    program = (
        "import sys, benchmarks.workload as w; w.workloads(); print({'torch', 'jax', 'minigrad'} & set(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout == "set()\n"


def test_other_work_is_all_work_but_our_own(monkeypatch):
    busy, own, clock = iter([10.0, 19.0]), iter([1.0, 4.0]), iter([0.0, 4.0])
    monkeypatch.setattr(machine, "busy_seconds", lambda: next(busy))
    monkeypatch.setattr(machine, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(machine, "perf_counter", lambda: next(clock))
    with machine.OtherLoad() as others:
        pass
    assert others.cores == 1.5  # 9 seconds of work, 3 of them our own, in 4 seconds


def test_a_record_says_what_other_work_there_was(record):
    assert record["machine"]["others"] is None or record["machine"]["others"] >= 0


def test_the_floor_is_what_arithmetic_or_memory_takes():
    rates = {"exp2": 10.0, "GEMM": 100.0, "triad": 1000.0}
    assert floors.seconds({"exponentials": 20, "operations": 300}, rates) == 5
    assert floors.seconds({"exponentials": 20, "operations": 300, "bytes": 9000}, rates) == 9


def test_a_floor_is_measured_in_the_same_run(fake):
    record = measure(fake["floored"], rounds=2, threads=1)
    least = record["floor"]
    assert set(least["rates"]) == {"exp2", "triad", "GEMM"} and min(least["rates"].values()) > 1e6
    ours = record["implementations"]["doubling"]["seconds"]["samples"]
    assert least["ours_over_this"]["lower"] <= max(ours) / least["seconds"]["lower"]
    assert "| *floor: 0.001 M exponentials at " in report.table(record)

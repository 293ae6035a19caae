"""`bench` on a fake device: rows, lower bounds, goals, and the recorded table."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from gpu import __main__ as main
from gpu import bench, check, launch, peers
from gpu.__main__ import app
from gpu.cases import CASES
from tests.gpu.fake_device import FAKE, FEW, RATES, install

RUN = CliRunner()


@pytest.fixture
def few(monkeypatch):
    """Install a fake device for a few of the kernels."""
    install(monkeypatch)


def test_every_kernel_has_a_row_for_each_direction_and_width(few):
    rows = list(bench.rows(FAKE, RATES, 1))
    assert [row[:3] for row in rows] == [
        (name, width, direction)
        for name in FEW
        for width in ((0,) if name == "scan" else (8, 16))
        for direction in ("forward", "forward + backward")
    ]
    assert all(0 < row.ours.low <= row.ours.median <= row.ours.high for row in rows)
    assert [row[:3] for row in bench.rows(FAKE, RATES, 1, kernels=["softmax"])] == [row[:3] for row in rows[2:]]
    assert min(bench.rates(FAKE, 3)) > 0


def test_the_floor_is_the_time_of_bytes_or_operations(few):
    a, *_ = FEW["scan"].draw("float32", small=True)
    forward, both = bench.rows(FAKE, bench.Rates(1e3, 1e9, 1), 1, kernels=["scan"])
    assert (forward.floor, both.floor) == (3 * a.nbytes / 1e3, 8 * a.nbytes / 1e3)  # a, x → h and a, h, g → da, dx
    assert (forward.bound_by, both.bound_by) == ("bytes", "bytes")
    forward, both = bench.rows(FAKE, bench.Rates(1e9, 1e3, 1), 1, kernels=["scan"])
    assert (forward.floor, both.floor, forward.bound_by) == (6 * a.size / 1e3, 14 * a.size / 1e3, "operations")
    *_, last = bench.rows(FAKE, bench.Rates(1e9, 1, 1e3), 1, kernels=["softmax"])  # on tensor cores
    operations = CASES["softmax"].flops(*FEW["softmax"].draw("float32", small=True, width=16))
    assert last.floor == pytest.approx(sum(operations) / 1e3)


def test_goals_are_reported_as_met_or_missed():
    ours, theirs = bench.Times(1, 2, 3), bench.Times(1, 1.5, 2)
    row = bench.Row("scan", 0, "forward", ours, floor=1.5)
    assert row.cells() == (
        "scan",
        "",
        "forward",
        "2.000 (1.000–3.000)",
        "0.75",
        "",
        "",
        "",
        "",
        "floor / ours ≥ 0.8: missed",
    )
    assert row._replace(floor=1.7).goal() == "floor / ours ≥ 0.8: met"
    assert bench.Row("selective_scan", 0, "forward", ours).goal() == "peer / ours ≥ 1: not measured"
    assert bench.Row("softmax, bfloat16", 64, "forward", ours, theirs=theirs).goal() == "peer / ours ≥ 0.5: met"
    assert bench.Row("softmax", 64, "forward", ours, theirs=theirs).goal() == ""


def test_out_of_memory_is_reported_and_the_others_run(few, monkeypatch):
    def asarray(x):
        if x.ndim == 3 and x.shape[-1] == 16:
            raise MemoryError("Out of memory allocating 1,024 bytes")
        return x

    monkeypatch.setattr(FAKE, "asarray", asarray)
    rows = list(bench.rows(FAKE, RATES, 1, kernels=["softmax"]))
    assert [(row.width, row.peer.startswith("Out of"), row.ours is None) for row in rows[:4]] == [
        *[(8, False, False)] * 2,
        *[(16, True, True)] * 2,
    ]


def test_goals_and_peers_are_of_existing_kernels():
    assert bench.GOALS.keys() <= CASES.keys()
    assert {name for name, (against, _) in bench.GOALS.items() if against == "peer"} <= peers.PEERS.keys()
    assert peers.PEERS.keys() <= CASES.keys()


@pytest.mark.parametrize(("milliseconds", "calls"), [(0.02, 3), (20, 1)])
def test_short_calls_are_timed_several_at_a_time(milliseconds, calls):
    clock = [0.0]
    event = type("Event", (), {"record": lambda self: vars(self).update(at=clock[0]), "synchronize": lambda self: None})
    xp = SimpleNamespace(cuda=SimpleNamespace(Event=event, get_elapsed_time=lambda start, end: end.at - start.at))
    timed = []

    def call():
        timed.append(1)
        clock[0] += milliseconds

    (took,) = bench.timed(xp, [call], 4)
    assert took == pytest.approx([milliseconds] * 3)
    assert len(timed) == 2 + 4 * calls


def test_bench_keeps_a_dated_table_and_a_later_run_adds_to_it(few, monkeypatch, tmp_path):
    monkeypatch.setattr("gpu.__main__._results", lambda: tmp_path / "results")
    for kernels in (["scan"], ["softmax"], ["scan"]):
        done = RUN.invoke(app, ["bench", *kernels, "--repeats", "1", "--record"])
        assert done.exit_code == 0, done.output
    (table,) = (tmp_path / "results").iterdir()
    assert table.name.startswith("a-device-100-20")
    title, _, header, *rows = table.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# A Device 100, 20")
    assert header == bench.line(bench.HEADER)
    assert len(rows) == 1 + 2 + 8
    assert [row.split(" | ")[0] for row in rows[1:3]] == ["| scan"] * 2
    assert rows[2] in done.stdout
    assert rows[-1] not in done.stdout


def test_results_are_in_the_repository_or_the_working_directory(monkeypatch, tmp_path):
    assert main._results() == launch.KERNELS.parent / "results"
    monkeypatch.setattr(main, "__file__", str(tmp_path / "gpu" / "__main__.py"))
    assert main._results() == Path("results")


@pytest.mark.parametrize(
    ("command", "names"),
    [(["bench", "mamba"], [name for name in CASES if "," not in name]), (["check", "form"], check.PARTS)],
)
def test_unknown_kernels_and_parts_are_refused_in_one_line(command, names):
    done = RUN.invoke(app, command)
    message = f"expected {', '.join(names)} or none of them, got {command[1]!r}"
    assert (done.exit_code, done.stderr) == (2, f"python -m gpu {command[0]}: {message}\n")

"""Records survive interruption, and the tables and pictures made of them say what is in them."""

import json

import pytest

from benchmarks import plot, report, summary


def implementation(milliseconds, ratio, *, peer, peak=100):
    seconds = {"median": milliseconds / 1e3, "lower": milliseconds / 2e3, "upper": milliseconds / 5e2}
    memory = {"before": 2**20, "peak": peak * 2**20, "growth": (peak - 1) * 2**20}
    over = dict.fromkeys(("median", "lower", "upper"), ratio)
    return {"peer": peer, "seconds": seconds, "ours_over_this": over, "memory_bytes": memory, "versions": {}}


CIRCUMSTANCES = {"date": "2026-01-02T03:04:05+00:00", "machine": {"cpu": "a CPU", "cores": 2, "others": 0.31}}
RECORD = {
    "workload": "twice",
    "title": "Twice, forward",
    "unit": "ms",
    "per": "step",
    "shows_memory": True,
    **CIRCUMSTANCES,
    "threads": 2,
    "rounds": 5,
    "command": "python -m benchmarks run twice",
    "ours": "minigrad fused",
    "implementations": {
        "minigrad fused": implementation(10, 1.0, peer=False),
        "minigrad, plainly": implementation(12, 0.9, peer=False),
        "JAX": implementation(20, 0.5, peer=True, peak=250),
        "PyTorch": implementation(40, 0.25, peer=True),
    },
    "missing": {"mamba.py": ["mambapy"]},
    "floor": {
        "work": {"exponentials": 0, "operations": 2e6},
        "rates": {"exp2": 1e9, "GEMM": 1e9},
        "seconds": {"median": 0.004, "lower": 0.004, "upper": 0.004},
        "ours_over_this": {"median": 2.5, "lower": 2.5, "upper": 2.5},
    },
}
CURVE = {
    "workload": "twice_forward",
    "title": "twice, forward",
    "sizes": {"length": [512, 1024, 2048, 4096]},
    "growth": "T",
    **CIRCUMSTANCES,
    "threads": 2,
    "command": "python -m benchmarks scale twice_forward --threads 2",
    "ours": "minigrad fused",
    "implementations": {
        "minigrad fused": {
            "seconds": {
                str(T): {"median": T / 1e6, "lower": T / 1e6, "upper": T / 1e6} for T in (512, 1024, 2048, 4096)
            },
            "exponent": 1.0,
            "missing": {},
        },
        "JAX": {
            "seconds": {"512": {"median": 4.0, "lower": 4.0, "upper": 4.0}},
            "exponent": None,
            "missing": dict.fromkeys(("1024", "2048", "4096"), "a step would take over 5 s"),
        },
    },
}


def test_a_record_is_written_whole_or_not_at_all(tmp_path):
    report.save(RECORD, tmp_path)
    with pytest.raises(TypeError):
        report.save({**RECORD, "rounds": object()}, tmp_path)
    assert report.load(tmp_path) == [json.loads(json.dumps(RECORD))]
    assert not list(tmp_path.glob("*.unfinished"))


def test_the_summary_has_the_peer_that_is_hardest_to_beat():
    rows = summary.speed([RECORD]).splitlines()
    assert rows[2] == "| Twice, forward | 10 ms (5–20) | JAX | 20 ms | **2** | 2.5 | 100 / 250 |"
    assert rows[4] == "2 threads for each on a CPU (2 cores), of which other work kept at most 0.3 busy; 2026-01-02."
    assert rows[6] == "Not installed, so not measured: mamba.py (mambapy)."


def test_a_workload_without_a_peer_is_an_error():
    single = {**RECORD, "implementations": {"minigrad fused": RECORD["implementations"]["minigrad fused"]}}
    with pytest.raises(ValueError, match="twice: no peer was measured, expected one of mamba.py"):
        summary.speed([single])


def test_a_full_table_has_all_of_them_and_what_is_missing():
    table = report.table(RECORD)
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")][2:] == [
        "| **minigrad fused**",
        "| minigrad, plainly",
        "| JAX",
        "| PyTorch",
        "| *floor: 2 M operations at 1 G/s*",
        "| mamba.py",
    ]


def test_numbers_have_no_exponents():
    assert [summary.number(x) for x in (0.01234, 1.0, 123.4, 1234.5)] == ["0.0123", "1", "123", "1,234"]


def test_a_curve_names_the_lengths_it_does_not_have():
    rows = summary.scaling([CURVE]).splitlines()
    ours, peer = "T^1.00, 4,096 in 4.1 ms", "512 in 4,000 ms (from 1,024: a step would take over 5 s)"
    assert rows[2] == f"| twice, forward | T | {ours} | JAX | {peer} |"
    rows = report.lengths(CURVE).splitlines()
    assert rows[4] == "| 512 | 0.512 (0.512–0.512) | 4,000 (4,000–4,000) |"
    assert rows[5] == "| 1,024 | 1.02 (1.02–1.02) | a step would take over 5 s |"


def test_the_readme_keeps_what_is_around_the_markers(tmp_path):
    readme, full = tmp_path / "README.md", tmp_path / "RESULTS.md"
    readme.write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n")
    records = [RECORD, {**RECORD, "workload": "softmax", "title": "Softmax"}]
    report.write(records, [CURVE], readme, full)
    first = readme.read_text()
    assert first.startswith("above\n") and first.endswith("below\n") and "old" not in first
    assert "| Softmax |" in first and "| Twice, forward |" not in first
    for part in (report.table(RECORD), report.lengths(CURVE), summary.speed(records), summary.scaling([CURVE])):
        assert part in full.read_text()
    report.write(records, [CURVE], readme, full)
    assert readme.read_text() == first


def test_every_workload_of_the_readme_has_a_record():
    assert [record["workload"] for record in summary.select(report.load())] == list(summary.SHOWN)


def test_a_readme_without_markers_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="README.md: expected a line <!-- benchmarks:begin -->"):
        report.write([], [], tmp_path / "README.md", tmp_path / "RESULTS.md")
    assert not (tmp_path / "RESULTS.md").exists()


def test_pictures_of_the_records(tmp_path):
    assert plot.draw([RECORD], tmp_path / "speed.png").stat().st_size > 5000
    assert plot.draw_curves([CURVE], tmp_path / "scaling.png").stat().st_size > 5000
    assert plot.group("fla-core's chunks, PyTorch") == "fla-core"


def test_no_picture_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="plot: there are no records"):
        plot.draw([], tmp_path / "speed.png")
    with pytest.raises(ValueError, match="plot: there are no curves"):
        plot.draw_curves([], tmp_path / "scaling.png")

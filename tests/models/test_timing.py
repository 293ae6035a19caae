"""Timings of steps, scans and tokens: measured in miniature, and sentences that follow the numbers."""

import threading

import pytest

from models.study import job_handlers, plans, scheduler, timing
from models.study.cost import cost_of_scan
from tests.models.test_study import TINY

PREFIXES = ("step-", "scan-", "throughput-")
SIZES = {
    **TINY,
    "steps": {**TINY["steps"], "mixers": ["linear_attention", "ttt_linear"], "batches": [1]},
    "throughput": {**TINY["throughput"], "batches": [1, 2]},
}
PLANNED = [job for job in plans.plan(SIZES) if job.name.startswith(PREFIXES)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    jobs = {}
    for job in PLANNED:
        folder = tmp_path_factory.mktemp(job.name)
        jobs[job.name] = {
            "settings": job.settings,
            "result": job_handlers.HANDLERS[job.kind](folder, job.settings, threading.Event()),
        }
    return {"jobs": jobs}


def test_timings_run_alone():
    assert {job.kind for job in PLANNED} <= set(scheduler.TIMED)


def test_steps_are_compared_with_linear_attention(results):
    jobs = results["jobs"]
    for name, seconds in (("linear_attention", 0.5), ("ttt_linear", 1.25), ("ttt_linear-b1", 2.0)):
        jobs[f"step-{name}"]["result"]["training"][-1]["seconds"] = seconds
    section = timing.step_times(results)
    assert section["sentence"].endswith("linear attention's 500 ms: TTT-Linear 2.5, TTT-Linear, b = 1 4.0.")


def test_memory_of_a_scan_is_per_state(results):
    rows = {form: results["jobs"][f"scan-{form}"]["result"]["rows"] for form in ("fused", "associative")}
    assert [row["N"] for row in rows["fused"]] == TINY["scans"]["states"]
    for form, arrays in (("fused", 0.5), ("associative", 7.0)):
        for row in rows[form]:
            row |= {"bytes": 100 + arrays * 4 * 8 * 3 * row["N"], "seconds": 0.001 * arrays * row["N"]}
    section = timing.scan(results)
    assert section["sentences"][0].endswith("the fused form 0.5, the associative form 7.0.")
    assert section["sentences"][-1].endswith("as the fused: 14 with N = 2, 14 with N = 4.")


def test_the_fused_scan_keeps_no_states():
    settings = {"states": [2, 32], "length": 128, "channels": 64, "repeats": 1}
    array = 4 * 128 * 64
    fused, associative = (timing._per_state(list(cost_of_scan(form, **settings))) for form in ("fused", "associative"))
    assert fused < array < associative


def test_tokens_a_second_are_of_the_whole_batch(results):
    for mixer, batch, seconds in (("softmax", 1, 0.5), ("softmax", 2, 0.5), ("mamba", 1, 0.25), ("mamba", 2, 0.1)):
        for row in results["jobs"][f"throughput-{mixer}-{batch}"]["result"]["generation"]:
            row["seconds"] = seconds
    section = timing.throughput(results)
    assert (
        section["sentences"][1].startswith("In batches of 2 Mamba") and "5.0 after 8 tokens" in section["sentences"][1]
    )
    assert {row["name"]: row["rates"] for row in section["rows"]}["softmax, batch 2"] == [4.0, 4.0]


def test_nothing_is_said_before_it_is_measured():
    empty = {"jobs": {job.name: {"settings": job.settings, "result": None} for job in PLANNED}}
    assert timing.step_times(empty) is timing.scan(empty) is timing.throughput(empty) is None

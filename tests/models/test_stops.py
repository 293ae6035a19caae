"""Runs that end early: another process, a full disk, a signal, a rate too high, too little memory."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import log, room
from models.checkpoints import load_checkpoint
from models.errors import UserError
from models.lock import claim
from models.train import Run, Training

ROOT = Path(__file__).parents[2]
TINY = Run(width=16, heads=2, layers=1, batch=2, length=12, steps=20, evaluate_every=5, warmup=3, seed=5)
WORDS = ["--width", "16", "--heads", "2", "--layers", "1", "--batch", "2", "--length", "12"]


def start(*words: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "models", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(*words: object) -> tuple[int, str, str]:
    process = start(*words)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def until_it_trains(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while len(log.read(folder / "log.jsonl")) < 10:
        assert time.monotonic() < deadline, "the run never began"
        time.sleep(0.02)


def finish(training: Training, save_every: int = 100) -> Training:
    for _ in training.run_until(threading.Event(), save_every):
        pass
    return training


def message(call, *args) -> str:
    with pytest.raises(UserError) as excinfo:
        call(*args)
    assert "\n" not in str(excinfo.value)
    return str(excinfo.value)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    """A second start and a second --resume are refused; a process that was killed blocks nobody."""
    folder = tmp_path / "run"
    first = start("train", *WORDS, "--steps", "100000", "--save-every", "5", "--out", folder)
    until_it_trains(folder)
    refusal = f"python -m models: {folder}: expected a folder that no other process writes to, got one in use\n"
    assert done("train", *WORDS, "--out", folder) == (2, "", refusal)
    assert done("train", "--resume", "--out", folder) == (2, "", refusal)
    first.kill()
    first.communicate()
    resumed = start("train", "--resume", "--out", folder)
    reached = log.read(folder / "log.jsonl")[-1]["step"]
    while log.read(folder / "log.jsonl")[-1]["step"] <= reached and resumed.poll() is None:
        time.sleep(0.02)
    resumed.send_signal(signal.SIGINT)
    assert resumed.communicate(timeout=60)[0].endswith("continue with --resume\n")


def test_a_folder_is_free_when_its_training_is_gone(tmp_path):
    training = Training.start(TINY, tmp_path)
    code = f"from models.lock import claim; claim({str(tmp_path)!r})"
    command = [sys.executable, "-c", code]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.stderr.endswith("expected a folder that no other process writes to, got one in use\n")
    waiting = subprocess.Popen([sys.executable, "-c", code.replace(")", ", wait=60)")], cwd=ROOT)
    time.sleep(1)
    assert waiting.poll() is None
    del training
    assert waiting.wait(60) == 0
    claim(tmp_path)


def test_a_study_has_its_folder_alone(tmp_path):
    lock = claim(tmp_path)
    refusal = f"python -m models: {tmp_path}: expected a folder that no other process writes to, got one in use\n"
    assert done("study", "--quick", "--out", tmp_path) == (2, "", refusal)
    lock.release()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_and_stops(tmp_path, name):
    process = start("train", *WORDS, "--steps", "100000", "--out", tmp_path)
    until_it_trains(tmp_path)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    step = log.read(tmp_path / "log.jsonl")[-1]["step"]
    assert out == f"{tmp_path}/checkpoint.safetensors: stopped at step {step} of 100000; continue with --resume\n"
    assert load_checkpoint(tmp_path / "checkpoint.safetensors")[1]["step"] == step


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Raise the error of a full disk for files that would become larger than this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_log_on_a_full_disk(tmp_path):
    """The checkpoint is tried all the same: it may have room where it takes the place of another."""
    training = Training.start(TINY, tmp_path)
    for _ in training.steps(until=4):
        pass
    log.append(training.log, {"step": 4, "padding": 1_000_000 * "."})
    with files_of_at_most(1_000_000):
        error = message(finish, training)
    last_saved = f"{training.checkpoint} holds step 5"
    assert error == f"{training.log}: expected a place to write, got: File too large ({last_saved})"
    assert load_checkpoint(training.checkpoint)[1]["step"] == 5
    del training
    resumed = finish(Training.resume(tmp_path))
    assert [record["step"] for record in log.read(resumed.log)] == [0, 1, 2, 3, 4, 4, *range(6, 21)]


def test_a_checkpoint_on_a_full_disk(tmp_path):
    """The log fits, a checkpoint does not, and the old one stays."""
    training = Training.start(TINY, tmp_path)
    for _ in training.steps(until=4):
        pass
    training.save()
    before = training.checkpoint.read_bytes()
    with files_of_at_most(8000):
        error = message(finish, training)
    assert error == f"{training.checkpoint}: expected a place to write, got: File too large"
    assert training.checkpoint.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "checkpoint.safetensors", "log.jsonl"]
    assert finish(Training.resume(tmp_path)).step == 20


def test_a_rate_that_diverges_is_one_line(tmp_path):
    words = ["train", *WORDS, "--steps", "20", "--save-every", "1", "--rate", "1e38", "--out", tmp_path]
    code, out, err = done(*words)
    error = err.splitlines()[-1]
    assert (code, out) == (2, "") and "Warning" not in err and "Traceback" not in err
    assert error == (
        "python -m models: diverged at step 1: the loss is NaN; "
        f"try a smaller --rate ({tmp_path}/checkpoint.safetensors holds step 0)"
    )
    assert load_checkpoint(tmp_path / "checkpoint.safetensors")[1]["step"] == 0


def test_the_checkpoint_of_the_last_good_step_stays(tmp_path):
    training = Training.start(TINY, tmp_path)
    for _ in training.steps(until=6):
        pass
    training.save()
    before = training.checkpoint.read_bytes()
    training.model.norm.weight[:] = 1e38
    last_saved = f"try a smaller --rate ({training.checkpoint} holds step 6)"
    assert message(training.save) == f"diverged at step 6: the loss is NaN; {last_saved}"
    assert message(finish, training) == f"diverged at step 7: the loss is NaN; {last_saved}"
    training.model.embedding.weight[3, 4] = np.inf
    assert message(training.save) == f"diverged at step 6: a weight is not finite; {last_saved}"
    with np.errstate(all="ignore"):
        assert message(training.evaluate).startswith("diverged at step 6: the held-out loss is NaN; ")
    assert training.checkpoint.read_bytes() == before


def test_a_batch_that_memory_cannot_hold_is_refused_before_it_is_drawn(tmp_path):
    code, out, err = done("train", *WORDS, "--batch", "1000000000", "--out", tmp_path / "run")
    # 10⁹ sequences of 12 tokens, of each at least 4 × 16 numbers of the layer and 3 × 256 of the loss, 4 bytes each
    assert (code, out) == (2, "") and "got 36.3 TiB (try a smaller --batch, --length, --width or --layers)" in err
    assert err.startswith("python -m models: memory: expected a step of 1,000,000,000 sequences of 12 tokens to fit ")
    assert err.count("\n") == 1 and not (tmp_path / "run").exists()
    _, _, err = done("train", "--task", "induction", "--length", "10000000000", "--out", tmp_path / "run")
    assert "expected a step of 8 sequences of 10,000,000,000 tokens to fit into " in err and err.count("\n") == 1
    for words in (["--width", "4000000"], ["--layers", "10000000"], ["--mixer", "mamba", "--states", "1000000000"]):
        _, _, err = done("train", *words, "--out", tmp_path / "run")
        assert err.startswith("python -m models: memory: expected weights, their gradients and two moments to fit ")
        assert err.count("\n") == 1


def test_a_step_is_measured_when_memory_is_short(tmp_path, monkeypatch):
    run = replace(TINY, batch=64, length=64)
    least = 4 * 64 * 64 * (4 * 16 + 3 * 256)
    monkeypatch.setattr(room, "available", lambda: least + 1)
    error = message(Training.start, run, tmp_path)
    assert error.startswith(
        f"memory: expected a step of 64 sequences of 64 tokens to fit into {room.in_words(least)}, "
    )
    needed = error.partition("got ")[2].partition(" (")[0]
    training = Training(run, tmp_path)
    training._train_step()  # the first may compile, which needs memory too
    peak = room.peak(training._train_step)
    value, unit = needed.split()
    assert float(value) * 1024 ** room.UNITS.index(unit) == pytest.approx(peak, rel=0.25)
    monkeypatch.setattr(room, "available", lambda: 4 * peak)
    Training.start(run, tmp_path)


def test_memory_in_words_and_where_none_is_told(monkeypatch, tmp_path):
    assert [room.in_words(size) for size in (10, 2048, 3.5 * 2**30, 1023 * 2**20, 5000 * 2**50)] == [
        "10 bytes",
        "2 KiB",
        "3.5 GiB",
        "1,023 MiB",
        "5,000 PiB",
    ]
    assert room.available() > 2**20
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    assert room.available() == 600
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "none")
    assert room.available() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.delattr(os, "sysconf")
    assert room.available() is None
    room.require(2**80, "anything", "less")
    Training.start(replace(TINY, steps=1), tmp_path / "run")


def test_a_finished_run_is_trained_on(tmp_path):
    planned = finish(Training.start(TINY, tmp_path / "run"))
    before = planned.checkpoint.read_bytes()
    code, out, err = done("train", "--resume", "--steps", "30", "--out", tmp_path / "run")
    assert (code, out) == (2, "") and "expected a folder that no other process writes to, got one in use\n" in err
    del planned
    code, out, err = done("train", "--resume", "--steps", "30", "--out", tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.safetensors"
    assert (code, out) == (0, f"{path}: finished\n")
    assert f"{path}: planned for 20 steps, and the learning rate's cosine now ends at 30\n" in err
    assert load_checkpoint(path)[1]["run"]["steps"] == 30 and path.read_bytes() != before
    records = log.read(tmp_path / "run" / "log.jsonl")
    assert [record["step"] for record in records] == list(range(31))
    # η = floor + (peak − floor) (1 + cos π (s − warmup) / (N − warmup)) / 2 with N = 20, from step 20 on with N = 30
    for s, n in ((10, 20), (19, 20), (20, 30), (29, 30)):
        expected = 2e-4 + 1.8e-3 * (1 + math.cos(math.pi * (s - 3) / (n - 3))) / 2
        assert records[s + 1]["rate"] == pytest.approx(expected, rel=1e-12)


def test_fewer_steps_than_are_done(tmp_path):
    path = finish(Training.start(TINY, tmp_path)).checkpoint
    assert message(Training.resume, tmp_path, "cpu", 19) == (
        f"steps: expected at least 20, which {path} has done, got 19"
    )
    assert finish(Training.resume(tmp_path, "cpu", 20)).step == 20


def test_logs_are_strict_json_and_old_ones_are_read(tmp_path):
    path = tmp_path / "log.jsonl"
    log.append(path, {"step": 1, "loss": float("inf"), "more": {"a": [float("nan"), 2.5]}})
    assert path.read_text() == '{"step": 1, "loss": null, "more": {"a": [null, 2.5]}}\n'
    path.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": -Infinity}\n{"text": "\\u0000\\u2028"}\n{"st')
    assert log.read(path) == [{"step": 1, "loss": None}, {"step": 2, "loss": None}, {"text": "\0\u2028"}]
    assert json.loads(log.dumps({"sample": "\0"})) == {"sample": "\0"}
    path.write_text('{"step": 1}\n\0\0\0\n')
    assert message(log.read, path) == f"{path}: line 2: expected a JSON object, got '\\x00\\x00\\x00'"

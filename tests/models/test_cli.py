"""The command line as a user meets it: what it prints, its exit code, and what is on disk afterwards."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from models.blocks import MIXERS
from models.checkpoints import load_checkpoint
from models.cli import main
from models.log import read as read_log
from models.tasks import TASKS
from models.train import Training

TINY = ["--width", "16", "--heads", "2", "--layers", "1", "--batch", "2", "--length", "12", "--steps", "6"]


@pytest.fixture
def cli(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["models", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run


def test_list_names_everything(cli):
    code, out, _ = cli("list")
    assert code == 0
    for name in [*MIXERS, "chunkwise", "text", "recall", "memory.delta_rule"]:
        assert name in out


def test_train_resume_generate(cli, tmp_path):
    run = tmp_path / "run"
    code, out, _ = cli("train", *TINY, "--out", run)
    assert (code, out) == (0, f"{run}/checkpoint.safetensors: finished\n")
    assert [r["step"] for r in read_log(run / "log.jsonl")] == list(range(7))

    code, out, _ = cli("generate", "--checkpoint", run / "checkpoint.safetensors", "--prompt", "Thé ", "--tokens", 5)
    assert code == 0 and out.startswith("Thé ")
    assert out == cli("generate", "--checkpoint", run / "checkpoint.safetensors", "--prompt", "Thé ", "--tokens", 5)[1]

    before = (run / "log.jsonl").read_bytes()
    code, out, _ = cli("train", "--resume", "--out", run)
    assert (code, out) == (0, f"{run}/checkpoint.safetensors: finished\n")
    assert (run / "log.jsonl").read_bytes() == before


MISTAKES = [
    (
        ["train", "--mixer", "deltarule"],
        f"mixer: expected one of {', '.join(MIXERS)}, got 'deltarule' (nearest: delta_rule)",
    ),
    (["train", "--task", "recal"], f"task: expected one of {', '.join(TASKS)}, got 'recal' (nearest: recall)"),
    (["train", "--heads", "5"], "heads: expected width 128 to be a multiple of 2 × heads, got 5 heads"),
    (
        ["train", "--form", "recurent"],
        "form of delta_rule: expected one of recurrent, chunkwise, fused, got 'recurent' (nearest: recurrent)",
    ),
    (["train", "--text", "/no/such"], "text /no/such: expected a readable file, got: No such file or directory"),
    (["train", "--task", "recall", "--pairs", "99"], "pairs: expected 1 to 64, the number of keys, got 99"),
    (
        ["train", "--task", "selective_copying", "--length", "9"],
        "length: expected at least 16, one place for each datum, got 9",
    ),
    (["train", "--task", "induction", "--length", "2"], "length: expected at least 3, got 2"),
    (["train", "--states", "-1"], "states: expected at least 0, got -1"),
    (["train", "--states", "8"], "states: expected none, since delta_rule has no such choice, got 8"),
    (
        ["train", "--mixer", "mamba", "--start", "hippo"],
        "start: expected none, since mamba has no such choice, got hippo",
    ),
    (
        ["train", "--mixer", "s4d", "--states", "7"],
        "states: expected an even number, for pairs of conjugate eigenvalues, got 7",
    ),
    (
        ["train", "--mixer", "s4d", "--start", "hipo"],
        "start of s4d: expected one of hippo, lin, inv, random, got 'hipo' (nearest: hippo)",
    ),
    (
        ["train", "--mixer", "softmax", "--positions", "rope"],
        "positions: expected one of rotary, none, sinusoidal, learned, alibi, t5, got 'rope' (nearest: none)",
    ),
    (
        ["train", "--mixer", "softmax", "--positions", "learned", "--max-positions", "100"],
        "max_positions: expected at least 128, the tokens of a sequence, got 100",
    ),
    (["train", "--mixer", "softmax", "--kv-heads", "3"], "kv_heads: expected a divisor of the 4 heads, got 3"),
    (["train", "--norm", "batch"], "norm: expected one of rms, layer, got 'batch' (nearest: layer)"),
    (
        ["train", "--resume"],
        "checkpoint run/checkpoint.safetensors: expected a readable file, got: No such file or directory",
    ),
    (["generate", "--checkpoint", "no"], "checkpoint no: expected a readable file, got: No such file or directory"),
]


@pytest.mark.parametrize("words, message", MISTAKES, ids=[message.split(":")[0] for _, message in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing(cli, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert cli(*words) == (2, "", f"python -m models: {message}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["train", "--widht", "3"], ["train", "--width", "a"], ["trian"], ["generate"]])
def test_a_slip_of_the_keyboard_is_one_line(cli, words):
    code, out, err = cli(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"python -m models: [^\n]+\n", err)


GPT2 = ["--positions", "learned", "--max-positions", 20, "--norm", "layer", "--mlp", "gelu_tanh", "--bias"]


def test_a_model_with_options_is_trained_and_read_again(cli, tmp_path):
    options = ["--mixer", "softmax", "--conv", 0, "--kv-heads", 1, "--untied", *GPT2]
    assert cli("train", *TINY, *options, "--out", tmp_path)[0] == 0
    arrays = load_checkpoint(tmp_path / "checkpoint.safetensors")[0]
    assert arrays["position_embedding"].shape == (20, 16) and arrays["layers.0.block.qkv.bias"].shape == (32,)
    assert {"head.weight", "norm.bias", "layers.0.mlp_in.bias"} < arrays.keys()
    words = ["generate", "--checkpoint", tmp_path, "--prompt", "four"]
    assert cli(*words, "--tokens", 17)[0] == 0
    message = "--tokens: expected at most 17 after a prompt of 4 tokens, since the model has 20 positions, got 18"
    assert cli(*words, "--tokens", 18) == (2, "", f"python -m models: {message}\n")


def test_a_run_is_resumed_as_it_was_described(cli, tmp_path):
    run = tmp_path / "run"
    cli("train", *TINY, "--out", run)
    code, _, err = cli("train", "--resume", "--out", run, "--width", "32")
    assert (code, err) == (2, f"python -m models: --width: expected 16 as in {run}/checkpoint.safetensors, got 32\n")
    code, _, err = cli("train", *TINY, "--out", run)
    assert code == 2 and "expected no run here yet, got one (--resume continues it)" in err


def test_only_text_can_be_generated(cli, tmp_path):
    cli("train", "--task", "recall", "--pairs", 2, *TINY, "--out", tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    expected = f"python -m models: checkpoint {path}: expected a model trained on text, got one trained on recall\n"
    assert cli("generate", "--checkpoint", path) == (2, "", expected)


def test_ctrl_c_leaves_a_run_that_goes_on_to_the_same_bytes(tmp_path):
    """Killed politely in the middle, resumed, and compared with a run that nobody touched."""
    words = [*TINY[:-1], "120"]
    command = [sys.executable, "-m", "models", "train", *words]
    root = Path(__file__).parents[2]

    def start(*more: object) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, *map(str, more)],
            cwd=root,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    stopped = start("--out", tmp_path / "stopped")
    deadline = time.monotonic() + 60
    while len(read_log(tmp_path / "stopped" / "log.jsonl")) < 10 and time.monotonic() < deadline:
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130, err
    assert re.search(r"stopped at step \d+ of 120; continue with --resume\n$", out)
    assert "Traceback" not in err

    for more in (["--out", tmp_path / "stopped", "--resume"], ["--out", tmp_path / "straight"]):
        process = start(*more)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    one, two = ((tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("stopped", "straight"))
    assert one == two
    tokens = np.arange(5)
    assert np.isfinite(Training.resume(tmp_path / "stopped").model(tokens)[0]).all()

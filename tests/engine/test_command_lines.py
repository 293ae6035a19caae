"""Behaviour of all command lines: a wrong number of threads, Ctrl-C while importing, SIGTERM."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from models.checkpoints import load_checkpoint
from models.interrupt import SIGNALS, stop_on_interrupt

ROOT = Path(__file__).parents[2]
COMMANDS = {"models": ["list"], "proofs": ["list", "hopfield"], "gpu": ["info"], "benchmarks": ["list"]}

# Ctrl-C when a module is about to be imported.
INTERRUPTED = """
import signal, sys

class Interrupt:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(Interrupt)
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupt)
"""

TRAIN = """
import signal, sys, threading
from models import cli, train

def logged(self, record, before=train.Training._append_to_log):
    if record["step"] == 3:
        for number in {signals}:
            signal.raise_signal(number)
    return before(self, record)

train.Training._append_to_log = logged
sys.argv[1:] = "train --task recall --width 16 --layers 1 --heads 2 --batch 2 --length 16 --steps 9 --out".split()
sys.argv.append({out!r})
cli.main()
"""


def run(*arguments, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5", "1e9", "1000000000"])
@pytest.mark.parametrize("package", ["models", "proofs"])
def test_a_wrong_number_of_threads_is_one_line(package, value):
    process = run("-m", package, *COMMANDS[package], MINIGRAD_NUM_THREADS=value)
    program = {"models": "python -m models", "proofs": "proofs"}[package]
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr == f"{program}: MINIGRAD_NUM_THREADS is '{value}', expected a whole number from 1 to 1024\n"


@pytest.mark.parametrize("package", ["gpu", "benchmarks"])
def test_who_does_not_read_the_number_does_not_mind(package):
    """The kernels of `gpu` have threads of their own, and benchmarks take --threads."""
    process = run("-m", package, *COMMANDS[package], MINIGRAD_NUM_THREADS="abc")
    assert process.returncode == 0 and process.stderr == "" and process.stdout


@pytest.mark.parametrize("package", COMMANDS)
def test_no_number_is_every_core(package):
    assert run("-m", package, *COMMANDS[package], MINIGRAD_NUM_THREADS="").returncode == 0


@pytest.mark.parametrize(
    ("package", "module"),
    [
        *((package, "numpy") for package in COMMANDS),
        ("models", "typer"),
        ("gpu", "rich"),
        ("models", "jaxtyping"),
        ("proofs", "hypothesis"),
        ("proofs", "proofs.identities.lti"),
        ("benchmarks", "benchmarks.runner"),
    ],
)
def test_an_interrupt_while_importing_leaves_no_traceback(tmp_path, package, module):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED.format(module=module))
    process = run("-m", package, *COMMANDS[package], PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "")


def test_an_ignored_interrupt_stays_ignored():
    code = "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.argv = ['models', 'list']\n"
    code += "try:\n    runpy.run_module('models', run_name='__main__')\nfinally:\n    "
    code += "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    assert run("-c", code).returncode == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_first_signal_stops_after_the_step_in_hand(tmp_path, name):
    process = run("-c", TRAIN.format(signals=[getattr(signal, name).value], out=str(tmp_path / "run")))
    assert process.returncode == 130 and "Traceback" not in process.stderr, process.stderr
    assert "stopped at step 3 of 9; continue with --resume" in " ".join(process.stdout.split())
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == 3


@pytest.mark.parametrize("names", [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM"), ("SIGTERM", "SIGINT")])
def test_the_second_signal_stops_at_once(tmp_path, names):
    signals = [getattr(signal, name).value for name in names]
    process = run("-c", TRAIN.format(signals=signals, out=str(tmp_path / "run")))
    assert process.returncode == 130 and "Traceback" not in process.stderr, process.stderr
    assert process.stdout == ""  # no state was saved: the checkpoint is the one of step 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == 0


def test_handlers_are_those_from_before_again():
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_on_interrupt() as stop:
        assert all(signal.getsignal(number) not in before for number in SIGNALS)
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_outside_the_main_thread_signals_are_left_alone():
    before, result = [signal.getsignal(number) for number in SIGNALS], []

    def work():
        with stop_on_interrupt() as stop:
            result.append((stop.is_set(), [signal.getsignal(number) for number in SIGNALS]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert result == [(False, before)]

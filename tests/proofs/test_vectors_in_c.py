"""A port in C, `delta_rule.c`, reads the golden vectors and meets their tolerances; with a fault it does not."""

import functools
import platform
import subprocess
from pathlib import Path

import pytest

from gpu.emulator import _compiler
from proofs.vectors.command import write

SOURCE = Path(__file__).with_name("delta_rule.c")
FLOAT32 = ("-DREAL=float", '-DPRECISION="float32"')
CASES = ["one_token", "short", "start_state", "shut_gate", "open_gate", "repeated_keys", "long"]

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the tests ask for a compiler on Linux only")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("vectors") / "out"
    assert write(out, ["memory.delta_rule"]) == ["memory.delta_rule"]
    return out


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """Return a function that compiles the program with some options and runs it on a case: exit status and lines."""

    @functools.cache
    def compiled(options):
        program = tmp_path_factory.mktemp("program") / "delta_rule"
        flags = ["-x", "c", "-std=c11", "-O1", "-Wall", "-Werror", *options]
        subprocess.run([_compiler(), *flags, SOURCE, "-o", program, "-lm"], check=True)
        return program

    def call(case, *options):
        done = subprocess.run([compiled(options), folder, case], capture_output=True, text=True)
        assert not done.stderr
        return done.returncode, done.stdout.splitlines()

    return call


@pytest.mark.parametrize("options", [(), FLOAT32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_the_port_is_right(run, case, options):
    status, lines = run(case, *options)
    assert status == 0, lines
    assert len(lines) == (7 if case == "start_state" else 6)
    assert all(line.startswith("right ") for line in lines)


@pytest.mark.parametrize("options", [(), FLOAT32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("fault", "wrong"),
    [(1, "WRONG y:"), (2, "WRONG y:"), (3, "WRONG gradient/state:"), (4, "WRONG gradient/k:")],
    ids=["β scales v alone", "read before write", "final state's cotangent dropped", "prediction's gradient dropped"],
)
def test_a_planted_fault_is_found(run, fault, wrong, options):
    status, lines = run("start_state", f"-DFAULT={fault}", *options)
    assert status == 1
    assert any(line.startswith(wrong) for line in lines)

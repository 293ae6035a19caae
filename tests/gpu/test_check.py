"""`check` on a fake device: its parts, and the faults it reports."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from gpu import __main__ as main
from gpu import bench, check
from gpu.__main__ import app
from gpu.cases import CASES
from tests.fake_cupy import asarray
from tests.gpu import fake_gpu
from tests.gpu.fake_device import FAKE, FEW, POOL, RATES, install

RUN = CliRunner()


@pytest.fixture
def few(monkeypatch):
    """Install a fake device for a few of the kernels."""
    install(monkeypatch)


@pytest.fixture
def subprocesses(monkeypatch):
    """Record the commands that `check` runs; those with a word in `failing` fail."""
    commands, failing = [], set()

    def run(command, env=None, **_):
        commands.append(command)
        assert ("proofs" in command) == (env is not None and env["JAX_PLATFORMS"] == "cpu" and "PATH" in env)
        return SimpleNamespace(returncode=int(bool(failing & set(command))))

    monkeypatch.setattr(check, "subprocess", SimpleNamespace(run=run))  # its own alone: kernels are being built too
    return SimpleNamespace(commands=commands, failing=failing)


def test_check_runs_kernels_the_sanitizer_and_the_forms(few, subprocesses):
    done = RUN.invoke(app, ["check"])
    assert done.exit_code == 0, done.output
    *tools, forms = subprocesses.commands
    assert [command[:6] for command in tools] == [[*check.SANITIZER, tool] for tool in check.TOOLS]
    assert all(command[-5:] == ["-m", "gpu", "check", "kernels", "--apart"] for command in tools)
    assert forms[:5] == [sys.executable, "-m", "proofs", "check", "forms_agree"]
    for dtype in ("float32", "bfloat16"):
        assert f"softmax, bfloat16                        d = 16   {dtype:<9}" in done.stdout
    assert "softmax, bfloat16                        d = 16   float64  " not in done.stdout  # where nothing is rounded


def test_memory_is_poisoned_before_each_check(few, monkeypatch):
    """CuPy's pool reuses memory as it was left, which may be the same kernel's earlier, right result."""
    fills = []
    monkeypatch.setattr(FAKE, "full", lambda *args: fills.append(args))
    assert len(list(check.kernels(FAKE))) == len(fills)
    assert all(size > 1 << 20 and np.isnan(value) for size, value, _ in fills)


def test_a_failing_kernel_is_reported_and_the_others_run(few, subprocesses, monkeypatch):
    def asarray(x):
        if x.ndim == 3 and x.shape[-1] == 16:
            raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure\nand more")
        return x

    monkeypatch.setattr(FAKE, "asarray", asarray)
    done = RUN.invoke(app, ["check", "kernels"])
    assert done.exit_code == 1
    wrong = [line for line in done.stdout.splitlines() if line.endswith("  WRONG")]
    assert len(wrong) == sum("d = 16" in line for line in done.stdout.splitlines()) == 4
    assert all("RuntimeError: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure  WRONG" in line for line in wrong)
    _, _, row, *_ = bench.rows(FAKE, RATES, 1, kernels=["softmax"])
    assert (row.width, row.peer) == (16, "RuntimeError: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure")


def test_a_kernel_whose_result_depends_on_timing_is_wrong(few, monkeypatch):
    rounds = iter(range(10**6))
    unsteady = FEW["scan"]._replace(vjp=lambda saved, cotangents: ((1 + next(rounds) * 1e-13) * cotangents[0],) * 2)
    monkeypatch.setattr(check, "CASES", {"scan": unsteady})
    narrow, wide = check.kernels(FAKE)
    assert (narrow.passed, wide.passed) == (True, False)  # float32 does not show so little
    assert wide.failed.startswith("RuntimeError: two runs differ in bits")


def test_check_can_be_run_in_parts(few, subprocesses):
    done = RUN.invoke(app, ["check", "forms"])
    assert (done.exit_code, done.stdout, len(subprocesses.commands)) == (0, "", 1)
    done = RUN.invoke(app, ["check", "sanitizer"])
    assert (done.stdout.count(": clean\n"), len(subprocesses.commands)) == (4, 5)


def test_apart_disables_the_memory_pool(few, subprocesses, monkeypatch):
    allocators = []
    monkeypatch.setattr(FAKE.cuda, "set_allocator", allocators.append, raising=False)
    assert RUN.invoke(app, ["check", "kernels", "--apart"]).exit_code == 0
    assert allocators == [None]


@pytest.mark.parametrize("failing", ["racecheck", "proofs"])
def test_check_fails_with_any_of_its_parts(few, subprocesses, failing):
    subprocesses.failing.add(failing)
    assert RUN.invoke(app, ["check"]).exit_code == 1


def test_too_little_shared_memory_is_reported_as_refused(monkeypatch):
    device = fake_gpu.install(monkeypatch)
    device.attributes["MaxSharedMemoryPerBlockOptin"] = 64 << 10  # as on sm_75
    xp = SimpleNamespace(asarray=asarray, asnumpy=lambda x: x.get(), **vars(POOL))
    for module in (bench, check):
        monkeypatch.setattr(module, "CASES", {"titans": CASES["titans"]._replace(widths=(32,))})
    narrow, wide, *_ = check.kernels(xp)
    assert (narrow.passed, narrow.refused) == (True, "")
    assert wide.passed
    assert wide.refused.startswith("titans_forward: K = 40, V = 33 in float64 needs 83,712 bytes")
    device.attributes["MaxSharedMemoryPerBlockOptin"] = 16 << 10
    row, _ = bench.rows(xp, RATES, 1, small=True)
    assert row.cells() == ("titans", "32", "forward", "", "", "", row.peer, "", "", "")
    assert row.peer.startswith("titans_forward: K = 32, V = 32 in float32 needs ")


def test_check_fails_with_a_kernel_that_is_wrong(few, subprocesses, monkeypatch):
    monkeypatch.setattr(FAKE, "asnumpy", lambda x: x * np.float32(1.01))
    done = RUN.invoke(app, ["check", "kernels"])
    assert (done.exit_code, subprocesses.commands) == (1, [])
    wrong = {line.endswith("  WRONG") for line in done.stdout.splitlines() if "bfloat16" not in line}  # by 1 in 100
    assert wrong == {True}


def test_a_missing_host_compiler_is_named(few, monkeypatch):
    monkeypatch.setattr(main, "shutil", SimpleNamespace(which=lambda name: None))
    done = RUN.invoke(app, ["check"])
    assert (done.exit_code, done.stderr) == (2, f"python -m gpu check: no g++ on PATH ({main.COMPILER})\n")

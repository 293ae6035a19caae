"""`check` and `bench`, run on a device that is none: NumPy's arrays, the host's kernels, and a clock for its events."""

import importlib
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from gpu import bench, check, device, peers
from gpu.__main__ import app
from gpu.cases import CASES
from tests.gpu import fake
from tests.walled import asarray

RUN = CliRunner()


class Event:
    """A moment."""

    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        pass


def elapsed(start, end):
    return 1e3 * (end.at - start.at)


FAKE = SimpleNamespace(
    asarray=np.asarray, asnumpy=np.asarray, ones=np.ones, matmul=np.matmul,
    cuda=SimpleNamespace(Event=Event, get_elapsed_time=elapsed),
)  # fmt: skip


@pytest.fixture
def few(monkeypatch):
    """A device, for a few of the kernels."""
    monkeypatch.setattr(device, "ready", lambda: FAKE)
    monkeypatch.setattr(device, "names", lambda: ["A Device 100"])
    for module in (bench, check):
        monkeypatch.setattr(module, "CASES", {name: CASES[name] for name in ("delta_rule", "scan", "softmax")})
    rows, rates = bench.rows, bench.rates
    monkeypatch.setattr(bench, "rows", lambda xp, device, repeats: rows(xp, device, repeats, small=True))
    monkeypatch.setattr(bench, "rates", lambda xp, repeats: rates(xp, repeats, size=32))


@pytest.mark.parity
def test_bench_puts_kernels_beside_their_peers_and_their_floor(few):
    rates = bench.rates(FAKE, 3)
    assert min(rates) > 0
    delta_rule, scan, softmax = bench.rows(FAKE, rates, 1)
    assert "fla cannot be imported" in delta_rule.peer  # for want of Triton, or of a device
    assert delta_rule.peer.endswith(": pip install flash-linear-attention")
    assert (scan.peer, scan.theirs, delta_rule.theirs) == ("", None, None)
    assert (softmax.peer, softmax.theirs > 0) == ("PyTorch SDPA", True)
    assert all(row.ours > 0 and row.floor > 0 and row.by in ("bytes", "operations") for row in (delta_rule, scan))
    slow = bench.Rates(bytes=1e9, operations=1.0, rounded=1.0)
    assert next(bench.rows(FAKE, slow, 1))[2:4] == (CASES["delta_rule"].work(*drawn("delta_rule")), "operations")


@pytest.fixture
def torch():
    """PyTorch, which the extra `parity` brings."""
    return importlib.import_module("torch")


def drawn(name):
    return CASES[name].draw("float32", small=True)


@pytest.mark.parity
def test_a_peer_that_does_something_else_is_said_to(few, monkeypatch):
    monkeypatch.setitem(
        peers.PEERS, "softmax", peers.PEERS["softmax"]._replace(call=lambda _, q, k, v: (2 * q @ k.mT @ v,))
    )
    *_, softmax = bench.rows(FAKE, bench.Rates(1, 1, 1), 1)
    assert softmax.peer == "PyTorch SDPA, which does something else"


@pytest.mark.parity
@pytest.mark.parametrize("name", ["softmax", "softmax, bfloat16"])
def test_the_gradients_of_a_peer_are_those_of_the_kernel(name):
    arrays = drawn(name)
    for ours, theirs in zip(CASES[name].run(*arrays), peers.ready(peers.PEERS[name], arrays)(), strict=True):
        allowed = check.margin(CASES[name], "float32") * max(1, abs(ours).max())
        np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=allowed)


@pytest.mark.parity
@pytest.mark.parametrize(("name", "gates"), [("delta_rule", 1), ("gated_delta_rule", 2), ("gated_linear_attention", 1)])
def test_peers_are_called_as_they_want(torch, name, gates):
    """fla's functions take heads third and gates by name; what stands for them here notes how it is called."""
    asked = {}

    def function(q, k, v, **options):
        asked.update(options, shape=q.shape)
        return v, options["initial_state"]

    peer, arrays = peers.PEERS[name], drawn(name)
    module = SimpleNamespace(**dict.fromkeys(
        ("chunk_delta_rule", "chunk_gated_delta_rule", "chunk_gla", "chunk_linear_attn"), function))  # fmt: skip
    y, last = peer.call(module, *map(torch.from_dlpack, arrays[: peer.inputs]))
    assert (y.shape, last.shape) == (arrays[-2].shape, arrays[-1].shape)
    assert asked["shape"] == (2, 70, 1, 40)
    assert len(asked.keys() & {"g", "beta"}) == gates
    if "beta" in asked:
        np.testing.assert_array_equal(asked["beta"][:, :, 0], arrays[3])
    if "g" in asked:
        np.testing.assert_array_equal(asked["g"][:, :, 0], arrays[4 if "beta" in asked else 3])


@pytest.mark.parity
def test_mamba_is_called_with_channels_before_time(torch):
    def function(u, delta, A, B, C, D, *, return_last_state):
        h, y = torch.zeros(len(u), *A.shape), []
        for t in range(u.shape[-1]):
            h = torch.exp(delta[..., t, None] * A) * h + (delta * u)[..., t, None] * B[:, None, :, t]
            y.append((h * C[:, None, :, t]).sum(-1) + D * u[..., t])
        return torch.stack(y, -1), h

    peer, arrays = peers.PEERS["selective_scan"], list(map(np.ascontiguousarray, drawn("selective_scan")))
    arrays[6][:] = 0  # where mamba_ssm starts
    module = SimpleNamespace(selective_scan_fn=function)
    for ours, theirs in zip(CASES["selective_scan"].run(*arrays),
                            peer.call(module, *map(torch.from_dlpack, arrays[:7])), strict=False):  # fmt: skip
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_bench_writes_a_dated_table(few, monkeypatch, tmp_path):
    monkeypatch.setattr("gpu.__main__.RESULTS", tmp_path / "results")
    done = RUN.invoke(app, ["bench", "--repeats", "1", "--record"])
    assert done.exit_code == 0, done.output
    (kept,) = (tmp_path / "results").iterdir()
    assert kept.name.startswith("a-device-100-20")
    text = kept.read_text(encoding="utf-8")
    assert text.startswith("# A Device 100, 20")
    assert all(f"| {name} |" in text for name in ("delta_rule", "scan", "softmax"))


@pytest.fixture
def asked(monkeypatch):
    """The commands that `check` runs, none of which fails unless it is named here."""
    commands, failing = [], set()

    def run(command, **_):
        commands.append(command)
        return SimpleNamespace(returncode=int(bool(failing & set(command))))

    monkeypatch.setattr(check, "subprocess", SimpleNamespace(run=run))  # its own alone: kernels are being built too
    monkeypatch.setattr(check.shutil, "which", lambda name: f"/bin/{name}")
    return SimpleNamespace(commands=commands, failing=failing)


def test_check_runs_kernels_the_sanitizer_and_the_forms(few, asked):
    done = RUN.invoke(app, ["check"])
    assert done.exit_code == 0, done.output
    *tools, forms = asked.commands
    assert [command[4] for command in tools] == list(check.TOOLS)
    assert all(command[-4:] == ["-m", "gpu", "check", "--alone"] for command in tools)
    assert forms == [sys.executable, "-m", "proofs", "check", "forms_agree"]


@pytest.mark.parametrize("failing", ["racecheck", "proofs"])
def test_check_fails_with_any_of_them(few, asked, failing):
    asked.failing.add(failing)
    assert RUN.invoke(app, ["check"]).exit_code == 1


def test_what_a_device_is_too_small_for_is_said_and_is_not_wrong(monkeypatch):
    there = fake.install(monkeypatch)
    there.attributes["MaxSharedMemoryPerBlockOptin"] = 64 << 10  # as on sm_75
    xp = SimpleNamespace(asarray=asarray, asnumpy=lambda x: x.get())
    for module in (bench, check):
        monkeypatch.setattr(module, "CASES", {"titans": CASES["titans"]})
    narrow, wide = check.kernels(xp)
    assert (narrow.right, narrow.refused) == (True, "")
    assert wide.right
    assert wide.refused.startswith("titans_forward: K = 40, V = 33 in float64 needs 83,712 bytes")
    there.attributes["MaxSharedMemoryPerBlockOptin"] = 32 << 10
    (row,) = bench.rows(xp, bench.Rates(1, 1, 1), 1, small=True)
    assert bench.cells(row)[:5] == ("titans", "", "", "", row.peer)
    assert row.peer.startswith("titans_forward: K = 40, V = 33 in float32 needs 41,856 bytes")


def test_check_fails_with_a_kernel_that_is_wrong(few, asked, monkeypatch):
    monkeypatch.setattr(FAKE, "asnumpy", lambda x: x * np.float32(1.01))
    done = RUN.invoke(app, ["check", "--alone"])
    assert (done.exit_code, asked.commands) == (1, [])

"""`check` and `bench`, run on a device that is none: NumPy's arrays, the host's kernels, and a clock for its events."""

import importlib
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from gpu import __main__ as main
from gpu import bench, check, device, launch, peers, work
from gpu.__main__ import app
from gpu.cases import CASES
from models.attention import softmax
from models.memory import delta_rule, gated_linear_attention, linear_attention
from proofs.counting import counted
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


POOL = SimpleNamespace(get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None), full=np.full)
FAKE = SimpleNamespace(
    asarray=np.asarray, asnumpy=np.asarray, matmul=np.matmul,
    cuda=SimpleNamespace(Event=Event, get_elapsed_time=elapsed), **vars(POOL),
)  # fmt: skip


@pytest.fixture
def few(monkeypatch):
    """A device, for a few of the kernels."""
    monkeypatch.setattr(device, "ready", lambda: FAKE)
    monkeypatch.setattr(device, "names", lambda: ["A Device 100"])
    for module in (bench, check):
        monkeypatch.setattr(module, "CASES", FEW)
        monkeypatch.setattr(module, "shutil", SimpleNamespace(which=lambda name: f"/bin/{name}"), raising=False)
    rows, rates = bench.rows, bench.rates
    monkeypatch.setattr(bench, "rows", lambda *given, **options: rows(*given, **options, small=True))
    monkeypatch.setattr(bench, "rates", lambda xp, repeats: rates(xp, repeats, size=32))


def few_tokens(case):
    """The case, for keys of 8 and of 16 features, in a few tokens."""

    def draw(dtype, *, small, **options):
        drawn = case.draw(dtype, small=True, **options)
        return tuple(np.ascontiguousarray(x[:, :20]) for x in drawn)

    return case._replace(draw=draw, widths=(8, 16) if case.widths else ())


FEW = {name: few_tokens(CASES[name]) for name in ("scan", "softmax", "softmax, bfloat16")}
RATES = bench.Rates(bytes=1e9, operations=1e9, rounded=1e9)


def test_every_kernel_has_a_row_for_each_way_and_each_width(few):
    found = list(bench.rows(FAKE, RATES, 1))
    assert [row[:3] for row in found] == [
        (name, width, way)
        for name in FEW
        for width in ((0,) if name == "scan" else (8, 16))
        for way in ("forward", "both ways")
    ]
    assert all(0 < row.ours.low <= row.ours.median <= row.ours.high for row in found)
    assert [row[:3] for row in bench.rows(FAKE, RATES, 1, kernels=["softmax"])] == [row[:3] for row in found[2:]]
    assert min(bench.rates(FAKE, 3)) > 0


def test_the_floor_is_what_bytes_or_operations_take(few):
    a, *_ = FEW["scan"].draw("float32", small=True)
    there, both = bench.rows(FAKE, bench.Rates(1e3, 1e9, 1), 1, kernels=["scan"])
    assert (there.floor, both.floor) == (3 * a.nbytes / 1e3, 8 * a.nbytes / 1e3)  # a, x → h and a, h, g → da, dx
    assert (there.by, both.by) == ("bytes", "bytes")
    there, both = bench.rows(FAKE, bench.Rates(1e9, 1e3, 1), 1, kernels=["scan"])
    assert (there.floor, both.floor, there.by) == (6 * a.size / 1e3, 14 * a.size / 1e3, "operations")
    *_, last = bench.rows(FAKE, bench.Rates(1e9, 1, 1e3), 1, kernels=["softmax"])  # on tensor cores
    operations = CASES["softmax"].work(*FEW["softmax"].draw("float32", small=True, width=16))
    assert last.floor == pytest.approx(sum(operations) / 1e3)


def test_a_goal_is_said_to_be_met_or_missed():
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
    assert bench.Row("selective_scan", 0, "forward", ours).goal() == "peer / ours ≥ 1: not seen"
    assert bench.Row("softmax, bfloat16", 64, "forward", ours, theirs=theirs).goal() == "peer / ours ≥ 0.5: met"
    assert bench.Row("softmax", 64, "forward", ours, theirs=theirs).goal() == ""


def test_a_device_that_is_full_is_said_to_be_and_the_others_go_on(few, monkeypatch):
    def asarray(x):
        if x.ndim == 3 and x.shape[-1] == 16:
            raise MemoryError("Out of memory allocating 1,024 bytes")
        return x

    monkeypatch.setattr(FAKE, "asarray", asarray)
    found = list(bench.rows(FAKE, RATES, 1, kernels=["softmax"]))
    assert [(row.width, row.peer.startswith("Out of"), row.ours is None) for row in found[:4]] == [
        *[(8, False, False)] * 2, *[(16, True, True)] * 2,
    ]  # fmt: skip


def test_goals_are_of_kernels_that_there_are():
    assert bench.GOALS.keys() <= CASES.keys()
    assert {name for name, (against, _) in bench.GOALS.items() if against == "peer"} <= peers.PEERS.keys()
    assert peers.PEERS.keys() <= CASES.keys()


@pytest.mark.parametrize(("milliseconds", "calls"), [(0.02, 3), (20, 1)])
def test_events_stand_around_several_calls_of_a_short_one(milliseconds, calls):
    clock = [0.0]
    event = type("Event", (), {"record": lambda self: vars(self).update(at=clock[0]), "synchronize": lambda self: None})
    xp = SimpleNamespace(cuda=SimpleNamespace(Event=event, get_elapsed_time=lambda start, end: end.at - start.at))
    made = []

    def call():
        made.append(1)
        clock[0] += milliseconds

    (took,) = bench.timed(xp, [call], 4)
    assert took == pytest.approx([milliseconds] * 3)
    assert len(made) == 2 + 4 * calls


COUNTED = {
    "gated_delta_rule": (work.delta_rule, 0), "gated_linear_attention": (work.gated_linear_attention, 0),
    "linear_attention": (work.linear_attention, 0), "titans": (work.titans, 0),
}  # fmt: skip


@pytest.mark.parametrize("source", COUNTED)
def test_operations_are_those_that_the_header_counts(source):
    """Its last lines say how many there are of a token at K = V = 128."""
    header = (launch.HERE / f"{source}.cu").read_text(encoding="utf-8")
    said = int(re.search(r"at K = V = 128, ([\d,]+) operations", header)[1].replace(",", ""))
    q = np.empty((1, 1, 128), np.float32)
    assert COUNTED[source][0](q, q, q)[0] == pytest.approx(said, rel=0.02)


def test_exponentials_of_the_selective_scan_are_those_that_its_header_counts():
    header = (launch.HERE / "selective_scan.cu").read_text(encoding="utf-8")
    pattern = r"forward an exponential and (\d+) operations, backward two exponentials and (\d+)"
    there, back = map(int, re.search(pattern, header).groups())
    u, A = np.empty((1, 10, 3)), np.empty((3, 4))
    assert work.selective_scan(u, u, A) == (120 * max(16, there), 120 * max(2 * 16, back))


@pytest.mark.parametrize(("count", "form", "gates"), [
    (work.linear_attention, linear_attention.recurrent, ()),
    (work.gated_linear_attention, gated_linear_attention.recurrent, (-1,)),
    (work.delta_rule, delta_rule.recurrent, (1,)),
    (work.softmax, softmax.quadratic, ()),
], ids=lambda x: getattr(x, "__qualname__", ""))  # fmt: skip
def test_operations_are_as_many_as_the_plainest_form_does(count, form, gates):
    """Or half as many, where that form computes what causality hides; or more, as chunks do more than tokens."""
    q = np.random.default_rng(0).standard_normal((64, 32))
    tally = [0]
    form(*(counted(x, tally) for x in (q, q, q, *(gate * np.ones(64) for gate in gates))))
    assert 0.4 * tally[0] < count(q, q, q)[0] < 6 * tally[0]


@pytest.mark.parity
def test_bench_puts_kernels_beside_their_peers(few):
    *_, softmax = bench.rows(FAKE, RATES, 1, kernels=["softmax"])
    assert (softmax.peer, softmax.theirs.median > 0) == ("PyTorch SDPA, bf16", True)
    assert softmax.goal().startswith("peer / ours ≥ 0.5: m")


@pytest.mark.parity
def test_a_peer_that_is_missing_or_fails_is_said_to_be(few, monkeypatch):
    monkeypatch.setattr(bench, "CASES", {x: few_tokens(CASES[x]) for x in ("linear_attention", "softmax")})
    monkeypatch.setitem(peers.PEERS, "softmax", peers.PEERS["softmax"]._replace(call=lambda *_: 1 / 0))
    missing, *_, fails = bench.rows(FAKE, RATES, 1)
    assert missing.peer.startswith("fla, float32 (tf32 in Triton) cannot be imported (")
    assert missing.peer.endswith(": pip install flash-linear-attention")  # for want of Triton, or of a device
    assert fails.peer == "PyTorch SDPA, float32 fails: ZeroDivisionError: division by zero"
    assert (fails.theirs, fails.ours.median > 0) == (None, True)


@pytest.fixture
def torch():
    """PyTorch, which the extra `parity` brings."""
    return importlib.import_module("torch")


def drawn(name):
    return CASES[name].draw("float32", small=True)


@pytest.mark.parity
def test_a_peer_that_does_something_else_is_said_to(few, monkeypatch):
    other = peers.PEERS["softmax"]._replace(call=lambda _, q, k, v: (2 * q @ k.mT @ v,))
    monkeypatch.setitem(peers.PEERS, "softmax", other)
    row, *_ = bench.rows(FAKE, RATES, 1, kernels=["softmax"])
    assert row.peer == "PyTorch SDPA, float32, which does something else"


@pytest.mark.parity
@pytest.mark.parametrize("name", ["softmax", "softmax, bfloat16"])
def test_the_gradients_of_a_peer_are_those_of_the_kernel(name):
    arrays = drawn(name)
    theirs = peers.ready(peers.PEERS[name], arrays)
    for ours, tensor in zip(CASES[name].run(*arrays), theirs.both(), strict=True):
        allowed = check.margin(CASES[name], "float32") * max(1, abs(ours).max())
        np.testing.assert_allclose(ours, tensor.detach().float().flatten(0, 1), rtol=0, atol=allowed)


@pytest.mark.parity
def test_attention_is_given_heads_without_which_its_kernels_are_not_taken(torch):
    inputs, cotangents = peers.PEERS["softmax, bfloat16"].arrange(*map(torch.from_dlpack, drawn("softmax")))
    assert {(x.ndim, x.dtype) for x in (*inputs, *cotangents)} == {(4, torch.bfloat16)}


@pytest.mark.parity
@pytest.mark.parametrize("name", [name for name in peers.PEERS if peers.PEERS[name].name.startswith("fla")])
def test_fla_is_called_as_it_wants(torch, name):
    """Heads third, gates by name, bf16 where it is to be compared in it; what stands for it notes how it is called."""
    asked = {}

    def function(q, k, v, **options):
        asked.update(options, q=q, k=k, v=v)
        return v, options["initial_state"]

    peer, arrays = peers.PEERS[name], drawn(name)
    functions = "chunk_delta_rule", "chunk_gated_delta_rule", "chunk_gla", "chunk_linear_attn"
    inputs, cotangents = peer.arrange(*map(torch.from_dlpack, arrays))
    made = peer.call(SimpleNamespace(**dict.fromkeys(functions, function)), *inputs)
    assert [(x.shape, x.dtype) for x in made] == [(x.shape, x.dtype) for x in cotangents]
    assert asked["q"].shape == (1, 70, 2, 40)
    assert all(x.is_contiguous() for x in inputs)
    rounded = torch.bfloat16 if name.endswith("bfloat16") or "delta_rule" in name else torch.float32
    for key, array in zip(["q", "k", "v", *(key for key in ("beta", "g") if key in asked)], arrays, strict=False):
        expected = torch.from_numpy(array).to(torch.float32 if key == "g" else rounded)
        assert torch.equal(asked[key].transpose(1, 2).flatten(0, 1), expected), key
    assert torch.equal(peer.back(made[0]), torch.from_numpy(arrays[2]).to(rounded))


@pytest.mark.parity
def test_mamba_is_called_with_channels_before_time(torch, monkeypatch):
    def function(u, delta, A, B, C, D):
        assert all(x.is_contiguous() for x in (u, delta, A, B, C, D))
        h, y = torch.zeros(len(u), *A.shape), []
        for t in range(u.shape[-1]):
            h = torch.exp(delta[..., t, None] * A) * h + (delta * u)[..., t, None] * B[:, None, :, t]
            y.append((h * C[:, None, :, t]).sum(-1) + D * u[..., t])
        return torch.stack(y, -1)

    peer, arrays = peers.PEERS["selective_scan"], list(map(np.ascontiguousarray, drawn("selective_scan")))
    arrays[6][:] = 0  # where mamba_ssm starts
    arrays[8][:] = 0  # what it does not take
    monkeypatch.setitem(sys.modules, peer.module, SimpleNamespace(selective_scan_fn=function))
    theirs = peers.ready(peer, tuple(arrays))
    y, _, *ours = CASES["selective_scan"].run(*arrays)
    np.testing.assert_allclose(y, theirs.first(), rtol=0, atol=1e-4)
    for a, b in zip(ours, theirs.both()[1:], strict=False):
        b = b if b.shape == a.shape else b.mT
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * max(1, abs(a).max()))


def test_bench_keeps_a_dated_table_and_a_later_run_adds_to_it(few, monkeypatch, tmp_path):
    monkeypatch.setattr("gpu.__main__._results", lambda: tmp_path / "results")
    for kernels in (["scan"], ["softmax"], ["scan"]):
        done = RUN.invoke(app, ["bench", *kernels, "--repeats", "1", "--record"])
        assert done.exit_code == 0, done.output
    (kept,) = (tmp_path / "results").iterdir()
    assert kept.name.startswith("a-device-100-20")
    title, _, header, *rows = kept.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# A Device 100, 20")
    assert header == bench.line(bench.HEADER)
    assert len(rows) == 1 + 2 + 8
    assert [row.split(" | ")[0] for row in rows[1:3]] == ["| scan"] * 2
    assert rows[2] in done.stdout
    assert rows[-1] not in done.stdout


def test_results_are_in_the_repository_or_where_one_stands(monkeypatch, tmp_path):
    assert main._results() == launch.HERE / "results"
    monkeypatch.setattr(main, "__file__", str(tmp_path / "gpu" / "__main__.py"))
    assert main._results() == Path("results")


@pytest.mark.parametrize(("command", "names"), [
    (["bench", "mamba"], [name for name in CASES if "," not in name]), (["check", "form"], check.PARTS),
])  # fmt: skip
def test_what_there_is_not_is_refused_in_one_line(command, names):
    done = RUN.invoke(app, command)
    said = f"expected {', '.join(names)} or none of them, got {command[1]!r}"
    assert (done.exit_code, done.stderr) == (2, f"python -m gpu {command[0]}: {said}\n")


@pytest.fixture
def asked(monkeypatch):
    """The commands that `check` runs, none of which fails unless it is named here."""
    commands, failing = [], set()

    def run(command, env=None, **_):
        commands.append(command)
        assert ("proofs" in command) == (env is not None and env["JAX_PLATFORMS"] == "cpu" and "PATH" in env)
        return SimpleNamespace(returncode=int(bool(failing & set(command))))

    monkeypatch.setattr(check, "subprocess", SimpleNamespace(run=run))  # its own alone: kernels are being built too
    return SimpleNamespace(commands=commands, failing=failing)


def test_check_runs_kernels_the_sanitizer_and_the_forms(few, asked):
    done = RUN.invoke(app, ["check"])
    assert done.exit_code == 0, done.output
    *tools, forms = asked.commands
    assert [command[:6] for command in tools] == [[*check.SANITIZER, tool] for tool in check.TOOLS]
    assert all(command[-5:] == ["-m", "gpu", "check", "kernels", "--apart"] for command in tools)
    assert forms[:5] == [sys.executable, "-m", "proofs", "check", "forms_agree"]
    for dtype in ("float32", "bfloat16"):
        assert f"softmax, bfloat16                        d = 16   {dtype:<9}" in done.stdout
    assert "softmax, bfloat16                        d = 16   float64  " not in done.stdout  # where nothing is rounded


def test_what_no_thread_writes_is_not_what_was_right_before(few, monkeypatch):
    """CuPy gives memory out again as it was left: by the same kernel, it may be."""
    asked = []
    monkeypatch.setattr(FAKE, "full", lambda *given: asked.append(given))
    assert len(list(check.kernels(FAKE))) == len(asked)
    assert all(size > 1 << 20 and np.isnan(value) for size, value, _ in asked)


def test_a_kernel_that_fails_is_wrong_and_the_others_go_on(few, asked, monkeypatch):
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
    unsteady = FEW["scan"]._replace(back=lambda saved, given: ((1 + next(rounds) * 1e-13) * given[0],) * 2)
    monkeypatch.setattr(check, "CASES", {"scan": unsteady})
    narrow, wide = check.kernels(FAKE)
    assert (narrow.right, wide.right) == (True, False)  # float32 does not show so little
    assert wide.failed.startswith("RuntimeError: a second run gives other bits")


def test_check_can_be_run_in_parts(few, asked):
    done = RUN.invoke(app, ["check", "forms"])
    assert (done.exit_code, done.stdout, len(asked.commands)) == (0, "", 1)
    done = RUN.invoke(app, ["check", "sanitizer"])
    assert (done.stdout.count(": clean\n"), len(asked.commands)) == (4, 5)


def test_arrays_have_memory_of_their_own_where_a_tool_looks(few, asked, monkeypatch):
    given = []
    monkeypatch.setattr(FAKE.cuda, "set_allocator", given.append, raising=False)
    assert RUN.invoke(app, ["check", "kernels", "--apart"]).exit_code == 0
    assert given == [None]


@pytest.mark.parametrize("failing", ["racecheck", "proofs"])
def test_check_fails_with_any_of_them(few, asked, failing):
    asked.failing.add(failing)
    assert RUN.invoke(app, ["check"]).exit_code == 1


def test_what_a_device_is_too_small_for_is_said_and_is_not_wrong(monkeypatch):
    there = fake.install(monkeypatch)
    there.attributes["MaxSharedMemoryPerBlockOptin"] = 64 << 10  # as on sm_75
    xp = SimpleNamespace(asarray=asarray, asnumpy=lambda x: x.get(), **vars(POOL))
    for module in (bench, check):
        monkeypatch.setattr(module, "CASES", {"titans": CASES["titans"]._replace(widths=(32,))})
    narrow, wide, *_ = check.kernels(xp)
    assert (narrow.right, narrow.refused) == (True, "")
    assert wide.right
    assert wide.refused.startswith("titans_forward: K = 40, V = 33 in float64 needs 83,712 bytes")
    there.attributes["MaxSharedMemoryPerBlockOptin"] = 16 << 10
    row, _ = bench.rows(xp, RATES, 1, small=True)
    assert row.cells() == ("titans", "32", "forward", "", "", "", row.peer, "", "", "")
    assert row.peer.startswith("titans_forward: K = 32, V = 32 in float32 needs ")


def test_check_fails_with_a_kernel_that_is_wrong(few, asked, monkeypatch):
    monkeypatch.setattr(FAKE, "asnumpy", lambda x: x * np.float32(1.01))
    done = RUN.invoke(app, ["check", "kernels"])
    assert (done.exit_code, asked.commands) == (1, [])
    wrong = {line.endswith("  WRONG") for line in done.stdout.splitlines() if "bfloat16" not in line}  # by 1 in 100
    assert wrong == {True}


def test_check_says_which_compiler_it_wants(few, monkeypatch):
    monkeypatch.setattr(main, "shutil", SimpleNamespace(which=lambda name: None))
    done = RUN.invoke(app, ["check"])
    assert (done.exit_code, done.stderr) == (2, f"python -m gpu check: no g++ on PATH ({main.COMPILER})\n")

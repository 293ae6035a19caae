"""A curve goes as far as it can, names what it leaves out, and fits the growth that is there; time is made up here."""

import pytest

from benchmarks import scaling
from benchmarks.__main__ import main
from benchmarks.runner import BenchmarkError
from benchmarks.scaling import CURVES, Curve, exponent, lengths, measure
from benchmarks.workload import Implementation, Workload, find

OURS, PEER, ABSENT = (
    Implementation("ours", None),
    Implementation("peer", None),
    Implementation("absent", None, ("nix",)),
)
COST = {"ours": (1e-6, 1.0), "peer": (1e-9, 2.0)}  # seconds for T tokens: c Tᵅ


class Clock:
    """A worker whose steps take what `COST` says; the peer has no memory left above 8192 tokens."""

    def __init__(self, workload, name, environment):
        self.name, self.closed = name, False

    def ask(self, do, *, length=0, count=0, patience=0, **sizes):
        assert not self.closed
        if do == "setup":
            self.length, self.sizes = length, sizes
            if self.name == "peer" and length > 8192:
                raise BenchmarkError("peer: setup failed: MemoryError")
        c, alpha = COST[self.name]
        return {"seconds": count * c * self.length**alpha}

    def close(self):
        self.closed = True


@pytest.fixture
def course(monkeypatch):
    """Measure the made-up workload beside a peer."""

    def run(peer="peer", **options):
        workload = Workload("fake_forward", "", {"length": 1, "width": 8}, (OURS, PEER, ABSENT), tolerance=1)
        monkeypatch.setattr(scaling, "find", lambda name: workload)
        monkeypatch.setattr(scaling, "Worker", Clock)
        return measure(Curve("fake_forward", peer, 1, "T", {"width": 2}), threads=1, **options)

    return run


def test_lengths_double_up_to_the_longest():
    assert lengths() == [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
    assert lengths(2000) == [512, 1024]


def test_the_exponent_is_that_of_the_upper_half():
    assert exponent({T: 3e-6 * T**1.5 for T in lengths()}) == pytest.approx(1.5)
    mixed = {T: 1.0 if T < 8192 else T / 8192 for T in lengths()}  # a constant at first
    assert exponent(mixed) == pytest.approx(1)
    assert exponent({512: 1.0, 1024: 2.0}) is None


def test_a_curve_has_times_and_exponents(course):
    record = course()
    ours = record["implementations"]["ours"]
    assert list(ours["seconds"]) == [str(T) for T in lengths()] and not ours["missing"]
    assert ours["seconds"]["65536"]["median"] == pytest.approx(0.065536)
    assert ours["exponent"] == pytest.approx(1)
    assert record["title"] == "fake, forward" and record["growth"] == "T"
    assert record["sizes"] == {"length": lengths(), "width": 2}


def test_an_implementation_that_fails_is_left_out_from_there_on(course):
    peer = course()["implementations"]["peer"]
    assert list(peer["seconds"]) == ["512", "1024", "2048", "4096", "8192"]
    assert peer["exponent"] == pytest.approx(2)
    assert peer["missing"] == dict.fromkeys(("16384", "32768", "65536"), "peer: setup failed: MemoryError")


def test_a_length_that_would_take_too_long_is_named(course):
    record = course(limit=0.01)  # the peer takes 4 ms at 2048 tokens, which promises 8 and turns out to be 17
    ours, peer = (one["missing"] for one in record["implementations"].values())
    assert ours == dict.fromkeys(("16384", "32768", "65536"), "a step would take over 0.01 s")
    assert peer == dict.fromkeys(("8192", "16384", "32768", "65536"), "a step would take over 0.01 s")


def test_a_peer_that_is_not_installed_is_named(course):
    absent = course("absent", longest=1024)["implementations"]["absent"]
    assert absent == {"seconds": {}, "exponent": None, "missing": dict.fromkeys(("512", "1024"), "not installed: nix")}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_a_curve_s_workload_has_its_peer_and_its_sizes(curve):
    workload = find(curve.workload)
    assert workload.implementation(curve.peer).peer
    assert "length" in workload.sizes and set(curve.sizes) <= set(workload.sizes)


def test_a_workload_without_a_curve_is_an_error(capsys):
    assert main(["scale", "lm_step"]) == 1
    assert "scale: lm_step has no curve, expected one of selective_scan_forward, " in capsys.readouterr().err

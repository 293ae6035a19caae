"""Ports in C and Numba, with backward functions, are right; the slips planted in them are caught, and named."""

import pytest

from tests.port.planted import PLANTED
from tests.port.ports import PORTS, run

CASES = ["T = 1", "T > chunk", "T not a multiple", "start state", "shut gate", "open gate", "no batch axis"]
SHORT = ["T not a multiple", "start state"]
FRAMEWORKS = ("c", "numba")


def rows(*frameworks):
    """Return a parameter of a test for each slip planted in a port of these frameworks."""
    return [
        pytest.param(framework, *row, id=f"{framework}-{row[0]}-{row[-1] or row[2]}")
        for framework in frameworks
        for row in PLANTED[framework]
    ]


@pytest.mark.parametrize("name", PORTS["c"])
def test_a_port_in_c_is_right_in_two_precisions(name):
    report = run("c", name, cases=CASES)
    assert report.right, str(report)
    assert report.precisions == ["float64", "float32"]
    assert "gradient of state" in " ".join(result for _, _, result in report.cells)


@pytest.mark.parametrize("name", PORTS["numba"])
def test_a_port_in_numba_is_right(name):
    report = run("numba", name, precisions=["float64"], cases=CASES)
    assert report.right, str(report)
    assert report.framework == "numba"
    assert ("float64", "start state", "gradient of state") in report.cells


@pytest.mark.parametrize(("framework", "name", "old", "new", "slip"), rows(*FRAMEWORKS))
def test_a_slip_is_caught_and_named(framework, name, old, new, slip):
    report = run(framework, name, old, new, precisions=["float64"], cases=SHORT)
    assert not report.right
    assert report.slips == ([slip] if slip else [])


def test_forty_slips_are_planted_and_thirty_have_a_name():
    for frameworks in (FRAMEWORKS, PLANTED):
        slips = [row[-1] for framework in frameworks for row in PLANTED[framework]]
        assert len(slips) >= 40
        assert len([slip for slip in slips if slip]) >= 30
    assert all(len({row[0] for row in PLANTED[name]}) == len(ports) for name, ports in PORTS.items())

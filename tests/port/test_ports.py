"""Ports in Numba, with backward functions, are right; the slips planted in them are caught, and named."""

import types

import pytest

from proofs.port.frameworks import recognise
from tests.port.planted import PLANTED, rows
from tests.port.ports import PORTS, make, run

CASES = ["T = 1", "T > chunk", "T not a multiple", "start state", "shut gate", "open gate"]


@pytest.mark.parametrize("name", PORTS["numba"])
def test_a_port_in_numba_is_right(name):
    report = run("numba", name, precisions=["float64"], cases=CASES)
    assert report.right, str(report)
    assert report.framework == "numba"
    assert ("float64", "start state", "gradient of state") in report.cells


@pytest.mark.parametrize(("framework", "name", "old", "new", "slip"), rows("numba"))
def test_a_slip_is_caught_and_named(framework, name, old, new, slip):
    report = run(framework, name, old, new, precisions=["float64"], cases=["start state"])
    assert not report.right
    assert report.slips == ([slip] if slip else [])


def test_forty_slips_are_planted_and_thirty_have_a_name():
    for frameworks in (("c", "numba"), PLANTED):
        slips = [row[-1] for framework in frameworks for row in PLANTED[framework]]
        assert len(slips) >= 40
        assert len([slip for slip in slips if slip]) >= 30
    assert len(PORTS["torch"]) >= 8
    for framework, ports in PORTS.items():
        assert {row[0] for row in PLANTED[framework]} == set(ports)


@pytest.mark.parametrize("package", ["torch", "jax", "cupy", "mlx.core", "tinygrad", "array_api_strict"])
def test_the_framework_is_recognised(package):
    """By a module, or an object of it, among the globals of the port; Numba's functions take NumPy's arrays."""
    tensor = type("Tensor", (), {"__module__": f"{package}.inner"})
    for scope in ({"xp": types.ModuleType(package)}, {"Tensor": tensor}):
        exec("import numpy as np\ndef port(q): return q", scope)
        assert recognise(scope["port"]) == package
    compiled, _ = make("numba", "linear_attention")
    assert recognise(compiled) == recognise(compiled.py_func) == "numba"

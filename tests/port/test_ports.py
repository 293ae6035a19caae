"""Ports in Numba, with backward functions, are right; the slips planted in them are caught, and named."""

import functools
import sys
import types

import pytest

from models.errors import UserError
from proofs.port.recognition import recognise
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
    """By a module, or an object of it, among the globals of the port, or by what compiled it."""
    library = types.ModuleType(package)
    tensor = type("Tensor", (), {"__module__": f"{package}.inner"})
    for scope in ({"xp": library}, {"Tensor": tensor, "numba": types.ModuleType("numba")}):
        exec("import numpy as np\ndef port(q): return q", scope)
        assert recognise(scope["port"]) == recognise(functools.partial(scope["port"], q=1)) == package
    assert recognise(type("Compiled", (), {"__module__": package, "__call__": len})()) == package


def test_a_function_that_numba_compiles_takes_arrays_of_numpy():
    compiled, _ = make("numba", "linear_attention")
    assert recognise(compiled) == recognise(compiled.py_func) == "numba"


def test_the_framework_of_an_object_is_that_of_the_module_of_its_class(monkeypatch):
    module = types.ModuleType("layers")
    module.jax = types.ModuleType("jax")
    monkeypatch.setitem(sys.modules, "layers", module)
    layer = type("Layer", (), {"__module__": "layers", "__call__": lambda self, q: q})()
    assert recognise(layer) == "jax"
    module.torch = types.ModuleType("torch")
    with pytest.raises(UserError, match="the port's module imports jax and torch; choose by --framework"):
        recognise(layer)

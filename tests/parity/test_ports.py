"""Ports in PyTorch and JAX are right, with gradients; the slips planted in them are caught, and named."""

import pytest

from tests.port.planted import rows
from tests.port.ports import PORTS, run

CASES = ["T = 1", "T > chunk", "T not a multiple", "start state", "shut gate", "open gate", "no batch axis"]
SHORT = ["T not a multiple", "start state"]


@pytest.mark.parametrize("name", PORTS["torch"])
def test_a_port_in_torch_is_right_in_all_precisions(torch, name):
    report = run("torch", name, cases=CASES)
    assert report.right, str(report)
    assert report.precisions == ["float64", "float32", *(["bfloat16"] if name != "s4d" else [])]


@pytest.mark.parametrize("name", PORTS["jax"])
def test_a_port_in_jax_is_right(jax, name):
    report = run("jax", name, precisions=["float64"], cases=SHORT, chunk=4)
    assert report.right, str(report)


@pytest.mark.parametrize(("framework", "name", "old", "new", "slip"), rows("torch", "jax"))
def test_a_slip_is_caught_and_named(torch, jax, framework, name, old, new, slip):
    cases = ["start state"] if framework == "jax" else SHORT  # one shape: JAX compiles for each
    report = run(framework, name, old, new, precisions=["float64"], cases=cases)
    assert not report.right
    assert report.slips == ([slip] if slip else [])

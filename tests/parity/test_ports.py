"""Ports in PyTorch and JAX are right, with gradients; the slips planted in them are caught, and named."""

import numpy as np
import pytest

from proofs.port import check
from tests.port.planted import rows
from tests.port.ports import PORTS, make, run

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


def test_gradients_in_jax_are_traced_once_for_each_shape(jax):
    calls = []

    def port(q, k, v):
        calls.append(q.shape)
        return jax.numpy.tril(q @ k.mT) @ v

    options = {"framework": "jax", "precisions": ["float64"], "chunk": 4}
    report = check(port, "memory.linear_attention.parallel", cases=["T not a multiple", "repeated keys"], **options)
    assert report.right, str(report)
    assert len(calls) == 3  # the values of each case, and a trace for both


def test_a_port_in_jax_that_cannot_be_traced_is_differentiated_all_the_same(jax):
    def port(q, k, v):
        return jax.numpy.tril(q @ k.mT) @ v if q.sum() < 1e6 else v

    options = {"framework": "jax", "precisions": ["float64"], "cases": ["T not a multiple"]}
    report = check(port, "memory.linear_attention.parallel", **options)
    assert report.right, str(report)
    assert ("float64", "T not a multiple", "gradient of q") in report.cells


def test_a_snippet_of_a_gradient_in_jax_runs_and_has_the_sign_of_the_kit(jax, capsys):
    """The result of jax.vjp for a complex argument is conjugated, as the kit's gradients are."""
    slip = ("jax", "s4d", "2 * jnp.sum(C * h", "jnp.sum((C + jax.lax.stop_gradient(C)) * h")
    report = run(*slip, precisions=["float64"], cases=["start state"])
    assert report.slips == ["the gradient of C is half the right one"]
    exec(report.snippet.replace("from jax_ports import", "#"), {"s4d": make(*slip)[0]})
    printed = [complex(x) for x in capsys.readouterr().out.replace("[", "").replace("]", "").split()]
    expected = np.array(eval(report.snippet.split("# expected ")[1].splitlines()[0]))
    assert np.allclose(printed, expected.ravel() / 2)

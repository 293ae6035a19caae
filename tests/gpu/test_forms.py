"""The `fused` forms on a device: they launch the CUDA kernels, which run on the emulator here."""

from dataclasses import replace

import numpy as np
import pytest

import minigrad as mg
from gpu import device
from gpu.kernels import linear_attention as kernel
from gpu.precision import matmul_precision
from minigrad.pytree import arrays_of
from models.attention import softmax
from models.kernels import dispatch
from models.kernels.dispatch import KERNELS
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention, linear_attention, titans
from models.ssm import selective_scan, ssd
from proofs import STATEMENTS
from proofs.checker import check_system, systems, systems_of
from proofs.checker.statements import CUPY
from tests.fake_cupy import asarray
from tests.gpu import fake_gpu


@pytest.fixture
def on_device(monkeypatch):
    """Take all arrays for a device's."""
    monkeypatch.setattr(dispatch, "on_device", lambda x: True)


def gradients(form, inputs):
    """Return output, state, and the gradients of a weighted sum of both."""

    def loss(*inputs):
        y, state = form(*inputs)
        return mg.sum(mg.sin(y)) + mg.sum(state * state), (y, state)

    (_, results), gradients = mg.value_and_grad(loss, argnums=tuple(range(len(inputs))), has_aux=True)(*inputs)
    return [*map(np.asarray, results), *gradients]


def draw():
    rng = np.random.default_rng(0)
    u, delta = rng.standard_normal((2, 5, 3)), rng.uniform(0.1, 0.5, (2, 5, 3))
    B, C = rng.standard_normal((2, 2, 2, 5)).swapaxes(-1, -2)  # not contiguous
    return u, delta, -rng.uniform(1, 4, (3, 2)), B, C, rng.standard_normal(3)


def q_k_v():
    return tuple(np.random.default_rng(0).standard_normal((3, 3, 40, 2)).swapaxes(1, 2))  # not contiguous


def beta():
    return np.random.default_rng(1).uniform(0, 1, (3, 40)).T  # not contiguous


def only_y(form):
    return lambda *inputs: (form(*inputs)[0],) * 2


@pytest.mark.parametrize(
    ("form", "reference", "inputs"),
    [
        (selective_scan.fused, selective_scan.recurrent, draw()),
        (linear_attention.fused, linear_attention.recurrent, q_k_v()),
        (delta_rule.fused, delta_rule.recurrent, (*q_k_v(), beta())),
        (gated_delta_rule.fused, gated_delta_rule.recurrent, (*q_k_v(), beta(), -beta())),
        (gated_linear_attention.fused, gated_linear_attention.recurrent, (*q_k_v(), -(q_k_v()[0] ** 2))),
        (gated_linear_attention.fused, gated_linear_attention.recurrent, (*q_k_v(), -beta())),
        (ssd.fused, ssd.recurrent, (q_k_v()[2], beta(), -beta()[:, 0], *q_k_v()[:2])),
        (only_y(softmax.fused), only_y(softmax.quadratic), q_k_v()),
    ],
)
def test_a_form_takes_the_raw_kernel(on_device, monkeypatch, form, reference, inputs):
    monkeypatch.setattr("minigrad.compiled.numba_module", None)  # nothing else may run
    for a, b in zip(gradients(form, inputs), gradients(reference, inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("sizes", [(2, 2), (3, 2), (2, 3, 2)], ids=["matrix", "bias", "two layers"])
def test_titans_takes_it_for_any_number_of_layers(on_device, monkeypatch, sizes):
    rng = np.random.default_rng(0)
    q, k, v = q_k_v()
    layers = [rng.standard_normal(shape) for shape in zip(sizes, sizes[1:], strict=False)]
    memory = ((layers[0][:2], layers[0][2:]),) if sizes == (3, 2) else tuple((W,) for W in layers)
    monkeypatch.setattr("minigrad.compiled.numba_module", None)

    def run(form):
        def loss(q, k, v, theta, memory):
            y, state = form(q, k, v, theta, -beta(), -beta()[::-1], memory, batch_size=2)
            return mg.sum(mg.sin(y)) + sum(mg.sum(mg.sin(x)) for x in arrays_of(state[:3]))

        return arrays_of(mg.value_and_grad(loss, argnums=tuple(range(5)))(q, k, v, beta() / 9, memory))

    for a, b in zip(run(titans.fused), run(titans.chunkwise), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


@pytest.fixture
def proofs_on_a_device(monkeypatch):
    """Install the number systems of a GPU: arrays with CuPy's functions, CUDA kernels on the emulator."""
    for name in CUPY:
        walled = replace(systems.SYSTEMS[name], convert=lambda x, log: asarray(systems._floats(x, log)))
        monkeypatch.setitem(systems.SYSTEMS, name, walled)
    monkeypatch.setattr(systems, "_has_device", lambda: True)
    return fake_gpu.install(monkeypatch)


def judged(form, system="cupy gradient"):
    return check_system(STATEMENTS[f"every_mechanism.forms_agree[{form}]"], system, "deep").status


@pytest.mark.parametrize(
    ("statement", "system"),
    [
        pytest.param(s, system, id=f"{s.name}-{system}")
        for s in STATEMENTS.values()
        for system in systems_of(s)
        if system in CUPY
    ],
)
def test_statements_hold_there(proofs_on_a_device, statement, system):
    """Run every form, for values and gradients."""
    result = check_system(statement, system, "short")
    assert result.status == "passed", result.failure


def test_what_is_not_fused_needs_no_raw_kernel(proofs_on_a_device):
    assert [judged("delta_rule.chunkwise", system) for system in CUPY] == ["passed"] * 2
    assert proofs_on_a_device.launches == []


def test_without_a_device_nothing_is_judged(monkeypatch):
    """Skip the number system even where CuPy is installed."""

    def missing():
        raise device.MissingError(device.DRIVER)

    monkeypatch.setattr(device, "ready", missing)
    assert [judged("delta_rule.chunkwise", system) for system in CUPY] == ["not installed"] * 2


@pytest.mark.parametrize(
    ("form", "kernel"),
    [
        ("softmax.fused", "softmax_backward_keys"),
        ("linear_attention.fused", "linear_attention"),
        ("delta_rule.fused", "gated_delta_rule_keys"),
        ("gated_delta_rule.fused.log_decay T", "gated_delta_rule_keys"),
        ("gated_linear_attention.fused.log_decay T", "gated_linear_attention_backward"),
        ("gated_linear_attention.fused.log_decay T K", "gated_linear_attention_backward"),
        ("ssd.fused", "gated_linear_attention_backward"),
        ("titans.fused.matrix", "titans_keys"),
        ("titans.fused.mlp", "titans_layers_backward"),
        ("ttt.fused.linear", "titans_layers_backward"),
        ("ttt.fused.mlp", "titans_layers_backward"),
        ("selective_scan.fused", "selective_scan_backward"),
        ("s4d.fused", "vandermonde_backward"),
        ("s4.fused", "cauchy_backward_poles"),
    ],
)
def test_gradients_of_fused_forms_are_judged_there(proofs_on_a_device, form, kernel):
    assert judged(form) == "passed"
    assert kernel in proofs_on_a_device.launches


@pytest.mark.parametrize("place", range(4))
def test_a_gradient_that_is_wrong_is_noticed(proofs_on_a_device, monkeypatch, place):
    outputs = kernel.backward

    def wrong(saved, cotangents):
        results = list(outputs(saved, cotangents))
        results[place] = results[place] * (1 + 1e-9)
        return tuple(results)

    monkeypatch.setattr(kernel, "backward", wrong)
    assert judged("linear_attention.fused", "cupy") == "passed"
    assert judged("linear_attention.fused") == "failed"


def test_fewer_bits_reach_a_form(on_device):
    form, inputs = only_y(softmax.fused), [x.astype("f") for x in q_k_v()]
    with matmul_precision("tensorfloat32"):
        rounded = gradients(form, inputs)
    for a, b in zip(rounded, gradients(form, inputs), strict=True):
        assert 0 < np.abs(a - b).max() < 2.0**-8 * max(1, np.abs(b).max())  # 4 spacings of such numbers


def test_a_mask_is_left_to_the_reference(on_device):
    mask = np.tri(3, dtype=bool)
    for a, b in zip(softmax.fused(*q_k_v(), mask=mask), softmax.quadratic(*q_k_v(), mask=mask), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_gate_per_channel_is_left_to_the_reference(on_device, monkeypatch):
    """The kernels of the gated delta rule know one gate per token."""
    monkeypatch.setattr("minigrad.compiled.numba_module", None)
    inputs = *q_k_v(), beta(), -(q_k_v()[0] ** 2)
    for a, b in zip(
        gradients(gated_delta_rule.fused, inputs), gradients(gated_delta_rule.chunkwise, inputs), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_reference_launches_nothing(proofs_on_a_device):
    assert judged("gated_delta_rule.fused.log_decay T K") == "passed"
    assert proofs_on_a_device.launches == []


def test_gradients_of_its_gradients_are_those_of_the_reference(on_device):
    def loss(u, delta):
        y, state = selective_scan.fused(u, delta, *draw()[2:])
        return mg.sum(mg.sin(y)) + mg.sum(state)

    mg.check_grads(loss, draw()[:2], order=2)


def test_a_form_without_a_raw_kernel_runs_its_reference(on_device, monkeypatch):
    monkeypatch.setitem(KERNELS, "memory.delta_rule", KERNELS["memory.delta_rule"]._replace(cuda=None))
    rng = np.random.default_rng(0)
    q, k, v, beta = *rng.standard_normal((3, 5, 2)), rng.uniform(0, 1, 5)
    for a, b in zip(delta_rule.fused(q, k, v, beta), delta_rule.chunkwise(q, k, v, beta), strict=True):
        np.testing.assert_array_equal(a, b)

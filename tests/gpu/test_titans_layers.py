"""The kernels of Titans' memories of several layers or in a norm against the reference and its gradients."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu import emulator, flops, launch
from gpu.inner_model import WeightLayout
from gpu.kernels import titans as kernel
from gpu.kernels import titans_layers
from models.kernels import titans as on_host
from models.memory import inner, titans
from tests.gpu.kit import SCHEDULES, assert_close, forward_backward, header_of, same_bits_under_every_schedule

LAYERS = st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=3)  # columns, bias


def draw(batch, T, K, layers, dtype, seed, *, norm):
    """Return the inputs, with some gates at 0 and 1, and the cotangents of y and of the last models."""
    rng, widths = np.random.default_rng(seed), [K, *(width for width, _ in layers)]
    q, k, v, dy = (rng.standard_normal((batch, T, width)) for width in (K, K, widths[-1], widths[-1]))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    gates = -rng.exponential(0.3, (2, batch, T))
    gates = np.where(rng.random(gates.shape) < 0.1, rng.choice([0, -np.inf], gates.shape), gates)
    sizes = zip(pairwise(widths), layers, strict=True)
    shapes = [(batch, rows + bias, columns) for (rows, columns), (_, bias) in sizes]
    start, M, S, *others = ([rng.standard_normal(shape) * shape[1] ** -0.5 for shape in shapes] for _ in range(6))
    norm_arrays = list(rng.standard_normal((2, batch, 1, K))) if norm else []
    inputs = q, k, v, rng.uniform(0, 0.2, (batch, T)) / (8 * widths[-1]), *gates, *start, *M, *S, *norm_arrays
    cotangents = dy, *(x for model in others for x in model)
    return [x.astype(dtype) for x in inputs], tuple(x.astype(dtype) for x in cotangents)


def run(inputs, cotangents, layout, left, batch_size):
    options = {"layout": layout, "batch_size": batch_size, "left": left, "on_losses": lambda losses: None}
    return forward_backward(kernel, inputs, cotangents, **options)


def layout_of(layers, *, norm):
    return WeightLayout(tuple(bias for _, bias in layers), norm)


def reference(layout, left, batch_size):
    """Return `chunkwise` as a function of the same arrays."""

    def form(q, k, v, theta, log_eta, log_decay, *weights):
        models, norm = layout.split("reference", weights, k.shape[-1], models=3)
        start, M, S = (inner.unpack_model(x, layout) for x in models)
        state, norm = titans.State(start, M, S, left), tuple(norm) if layout.norm else None
        y, (*final, _) = titans.chunkwise(
            q, k, v, theta, log_eta, log_decay, start, state=state, batch_size=batch_size, norm=norm
        )
        return y, *(inner.pack_layer(layer) for model in final for layer in model)

    return form


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 2),
    T=st.integers(1, 40),
    K=st.integers(1, 40),
    layers=LAYERS,
    left=st.integers(1, 32),
    batch_size=st.integers(1, 32),
    norm=st.booleans(),
    seed=st.integers(0, 99),
    schedules=SCHEDULES,
)
@example(
    batch=2, T=33, K=40, layers=[(33, True), (40, False)], left=32, batch_size=32, norm=False, seed=0, schedules=[0, 1]
)  # a whole batch of the widest layer
def test_is_the_reference_and_its_adjoint(batch, T, K, layers, left, batch_size, norm, seed, schedules):
    if norm:
        layers = [*layers[:-1], (K, layers[-1][1])]  # the residual connection needs equal widths
    elif len(layers) == 1:
        layers = [*layers, layers[0]]  # a matrix without a norm is for the other kernels
    inputs, cotangents = draw(batch, T, K, layers, "d", seed, norm=norm)
    sizes = layout_of(layers, norm=norm), left, batch_size
    results = same_bits_under_every_schedule(schedules, lambda: run(inputs, cotangents, *sizes))
    # A layer norm of nearly equal numbers amplifies their rounding errors.
    assert_close(results, reference(*sizes), inputs, cotangents, conditioning=64)


@pytest.mark.parametrize(
    ("T", "layers", "norm"),
    [(33, [(40, True), (33, False)], False), (33, [(33, True)], True), (18, [(40, False), (33, True)], True)],
)
def test_float32(T, layers, norm):
    """Cross boundary states, which are every 8 batches: 16 batches, and 9, of which the last is incomplete."""
    inputs, cotangents = draw(1, T, 33, layers, "f", 0, norm=norm)
    sizes = layout_of(layers, norm=norm), 3, 2
    assert_close(run(inputs, cotangents, *sizes), reference(*sizes), inputs, cotangents, conditioning=64)


def test_far_below_zero_gelu_is_flat():
    """Draw pre-activations whose exponential would overflow."""
    layers = [(7, False), (5, False)]
    (q, k, v, theta, *others), cotangents = draw(1, 8, 5, layers, "d", 0, norm=False)
    inputs = [q, 1e3 * k, v, 1e-9 * theta, *others]
    assert (inputs[1] @ inputs[6]).min() < -90
    sizes = layout_of(layers, norm=False), 4, 4
    assert_close(run(inputs, cotangents, *sizes), reference(*sizes), inputs, cotangents, conditioning=64)


def test_on_losses_gets_the_squared_errors():
    layers = [(7, True), (5, False)]
    inputs, _ = draw(1, 20, 5, layers, "d", 0, norm=True)
    layout, losses = layout_of(layers, norm=True), []
    for module in (kernel, on_host):
        module.forward(*inputs, layout=layout, batch_size=4, left=3, on_losses=losses.append)
    np.testing.assert_allclose(*losses, rtol=1e-12)


@pytest.mark.parametrize(("source", "way"), [("titans_layers", 0), ("titans_layers_backward", 1)])
def test_operations_are_those_that_the_header_counts(source, way):
    pattern = r"K = V = 64 with 128 inside and C = 16: ([\d,]+) operations"
    stated = int(re.search(pattern, header_of(source))[1].replace(",", ""))
    token, gate, *layers = map(np.empty, ((1, 64), 1, (64, 128), (128, 64)))
    assert flops.titans_layers(*[token] * 3, *[gate] * 3, *layers)[way] == pytest.approx(stated, rel=0.02)


def test_field_count_is_that_of_the_compiler(tmp_path):
    source, count = tmp_path / "fields.cu", np.zeros(1, np.int32)
    source.write_text('#include "titans_batch.cuh"\nextern "C" __global__ void fields(int *count) { *count = FIELDS; }')
    emulator.Module(source).get_function("fields")((1,), (32,), [count])
    assert titans_layers.field_count() == count[0] > 20


@pytest.mark.parametrize("kernel_name", ["titans_layers", "titans_layers_backward"])
def test_integer_parameters_are_the_fields_of_sizes(kernel_name):
    code = (launch.KERNELS / f"{kernel_name}.cu").read_text(encoding="utf-8")
    parameters = re.search(rf"\n{kernel_name}\((.*?)\) \{{", code, re.DOTALL)[1]
    assert re.findall(r"\bint (\w+)", parameters) == list(titans_layers.Sizes._fields)


@pytest.mark.parametrize("order", ["features, bias, columns", "columns, features, bias"])
def test_rows_of_the_layer_table_are_the_structs_that_the_compiler_reads(tmp_path, monkeypatch, order):
    header = (launch.KERNELS / "titans_batch.cuh").read_text(encoding="utf-8")
    assert "int features, bias, columns;" in header
    for file in launch.KERNELS.glob("*.cuh"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    header = header.replace("int features, bias, columns;", f"int {order};")
    (tmp_path / "titans_batch.cuh").write_text(header, encoding="utf-8")
    monkeypatch.setattr(titans_layers, "KERNELS", tmp_path)
    monkeypatch.setattr(titans_layers, "layer_fields", titans_layers.layer_fields.__wrapped__)
    source, fields = tmp_path / "layer.cu", np.zeros((2, 5), np.int32)
    source.write_text(
        '#include "titans_batch.cuh"\nextern "C" __global__ void layer(const Layer *x, int *to) {\n'
        "    for (int l = 0; l < 2; l++, x++, to += 5)\n"
        "        to[0] = x->features, to[1] = x->bias, to[2] = x->columns, to[3] = x->before, to[4] = sizeof(Layer);\n}"
    )
    table = titans_layers._layer_table(7, (True, False), [(2, 8, 5), (2, 5, 3)])
    emulator.Module(source).get_function("layer")((1,), (32,), [table, fields])
    np.testing.assert_array_equal(fields, [[7, 1, 5, 0, table.strides[0]], [5, 0, 3, 40, table.strides[0]]])


def test_longer_batches_are_left_to_the_reference():
    layers = [(3, False), (2, False)]
    inputs, _ = draw(1, 80, 2, layers, "d", 0, norm=False)
    options = {"layout": layout_of(layers, norm=False), "on_losses": lambda losses: None}
    assert kernel.supports(*inputs, batch_size=32, left=32, **options)
    assert kernel.supports(*inputs, batch_size=90, left=90, **options) is False
    assert kernel.supports(*inputs, batch_size=32, left=33, **options) is False
    assert kernel.supports(*(x[..., :20, :] for x in inputs[:3]), batch_size=90, left=90, **options)


def call():
    """Run 10 batches, most of whose memories are recomputed, and tiles that are partly empty in every direction."""
    layers = [(38, True), (37, False)]
    return run(*draw(1, 19, 37, layers, "f", 0, norm=True), layout_of(layers, norm=True), 1, 2)


@pytest.mark.parametrize("source", ["matrices", "titans_layers", "titans_layers_backward"])
def test_every_barrier_is_needed(assert_every_barrier_is_needed, source):
    assert_every_barrier_is_needed(source, call)


@pytest.mark.parametrize(
    ("source", "original", "mutated"),
    [
        ("titans_layers", "row + i < from.rows()", "row + i <= from.rows()"),
        ("titans_layers", "if (i < rows && j < columns)", "if (j < columns)"),
        (
            "titans_layers",
            "pair.left.load(tiles[0], row, slice), ",
            "if (row == 0) pair.left.load(tiles[0], row, slice), ",
        ),
        ("titans_layers", "if (i) W = current;", ""),
        ("titans_layers_backward", "passing + (i - begin - 1)", "passing + (i - begin)"),
        ("titans_layers_backward", "d.M[j] += d.W[j], d.W[j] = 0", "d.M[j] += d.W[j]"),
    ],
)
def test_a_broken_kernel_is_caught(assert_detected, source, original, mutated):
    assert_detected(source, original, mutated, call)

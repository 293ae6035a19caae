"""Test-time training by the kernels of Titans' layers, against `dual` and its gradients, under drawn schedules."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu.inner_model import WeightLayout
from gpu.kernels import ttt as kernel
from models.memory import inner, ttt
from tests.gpu.kit import SCHEDULES, assert_close, forward_backward, same_bits_under_every_schedule


def draw(batch, batches, batch_size, widths, dtype, seed, *, bias, norm):
    """Return the inputs, with rates at which no batch diverges, and the cotangents of y and of the last model."""
    rng, T, K, V = np.random.default_rng(seed), batches * batch_size, widths[0], widths[-1]
    q, k, v, dy = (rng.standard_normal((batch, T, width)) for width in (K, K, V, V))
    rates = rng.uniform(0, 0.2, (batch, T)) / (V * batch_size), rng.uniform(0.5, 1, (batch, T))
    shapes = [(batch, rows + bias, columns) for rows, columns in pairwise(widths)]
    model, dmodel = ([rng.standard_normal(shape) * shape[1] ** -0.5 for shape in shapes] for _ in range(2))
    norm_arrays = list(rng.standard_normal((2, batch, 1, K))) if norm else []
    cast = ([x.astype(dtype) for x in arrays] for arrays in ((q, k, v, *rates, *model, *norm_arrays), (dy, *dmodel)))
    return next(cast), tuple(next(cast))


def layout_of(widths, *, bias, norm):
    return WeightLayout((bias,) * (len(widths) - 1), norm)


def run(inputs, cotangents, layout, batch_size):
    options = {"layout": layout, "batch_size": batch_size, "on_losses": lambda losses: None}
    return forward_backward(kernel, inputs, cotangents, **options)


def reference(layout, batch_size):
    """Return `dual` as a function of the same arrays."""

    def form(q, k, v, eta, tau, *matrices):
        (model,), norm = layout.split("reference", matrices, k.shape[-1])
        weights = ttt.Weights(inner.unpack_model(model, layout), tuple(norm) if layout.norm else None)
        y, state = ttt.dual(q, k, v, eta, weights, tau=tau, batch_size=batch_size)
        return y, *map(inner.pack_layer, state.start)

    return form


@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 2),
    batches=st.integers(1, 10),
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=3),
    batch_size=st.integers(1, 32),
    bias=st.booleans(),
    norm=st.booleans(),
    seed=st.integers(0, 99),
    schedules=SCHEDULES,
)
@example(
    batch=1, batches=6, widths=[11, 1, 1], batch_size=24, bias=False, norm=True, seed=0, schedules=[0, 1]
)  # what is normalised is nearly constant
def test_is_the_dual_form_and_its_adjoint(batch, batches, widths, batch_size, bias, norm, seed, schedules):
    if norm:
        widths = [*widths[:-1], widths[0]]  # the residual connection needs equal widths
    inputs, cotangents = draw(batch, batches, batch_size, widths, "d", seed, bias=bias, norm=norm)
    sizes = layout_of(widths, bias=bias, norm=norm), batch_size
    results = same_bits_under_every_schedule(schedules, lambda: run(inputs, cotangents, *sizes))
    # A layer norm of nearly equal numbers amplifies their rounding errors.
    assert_close(results, reference(*sizes), inputs, cotangents, conditioning=64)


@pytest.mark.parametrize("widths", [[33, 33], [33, 40, 33]])
def test_float32(widths):
    inputs, cotangents = draw(1, 3, 16, widths, "f", 0, bias=True, norm=True)
    sizes = layout_of(widths, bias=True, norm=True), 16
    assert_close(run(inputs, cotangents, *sizes), reference(*sizes), inputs, cotangents, conditioning=64)


def test_on_losses_gets_the_squared_errors():
    inputs, _ = draw(1, 1, 6, [5, 5], "d", 0, bias=False, norm=False)
    losses = []
    kernel.forward(*inputs, layout=WeightLayout((False,), norm=False), batch_size=6, on_losses=losses.append)
    _, k, v, _, _, W = inputs
    np.testing.assert_allclose(losses[0], np.sum((k @ W - v) ** 2, axis=-1), rtol=1e-12)


def test_longer_batches_are_left_to_the_reference():
    inputs, _ = draw(1, 2, 33, [2, 2], "d", 0, bias=False, norm=False)
    options = {"layout": WeightLayout((False,), norm=False), "on_losses": print}
    assert kernel.supports(*inputs, batch_size=32, **options)
    assert not kernel.supports(*inputs, batch_size=33, **options)


@pytest.mark.parametrize(
    ("source", "original", "mutated"),
    [
        ("titans_layers_backward", "gates.gamma[t] = 1, gates.p[t] = 0;", "gates.gamma[t] = 1;"),
        ("titans_layers", "batch.if_momentum(batch.r(l))", "batch.r(l)"),
        ("titans_layers_backward", "if (lane <= end) dtheta[lane]", "if (lane < end) dtheta[lane]"),
    ],
)
def test_a_broken_kernel_is_caught(assert_detected, source, original, mutated):
    inputs, cotangents = draw(1, 2, 3, [3, 4, 3], "f", 0, bias=True, norm=True)
    layout = WeightLayout((True, True), norm=True)
    assert_detected(source, original, mutated, lambda: run(inputs, cotangents, layout, 3))

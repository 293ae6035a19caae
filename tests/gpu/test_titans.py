"""The kernels of Titans' matrix memory against its recurrence and gradients, on drawn shapes, under drawn schedules."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minigrad as mg
from gpu.inner_model import WeightLayout
from gpu.kernels import titans as kernel
from models.memory import titans
from tests.gpu.kit import SCHEDULES, assert_close, forward_backward, same_bits_under_every_schedule


def draw(batch, T, K, V, dtype, seed, *, bias=False):
    """Return the inputs, with some gates at 0 and 1, and the cotangents of y and of the last W, M and S."""
    rng = np.random.default_rng(seed)
    q, k, v, dy = (rng.standard_normal((batch, *shape)) for shape in ((T, K), (T, K), (T, V), (T, V)))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    gates = -rng.exponential(0.3, (2, batch, T))
    gates = np.where(rng.random(gates.shape) < 0.1, rng.choice([0, -np.inf], gates.shape), gates)
    memories = rng.standard_normal((6, batch, K + bias, V))
    arrays = [x.astype(dtype) for x in (q, k, v, rng.uniform(0, 0.1, (batch, T)), *gates, *memories, dy)]
    return arrays[:9], (arrays[12], *arrays[9:12])


def run(inputs, cotangents, left, batch_size, *, bias=False):
    options = {"layout": WeightLayout((bias,), norm=False), "batch_size": batch_size, "left": left}
    return forward_backward(kernel, inputs, cotangents, **options, on_losses=lambda losses: None)


ALL = {"batch": 2, "T": 70, "K": 40, "V": 33, "left": 5, "batch_size": 34, "bias": True, "seed": 0, "schedules": [0, 1]}


@pytest.mark.parametrize("dtype", "fd")
@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 2),
    T=st.integers(1, 70),
    K=st.integers(1, 40),
    V=st.integers(1, 40),
    left=st.integers(1, 40),
    batch_size=st.integers(1, 40),
    bias=st.booleans(),
    seed=st.integers(0, 99),
    schedules=SCHEDULES,
)
@example(**ALL)
@example(**ALL | {"T": 64, "K": 32, "V": 64, "bias": False})
@example(**ALL | {"T": 4, "left": 10, "batch_size": 3})  # no batch ends, though whole ones are left
def test_is_the_recurrence_and_its_adjoint(dtype, batch, T, K, V, left, batch_size, bias, seed, schedules):
    inputs, cotangents = draw(batch, T, K, V, dtype, seed, bias=bias)
    results = same_bits_under_every_schedule(schedules, lambda: run(inputs, cotangents, left, batch_size, bias=bias))

    def form(q, k, v, theta, log_eta, log_decay, *memories):
        W, M, S = (((x[..., :K, :], x[..., K:, :])[: 1 + bias],) for x in memories)
        y, (*final, _) = titans.chunkwise(
            q, k, v, theta, log_eta, log_decay, W, state=titans.State(W, M, S, left), batch_size=batch_size
        )
        return y, *(mg.concat(list(layers[0]), axis=-2) for layers in final)

    assert_close(results, form, inputs, cotangents)


def test_on_losses_gets_the_squared_errors():
    (q, k, v, *others, W, M, S), _ = draw(2, 6, 3, 5, "d", 0)
    losses = []
    layout = WeightLayout((False,), norm=False)
    kernel.forward(q, k, v, *others, W, M, S, layout=layout, batch_size=4, left=9, on_losses=losses.append)
    np.testing.assert_allclose(losses, [((k @ W - v) ** 2).sum(axis=-1)], rtol=0, atol=1e-13)


def test_a_gate_that_shuts_has_no_gradient():
    inputs, cotangents = draw(2, 70, 3, 5, "f", 0)
    for gates, logs in zip(run(inputs, cotangents, 10, 20)[8:10], inputs[4:6], strict=True):
        assert (logs == -np.inf).any()
        assert not gates[logs == -np.inf].any()


def call():
    return run(*draw(1, 70, 40, 33, "f", 0), 5, 34)


@pytest.mark.parametrize("source", ["titans", "titans_keys"])
def test_every_barrier_is_needed(assert_every_barrier_is_needed, source):
    assert_every_barrier_is_needed(source, call)


@pytest.mark.parametrize(
    ("source", "original", "mutated"),
    [
        ("titans", "t < count && c < columns", "t < count && c <= columns"),
        ("titans", "first + i >= stop", "first + i > stop"),
        ("titans", "if (first + t < stop)", ""),
        ("titans", "if (batch_first_chunk[chunk] == chunk)\n", "if (batch_first_chunk[chunk] >= 0)\n"),
        ("titans", "if (batch_first_chunk[chunk] == chunk) memory", "if (batch_first_chunk[chunk] >= 0) memory"),
        ("titans_keys", "t == end ? c + M_dM : c", "c"),
        ("titans_keys", "shared->parts[other][lane - 1]", "shared->parts[other][lane]"),
        ("titans_keys", "if (lane == 0) shared->h[warp_row + r]", "if (lane == 0 && r) shared->h[warp_row + r]"),
    ],
)
def test_a_broken_kernel_is_caught(assert_detected, source, original, mutated):
    assert_detected(source, original, mutated, call)

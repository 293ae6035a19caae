"""The compiled matrix memories beyond the sizes of the proofs: many chunks, odd sizes, threads, memory layouts."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.compiled.layout import cut_out, laid_out
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention, linear_attention
from models.recurrent import rwkv7
from models.ssm import ssd
from tests.kernels.kit import num_threads

SHAPES = [((), 1, 1, 1), ((2, 3), 33, 5, 7), ((3,), 64, 16, 32), ((), 65, 40, 17), ((1,), 100, 64, 48)]


def normal(rng, *shape):
    return rng.standard_normal(shape)


def draw_linear(rng, batch, T, K, V):
    return normal(rng, *batch, T, K), normal(rng, *batch, T, K) / K, normal(rng, *batch, T, V)


def draw_gated(rng, batch, T, K, V):
    return *draw_linear(rng, batch, T, K, V), np.log(rng.uniform(0.5, 1, (*batch, T)))


def draw_channels(rng, batch, T, K, V):
    """Draw gates for each channel, some of them 0."""
    gates = rng.uniform(0.5, 1, (*batch, T, K)) * (rng.uniform(size=(*batch, T, K)) > 0.05)
    with np.errstate(divide="ignore"):
        return *draw_linear(rng, batch, T, K, V), np.log(gates)


def draw_gated_delta_channels(rng, batch, T, K, V):
    return *draw_delta(rng, batch, T, K, V), draw_channels(rng, batch, T, K, V)[-1]


def draw_ssd(rng, batch, T, N, P):
    C, B, x = draw_linear(rng, batch, T, N, P)
    return x, rng.uniform(1e-3, 0.5, (*batch, T)), -rng.uniform(0.1, 2, batch[-1:]), B, C


def draw_delta(rng, batch, T, K, V):
    """Draw keys of norm 1: with longer ones the memory grows."""
    q, k, v = draw_linear(rng, batch, T, K, V)
    return q, k / np.linalg.norm(k, axis=-1, keepdims=True), v, rng.uniform(0, 1, (*batch, T))


def draw_gated_delta(rng, batch, T, K, V):
    return *draw_delta(rng, batch, T, K, V), draw_gated(rng, batch, T, K, V)[-1]


def draw_rwkv7(rng, batch, T, K, V):
    """Draw r, k̃, v, −κ̂, κ̂ ∘ a and gates, some of them 0; a rate a for each channel."""
    r, kappa, v, _ = draw_delta(rng, batch, T, K, V)
    k = normal(rng, *batch, T, K) / K
    return r, k, v, -kappa, kappa * rng.uniform(0, 1, kappa.shape), draw_channels(rng, batch, T, K, V)[-1]


MEMORIES = {
    "linear_attention": (linear_attention, draw_linear),
    "gated_linear_attention": (gated_linear_attention, draw_gated),
    "gated_linear_attention, channels": (gated_linear_attention, draw_channels),
    "delta_rule": (delta_rule, draw_delta),
    "gated_delta_rule": (gated_delta_rule, draw_gated_delta),
    "gated_delta_rule, channels": (gated_delta_rule, draw_gated_delta_channels),
    "rwkv7": (rwkv7, draw_rwkv7),
    "ssd": (ssd, draw_ssd),
}
EACH = pytest.mark.parametrize("name", MEMORIES)


def draw(name, batch, T, K, V, dtype=np.float64):
    rng = np.random.default_rng(T + K)
    tokens = MEMORIES[name][1](rng, batch, T, K, V)
    return [x.astype(dtype) for x in (*tokens, normal(rng, *batch, K, V))]


def results(form, arguments):
    """Return output, state, and the gradients of a weighted sum of both."""

    def loss(*arguments):
        *arguments, state = arguments
        y, state = form(*arguments, state=state)
        return mg.sum(mg.sin(y)) + mg.sum(mg.sin(state)), (y, state)

    (_, outputs), gradients = mg.value_and_grad(loss, argnums=tuple(range(len(arguments))), has_aux=True)(*arguments)
    return [*map(np.asarray, outputs), *gradients]


def compiled(name, arguments, threads=2):
    with num_threads(threads):
        return results(MEMORIES[name][0].fused, arguments)


@EACH
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_recurrence(name, shape, threads, dtype):
    actual = compiled(name, draw(name, *shape, dtype), threads)
    # the same numbers in float64: both round, float32 more
    exact = [x.astype(np.float64) for x in draw(name, *shape, dtype)]
    unit = np.finfo(dtype).eps
    for a, b in zip(actual, results(MEMORIES[name][0].recurrent, exact), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * unit * np.abs(b).max())


@EACH
def test_threads_do_not_change_a_digit(name):
    arguments = draw(name, (2,), 70, 24, 40, np.float32)
    for a, b in zip(compiled(name, arguments, 1), compiled(name, arguments, 3), strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_arrays_that_are_not_contiguous(name):
    arguments = draw(name, (2,), 40, 32, 16)
    strided = [np.asfortranarray(x) for x in arguments]
    strided[0] = np.repeat(arguments[0], 2, axis=-1)[..., ::2]
    for a, b in zip(compiled(name, strided), compiled(name, arguments), strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_inputs_stay_as_they_were(name):
    arguments = draw(name, (2,), 64, 32, 32)
    before = [x.copy() for x in arguments]
    compiled(name, arguments)
    for a, b in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("shape", "to"), [((3, 5), (2, 8)), ((4, 8), (2, 8)), ((1, 1), (16, 16))])
def test_laid_out_pads_with_zeros_and_cut_out_undoes_it(shape, to):
    x = np.arange(1.0, 6 * np.prod(shape) + 1).reshape(2, 3, *shape)
    laid = laid_out(x, 6, *shape, to=to)
    assert laid.flags.c_contiguous and all(size % m == 0 for size, m in zip(laid.shape[1:], to, strict=True))
    assert laid.sum() == x.sum()
    np.testing.assert_array_equal(cut_out(laid, x.shape), x)

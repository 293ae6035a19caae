"""S4's and S4D's kernels against their sums written out, on drawn shapes, under drawn schedules."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minigrad as mg
from gpu.kernels import cauchy, cauchy_pairs, vandermonde
from models.ssm import s4, s4d
from tests.gpu.kit import SCHEDULES, bound, same_bits_under_every_schedule


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def quotients(w, z, poles):
    """Return Σₙ wₙ / (zₗ − λₙ) through an array of D × L × N."""
    return mg.sum(w[:, None, :] / (z[:, :, None] - poles[:, None, :]), axis=-1)


def draw(D, N, L, seed):
    """Return weights, bases of powers in the unit disc (one of them 0), and poles left of the axis of the nodes."""
    rng = np.random.default_rng(seed)
    A = rng.uniform(0.5, 1, (D, N)) * np.exp(2j * np.pi * rng.random((D, N)))
    A[0, 0] *= rng.integers(0, 2)
    poles, z = complex_normal(rng, D, N), 1j * rng.standard_normal((D, L))
    return complex_normal(rng, D, N), A, z, poles - poles.real - rng.uniform(0.5, 1), complex_normal(rng, D, L)


@pytest.mark.parametrize("dtype", "FD")
@settings(max_examples=8, deadline=None)
@given(D=st.integers(1, 3), N=st.integers(1, 5), L=st.integers(1, 5000), seed=st.integers(0, 99), schedules=SCHEDULES)
@example(D=2, N=3, L=4096, seed=0, schedules=[0, 1])  # whole strips
@example(D=2, N=260, L=9, seed=0, schedules=[0, 1])  # more powers than a block has threads
def test_vandermonde(dtype, D, N, L, seed, schedules):
    w, A, *_, g = draw(D, N, L, seed)
    w, A, g = w.astype(dtype), A.astype(dtype), g.real.astype(dtype.lower())
    results = same_bits_under_every_schedule(
        schedules, lambda: (vandermonde.forward(w, A, length=L)[0], *vandermonde.backward((w, A), g))
    )
    outputs, vjp = mg.vjp(lambda w, A: s4d.responses(w, A, L), w.astype("D"), A.astype("D"))
    for actual, expected in zip(results, (outputs, *vjp(g.astype("d"))), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bound(dtype, expected, factor=256))


@pytest.mark.parametrize("dtype", "FD")
@settings(max_examples=8, deadline=None)
@given(D=st.integers(1, 3), N=st.integers(1, 5), L=st.integers(1, 600), seed=st.integers(0, 99), schedules=SCHEDULES)
@example(D=2, N=3, L=512, seed=0, schedules=[0, 1])  # whole strips
@example(D=2, N=260, L=9, seed=0, schedules=[0, 1])  # more poles than a block has threads
def test_cauchy(dtype, D, N, L, seed, schedules):
    w, _, z, poles, g = (x.astype(dtype) for x in draw(D, N, L, seed))
    results = same_bits_under_every_schedule(
        schedules, lambda: (cauchy.forward(w, z, poles), *cauchy.backward(w, z, poles, g))
    )
    outputs, vjp = mg.vjp(quotients, *(x.astype("D") for x in (w, z, poles)))
    for actual, expected in zip(results, (outputs, *vjp(g.astype("D"))), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bound(dtype, expected, factor=256))


@pytest.mark.parametrize("dtype", "FD")
@settings(max_examples=8, deadline=None)
@given(D=st.integers(1, 2), N=st.integers(1, 4), L=st.integers(1, 400), seed=st.integers(0, 99), schedules=SCHEDULES)
def test_cauchy_pairs(dtype, D, N, L, seed, schedules):
    """Include even lengths, at which one node is at infinity but for rounding."""
    *_, poles, _ = draw(D, N, L, seed)
    v, g = (complex_normal(np.random.default_rng(seed), D, 3, n).astype(dtype) for n in (N, L // 2 + 1))
    poles = poles.astype(dtype)

    def forward_backward():
        S, saved = cauchy_pairs.forward(v, poles, length=L)
        return S, *cauchy_pairs.backward(saved, g)

    results = same_bits_under_every_schedule(schedules, forward_backward)
    outputs, vjp = mg.vjp(lambda v, poles: s4.cauchy(v, poles, length=L), v.astype("D"), poles.astype("D"))
    for actual, expected in zip(results, (outputs, *vjp(g.astype("D"))), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bound(dtype, expected, factor=256))


def test_arrays_that_do_not_fit_are_named():
    w, A, z, poles, g = draw(2, 3, 5, 0)
    with pytest.raises(ValueError, match=r"^vandermonde: A has shape \(2, 2\), expected \(2, 3\) as w has$"):
        vandermonde.forward(w, A[:, :2].copy(), length=5)
    with pytest.raises(ValueError, match=r"^cauchy: poles has shape \(2, 2\), expected \(2, 3\) as w has$"):
        cauchy.forward(w, z, poles[:, :2].copy())
    with pytest.raises(ValueError, match=r"^cauchy: dK has shape \(2, 4\), expected \(2, 5\) as z has$"):
        cauchy.backward(w, z, poles, g[:, :4].copy())
    for bad in (w.real.copy(), w.astype("F")):
        with pytest.raises(TypeError, match="^cauchy_pairs: poles is "):
            cauchy_pairs.forward(w[:, None].copy(), bad, length=4)
    _, saved = cauchy_pairs.forward(w[:, None].copy(), poles, length=4)
    with pytest.raises(TypeError, match="^cauchy_pairs: dS is float64, expected complex64 or complex128$"):
        cauchy_pairs.backward(saved, g[:, None, :3].real.copy())


def forward_backward():
    w, A, z, poles, g = (x.astype("F") for x in draw(2, 3, 300, 0))
    real = np.ascontiguousarray(g.real)
    results = vandermonde.forward(w, A, length=300)[0], *vandermonde.backward((w, A), real)
    return *results, cauchy.forward(w, z, poles), *cauchy.backward(w, z, poles, g)


@pytest.mark.parametrize("source", ["vandermonde", "cauchy", "common"])
def test_every_barrier_is_needed(assert_every_barrier_is_needed, source):
    assert_every_barrier_is_needed(source, forward_backward)


@pytest.mark.parametrize(
    ("source", "original", "mutated"),
    [
        ("vandermonde", "THREADS < length", "THREADS <= length"),
        ("vandermonde", "l < length", "l <= length"),
        ("vandermonde", "n < states; n += THREADS", "n < states - 1; n += THREADS"),
        ("cauchy", "l >= length", "l > length"),
        ("cauchy", "n < states; n += THREADS", "n < states - 1; n += THREADS"),
    ],
)
def test_a_broken_kernel_is_caught(assert_detected, source, original, mutated):
    assert_detected(source, original, mutated, forward_backward)

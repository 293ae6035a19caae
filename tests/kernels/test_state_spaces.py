"""The compiled sums of S4D and S4 beyond the sizes of the proofs: many blocks, odd sizes, threads, memory layouts."""

import tracemalloc

import numpy as np
import pytest

import minigrad as mg
from models.kernels import vandermonde
from models.ssm import s4, s4d
from tests.kernels.kit import num_threads

SHAPES = [((), 1, 1, 1), ((2, 2), 37, 7, 3), ((3,), 64, 5, 4), ((), 130, 2, 17), ((1,), 1001, 3, 2)]
EACH = pytest.mark.parametrize("module", [s4d, s4], ids=["s4d", "s4"])


def draw(module, batch, T, D, N, dtype=np.float64):
    """Return the arguments and an initial state; as with HiPPO, imaginary parts of eigenvalues exceed the real ones."""
    rng = np.random.default_rng(T + N)

    def parts(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    Lambda = -rng.uniform(0.3, 1, (D, N)) + 1j * rng.uniform(0, 10, (D, N))
    low = [parts(D, N)] if module is s4 else []
    u, skip, delta = rng.standard_normal((*batch, T, D)), rng.standard_normal(D), rng.uniform(0.01, 0.1, D)
    arguments = [u, Lambda, *low, parts(D, N), parts(D, N), skip, delta, parts(*batch, D, N)]
    return [x.astype(np.result_type(dtype, np.complex64) if x.dtype.kind == "c" else dtype) for x in arguments]


def results(form, arguments):
    """Return output, state, and the gradients of a weighted sum of both."""

    def loss(*arguments):
        *arguments, state = arguments
        y, state = form(*arguments, state=state)
        return mg.sum(mg.sin(y)) + mg.sum(mg.real(state * state * (1 + 2j))), (y, state)

    (_, outputs), gradients = mg.value_and_grad(loss, argnums=tuple(range(len(arguments))), has_aux=True)(*arguments)
    return [*map(np.asarray, outputs), *gradients]


def compiled(module, arguments, threads=2):
    with num_threads(threads):
        return results(module.fused, arguments)


@EACH
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_convolution(module, shape, threads, dtype):
    actual = compiled(module, draw(module, *shape, dtype), threads)
    # the same numbers in float64: both round, float32 more
    exact = [x.astype(np.result_type(x.dtype, np.float64)) for x in draw(module, *shape, dtype)]
    unit = np.finfo(dtype).eps
    for a, b in zip(actual, results(module.convolution, exact), strict=True):
        assert a.dtype == b.astype(a.dtype).dtype and a.real.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=1024 * unit * np.abs(b).max())


@EACH
def test_threads_do_not_change_a_digit(module):
    arguments = draw(module, (2,), 70, 9, 5, np.float32)
    for a, b in zip(compiled(module, arguments, 1), compiled(module, arguments, 3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rows_may_be_taken_a_few_at_a_time(monkeypatch):
    arguments = draw(s4d, (2,), 70, 9, 5)
    whole = compiled(s4d, arguments)
    monkeypatch.setattr(vandermonde, "NUMBERS", 400)
    for a, b in zip(compiled(s4d, arguments), whole, strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_arrays_that_are_not_contiguous(module):
    arguments = draw(module, (2,), 40, 6, 4)
    strided = [np.repeat(x, 2, axis=-1)[..., ::2] for x in map(np.asfortranarray, arguments)]
    for a, b in zip(compiled(module, strided), compiled(module, arguments), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * np.abs(b).max())


@EACH
def test_inputs_stay_as_they_were(module):
    arguments = draw(module, (2,), 40, 6, 4)
    before = [x.copy() for x in arguments]
    compiled(module, arguments)
    for a, b in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_second_derivatives(module):
    *arguments, state = draw(module, (), 5, 2, 2)
    mg.check_grads(lambda *x: mg.sum(mg.sin(module.fused(*x, state=state)[0])), arguments, order=2)


def test_powers_of_zero_and_one():
    """A base of 0 leaves the first response alone, one of 1 all of them; gradients too."""
    A, w = np.array([[0, 1, -1]], np.complex128), np.array([[2, 3, 5 + 1j]])
    K, saved = vandermonde.forward(w, A, length=6)
    np.testing.assert_array_equal(K, [[20, -4, 16, -4, 16, -4]])
    gw, gA = vandermonde.backward(saved, np.ones((1, 6)))
    np.testing.assert_array_equal(gw, [[2, 12, 0]])
    np.testing.assert_array_equal(gA, [[4, 90, 6 * (5 - 1j)]])


@EACH
def test_mixed_dtypes_are_named(module):
    *arguments, _ = draw(module, (), 3, 2, 2)
    arguments[-1] = arguments[-1].astype(np.float32)
    expected = "delta is float32, expected float64 as u is"
    with pytest.raises(TypeError, match=rf"^{module.__name__.rpartition('.')[2]}.fused: {expected}$"):
        module.fused(*arguments)


@EACH
def test_no_array_of_every_power_or_quotient(module):
    """Run D = 16, N = 32, L = 1024, of which an array would be 4 MiB."""
    _, Lambda, B, C, *_ = draw(module, (), 1, 16, 32)
    if module is s4d:
        work, inputs = s4d._kernel_of_responses, (C, np.exp(0.05 * Lambda))
    else:
        work, inputs = s4.compiled_cauchy, (np.stack([B, C], axis=1), 0.05 * Lambda)
    work(*inputs, length=1024)
    tracemalloc.start()
    work(*inputs, length=1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2**20

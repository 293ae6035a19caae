"""The compiled scan beyond the sizes of the proofs: slabs, boundary states, threads, memory layouts."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import minigrad as mg
from models.ssm import selective_scan
from tests.kernels.kit import num_threads


def draw(batch, T, D, N, dtype=np.float64):
    rng = np.random.default_rng(T + D)
    u, delta = rng.standard_normal((*batch, T, D)), rng.uniform(1e-3, 0.5, (*batch, T, D))
    A, skip = -rng.uniform(0.1, 8, (D, N)), rng.standard_normal(D)
    B, C = rng.standard_normal((2, *batch, T, N))
    return [x.astype(dtype) for x in (u, delta, A, B, C, skip, rng.standard_normal((*batch, D, N)))]


def results(form, arguments):
    """Return output, state, and the gradients of a weighted sum of both."""

    def loss(*arguments):
        *arguments, state = arguments
        y, state = form(*arguments, state=state)
        return mg.sum(mg.sin(y)) + mg.sum(state * state), (y, state)

    (_, outputs), gradients = mg.value_and_grad(loss, argnums=tuple(range(7)), has_aux=True)(*arguments)
    return [*map(np.asarray, outputs), *gradients]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("batch", "T", "D", "N"),
    [((), 1, 1, 1), ((2, 2), 31, 7, 3), ((3,), 32, 64, 16), ((), 33, 65, 2), ((1,), 100, 129, 5)],
)
def test_is_the_recurrence(batch, T, D, N, threads, dtype):
    with num_threads(threads):
        actual = results(selective_scan.fused, draw(batch, T, D, N, dtype))
    # the same numbers in float64: both round, float32 more
    expected = results(selective_scan.recurrent, draw(batch, T, D, N, dtype))
    unit = np.finfo(dtype).eps
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * unit * np.abs(b).max())


def test_arrays_that_are_not_contiguous():
    arguments = draw((2,), 40, 24, 4)
    strided = [np.asfortranarray(x) for x in arguments]
    strided[0] = np.repeat(arguments[0], 2, axis=-1)[..., ::2]
    for a, b in zip(results(selective_scan.fused, strided), results(selective_scan.fused, arguments), strict=True):
        np.testing.assert_array_equal(a, b)


def test_inputs_stay_as_they_were():
    arguments = draw((2,), 40, 64, 4)
    before = [x.copy() for x in arguments]
    results(selective_scan.fused, arguments)
    for a, b in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble])
def test_unsupported_dtypes_are_named(dtype):
    *arguments, _ = draw((), 3, 2, 2)
    arguments = [x.astype(dtype) for x in arguments]
    expected = f"^selective_scan.fused: u is {np.dtype(dtype)}, expected a NumPy array of float32 or float64$"
    with pytest.raises(TypeError, match=expected):
        selective_scan.fused(*arguments)


def test_mixed_dtypes_are_named():
    *arguments, _ = draw((), 3, 2, 2)
    arguments[3] = arguments[3].astype(np.float32)
    with pytest.raises(TypeError, match="^selective_scan.fused: B is float32, expected float64 as u is$"):
        selective_scan.fused(*arguments)


def test_importing_the_package_does_not_import_numba():
    code = "import sys, minigrad, models.language.lm; raise SystemExit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_is_that_of_inputs_and_outputs_and_a_little():
    """Run 2048 tokens of 512 channels with 16 states, all of which would be 64 MiB."""
    from models.kernels import selective_scan as kernel

    arguments = draw((1,), 2048, 512, 16, np.float32)

    def both():
        outputs, saved = kernel.forward(*arguments)
        return *outputs, *kernel.backward(saved, outputs)

    size = sum(x.nbytes for x in both())
    tracemalloc.start()
    both()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - size <= 10 * 2**20

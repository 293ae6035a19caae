"""Titans' Numba kernel beyond the sizes of the proofs: many batches, deep memories, threads, memory layouts."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import arrays_of, map_arrays
from models.kernels.gelu_tanh import gelu_tanh
from models.kernels.titans import _update
from models.memory import inner, titans
from models.memory.titans import State
from tests.kernels.kit import num_threads

K, V = 5, 3
WIDTHS = {"a matrix": [K, V], "two layers": [K, 18, V], "three layers": [K, 7, 4, V]}
WIDTHS |= {"a matrix in a norm": [K, K], "two layers in a norm": [K, 18, K]}
CASES = [("a matrix", (2,), 150, 7, 16), ("two layers", (3, 1), 150, 16, 16), ("three layers", (), 37, 40, 3)]
CASES += [("a matrix in a norm", (2,), 37, 7, 16), ("two layers in a norm", (3, 1), 150, 16, 16)]


def draw(name, batch, length, left, dtype=np.float64):
    """Return tokens, the memory, γ and β, and a state in the middle of a batch; every other layer has a bias."""
    rng = np.random.default_rng(length)
    q, k, v = (rng.standard_normal((*batch, length, n)) / n**0.5 for n in (K, K, WIDTHS[name][-1]))
    gates = rng.uniform(0, 0.01, (*batch, length)), *(-rng.exponential(x, (*batch, length)) for x in (0.5, 0.02))

    def model():
        sizes = list(zip(WIDTHS[name], WIDTHS[name][1:], strict=False))
        shapes = [((I, O),) if i % 2 else ((I, O), (1, O)) for i, (I, O) in enumerate(sizes)]
        return tuple(tuple((rng.standard_normal((*batch, *s)) / s[0] ** 0.5).astype(dtype) for s in x) for x in shapes)

    tokens = [x.astype(dtype) for x in (q, k, v, *gates)]
    models = [model() for _ in range(4)]
    norm = [(x + rng.standard_normal((1, K)) / 4).astype(dtype) for x in (1, 0)] if "norm" in name else []
    return [*tokens, models[0], *norm], models[1:], left


def results(form, arguments, models, left, batch_size):
    """Return output, state, and the gradients of a weighted sum of both."""

    def loss(arguments, models):
        norm = tuple(arguments[7:]) or None
        y, state = form(*arguments[:7], state=State(*models, left), batch_size=batch_size, norm=norm)
        outputs = [y, *arrays_of(state)]
        return sum(mg.sum(mg.sin(x)) for x in outputs), (*outputs, state.left)

    (_, outputs), gradients = mg.value_and_grad(loss, argnums=(0, 1), has_aux=True)(arguments, models)
    return [np.asarray(x) for x in outputs], arrays_of(gradients)


def compiled(case, dtype=np.float64, threads=2):
    name, batch, length, left, batch_size = case
    with num_threads(threads):
        return results(titans.fused, *draw(name, batch, length, left, dtype), batch_size)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_is_the_closed_form(case, threads, dtype):
    outputs, gradients = compiled(case, dtype, threads)
    arguments, models, left = draw(*case[:4], dtype)
    # the same numbers in float64: both round, float32 more; what reaches η is a difference of larger sums
    exact = [map_arrays(lambda x: x.astype(np.float64), x) for x in (arguments, models)]
    expected, slopes = results(titans.chunkwise, *exact, left, case[4])
    assert outputs.pop() == expected.pop()
    for a, b in zip([*outputs, *gradients], [*expected, *slopes], strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=8192 * np.finfo(dtype).eps * np.abs(b).max())


def test_arrays_that_are_not_contiguous():
    arguments, models, left = draw(*CASES[1][:4])
    strided = map_arrays(np.asfortranarray, arguments)
    strided[0] = np.repeat(arguments[0], 2, axis=-1)[..., ::2]
    for one, other in zip(*(results(titans.fused, x, models, left, 16) for x in (strided, arguments)), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * max(1, np.abs(b).max()))


def test_inputs_stay_as_they_were():
    arguments, models, left = draw(*CASES[1][:4])
    before = [x.copy() for x in arrays_of([arguments, models])]
    results(titans.fused, arguments, models, left, 16)
    for a, b in zip(arrays_of([arguments, models]), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gelu_and_its_derivatives(dtype):
    x = np.linspace(-9, 9, 1001).astype(dtype)
    exact = x.astype(np.float64)
    curve = mg.grad(lambda x: mg.sum(inner.gelu_grad(x)))(exact)
    for actual, expected in zip(gelu_tanh(x), (inner.gelu(exact), inner.gelu_grad(exact), curve), strict=True):
        # 1 − tanh² loses what x⁵ multiplies
        np.testing.assert_allclose(actual, expected, rtol=0, atol=16 * np.finfo(dtype).eps + 1e-13)
    far = np.array(gelu_tanh(np.array([-1e4, 1e4, np.nan], dtype)))
    np.testing.assert_allclose(far, [[0, 1e4, np.nan], [0, 1, np.nan], [0, 0, np.nan]], rtol=0, atol=1e-16)


def test_another_layout_of_the_memory_is_not_compiled_anew():
    """Check that strided and read-only arrays, which are types of their own to Numba, are compiled for once."""

    def read_only(x):
        x = x.copy()
        x.flags.writeable = False
        return x

    def run(memory):
        y, state = titans.fused(*arguments, state=State(*memory, left), batch_size=CASES[1][4])
        return [y, *arrays_of(state)]

    arguments, memory, left = draw(*CASES[1][:4])
    expected, versions = run(memory), len(_update.signatures)
    for other in (read_only, np.asfortranarray, lambda x: np.repeat(x, 2, axis=-1)[..., ::2]):
        for x, y in zip(run(map_arrays(other, memory)), expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
    assert len(_update.signatures) == versions

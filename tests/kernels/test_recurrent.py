"""The compiled recurrent networks beyond the sizes of the proofs: tiles, threads, layouts, saturated gates."""

import math

import numpy as np
import pytest

import minigrad as mg
from models.recurrent import lstm, rnn
from tests.kernels.kit import num_threads

# batch, T, D and H: a step takes four sequences at once, and pairs of vectors of 8 to 32 units
SHAPES = [((), 1, 1, 1), ((2, 3), 33, 5, 7), ((3,), 8, 16, 32), ((), 65, 4, 17), ((1, 9), 5, 3, 33), ((4,), 7, 2, 16)]


def draw_rnn(rng, batch, T, D, H):
    return rng.standard_normal((*batch, T, H)), rng.standard_normal((H, H)) / np.sqrt(H)


def draw_lstm(rng, batch, T, D, H):
    x, W, U = (rng.standard_normal(shape) for shape in ((*batch, T, D), (4 * H, D), (4 * H, H)))
    return x, W / np.sqrt(D), U / np.sqrt(H), rng.standard_normal(4 * H)


NETWORKS = {"rnn": (rnn, draw_rnn, 1), "lstm": (lstm, draw_lstm, 2)}
EACH = pytest.mark.parametrize("name", NETWORKS)


def draw(name, batch, T, D, H, dtype=np.float64):
    rng = np.random.default_rng(T + H)
    tokens = NETWORKS[name][1](rng, batch, T, D, H)
    states = rng.standard_normal((NETWORKS[name][2], *batch, H))
    return [x.astype(dtype) for x in (*tokens, *states)]


def results(name, form, arguments):
    """Return the output, the state and the gradients of a sum that weighs all of both."""
    states = NETWORKS[name][2]

    def loss(*arguments):
        tokens, state = arguments[:-states], arguments[-states:]
        y, state = getattr(NETWORKS[name][0], form)(*tokens, state=state if states > 1 else state[0])
        outputs = (y, *state) if states > 1 else (y, state)
        return sum(mg.sum(mg.sin(x)) for x in outputs), outputs

    (_, outputs), gradients = mg.value_and_grad(loss, argnums=tuple(range(len(arguments))), has_aux=True)(*arguments)
    return [*map(np.asarray, outputs), *gradients]


def compiled(name, arguments, threads=2):
    with num_threads(threads):
        return results(name, "fused", arguments)


@EACH
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_recurrence(name, shape, threads, dtype):
    actual = compiled(name, draw(name, *shape, dtype), threads)
    # the same numbers in float64: both round, float32 more
    exact = [x.astype(np.float64) for x in draw(name, *shape, dtype)]
    unit = np.finfo(dtype).eps
    for a, b in zip(actual, results(name, "recurrent", exact), strict=True):
        assert a.dtype == dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * unit * np.abs(b).max())


@EACH
def test_threads_do_not_change_a_digit(name):
    arguments = draw(name, (7,), 20, 6, 40, np.float32)
    for a, b in zip(compiled(name, arguments, 1), compiled(name, arguments, 3), strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_arrays_that_are_not_contiguous(name):
    arguments = draw(name, (2,), 12, 5, 19)
    strided = [np.asfortranarray(x) for x in arguments]
    strided[0] = np.repeat(arguments[0], 2, axis=-1)[..., ::2]
    for a, b in zip(compiled(name, strided), compiled(name, arguments), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14 * np.abs(b).max())  # BLAS sums in another order


@EACH
def test_inputs_stay_as_they_were(name):
    arguments = draw(name, (2,), 9, 16, 16)
    before = [x.copy() for x in arguments]
    compiled(name, arguments)
    for a, b in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_gradients_can_be_pulled_back_twice(name):
    arguments = draw(name, (2,), 6, 3, 5)
    state = arguments[2] if name == "rnn" else tuple(arguments[4:])
    tokens = arguments[: 2 if name == "rnn" else 4]
    y, pull = mg.vjp(lambda *tokens: NETWORKS[name][0].fused(*tokens, state=state)[0], *tokens)
    for a, b in zip(pull(np.ones_like(y)), pull(np.ones_like(y)), strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_gradients_of_gradients(name):
    arguments = draw(name, (2,), 4, 3, 5)[: 2 if name == "rnn" else 4]

    def penalty(form):
        def loss(*arguments):
            return mg.sum(getattr(NETWORKS[name][0], form)(*arguments)[0] ** 2)

        return mg.grad(lambda *arguments: mg.sum(mg.grad(loss, argnums=1)(*arguments) ** 2), argnums=1)(*arguments)

    np.testing.assert_allclose(penalty("fused"), penalty("recurrent"), rtol=1e-10)


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 17.0), (np.float64, 40.0)])
def test_a_saturated_gate_keeps_its_gradient(dtype, size):
    """σ(a) rounds to 1 and σ′(a) = e⁻ᵃ does not round to 0, nor does tanh′(a) = 4 e⁻²ᵃ."""
    W, U, b = np.zeros((4, 1), dtype), np.zeros((4, 1), dtype), np.array([0, size, 0, 0], dtype)
    state = np.zeros((1,), dtype), np.ones((1,), dtype)
    slope = mg.grad(lambda b: mg.sum(lstm.fused(np.zeros((1, 1), dtype), W, U, b, state=state)[1][1]))(b)
    np.testing.assert_allclose(slope[1], math.exp(-size), rtol=1e-5)
    steep = mg.grad(lambda x: mg.sum(rnn.fused(x, np.zeros((1, 1), dtype))[0]))(np.full((1, 1), size / 2, dtype))
    np.testing.assert_allclose(steep, [[4 * math.exp(-size)]], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_is_accurate_everywhere(dtype):
    """Compare tanh x, one token of the network from a state of 0, with long doubles."""
    x = np.concatenate([np.geomspace(1e-30, 100, 4001), np.linspace(0.5, 0.75, 4001)]).astype(dtype)
    x = np.concatenate([x, -x, np.array([0, np.inf, -np.inf], dtype)])[:, None, None]
    y, _ = rnn.fused(x, np.zeros((1, 1), dtype))
    np.testing.assert_allclose(y, np.tanh(x.astype(np.longdouble)).astype(dtype), rtol=4 * np.finfo(dtype).eps)


@EACH
def test_numbers_that_differ(name):
    arguments = draw(name, (), 3, 2, 2)[: 2 if name == "rnn" else 4]
    arguments[1] = arguments[1].astype(np.float32)
    with pytest.raises(TypeError, match=f"^{name}.fused: W is float32, expected float64 as x is$"):
        NETWORKS[name][0].fused(*arguments)


@EACH
def test_a_state_does_not_keep_the_states_of_all_tokens(name):
    arguments = draw(name, (), 50, 16, 16)[: 2 if name == "rnn" else 4]
    for x in mg.pytree.arrays_of(NETWORKS[name][0].fused(*arguments)[1]):
        assert (x if x.base is None else x.base).size == 16

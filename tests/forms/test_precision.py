"""y and state have one precision, whatever that of the arguments: mixed, of two bytes, or of NumPy's scalars."""

import ml_dtypes
import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import arrays_of
from models.attention import softmax
from models.memory import delta_rule, hopfield, linear_attention
from models.ssm import lssl
from tests.forms.drawing import CHUNK, COMPILED, FORMS, PLAIN, gradients, results, tokens

SINGLE, DOUBLE = {"float32", "complex64"}, {"float64", "complex128"}
HALVES = [np.float16, ml_dtypes.bfloat16]


def names(arrays):
    return {x.dtype.name for x in arrays}


def widened(x):
    return x.astype(np.result_type(x, np.float64))


@pytest.mark.parametrize(("dtype", "precision"), [(np.float32, SINGLE), (np.float64, DOUBLE)], ids=["32", "64"])
@pytest.mark.parametrize("name", FORMS)
def test_no_constant_changes_the_precision(name, dtype, precision):
    form = FORMS[name]
    arguments = tokens(form, 5, dtype=dtype)
    assert names(results(form, arguments)) <= precision
    assert names(results(form, arguments, form(arguments, None, CHUNK)[1])) <= precision
    for argument, gradient in gradients(form, arguments).items():
        assert gradient.dtype == arguments[argument].dtype


@pytest.mark.parametrize("name", PLAIN)
def test_one_wider_argument_makes_all_results_wider(name):
    form = FORMS[name]
    arguments = tokens(form, 5, dtype=np.float32)
    for argument, x in arguments.items():
        mixed = {**arguments, argument: widened(x)}
        actual, expected = results(form, mixed), results(form, {key: widened(x) for key, x in arguments.items()})
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
        for key, gradient in gradients(form, mixed).items():
            assert gradient.dtype == mixed[key].dtype


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_form_names_the_argument_of_another_precision(name):
    form = FORMS[name]
    arguments = tokens(form, 5, dtype=np.float32)
    for argument, x in list(arguments.items())[1:]:
        with pytest.raises(TypeError, match=f"{argument.partition('.')[0]} is .*, expected float32 as "):
            form({**arguments, argument: widened(x)}, None, CHUNK)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", FORMS)
def test_two_bytes_are_computed_in_four_and_rounded_once(name, dtype):
    form = FORMS[name]
    short = tokens(form, 5, dtype=dtype)
    if form.compiled:
        with pytest.raises(TypeError, match=f"is {np.dtype(dtype)}, expected a NumPy array of float32 or float64"):
            form(short, None, CHUNK)
        return
    single = {key: x if x.dtype.kind == "c" else x.astype(np.float32) for key, x in short.items()}
    wide = names(short.values()) != {np.dtype(dtype).name}  # there are no complex numbers of two-byte parts
    for result, exact in zip(results(form, short), results(form, single), strict=True):
        np.testing.assert_array_equal(result, exact if wide else exact.astype(dtype), strict=True)


def test_long_sums_of_float16_keep_their_digits():
    ones = np.ones((1, 4000, 1), np.float16)
    for form in (linear_attention.recurrent, linear_attention.parallel, linear_attention.chunkwise):
        y, S = form(ones, ones, ones)
        assert y.dtype == S.dtype == np.float16
        assert (S == 4000).all()  # in float16 a sum of ones stops at 2048
        np.testing.assert_array_equal(y[0, :, 0], np.arange(1, 4001).astype(np.float16))
    big = np.full((1, 3, 64), 100, np.float16)  # whose products with each other are not finite in float16
    np.testing.assert_array_equal(softmax.quadratic(big, big, big)[0], big)


def test_gradients_of_float16_are_those_of_float32_rounded():
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 9, 4)).astype(np.float16)

    def loss(q, k, v):
        return mg.sum(linear_attention.chunkwise(q, k, v, chunk_size=4)[0])

    actual = mg.grad(loss, argnums=(0, 1, 2))(q, k, v)
    expected = mg.grad(loss, argnums=(0, 1, 2))(*(x.astype(np.float32) for x in (q, k, v)))
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == np.float16
        np.testing.assert_allclose(a, b, rtol=2**-10, atol=2**-10)


def test_scalars_of_numpy_as_options_promote_nothing():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 5, 4)).astype(np.float32)
    for form in (softmax.quadratic, softmax.fused):
        y, (keys, values) = form(q, k, v, scale=np.float64(0.5))
        assert names([y, keys, values]) == {"float32"}
        np.testing.assert_array_equal(y, form(q, k, v, scale=0.5)[0])
    assert hopfield.retrieve(q, k, beta=np.float64(2)).dtype == np.float32
    assert hopfield.energy(q, k, beta=np.float64(2)).dtype == np.float32
    arguments = tokens(FORMS["lssl.recurrent"], 5, dtype=np.float32)
    assert names(arrays_of(lssl.recurrent(**arguments, alpha=np.float64(0.75)))) == {"float32"}


def test_a_wider_state_is_an_argument_like_the_others():
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 5, 4)).astype(np.float32)
    beta, S = np.full((2, 5), 0.5, np.float32), np.ones((2, 4, 4))
    y, after = delta_rule.recurrent(q, k, v, beta, state=S)
    assert y.dtype == after.dtype == np.float64
    with pytest.raises(TypeError) as excinfo:
        delta_rule.fused(q, k, v, beta, state=S)
    assert str(excinfo.value) == "delta_rule.fused: state is float64, expected float32 as q is"

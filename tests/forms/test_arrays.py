"""Every form takes arrays as NumPy may hand them out: of no sequence, foreign byte order, any strides, read-only."""

import inspect

import numpy as np
import pytest

from minigrad.pytree import arrays_of, map_arrays
from models.attention import softmax
from models.memory import hopfield, linear_attention
from tests.forms.drawing import CHUNK, FORMS, LAYOUTS, changed, gradients, results, tokens


@pytest.mark.parametrize("name", FORMS)
def test_no_sequence_gives_no_outputs_and_gradients_of_zero(name):
    form = FORMS[name]
    none, one = tokens(form, 5, batch=0), tokens(form, 5, batch=1)
    empty, single = form(none, None, CHUNK), form(one, None, CHUNK)
    assert [x.shape for x in arrays_of(empty)] == [(0, *x.shape[1:]) for x in arrays_of(single)]

    after, expected = form(none, empty[1], CHUNK), form(one, single[1], CHUNK)
    assert [x.shape for x in arrays_of(after)] == [(0, *x.shape[1:]) for x in arrays_of(expected)]
    for argument, gradient in gradients(form, none).items():
        np.testing.assert_array_equal(gradient, np.zeros_like(none[argument]), strict=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FORMS)
def test_the_layout_of_arrays_changes_nothing(name, layout):
    form, change = FORMS[name], LAYOUTS[layout]
    plain = tokens(form, 5)
    laid_out, (_, state) = changed(change, plain), form(plain, None, CHUNK)
    pairs = [
        (results(form, laid_out), results(form, plain)),
        (results(form, laid_out, map_arrays(change, state)), results(form, plain, state)),
        (gradients(form, laid_out).values(), gradients(form, plain).values()),
    ]
    for actual, expected in pairs:
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
            assert a.dtype.newbyteorder("=") == b.dtype


COUNTS = [
    (name, option)
    for name, form in FORMS.items()
    for option, parameter in inspect.signature(form.function).parameters.items()
    if parameter.annotation is int
]


@pytest.mark.parametrize("integer", [np.int64, np.int8, np.uint16])
@pytest.mark.parametrize(("name", "option"), COUNTS)
def test_counts_may_be_integers_of_numpy(name, option, integer):
    form, arguments = FORMS[name], tokens(FORMS[name], 5)
    actual, expected = (form.function(**arguments, **{option: count}) for count in (integer(2), 2))
    for a, b in zip(arrays_of(actual), arrays_of(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [name for name in FORMS if name.startswith(("ttt.", "titans."))])
def test_the_tokens_left_of_a_batch_may_be_an_integer_of_numpy(name):
    form, arguments = FORMS[name], tokens(FORMS[name], 4)
    (*models, left) = form(arguments, None, CHUNK)[1]
    for a, b in zip(
        results(form, arguments, (*models, np.int64(left))), results(form, arguments, (*models, left)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_retrieval_takes_integers_of_numpy_and_no_queries():
    rng = np.random.default_rng(0)
    query, patterns = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 4))
    expected = hopfield.retrieve(query, patterns, beta=2.0, steps=2)
    np.testing.assert_array_equal(hopfield.retrieve(query, patterns, beta=2.0, steps=np.int64(2)), expected)
    assert hopfield.retrieve(query[:0], patterns[:0], beta=2.0).shape == (0, 3, 4)


@pytest.mark.parametrize("name", FORMS)
def test_no_tokens_give_no_outputs_and_leave_the_state(name):
    form = FORMS[name]
    arguments = tokens(form, 4)
    none = form.slice_time(arguments, 0, 0)
    y, state = form(none, None, CHUNK)
    expected, later = form(arguments, None, CHUNK)
    assert y.shape == (*expected.shape[:-2], 0, expected.shape[-1]) and y.dtype == expected.dtype
    assert state is None
    again, same = form(none, later, CHUNK)
    assert again.shape == y.shape
    for array, before in zip(arrays_of(same), arrays_of(later), strict=True):
        np.testing.assert_array_equal(array, before)
    for argument, gradient in gradients(form, none).items():
        np.testing.assert_array_equal(gradient, np.zeros_like(none[argument]), strict=True)


def test_a_cache_of_no_keys_is_an_empty_one():
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 5, 4))
    for form in (softmax.quadratic, softmax.fused):
        y, (keys, _) = form(q, k, v, causal=True, state=(k[:, :0], v[:, :0]))
        np.testing.assert_allclose(y, form(q, k, v, causal=True)[0], rtol=1e-12)
        assert keys.shape == k.shape


def test_an_axis_of_features_may_not_be_empty():
    x = np.zeros((2, 4, 0))
    with pytest.raises(ValueError) as excinfo:
        linear_attention.fused(x, x, x)
    expected = "linear_attention.fused: q has 0 on axis K, expected at least 1 (shape (2, 4, 0), expected *batch T K)"
    assert str(excinfo.value) == expected

"""NaN and infinities stay where they are: the past, other sequences and what gates shut out do not see them."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import arrays_of
from models.attention import softmax
from tests.forms.drawing import CHUNK, FORMS, gradients, tokens

T = 7
warned = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
BAD = {  # what may stand in an argument without being refused: anything, unless it is said here
    "delta": [np.inf],
    "eta": [np.inf],
    "theta": [np.inf],
    "log_eta": [-np.inf],
    "log_decay": [-np.inf],
}

PRODUCT = "weights and values are multiplied as matrices, in which a weight of 0 times ∞ is NaN"
SYSTEM = "the triangular system of a chunk is solved by products of whole matrices"
SPECTRUM = "a spectrum is a sum over all tokens"
MIXED = {  # where a number that is not finite does reach earlier tokens, all of them or those of its chunk, and why
    ("softmax.quadratic", "v"): PRODUCT,
    ("softmax.lazy", "v"): PRODUCT,
    ("softmax.fused", "v"): PRODUCT,
    ("linear_attention.parallel", "v"): PRODUCT,
    ("linear_attention.chunkwise", "v"): PRODUCT,
    ("gated_linear_attention.parallel", "v"): PRODUCT,
    ("gated_linear_attention.chunkwise", "v"): PRODUCT,
    ("ssd.quadratic", "x"): PRODUCT,
    ("ssd.quadratic", "delta"): PRODUCT,
    ("ssd.chunkwise", "x"): PRODUCT,
    ("ssd.chunkwise", "delta"): PRODUCT,
    ("rwkv4.parallel", "v"): PRODUCT,
    ("rwkv4.chunkwise", "v"): PRODUCT,
    ("lti.direct", "u"): PRODUCT,
    ("delta_rule.chunkwise", "k"): SYSTEM,
    ("delta_rule.chunkwise", "v"): SYSTEM,
    ("delta_rule.chunkwise", "beta"): SYSTEM,
    ("gated_delta_rule.chunkwise", "k"): SYSTEM,
    ("gated_delta_rule.chunkwise", "v"): SYSTEM,
    ("gated_delta_rule.chunkwise", "beta"): SYSTEM,
    ("rwkv7.chunkwise", "k"): SYSTEM,
    ("rwkv7.chunkwise", "v"): SYSTEM,
    ("rwkv7.chunkwise", "a"): SYSTEM,
    ("rwkv7.chunkwise", "b"): SYSTEM,
    ("lti.convolution", "u"): SPECTRUM,
    ("lssl.convolution", "u"): SPECTRUM,
    ("s4.convolution", "u"): SPECTRUM,
    ("s4.fused", "u"): SPECTRUM,
    ("s4d.convolution", "u"): SPECTRUM,
    ("s4d.fused", "u"): SPECTRUM,
}
REFUSED = ("ttt", "titans")  # an inner loss that is not finite is an error that names the token


def mixed(form, argument):
    return (".".join(form.name.split(".")[:2]), argument) in MIXED


def spoilt(form, arguments, argument, bad, t):
    """Return the same tokens, but for one argument of the second sequence at token t."""
    x = arguments[argument].copy()
    x[(1, *[slice(None)] * (x.ndim + form.time(argument) - 1), t)] = bad
    return {**arguments, argument: x}


def outputs(form, arguments):
    return np.asarray(form(arguments, None, CHUNK)[0])


CASES = [
    pytest.param(form, argument, bad, id=f"{name}, {argument} {bad}")
    for name, form in FORMS.items()
    for argument in form.axes
    if form.time(argument) is not None
    for bad in BAD.get(argument, [np.nan, np.inf, -np.inf])
]


@warned
@pytest.mark.parametrize(("form", "argument", "bad"), CASES)
def test_what_is_not_finite_reaches_neither_the_past_nor_other_sequences(form, argument, bad):
    arguments = tokens(form, T)
    plain = outputs(form, arguments)
    chunks = form.name.split(".")[1] == "chunkwise"
    for t in range(T):
        try:
            y = outputs(form, spoilt(form, arguments, argument, bad, t))
        except FloatingPointError:
            assert form.name.startswith(REFUSED)
            continue
        before = t if not mixed(form, argument) else t // CHUNK * CHUNK if chunks else 0
        np.testing.assert_allclose(y[0], plain[0], rtol=1e-12)
        np.testing.assert_allclose(y[1, :before], plain[1, :before], rtol=1e-12)


@warned
@pytest.mark.parametrize(("name", "argument"), MIXED, ids=str)
def test_the_list_of_what_mixes_is_as_short_as_it_can_be(name, argument):
    (form, *_) = (form for form in FORMS.values() if form.name.startswith(name))
    arguments = tokens(form, T)
    y = outputs(form, spoilt(form, arguments, argument, BAD.get(argument, [np.nan])[0], 1))
    assert np.isnan(y[1, 0]).any()


GATED = [(name, argument) for name, form in FORMS.items() for argument in form.axes if argument.startswith("log_")]
STEPPED = [name for name, form in FORMS.items() if "delta" in form.axes and form.time("delta") is not None]


def check_finite(form, arguments):
    for x in (*arrays_of(form(arguments, None, CHUNK)), *gradients(form, arguments).values()):
        assert np.isfinite(x).all()


@pytest.mark.parametrize("closed", [[0], [3, 4], range(T)], ids=str)
@pytest.mark.parametrize(("name", "argument"), GATED)
def test_gates_that_are_shut_leave_values_and_gradients_finite(name, argument, closed):
    arguments = tokens(FORMS[name], T)
    arguments[argument][:, list(closed)] = -np.inf
    check_finite(FORMS[name], arguments)


@pytest.mark.parametrize("name", STEPPED)
def test_steps_that_keep_all_or_nothing_leave_values_and_gradients_finite(name):
    arguments = tokens(FORMS[name], T)
    arguments["delta"][:, 2:4], arguments["delta"][:, 5] = 0, 1e4
    check_finite(FORMS[name], arguments)


@warned
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [5, 700])  # one tile, and several
@pytest.mark.parametrize("argument", ["q", "k"])
def test_compiled_attention_keeps_nan_where_every_score_is_nan(argument, length, dtype):
    rng = np.random.default_rng(0)
    for t in (0, 3, length - 1):
        arguments = dict(zip("qkv", rng.standard_normal((3, 2, length, 3)).astype(dtype), strict=True))
        arguments[argument][1, t] = np.nan
        y = softmax.fused(**arguments)[0]
        blind = [t] if argument == "q" else range(t, length)
        assert np.isnan(y[1, list(blind)]).all()
        assert not np.isnan(np.delete(y[1], list(blind), axis=0)).any()
        assert not np.isnan(y[0]).any()
        gradient = mg.grad(lambda q, arguments=arguments: mg.sum(softmax.fused(**{**arguments, "q": q})[0]))(
            arguments["q"]
        )
        assert np.isnan(gradient[1, t]).all()
        assert not np.isnan(gradient[0]).any()


@warned
@pytest.mark.parametrize("form", [softmax.quadratic, softmax.fused])
def test_keys_that_a_mask_hides_may_hold_anything(form):
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 6, 4))
    mask = np.ones((6, 6), dtype=bool)
    mask[:, [1, 4]] = False
    hidden = k.copy()
    hidden[:, [1, 4]] = np.array([np.nan, np.inf])[:, None]
    np.testing.assert_array_equal(form(q, hidden, v, mask=mask)[0], form(q, k, v, mask=mask)[0])

"""The scan and both convolutions below and above the size from which they are compiled, in any memory layout."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.compiled import LARGE
from models import linear_systems
from tests.forms.drawing import LAYOUTS

SMALL_AND_LARGE = [2, LARGE // 16]  # channels of 33 tokens


def scan_by_hand(a, x):
    h = np.empty_like(x)
    for t in range(x.shape[-2]):
        h[..., t, :] = x[..., t, :] if t == 0 else a[..., t, :] * h[..., t - 1, :] + x[..., t, :]
    return h


def shifted_by_hand(x, w):
    y = np.zeros_like(x)
    for t in range(x.shape[-2]):
        for j in range(min(w.shape[-1], t + 1)):
            y[..., t, :] += w[:, j] * x[..., t - j, :]
    return y


def convolved_by_hand(u, kernel):
    return shifted_by_hand(u, np.broadcast_to(kernel, (u.shape[-1], kernel.shape[-1])))


def draw(name, channels, batch=(2,), tokens=33):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*batch, tokens, channels))
    others = {
        "scan": lambda: rng.uniform(-1, 1, x.shape),
        "causal_conv1d": lambda: rng.standard_normal((channels, 4)),
        "causal_convolution": lambda: rng.standard_normal((channels, tokens)),
    }
    return (others[name](), x) if name == "scan" else (x, others[name]())


FUNCTIONS = {
    "scan": (mg.scan, scan_by_hand),
    "causal_conv1d": (mg.causal_conv1d, shifted_by_hand),
    "causal_convolution": (linear_systems.causal_convolution, convolved_by_hand),
}


def gradients(function, arrays):
    return mg.grad(lambda *arrays: mg.sum(function(*arrays) ** 2), argnums=(0, 1))(*arrays)


@pytest.mark.parametrize("channels", SMALL_AND_LARGE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_the_definition(name, channels):
    function, by_hand = FUNCTIONS[name]
    arrays = draw(name, channels)
    np.testing.assert_allclose(function(*arrays), by_hand(*arrays), rtol=1e-10, atol=1e-10)
    for dtype in (np.float32, np.float64):
        assert function(*(x.astype(dtype) for x in arrays)).dtype == dtype


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", SMALL_AND_LARGE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_layout_of_arrays_changes_nothing(name, channels, layout):
    function, _ = FUNCTIONS[name]
    arrays = draw(name, channels)
    laid_out = [LAYOUTS[layout](x) for x in arrays]
    np.testing.assert_allclose(function(*laid_out), function(*arrays), rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients(function, laid_out), gradients(function, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", SMALL_AND_LARGE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_sequence_gives_none_and_gradients_of_zero(name, channels):
    function, _ = FUNCTIONS[name]
    arrays = draw(name, channels, batch=(0,))
    assert function(*arrays).shape == (0, 33, channels)
    for gradient, x in zip(gradients(function, arrays), arrays, strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(x), strict=True)


@pytest.mark.parametrize(("tokens", "channels"), [(0, 3), (5, 0)])
def test_a_short_convolution_of_no_tokens_or_no_channels_is_empty(tokens, channels):
    arrays = draw("causal_conv1d", channels, tokens=tokens)
    assert mg.causal_conv1d(*arrays).shape == (2, tokens, channels)
    for gradient, x in zip(gradients(mg.causal_conv1d, arrays), arrays, strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(x), strict=True)


@pytest.mark.parametrize("channels", SMALL_AND_LARGE)
@pytest.mark.parametrize("name", ["scan", "causal_conv1d"])
def test_what_is_not_finite_reaches_neither_the_past_nor_other_sequences(name, channels):
    function, _ = FUNCTIONS[name]
    arrays = draw(name, channels)
    plain, x = function(*arrays), arrays[name == "scan"].copy()
    for bad in (np.nan, np.inf, -np.inf):
        x[1, 7] = bad
        y = function(*((arrays[0], x) if name == "scan" else (x, arrays[1])))
        assert not np.isfinite(y[1, 7]).any()
        np.testing.assert_array_equal(y[0], plain[0])
        np.testing.assert_array_equal(y[1, :7], plain[1, :7])


@pytest.mark.parametrize(
    ("w", "before", "message"),
    [
        ((3, 0), None, "w has shape (3, 0), expected at least one weight a channel"),
        ((2, 4), None, "w has 2 channels, expected 3 as in x"),
        ((3, 4), (2, 2, 3), "before has shape (2, 2, 3), expected (2, 3, 3)"),
        ((3, 4), (3, 3), "before has shape (3, 3), expected (2, 3, 3)"),
    ],
)
def test_errors_of_causal_conv1d_are_one_line(w, before, message):
    with pytest.raises(ValueError) as caught:
        mg.causal_conv1d(np.ones((2, 5, 3)), np.ones(w), before=None if before is None else np.ones(before))
    assert str(caught.value) == f"causal_conv1d: {message}"

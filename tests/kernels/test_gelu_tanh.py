"""The GELU in its tanh form, its slope and its curvature, against mpmath over the whole range."""

import mpmath as mp
import numpy as np
import pytest

from models.kernels.gelu_tanh import gelu_tanh

BOTH = pytest.mark.parametrize("dtype", [np.float64, np.float32])
MOST = 8  # units in the last place


def exact(x):
    """Return gelu, gelu′ and gelu″ of a number, and the sums of the magnitudes of their terms."""
    root, cubic = mp.sqrt(2 / mp.pi), mp.mpf("0.044715")
    p = root * (x + cubic * x**3)
    s, rate = 1 / (1 + mp.exp(-2 * p)), 2 * root * (1 + 3 * cubic * x * x)
    spread, turn, bend = s / (1 + mp.exp(2 * p)), 12 * root * cubic * x, rate * rate * mp.tanh(p)
    values = x * s, s + x * rate * spread, spread * (2 * rate + x * (turn - bend))
    sizes = abs(values[0]), s + abs(x) * rate * spread, spread * (2 * rate + abs(x) * (abs(turn) + abs(bend)))
    return values, sizes


@BOTH
def test_every_digit(dtype):
    limits = np.finfo(dtype)
    x = np.concatenate([np.linspace(-26, 26, 417), [1e-30, -1e-30, 150, -150]]).astype(dtype)
    results = gelu_tanh(x)
    with mp.workprec(300):
        for i, number in enumerate(x):
            for actual, value, size in zip((y[i] for y in results), *exact(mp.mpf(float(number))), strict=True):
                power = max(int(mp.floor(mp.log(size, 2))), limits.minexp) if size else limits.minexp
                assert abs(mp.mpf(float(actual)) - value) <= MOST * mp.mpf(2) ** (power - limits.nmant)


@BOTH
def test_the_ends_of_the_range(dtype):
    value, slope, curve = gelu_tanh(np.array([-1e30, 1e30, np.inf, np.nan, 0.0], dtype))
    np.testing.assert_array_equal(value, np.array([0, 1e30, np.inf, np.nan, 0], dtype))
    np.testing.assert_array_equal(slope, np.array([0, 1, 1, np.nan, 0.5], dtype))
    np.testing.assert_array_equal(curve[:4], np.array([0, 0, 0, np.nan], dtype))

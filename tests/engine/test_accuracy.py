"""Elementwise functions and their derivatives against mpmath, over the whole range of both float types.

Errors are counted in units in the last place of the exact result, or, where a derivative is a sum that passes through
zero, of the sum of its terms' magnitudes. Every function runs on a small array and on one that the compiled forms take.
"""

from typing import NamedTuple

import mpmath as mp
import numpy as np
import pytest

import minigrad as mg
from minigrad import nn

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
MOST = 8  # units in the last place
SIZES = [
    0.0,
    1e-300,
    1e-40,
    1e-20,
    1e-5,
    0.02,
    0.3,
    0.7,
    1.0,
    1.3,
    2.0,
    2.6,
    3.3,
    4.9,
    7.4,
    9.2,
    12.1,
    14.06,
    17.3,
    20.0,
    24.0,
    31.7,
    37.73,
    38.4,
    60.0,
    80.0,
    88.5,
    95.0,
    103.5,
    250.0,
    700.0,
    709.5,
    744.0,
    1e5,
    1e18,
    1e30,
]


def sigma(x):
    return 1 / (1 + mp.exp(-x))


def phi(x):
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


def near(x):
    """Draw x within ±100, beyond which mpmath does not compute erfc and float64 has none."""
    return max(min(x, mp.mpf(100)), mp.mpf(-100))


def normal(x):
    return mp.erfc(-near(x) / mp.sqrt(2)) / 2 if x > -100 else mp.mpf(0)


def sech_squared(x):
    return 4 * sigma(2 * x) * sigma(-2 * x)


class Row(NamedTuple):
    """The value and the derivative of a function, where it is asked, and what the derivative's error is measured by."""

    value: object
    slope: object
    inside: object = lambda x: True
    scale: object = None


def inside_one(x):
    return abs(x) < 1


ROWS = {
    "sigmoid": Row(sigma, lambda x: sigma(x) * sigma(-x)),
    "tanh": Row(mp.tanh, sech_squared),
    "softplus": Row(lambda x: mp.log1p(mp.exp(x)), sigma),
    "log_sigmoid": Row(lambda x: -mp.log1p(mp.exp(-x)), lambda x: sigma(-x)),
    "silu": Row(
        lambda x: x * sigma(x),
        lambda x: sigma(x) + x * sigma(x) * sigma(-x),
        scale=lambda x: sigma(x) + abs(x) * sigma(x) * sigma(-x),
    ),
    "gelu": Row(
        lambda x: x * normal(x),
        lambda x: normal(x) + near(x) * phi(near(x)),
        scale=lambda x: normal(x) + abs(near(x)) * phi(near(x)),
    ),
    "erf": Row(lambda x: mp.erf(near(x)), lambda x: 2 * mp.exp(-(near(x) ** 2)) / mp.sqrt(mp.pi)),
    "exp": Row(mp.exp, mp.exp),
    "expm1": Row(mp.expm1, mp.exp),
    "sin": Row(mp.sin, mp.cos, lambda x: abs(x) < 1e6),
    "cos": Row(mp.cos, lambda x: -mp.sin(x), lambda x: abs(x) < 1e6),
    "tan": Row(mp.tan, lambda x: 1 + mp.tan(x) ** 2, lambda x: abs(x) < 1e6),
    "sinh": Row(mp.sinh, mp.cosh),
    "cosh": Row(mp.cosh, mp.sinh),
    "atan": Row(mp.atan, lambda x: 1 / (1 + x * x)),
    "asinh": Row(mp.asinh, lambda x: 1 / mp.sqrt(1 + x * x)),
    "asin": Row(mp.asin, lambda x: 1 / mp.sqrt(1 - x * x), inside_one),
    "acos": Row(mp.acos, lambda x: -1 / mp.sqrt(1 - x * x), inside_one),
    "atanh": Row(mp.atanh, lambda x: 1 / (1 - x * x), inside_one),
    "acosh": Row(mp.acosh, lambda x: 1 / (mp.sqrt(x - 1) * mp.sqrt(x + 1)), lambda x: x > 1),
    "log": Row(mp.log, lambda x: 1 / x, lambda x: x > 0),
    "log1p": Row(mp.log1p, lambda x: 1 / (1 + x), lambda x: x > -1),
    "log2": Row(lambda x: mp.log(x) / mp.log(2), lambda x: 1 / (x * mp.log(2)), lambda x: x > 0),
    "log10": Row(mp.log10, lambda x: 1 / (x * mp.log(10)), lambda x: x > 0),
    "sqrt": Row(mp.sqrt, lambda x: 1 / (2 * mp.sqrt(x)), lambda x: x > 0),
    "square": Row(lambda x: x * x, lambda x: 2 * x),
    "reciprocal": Row(lambda x: 1 / x, lambda x: -1 / (x * x), lambda x: x != 0),
    "relu": Row(lambda x: max(x, mp.mpf(0)), lambda x: mp.mpf(int(x > 0))),
    "abs": Row(abs, mp.sign),
}


def points(dtype):
    limits = np.finfo(dtype)
    random = np.random.default_rng(0)
    sizes = [*SIZES, float(limits.smallest_subnormal), float(limits.tiny), float(limits.max)]
    close = 1 - 2.0 ** -np.arange(1, limits.nmant + 1)
    positive = np.concatenate([sizes, close, random.uniform(0, 4, 40), random.uniform(4, 100, 20)]).astype(dtype)
    return np.concatenate([positive, -positive])


def ulps(result, exact, dtype, scale=None):
    """Return the error of a float in units in the last place of the exact number, or of a scale."""
    limits = np.finfo(dtype)
    overflow = mp.mpf(2) ** limits.maxexp * (1 - mp.mpf(2) ** (-limits.nmant - 2))
    if abs(exact) >= overflow or not np.isfinite(result):
        return 0.0 if abs(exact) >= overflow and result == np.sign(float(mp.sign(exact))) * np.inf else np.inf
    size = abs(exact) if scale is None else scale
    power = max(int(mp.floor(mp.log(size, 2))), limits.minexp) if size else limits.minexp
    return float(abs(mp.mpf(float(result)) - exact) / mp.mpf(2) ** (power - limits.nmant))


def worst(result, exact, x, dtype, scale=None):
    """Return the largest error in ulps, and the x at which it occurs."""
    errors = [
        ulps(f, exact(mp.mpf(float(v))), dtype, scale and scale(mp.mpf(float(v))))
        for f, v in zip(result, x, strict=True)
    ]
    return max(zip(errors, x.tolist(), strict=True))


@pytest.fixture(autouse=True)
def precision():
    with mp.workprec(400):
        yield


@BOTH
@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", ROWS)
def test_value_and_slope(name, size, dtype):
    row, function = ROWS[name], getattr(mg, name)
    x = np.array([v for v in points(dtype) if row.inside(v)], dtype)
    arguments = np.concatenate([x, np.full(4096, x[-1])]) if size == "large" else x
    with np.errstate(over="ignore", divide="ignore"):  # where the result itself is infinite
        value = function(arguments)[: x.size]
        slope = mg.vjp(function, arguments)[1](np.ones_like(arguments))[0][: x.size]
    assert value.dtype == slope.dtype == dtype
    assert worst(value, row.value, x, dtype) <= (MOST, np.inf)
    assert worst(slope, row.slope, x, dtype, row.scale) <= (MOST, np.inf)


SECOND = {
    "sigmoid": lambda x: sigma(x) * sigma(-x) * (sigma(-x) - sigma(x)),
    "tanh": lambda x: -2 * mp.tanh(x) * sech_squared(x),
    "softplus": lambda x: sigma(x) * sigma(-x),
    "erf": lambda x: -4 * x * mp.exp(-x * x) / mp.sqrt(mp.pi),
    "expm1": mp.exp,
    "atan": lambda x: -2 * x / (1 + x * x) ** 2,
}


@BOTH
@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives(name, dtype):
    function = getattr(mg, name)
    x = np.array([v for v in points(dtype) if 1e-5 < abs(v) < 14], dtype)
    once = mg.grad(lambda x: mg.sum(function(x)))
    result = mg.grad(lambda x: mg.sum(once(x)))(x)
    assert worst(result, SECOND[name], x, dtype) <= (2 * MOST, np.inf)


# Several arguments


@BOTH
def test_pow(dtype):
    x = np.array([1e-9, 0.1, 0.9, 1.0, 1.5, 7.0, 1e9], dtype)[:, None]
    y = np.array([-3.0, -0.5, 0.0, 0.25, 1.0, 2.0, 3.0], dtype)
    (dx, dy), z = mg.grad(lambda x, y: mg.sum(x**y), (0, 1))(x + 0 * y, y + 0 * x), x**y
    for i, j in np.ndindex(z.shape):
        a, b = mp.mpf(float(x[i, 0])), mp.mpf(float(y[j]))
        assert ulps(z[i, j], a**b, dtype) <= MOST
        assert ulps(dx[i, j], b * a ** (b - 1), dtype) <= MOST
        assert ulps(dy[i, j], a**b * mp.log(a), dtype) <= MOST


@BOTH
def test_hypot_and_atan2_where_squares_overflow_or_vanish(dtype):
    limits = np.finfo(dtype)
    for size in (float(limits.tiny) * 64, 1.0, float(limits.max) / 8):
        x, y = dtype(3 * size), dtype(4 * size)
        length = mp.sqrt(mp.mpf(float(x)) ** 2 + mp.mpf(float(y)) ** 2)
        dx, dy = mg.grad(mg.hypot, (0, 1))(x, y)
        assert ulps(dx, x / length, dtype) <= MOST and ulps(dy, y / length, dtype) <= MOST
        dy, dx = mg.grad(mg.atan2, (0, 1))(y, x)
        assert ulps(dy, x / length**2, dtype) <= MOST and ulps(dx, -y / length**2, dtype) <= MOST


@BOTH
@pytest.mark.parametrize("offset", [0.0, 1e5, -1e5])
def test_an_offset_costs_no_digits(offset, dtype):
    """Shift logits that differ by multiples of 1/64, which every offset here leaves exact."""
    x = (np.arange(12).reshape(3, 4) * 7 % 10 / 64).astype(dtype) + dtype(offset)
    target = np.array([0, 3, 1])
    rows = [[mp.mpf(float(v)) for v in row] for row in x]
    shares = [
        [mp.exp(v - mp.log(mp.fsum(map(mp.exp, [w - row[0] for w in row]))) - row[0]) for v in row] for row in rows
    ]
    log_shares, softmax = mg.log_softmax(x), mg.softmax(x)
    gradient = mg.grad(lambda x: mg.sum(mg.logsumexp(x)))(x)
    for i, j in np.ndindex(x.shape):
        assert ulps(log_shares[i, j], mp.log(shares[i][j]), dtype) <= MOST
        assert ulps(softmax[i, j], shares[i][j], dtype) <= MOST
        assert ulps(gradient[i, j], shares[i][j], dtype) <= MOST
    loss, slope = mg.value_and_grad(lambda x: mg.cross_entropy(x, target))(x)
    assert ulps(loss, -mp.fsum(mp.log(shares[i][t]) for i, t in enumerate(target)) / 3, dtype) <= MOST
    assert ulps(slope[0, 0], (shares[0][0] - 1) / 3, dtype) <= MOST
    a, b = rows[0][:2]
    da, db = mg.grad(mg.logaddexp, (0, 1))(*x[0, :2])
    assert ulps(da, sigma(a - b), dtype) <= MOST and ulps(db, sigma(b - a), dtype) <= MOST


def test_cross_entropy_of_the_report():
    logits = np.float32([[1e5, 1e5 + 1, 1e5 - 1.5]])
    exact = np.log(1 + np.exp(-1.0) + np.exp(-2.5))
    np.testing.assert_allclose(mg.cross_entropy(logits, np.array([1])), exact, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("width", [8, 4096])
@pytest.mark.parametrize("power", [-0.9, -0.5, 0.0, 0.5, 0.95])
def test_rms_norm_where_squares_overflow_or_vanish(power, width, dtype):
    size = float(np.finfo(dtype).max) ** power
    x = (size * np.random.default_rng(0).uniform(0.5, 1.5, (2, width))).astype(dtype)
    g = np.random.default_rng(1).standard_normal(x.shape).astype(dtype)
    result, pull = mg.vjp(lambda x: mg.rms_norm(x, eps=0.0), x)
    wide = x.astype(np.longdouble) / np.longdouble(size)
    root = np.sqrt(np.mean(wide**2, axis=-1, keepdims=True))
    exact = wide / root
    np.testing.assert_allclose(result, exact, rtol=MOST * np.finfo(dtype).eps)
    slope = (g - exact * np.mean(g * exact, axis=-1, keepdims=True)) / root
    if power < 0.6:  # below, the gradient overflows or is 0
        scaled = pull(g)[0].astype(np.longdouble) * np.longdouble(size)
        np.testing.assert_allclose(scaled, slope, rtol=0, atol=1e3 * np.finfo(dtype).eps)


def test_layer_norm_of_large_numbers():
    x = np.float32([[1e25, 2e25, 3e25]])
    np.testing.assert_allclose(nn.LayerNorm(3)(x), [[-1.2247448, 0, 1.2247448]], rtol=1e-6)


# Sixteen bits


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "rms_norm"])
def test_float16_is_computed_in_float32(name):
    x = (300 + np.random.default_rng(0).standard_normal((2, 3000))).astype(np.float16)
    function = getattr(mg, name)
    result, pull = mg.vjp(function, x)
    exact, pull_exact = mg.vjp(function, x.astype(np.float32))
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, exact.astype(np.float16))
    (gradient,), (exact,) = pull(np.ones_like(result)), pull_exact(np.ones_like(exact))
    assert gradient.dtype == np.float16
    np.testing.assert_array_equal(gradient, exact.astype(np.float16))


def test_float16_cross_entropy():
    x = np.full((7, 70_000), 100, np.float16)
    loss = mg.cross_entropy(x, np.zeros(7, int))
    assert loss.dtype == np.float16 and loss == np.float16(np.log(70_000))


@pytest.mark.parametrize("name", ["sigmoid", "silu", "softplus", "gelu", "erf", "tanh", "relu"])
def test_float16_stays_float16(name):
    x = np.linspace(-4, 4, 33).astype(np.float16)
    value, gradient = getattr(mg, name)(x), mg.grad(lambda x: mg.sum(getattr(mg, name)(x)))(x)
    assert value.dtype == gradient.dtype == np.float16
    exact = getattr(mg, name)(x.astype(np.float64))
    np.testing.assert_allclose(value, exact, rtol=4 * np.finfo(np.float16).eps, atol=1e-7)


# Complex numbers: errors relative to the modulus


COMPLEX = {
    "log1p": mp.log1p,
    "expm1": mp.expm1,
    "exp": mp.exp,
    "log": mp.log,
    "sqrt": mp.sqrt,
    "tanh": mp.tanh,
    "sigmoid": sigma,
    "silu": lambda z: z * sigma(z),
    "erf": mp.erf,
    "abs": abs,
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_values(name):
    directions = np.exp(1j * np.linspace(0.1, 6.2, 9))
    z = np.concatenate([size * directions for size in (1e-200, 1e-20, 1e-9, 1e-3, 0.3, 1.7, 3.0)])
    for result, number in zip(getattr(mg, name)(z), z, strict=True):
        exact = COMPLEX[name](mp.mpc(number))
        assert abs(mp.mpc(result) - exact) <= 16 * np.finfo(float).eps * abs(exact)

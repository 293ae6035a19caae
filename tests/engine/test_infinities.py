"""Infinities, NaN and the ends of the range: right values, and no warning for what a branch not taken would do."""

import numpy as np
import pytest

import minigrad as mg

INF, NAN = np.inf, np.nan
ENDS = {
    "sigmoid": ([1, 0, NAN], [0, 0, NAN]),
    "tanh": ([1, -1, NAN], [0, 0, NAN]),
    "softplus": ([INF, 0, NAN], [1, 0, NAN]),
    "log_sigmoid": ([0, -INF, NAN], [0, 1, NAN]),
    "relu": ([INF, 0, NAN], [1, 0, 1]),
    "erf": ([1, -1, NAN], [0, 0, NAN]),
    "exp": ([INF, 0, NAN], [INF, 0, NAN]),
    "expm1": ([INF, -1, NAN], [INF, 0, NAN]),
    "atan": ([np.pi / 2, -np.pi / 2, NAN], [0, 0, NAN]),
    "asinh": ([INF, -INF, NAN], [0, 0, NAN]),
    "abs": ([INF, INF, NAN], [1, -1, NAN]),
    "sign": ([1, -1, NAN], [0, 0, 0]),
    "negative": ([-INF, INF, NAN], [-1, -1, -1]),
    "positive": ([INF, -INF, NAN], [1, 1, 1]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [3, 4098])
@pytest.mark.parametrize("name", ENDS)
def test_at_infinity_and_nan(name, size, dtype):
    x = np.tile(np.array([INF, -INF, NAN], dtype), size // 3)
    value, pull = mg.vjp(getattr(mg, name), x)
    values, slopes = ENDS[name]
    np.testing.assert_array_equal(value[:3], np.array(values, dtype))
    np.testing.assert_array_equal(pull(np.ones_like(x))[0][:3], np.array(slopes, dtype))


@pytest.mark.parametrize("size", [2, 4096])
@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_gates_at_infinity(name, size):
    """∞ where both factors are, and NaN at −∞ (−∞ · 0) and for the slopes (∞ · 0), as in PyTorch and JAX."""
    x = np.tile([INF, -INF], size // 2)
    with np.errstate(invalid="ignore"):
        value, pull = mg.vjp(getattr(mg, name), x)
        np.testing.assert_array_equal(value[:2], [INF, NAN])
        np.testing.assert_array_equal(pull(np.ones_like(x))[0][:2], [NAN, NAN])


@pytest.mark.parametrize("size", [4, 4096])
@pytest.mark.parametrize("name", ["silu", "gelu", "sigmoid", "softplus"])
def test_the_largest_numbers(name, size):
    most = np.finfo(np.float64).max
    x = np.tile([most, -most, 1e300, -1e300], size // 4)
    ends = {"sigmoid": [1, 0, 1, 0]}.get(name, [most, 0, 1e300, 0])
    value, pull = mg.vjp(getattr(mg, name), x)
    np.testing.assert_array_equal(value[:4], ends)
    np.testing.assert_array_equal(pull(np.ones_like(x))[0][:4], [0] * 4 if name == "sigmoid" else [1, 0, 1, 0])


def test_logarithms_of_sums():
    for x, value, slope in [
        ([-INF, -INF], -INF, None),
        ([-INF, 0.0], 0, [0, 1]),
        ([INF, 0.0], INF, None),
        ([-INF, 3.0, -INF], 3, [0, 1, 0]),
    ]:
        x = np.array(x)
        assert mg.logsumexp(x) == value
        if slope is not None:
            np.testing.assert_array_equal(mg.grad(mg.logsumexp)(x), slope)
    rows = np.array([[-INF, -INF], [0.0, 0.0], [INF, 1.0]])
    np.testing.assert_array_equal(mg.logsumexp(rows), [-INF, np.log(2), INF])
    np.testing.assert_array_equal(mg.logsumexp(rows[:2].T, axis=0, keepdims=True), [[-INF, np.log(2)]])
    assert mg.logaddexp(np.float64(-INF), np.float64(-INF)) == -INF
    assert mg.grad(mg.logaddexp, (0, 1))(np.float64(-INF), np.float64(0)) == (0, 1)


def test_softmax_with_infinite_entries():
    x = np.array([-INF, 0.0, -INF, np.log(3)])
    np.testing.assert_allclose(mg.softmax(x), [0, 0.25, 0, 0.75], rtol=1e-15)
    np.testing.assert_allclose(mg.log_softmax(x), [-INF, np.log(0.25), -INF, np.log(0.75)], rtol=1e-15)
    gradient = mg.grad(lambda x: mg.softmax(x)[1])(x)
    np.testing.assert_allclose(gradient, [0, 0.1875, 0, -0.1875], rtol=1e-15)
    gradient = mg.grad(lambda x: mg.log_softmax(x)[1])(x)
    np.testing.assert_allclose(gradient, [0, 0.75, 0, -0.75], rtol=1e-15)
    assert mg.cross_entropy(x[None], np.array([0])) == INF


@pytest.mark.parametrize("shape", [(4, 0), (0, 4), (0, 0), (0,)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "rms_norm", "logsumexp", "swiglu", "sigmoid", "gelu"])
def test_of_nothing(name, shape):
    x = np.zeros(shape)
    value, pull = mg.vjp(getattr(mg, name), x)
    assert value.shape == {"logsumexp": shape[:-1], "swiglu": (*shape[:-1], shape[-1] // 2)}.get(name, shape)
    assert pull(np.ones_like(value))[0].shape == shape


def test_logarithm_of_an_empty_sum():
    np.testing.assert_array_equal(mg.logsumexp(np.zeros((2, 0))), [-INF, -INF])


def test_choices_do_not_touch_what_they_leave():
    x = np.array([INF, -INF, 0.0, NAN])
    chosen = mg.grad(lambda x: mg.sum(mg.where(mg.isfinite(x), x * 2, 0.0)))(x)
    np.testing.assert_array_equal(chosen, [0, 0, 2, 0])
    np.testing.assert_array_equal(mg.clip(x, -1.0, 1.0), [1, -1, 0, NAN])
    np.testing.assert_array_equal(mg.clip(x, -INF, INF), x)
    np.testing.assert_array_equal(mg.grad(lambda x: mg.sum(mg.clip(x, -1.0, 1.0)))(x[:3]), [0, 0, 1])
    np.testing.assert_array_equal(mg.maximum(x, 0.0), [INF, 0, 0, NAN])
    np.testing.assert_array_equal(mg.minimum(x, 0.0), [0, -INF, 0, NAN])
    np.testing.assert_array_equal(mg.grad(lambda x: mg.sum(mg.maximum(x, 0.0)))(x), [1, 0, 0.5, 1])


def test_powers():
    """xʸ where a factor of its derivative is infinite or not defined."""
    dx, dy = mg.grad(lambda x, y: mg.sum(x**y), (0, 1))(np.array([0.0, 0.0, 0.0, INF]), np.array([0.0, 1.0, 2.0, 0.0]))
    np.testing.assert_array_equal(dx, [0, 1, 0, 0])
    np.testing.assert_array_equal(dy, [0, 0, 0, INF])
    for exponent in (0, 0.0, np.int64(0), np.float64(0)):
        np.testing.assert_array_equal(mg.grad(lambda x, n=exponent: mg.sum(x**n))(np.array([0.0, INF, NAN])), [0, 0, 0])
    for exponent in (2, np.int64(2), np.int32(2), np.uint8(2), np.array(2)):
        np.testing.assert_array_equal(mg.grad(lambda x, n=exponent: mg.sum(x**n))(np.array([0.0, -3.0])), [0, -6])
    np.testing.assert_array_equal(
        mg.grad(lambda x: mg.sum(x ** np.array([0, 1, 3])))(np.array([0.0, 0.0, -2.0])), [0, 1, 12]
    )
    np.testing.assert_array_equal(mg.grad(lambda y: mg.sum(0.0**y))(np.array([0.0, 1.0, 2.5])), [0, 0, 0])


@pytest.mark.parametrize("base", [-2.0, np.float64(-2), np.array([-2.0])])
def test_a_power_of_a_negative_number_has_no_slope_along_the_exponent(base):
    with np.errstate(invalid="ignore"):
        value, pull = mg.vjp(lambda y: base**y, np.array([3.0]))
        assert value == -8 and np.isnan(pull(np.ones(1))[0]).all()


def test_a_gradient_has_the_digits_of_its_own_argument():
    """Beside an argument of lower precision."""
    y = np.array([0.7])
    gradient = mg.grad(lambda y: mg.sum(mg.pow(np.float32([0.3]), y)))(y)
    np.testing.assert_allclose(
        gradient, np.float64(np.float32(0.3)) ** y * np.log(np.float64(np.float32(0.3))), rtol=1e-15
    )
    gradient = mg.grad(lambda y: mg.sum(mg.atan2(y, np.float32([0.3]))))(y)
    np.testing.assert_allclose(
        mg.grad(lambda x: mg.sum(mg.pow(x, np.float32([0.7]))))(np.array([0.3])),
        np.float64(np.float32(0.7)) * 0.3 ** (np.float64(np.float32(0.7)) - 1),
        rtol=1e-15,
    )
    x = np.float64(np.float32(0.3))
    np.testing.assert_allclose(gradient, x / (x * x + y * y), rtol=1e-15)


def test_remainder():
    x, y = np.array([7.0, -7.0, 7.0, 6.0]), np.array([3.0, 3.0, -3.0, 3.0])
    np.testing.assert_array_equal(mg.remainder(x, y), [1, 2, -2, 0])
    dx, dy = mg.grad(lambda x, y: mg.sum(x % y), (0, 1))(x, y)
    np.testing.assert_array_equal(dx, [1, 1, 1, 1])
    np.testing.assert_array_equal(dy, [-2, 3, 3, -2])
    np.testing.assert_array_equal(mg.grad(lambda x: mg.sum(x % 3))(x), np.ones(4))
    np.testing.assert_array_equal(mg.grad(lambda y: mg.sum(7.0 % y))(y), [-2, -2, 3, -2])
    mg.check_grads(mg.remainder, (x + 0.5, y), order=2)


def test_hyperbolic_and_other_functions_of_the_standard():
    x = np.random.default_rng(0).uniform(0.2, 0.8, (2, 3))
    for name in ("asinh", "atanh", "log2", "log10", "positive"):
        mg.check_grads(getattr(mg, name), (x,), order=2)
        np.testing.assert_array_equal(getattr(mg, name)(x), getattr(np, name)(x))
    mg.check_grads(mg.acosh, (1 + x,), order=2)
    mg.check_grads(mg.hypot, (x, -x[0]), order=2)
    mg.check_grads(lambda x: mg.copysign(x, np.array([-1.0, 1.0, -0.0])), (x,), order=2)
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift"):
        np.testing.assert_array_equal(
            getattr(mg, name)(np.array([6, 5]), np.array([1, 2])), getattr(np, name)([6, 5], [1, 2])
        )
    np.testing.assert_array_equal(mg.bitwise_invert(np.array([6, 5])), [-7, -6])
    np.testing.assert_array_equal(mg.nextafter(np.array([1.0]), np.array([2.0])), [1 + 2**-52])


def test_abs_of_a_subnormal_number_twice():
    once = mg.grad(lambda x: mg.sum(mg.abs(x)))
    assert mg.grad(lambda x: mg.sum(once(x)))(np.array([5e-324])) == 0


def test_a_bound_of_nan_gives_nan():
    x, bound = np.array([1.0, 2.0, np.nan]), np.array([np.nan, 3.0, 0.0])
    np.testing.assert_array_equal(mg.clip(x, bound, None), [np.nan, 3, np.nan])
    np.testing.assert_array_equal(mg.clip(x, None, bound), [np.nan, 2, np.nan])

"""The comparison itself: it must be able to fail, on values and on each gradient."""

import numpy as np
import pytest

X, Y = np.linspace(0.5, 1.5, 6).reshape(2, 3), np.linspace(-1.0, 2.0, 6).reshape(2, 3)
INPUTS = {"x": X, "y": Y}


def product(x, y):
    return (x * y,)


def test_equal_functions_agree(compare):
    compare(lambda x, y: (y * x,), product, INPUTS, 1e-15)


def test_a_wrong_value_is_caught(compare):
    with pytest.raises(AssertionError, match="result 0 differs by"):
        compare(lambda x, y: (x * y * (1 + 1e-9),), product, INPUTS, 1e-12)


def test_a_gradient_that_is_dropped_is_caught(compare):
    import minigrad as mg

    with pytest.raises(AssertionError, match="gradient of y differs by"):
        compare(lambda x, y: (x * mg.stop_gradient(y),), product, INPUTS, 1e-12)


def test_a_wrong_shape_is_caught(compare):
    with pytest.raises(AssertionError, match=r"result 0 has shape \(1, 2, 3\), expected \(2, 3\)"):
        compare(lambda x, y: ((x * y)[None],), product, INPUTS, 1e-12)


def test_not_a_number_is_caught(close):
    with pytest.raises(AssertionError, match="y differs by nan"):
        close("y", np.array([np.nan]), np.array([1.0]), 1.0)

"""Every row of the table of conventions, on small arrays, on those the compiled forms take, and in a recorded pass."""

import numpy as np
import pytest

import minigrad as mg
from tests.kinks import KINKS

NAMES = {name: getattr(mg, name) for name in dir(mg)}
EVERY = pytest.mark.parametrize("name", KINKS)
SCALARS = [name for name, kink in KINKS.items() if not kink.value.ndim and not kink.arguments["x"].ndim]


def results(kink, arguments, record):
    """Return the value and the gradients of its sum."""
    boxed = [mg.Tensor(a) for a in arguments] if record else list(arguments)
    with np.errstate(all="ignore"):  # infinities are made here on purpose
        value, pull = mg.vjp(lambda *xs: kink.at(NAMES, *xs), *boxed)
        return raw(value), [raw(d) for d in pull(np.ones_like(raw(value)))]


def raw(x):
    return x.value if isinstance(x, mg.Tensor) else x


@EVERY
@pytest.mark.parametrize("record", [False, True])
def test_row(name, record):
    kink = KINKS[name]
    value, gradients = results(kink, kink.arguments.values(), record)
    np.testing.assert_array_equal(value, kink.value)
    for actual, expected in zip(gradients, kink.gradients.values(), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", SCALARS)
def test_row_in_large_arrays(name):
    kink = KINKS[name]
    value, gradients = results(kink, [np.full(4096, a) for a in kink.arguments.values()], record=False)
    np.testing.assert_array_equal(value, np.full(4096, kink.value))
    for actual, expected in zip(gradients, kink.gradients.values(), strict=True):
        np.testing.assert_array_equal(actual, np.full(4096, expected))

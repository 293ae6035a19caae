"""Values against NumPy, SciPy and mpmath."""

import pytest

from tests.oracle import checks
from tests.oracle.domains import CONSTANT, ROWS
from tests.oracle.range import check_range


@pytest.mark.parametrize("name", [*ROWS, *CONSTANT])
@pytest.mark.parametrize(
    "one", [checks.check_values, checks.check_options, checks.check_special], ids=lambda f: f.__name__[6:]
)
def test_value(one, name):
    with checks.quiet():
        one(ROWS.get(name) or CONSTANT[name])


@pytest.mark.parametrize("name", CONSTANT)
def test_no_gradient_flows_through(name):
    with checks.quiet():
        checks.check_constant(CONSTANT[name])


@pytest.mark.parametrize("kind", "efd")
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.exact])
def test_over_the_whole_range(name, kind):
    with checks.quiet():
        check_range(name, kind, 0)

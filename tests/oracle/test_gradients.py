"""First and second derivatives against differences and mpmath; memory, layouts, dtypes and sizes."""

import pytest

from tests.oracle import checks
from tests.oracle.batches import check_batches
from tests.oracle.domains import ROWS
from tests.oracle.range import check_range

CHECKS = [
    check for check in checks.EVERY if check not in (checks.check_values, checks.check_options, checks.check_special)
]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("one", CHECKS, ids=lambda f: f.__name__[6:])
def test_derivative(one, name):
    with checks.quiet():
        one(ROWS[name])


@pytest.mark.parametrize(("kind", "order"), [("e", 1), ("f", 1), ("d", 1), ("d", 2)])
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.exact])
def test_over_the_whole_range(name, kind, order):
    with checks.quiet():
        check_range(name, kind, order)


@pytest.mark.parametrize("name", ROWS)
def test_all_at_once_is_one_by_one(name):
    with checks.quiet():
        check_batches(ROWS[name], name)

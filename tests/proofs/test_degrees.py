"""Proofs over a prime field: values are drawn from all of it, and degrees bound the chance of a false pass."""

import io
from fractions import Fraction

import numpy as np
import pytest
from rich.console import Console

from minigrad.exact import Modular
from proofs.checker import check_statement, report
from proofs.checker.degrees import Degree, Divisor, of_differences
from proofs.checker.statements import identity
from proofs.checker.strategies import LARGE, Queries
from proofs.checker.systems import PRIME

P = 101
x, y, z = Degree(1), Degree(1), Degree(1)


@pytest.mark.parametrize(
    ("value", "degree"),
    [
        (3 * x + 1, 1),
        ((x + y) * (x - z) + x, 2),
        (x**5 - Fraction(1, 3), 5),
        (x / y, 1),
        (x / y + z / y, 1),  # a shared denominator is counted once
        (x / y + 1, 1),
        (1 / x + 1 / y, 1),  # (x + y) / xy
        (x / y + y / x, 2),
        (1 / (1 + 1 / x), 1),  # x / (x + 1)
        (x / y * (z / y) + x, 3),
        (x * (1 / y) ** 3 + x * y, 5),
    ],
)
def test_degrees_of_numerators(value, degree):
    assert value.degree == degree


def test_the_largest_degree_of_a_difference():
    left, right = [np.array([x, 2 * x], dtype=object)], [np.array([1, x * y / z], dtype=object)]
    assert of_differences(lambda: (left, right)) == 2
    assert of_differences(lambda: ([Degree(2, {Divisor(2): 1})], [x])) == 3


def test_comparisons_add_their_degree():
    def evaluate():
        assert x * y != 0
        return [x], [y]

    assert of_differences(evaluate) == 3


def polynomial(t):
    return (t - 1) * (t - 7) * (t + 3) * t * t


def quotient(t):
    return 1 / (t + 1) + t / (t + 3) - Fraction(3, 4)  # 0 at t = 1


@pytest.mark.parametrize("function", [polynomial, quotient])
def test_a_false_equality_passes_no_more_often_than_its_degree_allows(function):
    """Over a small field every point can be tried: at most `degree` of them are zeros."""
    zeros = 0
    for t in range(P):
        try:
            zeros += function(Modular(t, P)) == 0
        except ValueError:  # a denominator that is 0 has no inverse
            pass
    assert 0 < zeros <= function(Degree(1)).degree


def test_an_equality_that_holds_only_at_the_rationals_drawn_is_caught():
    """A product over all values of LARGE vanishes at each of them, and almost nowhere in the field."""
    roots = [1, -1, 2, 0, Fraction(1, 3), Fraction(-5, 3), Fraction(7, 5), -2, Fraction(-2, 7)]
    assert LARGE is not None

    @identity(
        "A product over the values drawn is 0",
        source="minigrad, this test",
        exact=True,
        register=False,
        only=("fractions", "modular"),
        derivatives=False,
    )
    def claim(q: Queries):
        product = 1 + 0 * q
        for root in roots:
            product = product * (q - root)
        return product, 0 * q

    result = check_statement(claim.statements[0])
    assert {name: system.status for name, system in result.systems.items()} == {
        "fractions": "passed",
        "modular": "failed",
    }
    assert result.strength == "checked"


def test_the_report_says_proven_and_up_to_which_chance():
    @identity("q² − 1 = (q − 1)(q + 1)", source="minigrad, this test", exact=True, register=False)
    def claim(q: Queries):
        return q * q - 1, (q - 1) * (q + 1)

    result = check_statement(claim.statements[0])
    assert result.false_pass == 2 / PRIME
    console = Console(width=200, file=io.StringIO())
    report.show(console, result)
    output = " ".join(console.file.getvalue().split())
    assert output.endswith("; proven at the sizes drawn, up to a chance of at most 8.7e-19")
    assert result.to_json()["strength"].startswith("proven")


def test_what_is_not_rational_is_checked():
    @identity("|q|² = q²", source="minigrad, this test", register=False, derivatives=False)
    def claim(q: Queries):
        return abs(q) * abs(q), q * q

    assert check_statement(claim.statements[0]).strength == "checked"

"""A mechanism is one file: what lists, checks and compares mechanisms takes it up with no other edit."""

import pytest
from typer.testing import CliRunner

from docs import tables
from models import cli
from models.forms import declarations, mechanisms
from models.mechanism import Domain
from proofs.checker import check_system, systems_of
from proofs.checker.forms import forms
from proofs.checker.strategies import STRATEGY_OF
from proofs.checker.systems import SYSTEMS
from tests.extra_mechanism import added, general_statements

LIBRARIES = [pytest.param(name, marks=pytest.mark.parity) for name in ("torch", "jax")]


def failing(statements, library=""):
    """Return names and systems of the statements that fail, on arrays of a library or, without one, in all others."""
    return {
        (statement.name.partition(".")[2], system)
        for statement in statements
        for system in systems_of(statement)
        if (SYSTEMS[system].library if system in SYSTEMS else "") == library
        and check_system(statement, system).status != "passed"
    }


def test_it_is_listed(tmp_path):
    with added(tmp_path):
        assert list(mechanisms()["memory.gated_average"]) == ["recurrent", "quadratic"]
        listed = CliRunner().invoke(cli.app, ["list"]).output
        assert "memory.gated_average" in listed and "recurrent, quadratic" in listed
    assert "memory.gated_average" not in mechanisms()


def test_it_is_a_row_of_the_readme(tmp_path):
    with added(tmp_path):
        (row,) = (line for line in tables.mechanisms().splitlines() if "gated_average" in line)
    assert row.startswith("| [`memory.gated_average`](models/memory/gated_average.py) | A gated exponential moving")
    assert row.endswith("| `recurrent` `quadratic` |")


def test_the_general_statements_are_about_it_and_hold(tmp_path):
    with added(tmp_path):
        statements = general_statements()
        stated = {statement.name.partition(".")[2] for statement in statements}
        assert {"forms_agree[gated_average.quadratic]", "streaming[gated_average.recurrent]"} <= stated
        assert {"operations_at_once[gated_average.quadratic]", "operations_in_time[gated_average.recurrent]"} <= stated
        assert all(statement.exact for statement in statements if statement.kind == "identity")
        assert not failing(statements)


@pytest.mark.parametrize("library", LIBRARIES)
def test_they_hold_on_arrays_of_other_libraries(tmp_path, library):
    with added(tmp_path):
        assert not failing(general_statements(), library)


@pytest.mark.parametrize(
    ("text", "instead", "statement"),
    [
        ("(1 - xp.exp(g)) * x", "xp.exp(g) * x", "forms_agree[gated_average.quadratic]"),
        ("if state is not None:", "if False:", "streaming[gated_average.quadratic]"),
        (
            "xp.tril(xp.exp(segment_sums(g))[..., 0])",
            "xp.exp(segment_sums(g))[..., 0]",
            "causality[gated_average.quadratic]",
        ),
        ('work="T²", ', "", "operations_in_time[gated_average.quadratic]"),
    ],
)
def test_a_fault_is_found(tmp_path, text, instead, statement):
    with added(tmp_path, text, instead):
        (stated,) = (each for each in general_statements() if each.name.endswith(f".{statement}"))
        assert failing([stated])


@pytest.mark.parametrize(
    ("text", "instead", "message"),
    [
        (
            ', "log_decay": Domain.LOG_GATE',
            "",
            "memory.gated_average: MECHANISM.arguments lacks log_decay, expected its models.mechanism.Domain",
        ),
        (
            '"log_decay": ',
            '"log_decay": Domain.LOG_GATE, "gate": ',
            "memory.gated_average: MECHANISM.arguments has gate, which is no argument of a form",
        ),
        (
            "x: TD, ",
            "x: tuple[TD, ...], ",
            "memory.gated_average: MECHANISM.layouts is empty, expected those of x, which is no array",
        ),
        (
            "MECHANISM = ",
            "DECLARED = ",
            "memory.gated_average: MECHANISM is missing, expected a models.mechanism.Mechanism beside the forms",
        ),
    ],
)
def test_what_is_not_declared_is_an_error(tmp_path, text, instead, message):
    with added(tmp_path, text, instead), pytest.raises(TypeError) as caught:
        list(forms())
    assert str(caught.value) == message


def test_every_domain_is_drawn():
    assert set(STRATEGY_OF) == set(Domain)


def test_every_domain_is_declared_by_a_mechanism():
    declared = {x for mechanism in declarations().values() for x in (*mechanism.arguments.values(), mechanism.state)}
    assert declared == set(Domain)

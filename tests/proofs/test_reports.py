"""Contents of a failure, selection of statements by name, and what the quick profile leaves out."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

import proofs.__main__ as command
from proofs import STATEMENTS
from proofs.checker import PROFILES, Result, SystemResult, check_statement, check_system, systems_of
from proofs.checker.statements import select
from tests.copies import copy_of

AGREE = "every_mechanism.forms_agree"


def failed(name, module, text, instead, system="fractions"):
    """Return what is found of a statement whose form is a copy with one piece of text replaced."""
    statement = STATEMENTS[name]
    form = statement.fixed["form"]
    function = getattr(copy_of(module, text, instead), form.function.__name__)
    fixed = {**statement.fixed, "form": dataclasses.replace(form, function=function)}
    return check_system(dataclasses.replace(statement, fixed=fixed), system)


def test_a_failure_names_the_forms_and_says_what_a_factor_stands_for():
    name = f"{AGREE}[gated_delta_rule.chunkwise.log_decay T]"
    result = failed(name, "memory.gated_delta_rule", "V - (gamma * K) @ S", "V - K @ S")
    assert result.failure == "y at [1, 0]: 1/2 on the left, 1 on the right"
    assert result.left.endswith("   where form = gated_delta_rule.chunkwise.log_decay T")
    assert result.right == (
        "plainest(tokens, state, chunk_size)   where plainest = gated_delta_rule.recurrent.log_decay T"
    )
    (note,) = result.encodings
    assert note.startswith("log_decay: a number a stands for its logarithm")
    lines = result.snippet.splitlines()
    assert lines[1:5] == [
        f"# fractions: {result.failure}",
        f"# left:  {result.left}",
        f"# right: {result.right}",
        f"# {note}",
    ]


def test_a_failure_names_the_state():
    name = f"{AGREE}[linear_attention.parallel]"  # the plainest is the recurrent form
    result = failed(name, "memory.linear_attention", ", S + k.mT @ v", ", S - k.mT @ v")
    assert result.failure.startswith("state at [0, 0]: ") and result.encodings == []


def test_complex_numbers_are_said_to_be_pairs():
    result = failed(f"{AGREE}[s4d.convolution]", "ssm.s4d", "+ D * u", "- D * u", "float64")
    assert "Lambda: a pair [x, y] stands for x + iy" in result.encodings


def names(*selected):
    return {statement.name for statement in select(selected)}


def test_mechanisms_forms_paths_and_patterns_select_statements():
    rule = names("memory.delta_rule")
    assert names("delta_rule") < rule == names("models/memory/delta_rule.py") == names("./models/memory/delta_rule.py")
    assert "online_learner.is_delta_rule" in rule and "gated_delta_rule.open_gates" in rule
    assert rule < names("memory.*") == names("models/memory", "models/memory/")
    form = names("memory.delta_rule.chunkwise")
    assert form < rule and all("[delta_rule.chunkwise]" in name for name in form)
    assert names("forms_agree[delta_rule.*]") == names("*agree*") & rule - {f"{AGREE}[gated_delta_rule.chunkwise]"}
    assert names("proofs/identities/lti.py") >= names("lti.superposition")
    assert names("delta_rul?") == names("delta_rule")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models/cli.py", "no statement is about models/cli.py"),
        ("memory.delta_rul", "no identity is called 'memory.delta_rul'; the nearest name is 'memory.delta_rule'"),
        ("memory.none*", "no identity is called 'memory.none*'; the nearest name is "),
    ],
)
def test_what_selects_nothing_is_one_line(name, message):
    with pytest.raises(LookupError) as raised:
        select([name])
    assert raised.value.args[0].startswith(message) and "\n" not in raised.value.args[0]


def test_the_quick_profile_leaves_out_what_its_help_says():
    (statement,) = select(["order_of_multiplication"])
    quick = check_statement(statement, "quick")
    assert list(quick.systems) == [name for name in systems_of(statement) if name not in PROFILES["quick"].without]
    assert list(quick.systems) == ["fractions", "modular", "float64", "gradient", "cupy", "cupy gradient"]
    assert quick.systems["fractions"].examples <= 5


def test_fail_fast_stops_at_the_first_failure(monkeypatch):
    """The statements after it are not checked, and the command says how many."""

    def check_one(name, profile):
        system = SystemResult("failed" if name.endswith("sheets") else "passed", failure="1 ≠ 2")
        return Result(name, "", "minigrad", "linear_attention", "identity", "=", {"fractions": system})

    monkeypatch.setattr(command, "ProcessPoolExecutor", lambda count, **options: ThreadPoolExecutor(1))
    monkeypatch.setattr(command.workers, "check_one", check_one)
    arguments = ["check", "linear_attention.*", "--profile", "quick"]
    whole = CliRunner().invoke(command.app, arguments, terminal_width=200)
    stopped = CliRunner().invoke(command.app, [*arguments, "--fail-fast"], terminal_width=200)
    chosen = [s.name for s in select(["linear_attention.*"])]
    after = len(chosen) - 1 - chosen.index("linear_attention.sheets")
    assert whole.exit_code == stopped.exit_code == 1 and after > 0
    assert f"stopped at the first failure: {after} were not checked" in stopped.stdout
    assert "✗ linear_attention.sheets" in stopped.stdout and chosen[-1] not in stopped.stdout
    assert chosen[-1] in whole.stdout and "stopped" not in whole.stdout
    left_out = (
        "the profile quick leaves out: float32, exact gradient, second gradient, exact second gradient, torch, jax"
    )
    assert left_out in " ".join(whole.stdout.split())

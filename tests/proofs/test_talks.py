"""The claims of the talks: all are there, their evidence exists, and what is not shown yet can only get less."""

import json
import re

import pytest
from typer.testing import CliRunner

from models.references import references
from models.study import plans, recorded
from models.study.sections import SECTIONS, section_of
from proofs.__main__ import app
from proofs.checker.statements import select
from proofs.talks import TALKS, VERDICTS, claims, select_claims, summary

SHORT = {job.name for job in plans.plan(plans.DEFAULT)}
LONG = {job.name: job for job in plans.long_jobs(plans.DEFAULT)}
SHOWN = [claim for claim in claims() if claim.shown]


def measured(name):
    """Return whether every study runs these jobs, or records of them have the same settings.

    The name is that of a job, how the names of several begin, or a section of the report, for all its jobs.
    """
    jobs = SHORT | LONG.keys()
    named = {name} & jobs or {job for job in jobs if job.startswith(f"{name}-")}
    if not named and SECTIONS[name].jobs:
        named = {job for job in jobs if job.startswith(SECTIONS[name].jobs)}
    return all(job in SHORT or recorded.load(LONG[job]) is not None for job in named)


def test_every_claim_is_there_once_in_order():
    assert [claim.number for claim in claims()] == list(range(1, 217))
    counts = {talk: sum(claim.talk == talk for claim in claims()) for talk in TALKS}
    assert counts == {"talk-titans": 108, "talk-mamba": 38, "book-ssm": 20, "talk-papers": 34, "talk-meeting": 16}
    assert set(TALKS) <= set(references())


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: str(claim.number))
def test_a_claim_is_complete_and_its_evidence_exists(claim):
    assert claim.verdict in VERDICTS and bool(claim.condition) == (claim.verdict == "true if")
    assert claim.place and claim.said.endswith(".") and claim.precise.endswith(".")
    resolved = claim.to_json()  # raises where a statement, a section or a source does not exist
    for statement in resolved["statements"]:
        assert statement["name"] in (statement["identity"], statement["identity"].partition("[")[0])
    assert [name for name in claim.study if not measured(name)] == []
    assert claim.shown or claim.missing


@pytest.mark.parametrize("claim", [c for c in SHOWN if c.verdict == "wrong"], ids=lambda claim: str(claim.number))
def test_a_wrong_claim_is_refuted_by_a_statement_or_a_measurement(claim):
    assert claim.statements or claim.study


@pytest.mark.parametrize("claim", [c for c in claims() if c.statements], ids=lambda claim: str(claim.number))
def test_what_a_claim_refutes_is_named_beside_what_holds(claim):
    named = {name.partition("[")[0] for name in claim.statements}
    refuted = [statement for statement in claim.found if statement.kind == "refuted"]
    assert [statement.name for statement in refuted if statement.instead not in named] == []
    assert all(select([statement.instead])[0].kind != "refuted" for statement in refuted)


def test_all_claims_are_shown():
    assert len(claims()) == 216
    assert not [claim.number for claim in claims() if not claim.shown]


def test_sections_are_those_of_the_report():
    jobs = SHORT | LONG.keys()
    assert {section_of(name) for name in jobs} <= set(SECTIONS)
    assert all(any(job.startswith(prefix) for job in jobs) for section in SECTIONS.values() for prefix in section.jobs)
    with pytest.raises(LookupError, match="^expected a section of the report or the name of a job, got 'nowhere'$"):
        section_of("nowhere")


def test_claims_are_selected_by_talk_number_and_verdict():
    assert {claim.talk for claim in select_claims(["book-ssm"])} == {"book-ssm"}
    assert [claim.number for claim in select_claims(["19", "25"], "wrong")] == [19, 25]
    assert not select_claims(missing=True)
    assert summary(select_claims(["19"])).startswith("1 claim: 0 true, 0 true if, 0 loose, 1 wrong; 1 shown")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["217"], r"expected a talk \(talk-titans, .*\) or a number from 1 to 216, got '217'"),
        (["--verdict", "right"], "expected one of the verdicts true, true if, loose, wrong, got 'right'"),
    ],
)
def test_an_unknown_name_or_verdict_is_one_line(arguments, message):
    result = CliRunner().invoke(app, ["talks", *arguments])
    assert result.exit_code == 2 and re.fullmatch(f"proofs: {message}\n", result.stderr)


def test_the_command_prints_verdict_evidence_and_counts(tmp_path):
    result = CliRunner().invoke(app, ["talks", "118"], terminal_width=200)
    assert result.exit_code == 0
    for words in ("talk on Mamba", "118. slide 14: ", "wrong. ", "shown by: hippo.taylor", "1 claim: "):
        assert words in result.stdout
    assert CliRunner().invoke(app, ["talks", "talk-mamba", "--json", str(tmp_path / "claims.json")]).exit_code == 0
    rows = json.loads((tmp_path / "claims.json").read_text())
    (row,) = (row for row in rows if row["number"] == 118)
    assert len(rows) == 38 and row["statements"][0]["file"] == "proofs/identities/hippo.py"

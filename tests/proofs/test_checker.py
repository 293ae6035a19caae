"""Reports of a failed statement: the smallest example, a snippet that runs, JSON, JUnit XML, exit codes."""

import io
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

import proofs
from models.memory import linear_attention
from proofs.checker import check_statement, check_system, report, systems
from proofs.checker.statements import converges, grows, identity, select
from proofs.checker.strategies import Keys, Queries, Values

ROOT = Path(__file__).parents[2]


@identity("Attention without a mask is causal", source="minigrad, this test", exact=True, register=False)
def unmasked(q: Queries, k: Keys, v: Values):
    return (q @ k.mT) @ v, linear_attention.recurrent(q, k, v)[0]


@identity("Distribution", source="minigrad, this test", register=False)
def distribution(q: Queries, k: Keys):
    return q * (k[..., :1, :1] + 3) / 3, (q * k[..., :1, :1] + q * 3) / 3


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_the_counterexample_is_the_smallest():
    """Two tokens, one feature, and nothing but zeros and ones."""
    result = check_statement(unmasked.statements[0]).systems["fractions"]
    assert result.status == "failed"
    q, k, v = (np.array(result.counterexample[name], dtype=object) for name in "qkv")
    assert q.shape == k.shape == v.shape == (2, 1)
    assert all(Fraction(x) in (0, 1) for x in (*q.flat, *k.flat, *v.flat))


def test_a_failure_prints_a_snippet_that_runs(tmp_path):
    result = check_statement(unmasked.statements[0])
    text = report.failures(result)
    assert "fails first in fractions" in text
    (tmp_path / "claims.py").write_text(
        "from models.memory import linear_attention\n"
        "from proofs.checker.statements import identity\n"
        "from proofs.checker.strategies import Keys, Queries, Values\n"
        "@identity('Attention without a mask is causal', source='minigrad, this test', exact=True, register=False)\n"
        "def unmasked(q: Queries, k: Keys, v: Values):\n"
        "    return (q @ k.mT) @ v, linear_attention.recurrent(q, k, v)[0]\n"
    )
    snippet = result.systems["fractions"].snippet.replace(f"from {__name__} import", "from claims import")
    (tmp_path / "pasted.py").write_text(f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]\n{snippet}")
    process = run(str(tmp_path / "pasted.py"))
    assert process.returncode == 1
    assert process.stdout.startswith("left:") and "right:" in process.stdout
    assert process.stderr.strip().splitlines()[-1].startswith("AssertionError: claims.unmasked, fractions: ")


def test_a_refutation_s_snippet_runs_too():
    (statement,) = select(["retrieval_of_unit_keys"])
    snippet = check_statement(statement).systems["fractions"].snippet
    process = run("-c", snippet)
    assert process.returncode == 0, process.stderr
    assert "left:" in process.stdout


def test_json_and_junit_are_valid_and_say_the_same(tmp_path):
    results = [check_statement(s) for s in (select(["sheets"])[0], unmasked.statements[0])]
    report.write_json(tmp_path / "r.json", results)
    report.write_junit(tmp_path / "r.xml", results)
    plain = json.loads((tmp_path / "r.json").read_text())
    assert [r["verdict"] for r in plain] == ["holds", "failed"]
    assert plain[0]["systems"]["fractions"]["status"] == "passed" and plain[0]["sentence"].startswith("KᵀV is a sum")
    suite = ElementTree.parse(tmp_path / "r.xml").getroot()
    failures = [case for case in suite.iter("testcase") if case.find("failure") is not None]
    assert len(failures) == 1 and "fractions" in failures[0].get("name", "")
    assert len(list(suite.iter("testcase"))) == sum(len(r["systems"]) for r in plain)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_what_is_shown_of_a_result_is_whole(width):
    """The name with the instance in brackets, which is no markup, and every word of the rest, at any width."""
    (statement,) = select(["size_of_state[delta_rule.recurrent]"])
    result = check_statement(statement)
    console = Console(width=width, file=io.StringIO())
    report.show(console, result)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == f"∝ {statement.name}"
    output = " ".join(line.strip() for line in lines[1:])
    error = f"worst error {result.closest.worst_error:.1e} of at most {result.closest.bound:.1e}"
    source = "; ".join(f"{c.spelled} <{c.url}>" if c.url else c.spelled for c in statement.citations)
    assert output == f"{source}; count; {error}; 1 example; checked"
    assert all(len(line) <= width for line in lines[1:])
    assert "<https://www.youtube.com/watch?v=4pNugYLtECM&t=366s>" in source  # 06:06


def test_sources_are_links_on_a_terminal():
    (statement,) = select(["sheets"])
    console = Console(width=40, file=io.StringIO(), force_terminal=True)
    report.write_source(console, statement.citations, ".")
    assert ";https://www.youtube.com/watch?v=4pNugYLtECM&t=669s\x1b\\" in console.file.getvalue()  # 11:09
    assert "<http" not in console.file.getvalue()


def test_what_is_shown_of_a_failure():
    result = check_statement(unmasked.statements[0])
    console = Console(width=200, file=io.StringIO())
    report.show(console, result)
    name, rest = console.file.getvalue().splitlines()
    assert name == "✗ test_checker.unmasked" and "; failed: ℚ; " in rest


@pytest.mark.parametrize(
    ("system", "start"),
    [
        ("fractions", "result at [0, 0]: 2 on the left, 1 on the right"),
        ("float64", "result at [0, 0]: 2 on the left, 1 on the right; error 1, bound "),
        ("gradient", "gradient of q at [0, 0]: "),
        ("second gradient", "second derivative by q at [0, 0]: "),
    ],
)
def test_a_failure_names_what_differs(system, start):
    result = check_system(unmasked.statements[0], system)
    assert (result.left, result.right) == ("q @ k.mT @ v", "linear_attention.recurrent(q, k, v)[0]")
    assert result.failure.startswith(start), result.failure


def test_the_command_line_names_the_nearest(tmp_path):
    process = run("-m", "proofs", "check", "delta_rul")
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr == "proofs: no identity is called 'delta_rul'; the nearest name is 'delta_rule'\n"
    process = run("-m", "proofs", "check", "--profile", "fast")
    assert process.returncode == 2 and process.stderr.startswith(
        "proofs: no profile is called 'fast'; expected one of quick"
    )
    process = run("-m", "proofs", "check", "sheets", "--json", str(tmp_path / "none" / "r.json"))
    assert process.returncode == 2 and "there is no folder" in process.stderr
    process = run("-m", "proofs", "check", "sheets", "--json", str(tmp_path))
    assert process.returncode == 2 and process.stderr.endswith("cannot be written: it is a folder\n")


def test_check_from_a_program():
    visited = []
    (result,) = proofs.check(["linear_attention.sheets"], progress=lambda result, system: visited.append(system))
    assert result["verdict"] == "holds" and visited[0] == "fractions" and json.dumps(result)


@pytest.mark.parametrize(("power", "verdict"), [(2, "holds"), (1, "failed")])
def test_a_cost_of_another_order_is_caught(power, verdict):
    @grows("T² operations", source="minigrad, this test", order=2, register=False)
    def claim(length: int):
        return 7 + 3 * length**power

    assert check_statement(claim.statements[0]).verdict == verdict


def test_a_cost_that_cannot_be_measured_is_a_failure():
    @grows("A cost", source="minigrad, this test", order=1, register=False)
    def cost(length: int):
        raise TypeError("no such operation")

    result = check_statement(cost.statements[0])
    assert (result.verdict, result.systems["counted"].failure) == ("failed", "TypeError: no such operation")


@pytest.mark.parametrize(
    ("errors", "bounds", "verdict"),
    [
        ([1e-1, 1e-3, 1e-5], [1.0, 1e-2, 1e-4], "holds"),
        ([1e-1, 1e-1, 1e-1], [1.0, 1e-2, 1e-4], "failed"),  # an error above its bound
        ([1e-1, 1e-2, 1e-2], [1.0, 0.9, 0.8], "failed"),  # bounds that do not go to 0
    ],
)
def test_a_limit_that_is_not_reached_is_caught(errors, bounds, verdict):
    @converges("Errors below bounds that go to 0", source="minigrad, this test", register=False)
    def claim(k: Keys):
        return 0 * k[..., :1, :1] + np.array(errors), 0 * k[..., :1, :1] + np.array(bounds)

    assert check_statement(claim.statements[0]).verdict == verdict


def test_statements_as_json_name_their_line_and_papers(tmp_path):
    """The line is where the decorator of the named function begins; every address is of a paper the source names."""
    path = tmp_path / "s.json"
    assert run("-m", "proofs", "list", "--json", str(path)).stdout == ""
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert [row["identity"] for row in rows] == list(proofs.STATEMENTS)
    for row in rows:
        lines = (ROOT / row["file"]).read_text(encoding="utf-8").splitlines()[row["line"] - 1 :]
        function = row["identity"].partition(".")[2].partition("[")[0]
        assert next(line for line in lines if line.startswith("def ")).startswith(f"def {function}(")
        assert row["file"] == f"proofs/identities/{row['chapter']}.py" and lines[0].startswith(("@", "def "))
        assert row["source"] == "; ".join(citation["text"] for citation in row["citations"])
    citations = {citation["text"]: citation for row in rows for citation in row["citations"]}
    assert citations["Katharopoulos et al. 2020, eq. 7"]["url"] == "https://arxiv.org/abs/2006.16236"
    talk = citations['talk on Titans, "[Paper Review] Can Titans surpass Transformers? (in Korean)", 1:00:59']
    assert talk["url"] == "https://www.youtube.com/watch?v=4pNugYLtECM&t=3659s" and talk["place"] == "1:00:59"


def test_the_default_profile_has_long_examples():
    """Up to 64 tokens in the cheapest number systems, where no argument limits the length; none in the short one."""
    lengths = []

    @identity("A sum in two orders", source="minigrad, this test", exact=True, register=False)
    def claim(q: Queries, k: Keys):
        lengths.append(q.shape[-2])
        return q + k, k + q

    for system in ("modular", "float64"):
        for profile, longest in (("short", 9), ("default", 64)):
            lengths.clear()
            assert check_system(claim.statements[0], system, profile).status == "passed"
            assert longest / 2 < max(lengths) <= longest


def test_bounds_are_for_sides_that_differ(monkeypatch):
    """Equal bits pass without a bound, which takes longer than all the rest; the worst error shown is of another."""
    bounded = []
    bounds = systems.bounds
    monkeypatch.setattr(systems, "bounds", lambda *arguments: bounded.append(arguments) or bounds(*arguments))
    result = check_system(distribution.statements[0], "float64")
    assert result.status == "passed" and 0 < len(bounded) < result.examples
    assert 0 < result.worst_error <= result.bound
    with np.errstate(all="ignore"):
        assert not systems._bitwise_equal([np.array([1.0, np.nan])], [np.array([1.0, np.nan])])
        assert not systems._bitwise_equal([np.array([np.inf])], [np.array([np.inf])])
        assert systems._bitwise_equal([np.array([1.0, 2.0])], [np.array([1.0, 2.0])])


def half_and_third():
    return [np.array([Fraction(1, n)], dtype=object) for n in (2, 3)]


NOTHING = "no example had a finite bound, so nothing was shown"


@pytest.mark.parametrize(
    ("state", "sides", "failure"),
    [
        (identity, lambda: ([], []), NOTHING),
        (identity, lambda: (np.ones(0), np.ones(0)), NOTHING),
        (identity, half_and_third, "result at [0]: 1/2 on the left, 1/3 on the right"),
        (identity, lambda: (np.array(["a"]), np.array(["b"])), "AttributeError: "),
        (converges, lambda: (np.float64(0), np.float64(1)), "IndexError: "),
    ],
)
def test_sides_without_numbers_or_that_cannot_be_compared_fail(state, sides, failure):
    @state("Sides", source="minigrad, this test", register=False)
    def claim(q: Queries):
        return sides()

    result = check_system(claim.statements[0], "float64")
    assert result.status == "failed" and result.failure.startswith(failure), result.failure

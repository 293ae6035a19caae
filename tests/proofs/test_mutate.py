"""The mutants are those that are meant, a sample of them is killed by statements, and survivors are explained."""

import os
import subprocess
import sys

import pytest

from proofs.mutate import choosing, command, mutants, placing
from proofs.mutate.verdicts import Mutant, Record, Tally, Verdict, read_record, read_survivors, tally, write_record

DELTA_RULE = "models/memory/delta_rule.py"
SAMPLE = 73  # mutants of mechanisms and blocks: tests/oracle has those of primitives, and kernels compile slowly


def changes(line: str) -> set[str]:
    return {mutant.change for mutant in mutants.mutants(DELTA_RULE) if mutant.line == line}


def test_an_expression_is_changed_in_every_way_of_the_operators():
    assert changes("S = S + k_t.mT @ u_t") == {
        "S + k_t.mT @ u_t → S - k_t.mT @ u_t",
        "S + k_t.mT @ u_t → S",
        "k_t.mT → k_t",
    }
    assert "xp.tril(Q @ K.mT) → (Q @ K.mT)" in changes("y.append(Q @ S + xp.tril(Q @ K.mT) @ U)")


def test_every_mutant_is_python_and_differs_from_the_file():
    original = compile((placing.ROOT / DELTA_RULE).read_text(encoding="utf-8"), DELTA_RULE, "exec")
    for mutant in mutants.mutants(DELTA_RULE):
        assert compile(mutants.changed_source(mutant), DELTA_RULE, "exec") != original, mutant


def test_text_annotations_errors_and_their_conditions_stay():
    lines = {mutant.line for mutant in mutants.mutants("models/ssm/discretize.py")}
    assert not any(line.startswith(('"""', "raise ", "from ", "import ")) for line in lines)
    assert not any("Float[Array" in line for line in lines if not line.startswith("def "))


@pytest.mark.parametrize(
    "name", ["memory.delta_rule", "models.memory.delta_rule", DELTA_RULE, "memory.delta_r*", "models/memory/delta_*.py"]
)
def test_a_module_has_several_names(name):
    assert choosing.select_files([name]) == [DELTA_RULE]


def test_a_folder_a_package_and_a_group_are_their_files():
    blocks = choosing.select_files(["blocks"])
    assert blocks == choosing.select_files(["models/blocks/"]) == choosing.select_files(["models.blocks"])
    assert set(blocks) < set(choosing.select_files())


def test_an_unknown_name_is_an_error_with_the_nearest():
    with pytest.raises(LookupError, match=r"'memory\.delta_ruel'; the nearest name is 'memory\.delta_rule'"):
        choosing.select_files(["memory.delta_ruel"])


def made_up(file: str, count: int) -> list[Mutant]:
    return [Mutant(file, "f", f"line {i}", f"{i} → {i + 1}") for i in range(count)]


def test_a_sample_is_in_proportion_and_stays_when_another_file_changes():
    a, b = made_up("a.py", 300), made_up("b.py", 100)
    before = choosing.sample(a + b, 40, 0)
    assert [sum(mutant.file == file for mutant in before) for file in ("a.py", "b.py")] == [30, 10]
    after = choosing.sample(a + b[:90], 39, 0)
    assert {m for m in before if m.file == "a.py"} == {m for m in after if m.file == "a.py"}
    assert choosing.sample(a + b, 20, 0) == before[:20]
    assert choosing.sample(a + b, 40, 1) != before


def test_a_record_is_read_as_it_was_written(tmp_path):
    verdicts = [
        Verdict(made_up("a.py", 1)[0], "chapter.name, float64", "1 ≠ 2", 3, 0.5),
        Verdict(made_up("b.py", 1)[0]),
    ]
    record = Record("python -m proofs mutate", "2026-11-30", {"blocks": 2}, verdicts)
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="other.json is no record of verdicts"):
        read_record(tmp_path / "other.json")


def test_the_score_leaves_out_what_is_equivalent():
    mutants = made_up("a.py", 5)
    verdicts = [Verdict(mutants[0], "chapter.name, modular"), *(Verdict(mutant) for mutant in mutants[1:])]
    count = tally(verdicts, {mutants[1]: ("equivalent", ""), mutants[2]: ("an error", "tests/engine/test_nn.py")})
    assert count == Tally(killed=1, killed_by_tests=1, equivalent=1, survived=2)
    assert (count.score(), count.score(with_tests=True)) == (1 / 4, 2 / 4)


def test_every_explained_survivor_is_a_mutant_with_a_reason():
    survivors = command.listed()
    tests = [test for _, test in survivors.values() if test]
    assert all((placing.ROOT / test).exists() for test in tests)


def test_an_explained_survivor_that_is_no_mutant_any_more_is_an_error(tmp_path, monkeypatch):
    entry = f'file = "{DELTA_RULE}"\nfunction = "recurrent"\nline = "S = 0"\nchange = "0 → 1"\nwhy = "a test"\n'
    path = tmp_path / "survivors.toml"
    path.write_text(f"[[survivors]]\n{entry}", encoding="utf-8")
    monkeypatch.setattr(command, "read_survivors", lambda: read_survivors(path))
    with pytest.raises(LookupError, match="has no such mutant in the line 'S = 0'"):
        command.listed()
    path.write_text(f"[[survivors]]\n{entry.replace('a test', '')}", encoding="utf-8")
    with pytest.raises(ValueError, match="has no reason"):
        command.listed()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a mutant is judged in a forked process")
def test_a_change_that_computes_the_same_survives_and_another_does_not():
    """New code in a function, and a new import for what is outside functions, leave the statements as they hold."""
    script = f"""
from proofs.mutate import workers
from proofs.mutate.placing import ROOT
from proofs.mutate.verdicts import Limits, Mutant

if __name__ == "__main__":
    workers.initialize({os.getpid()}, workers.Setting(Limits(mutant=1.5)))
    text, line = (ROOT / "{DELTA_RULE}").read_text(encoding="utf-8"), "S = S + k_t.mT @ u_t"
    assert line in text
    for changed in (text.replace(line, "S = k_t.mT @ u_t + S"), text + "ONE = 1", text.replace(line, "S = S")):
        verdict = workers.judge_one(Mutant("{DELTA_RULE}", "recurrent", line, ""), changed)
        print(verdict.by or "survives", verdict.passed > 0)
"""
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=placing.ROOT, capture_output=True, text=True, timeout=600
    )
    same, outside, other = process.stdout.splitlines() or [process.stderr] * 3
    assert (same, outside) == ("survives True", "survives True")
    assert other.startswith("every_mechanism.forms_agree[delta_rule"), other


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a mutant is judged in a forked process")
def test_statements_kill_a_sample_of_mutants(tmp_path):
    path = tmp_path / "verdicts.json"
    line = [sys.executable, "-m", "proofs", "mutate", "mechanisms", "blocks", "--sample", str(SAMPLE)]
    line += ["--processes", "1", "--json", str(path)]
    process = subprocess.run(line, cwd=placing.ROOT, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 0, process.stderr
    judged, explained = read_record(path).verdicts, read_survivors()
    assert len(judged) == SAMPLE
    survivors = [str(verdict.mutant) for verdict in judged if not verdict.by and verdict.mutant not in explained]
    assert not survivors, "neither killed by a statement nor explained in proofs/mutate/survivors.toml"

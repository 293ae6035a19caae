"""Adversarial checks find ports that were written to pass, and pass honest ones."""

import pytest

import minigrad as mg
from models.memory import delta_rule
from proofs.port import CASES, check
from proofs.port.adversarial import TRIALS
from tests.port.cheats import CHEATS
from tests.port.numpy_ports import make

HONEST = ["attention.softmax.quadratic", "memory.gated_delta_rule.recurrent", "ssm.selective_scan.recurrent"]


def wrong_cases(report, names):
    return {finding.case.name for finding in report.findings if finding.case.name in names}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_each_cheat_is_found(cheat):
    """CHEATS says what finds it: the ordinary cases, which most are written to pass, or a trial."""
    form, in_cases, trial = CHEATS[cheat]
    made = cheat()
    port, options = made if isinstance(made, tuple) else (made, {})
    report = check(port, form, precisions=["float64"], adversarial=True, seed=0, **options)
    assert bool(wrong_cases(report, CASES)) == in_cases
    assert trial in wrong_cases(report, TRIALS)
    assert report.first.case.name in (CASES if in_cases else TRIALS)


@pytest.mark.parametrize("form", HONEST)
def test_honest_ports_pass(form):
    report = check(make(form), form, adversarial=True, seed=1)
    assert report.right, str(report)
    gated = form != "attention.softmax.quadratic"
    assert {name for _, name, _ in report.cells} - set(CASES) == TRIALS.keys() - ({"gates"} if not gated else set())
    assert gated or report.not_applied["gates"] == "there is no gate"


def test_an_honest_gradient_passes():
    def backward(q, k, v, beta, dy, dS):
        return mg.vjp(delta_rule.chunkwise, q, k, v, beta)[1]((dy, dS))

    report = check(
        lambda q, k, v, beta: delta_rule.chunkwise(q, k, v, beta),
        "memory.delta_rule.chunkwise",
        backward=backward,
        adversarial=True,
        seed=2,
        cases=["T = 1"],
    )
    assert report.right, str(report)
    assert report.cells["float32", "long history", "gradient of beta"] == "right"


def test_a_seed_is_drawn_printed_and_replayed():
    form, cheat = "memory.linear_attention.parallel", next(iter(CHEATS))
    options = {"cases": ["T = 1"], "precisions": ["float64"], "adversarial": True}
    first, second = (check(cheat(), form, **options) for _ in range(2))
    assert first.seed != second.seed
    assert f"seed {first.seed} (the same again: --seed {first.seed})" in str(first)
    again = check(cheat(), form, **options, seed=first.seed)
    assert [str(finding) for finding in again.findings] == [str(finding) for finding in first.findings]


def test_declared_sizes_and_layouts_are_kept():
    shapes = set()

    def port(k, q, v):
        shapes.add((q.shape[2], q.shape[3], v.shape[3]))
        y, S = make("memory.linear_attention.recurrent")(*(x.swapaxes(1, 2) for x in (q, k, v)))
        return y.swapaxes(1, 2), S

    options = {"layout": "b t h k", "sizes": {"K": 8, "V": 8}, "cases": ["T = 1"], "precisions": ["float64"]}
    report = check(port, "memory.linear_attention.recurrent", adversarial=True, seed=0, **options)
    assert report.right, str(report)
    assert {pair[1:] for pair in shapes} == {(8, 8)}
    assert len(shapes) > 1  # of heads

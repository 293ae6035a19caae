"""Suspicions: a wrong port that another declaration makes right is told which, and names are those of `models list`."""

import numpy as np
import pytest

from models.errors import UserError
from models.memory import delta_rule, gated_delta_rule
from proofs.port import check
from proofs.port.checking import find_form
from tests.port.numpy_ports import make

GDR = "memory.gated_delta_rule"


def swapped(x):
    return np.swapaxes(x, 1, 2)


def port_with(layout=False, scale=False, factors=False, state_of_values=False):
    """Return a port of the gated delta rule with these conventions."""

    def port(q, k, v, beta, log_decay, state=None):
        q, k, v, beta, g = (swapped(x) if layout else x for x in (q, k, v, beta, log_decay))
        with np.errstate(all="ignore"):
            g = np.log(g) if factors else g
        state = state.mT if state is not None and state_of_values else state
        y, S = gated_delta_rule.recurrent(q * q.shape[-1] ** -0.5 if scale else q, k, v, beta, g, state=state)
        return swapped(y) if layout else y, S.mT if state_of_values else S

    return port


DECLARED = {
    "layout": "--layout 'b t h k'",
    "factors": "--decay 'factor'",
    "scale": "--scale '1/sqrt(K)'",
    "state_of_values": "--state 'v k'",
}


@pytest.mark.parametrize(
    "conventions", [*([name] for name in DECLARED), ["layout", "scale"], list(DECLARED)], ids="-".join
)
def test_a_convention_that_is_not_declared_is_suspected(conventions):
    report = check(port_with(**dict.fromkeys(conventions, True)), GDR, cases=["T not a multiple"])
    assert not report.right
    options = " ".join(DECLARED[name] for name in conventions)
    assert report.suspicion.startswith(f"in plain cases it is right with {options}: ")
    assert f"\nsuspicion: {report.suspicion}\n" in str(report)


def test_there_is_no_suspicion_of_a_port_that_is_right_or_wrong_otherwise():
    assert check(port_with(), GDR, cases=["T not a multiple"]).suspicion == ""
    wrong = check(make(f"{GDR}.recurrent", "v_t - k_t @ S", "v_t"), GDR, cases=["T not a multiple"])
    assert not wrong.right
    assert wrong.suspicion == ""


def test_what_was_declared_is_not_changed():
    report = check(port_with(layout=True), GDR, cases=["T not a multiple"], layout="b h t k")
    assert report.suspicion == ""


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("memory.delta_rule", "delta_rule.recurrent"),
        ("delta_rule", "delta_rule.recurrent"),
        ("delta_rule.chunkwise", "delta_rule.chunkwise"),
        ("memory.delta_rule  chunkwise", "delta_rule.chunkwise"),
        (delta_rule.chunkwise, "delta_rule.chunkwise"),
        ("attention.softmax", "softmax.quadratic"),
    ],
)
def test_names_are_spelled_as_in_models_list(name, full):
    assert find_form(name).name == full


@pytest.mark.parametrize("name", ["memory", "chunkwise", "delta", "memory.delta_rule.quadratic", ""])
def test_other_names_are_errors(name):
    with pytest.raises(UserError, match=r"form: there is no .* \(nearest: "):
        find_form(name)

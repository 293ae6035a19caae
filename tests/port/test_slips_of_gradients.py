"""Slips in gradients, planted in backward functions of right forwards, are named."""

from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from models.memory import gated_linear_attention, linear_attention
from models.ssm import s4d, selective_scan
from proofs.port import check
from proofs.port.backwards import BACKWARDS, of_y_alone
from proofs.port.cases import CASES, Example
from proofs.port.forms import find_form
from proofs.port.reference import Reference, result_names
from proofs.port.signature import declare
from tests.port.numpy_ports import PORTS, make

LINEAR, GLA = "memory.linear_attention.recurrent", "memory.gated_linear_attention.recurrent"
S4D, SCAN = "ssm.s4d.recurrent", "ssm.selective_scan.recurrent"


def run(form, port, cases=("T > chunk", "T not a multiple", "start state", "shut gate"), **options):
    return check(port, form, cases=list(cases), precisions=["float64"], **options)


def linear(q, k, v, state=None):
    return make(LINEAR)(q, k, v, state)


GRADIENT_SLIPS = {
    "no gradient flows to k": lambda g: 0 * g,
    "the gradient of k has the other sign": lambda g: -g,
    "the gradient of k is a mean over the batch, a sum is right": lambda g: g / 6,
    "the gradient of k is twice the right one": lambda g: 2 * g,
    "the gradient of k is half the right one": lambda g: g / 2,
}


@pytest.mark.parametrize("slip", GRADIENT_SLIPS)
def test_a_slip_of_a_gradient_is_named(slip):
    def backward(q, k, v, dy, dstate, state=None):
        arrays = [x for x in (q, k, v, state) if x is not None]
        _, pull = mg.vjp(lambda q, k, v, *s: linear_attention.recurrent(q, k, v, state=s[0] if s else None), *arrays)
        dq, dk, *rest = pull((dy, dstate))
        return dq, GRADIENT_SLIPS[slip](dk), *rest

    report = run(LINEAR, linear, backward=backward)
    assert not report.right
    assert report.slips == [slip]
    assert "print(backward(" in report.snippet


@pytest.mark.parametrize("right", [True, False])
def test_the_gradient_of_the_state_is_not_left_out(right):
    def backward(q, k, v, dy, dstate, state=None):
        arrays = [x for x in (q, k, v, state) if x is not None]
        _, pull = mg.vjp(lambda q, k, v, *s: linear_attention.recurrent(q, k, v, state=s[0] if s else None), *arrays)
        return pull((dy, dstate if right else 0 * dstate))

    report = run(LINEAR, linear, backward=backward)
    assert report.right == right
    if not right:
        assert report.slips == ["the gradient is that of y alone: what comes from the final state is left out"]


def scan_backward(reset):
    """Return a backward function of the selective scan whose cotangent of the final state goes through `reset`."""

    def backward(u, delta, A, B, C, D, dy, dh, state=None):
        arrays = [x for x in (u, delta, A, B, C, D, state) if x is not None]
        _, pull = mg.vjp(lambda *x: selective_scan.recurrent(*x[:6], state=x[6] if x[6:] else None), *arrays)
        return pull((dy, reset(dh, A, -u.shape[-2] % 4)))

    return backward


@pytest.mark.parametrize(
    ("reset", "slip"),
    [
        (lambda g, A, padded: g, None),
        (lambda g, A, padded: g * (padded == 0), "what comes from the final state is lost where T is no multiple"),
        (lambda g, A, padded: g * np.exp(padded * np.log(2) * A), "its padded steps decay, where softplus(0) = log 2"),
    ],
)
def test_padding_in_the_reverse_scan_is_named(reset, slip):
    report = run(SCAN, make(SCAN), cases=("T > chunk", "T not a multiple"), backward=scan_backward(reset), chunk=4)
    assert report.right == (slip is None), str(report)
    if slip:
        (found,) = report.slips
        assert found.startswith(f"padding in the reverse scan: {slip}")


@pytest.mark.parametrize("detached", [True, False])
def test_a_chunk_that_is_cut_off_is_named(detached):
    def backward(q, k, v, dy, dstate, state=None):
        def chunks(q, k, v, *state):
            S, out = state[0] if state else None, []
            for t in range(0, q.shape[-2], 4):
                y, S = linear_attention.recurrent(*(x[..., t : t + 4, :] for x in (q, k, v)), state=S)
                last, S = S, S.value if detached else S
                out.append(y)
            return mg.concat(out, axis=-2), last

        _, pull = mg.vjp(chunks, *(x for x in (q, k, v, state) if x is not None))
        return pull((dy, dstate))

    report = run(LINEAR, linear, cases=("T > chunk", "T not a multiple"), backward=backward, chunk=4)
    assert report.right != detached
    assert report.slips == (["no gradient goes from a chunk to the one before it"] if detached else [])


@pytest.mark.parametrize("form", PORTS)
def test_every_wrong_backward_pass_is_one_of_every_form(form):
    """A slip that takes nothing away gives the gradients of the form."""
    chosen = find_form(form)
    reference = Reference(declare(chosen, make(form)))
    inputs = Example(chosen, (2,), 3).draw(CASES["start state"], length=3)
    right = reference.gradients(inputs, result_names(chosen))
    for name, backward in BACKWARDS.items():
        found = backward(reference, inputs, result_names(chosen))
        assert found.keys() == right.keys(), name
        if backward is not of_y_alone:  # one whole chunk, without padding
            assert all(np.allclose(found[x], right[x], rtol=1e-12, atol=1e-12) for x in right), name


def test_every_wrong_backward_pass_is_planted():
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in BACKWARDS if name.removeprefix("padding in the reverse scan: ")[:40] not in text] == []


@pytest.mark.parametrize("slip", ["conjugate missing in the gradient of C", None])
def test_a_conjugate_that_is_missing_is_named(slip):
    def backward(u, Lambda, B, C, D, delta, dy, dstate, state=None):
        arrays = [x for x in (u, Lambda, B, C, D, delta, state) if x is not None]
        _, pull = mg.vjp(lambda *x: s4d.recurrent(*x[:6], state=x[6] if x[6:] else None), *arrays)
        gradients = list(pull((dy, dstate)))
        return [*gradients[:3], gradients[3].conj() if slip else gradients[3], *gradients[4:]]

    report = run(S4D, make(S4D), backward=backward)
    assert report.right == (slip is None), str(report)
    assert report.slips == ([slip] if slip else [])


@pytest.mark.parametrize("decay", ["log", "factor"])
@pytest.mark.parametrize("wrong", [False, True])
def test_the_gradient_of_a_factor_and_of_its_logarithm_differ(decay, wrong):
    """The gradient for the other of the two is named; with a factor of 0 that of its logarithm says nothing."""
    factor = decay == "factor"

    def forward(q, k, v, g, state=None):
        return gated_linear_attention.recurrent(q, k, v, mg.log(g) if factor else g, state=state)

    def backward(q, k, v, g, dy, dstate, state=None):
        arrays = [x for x in (q, k, v, g, state) if x is not None]
        _, pull = mg.vjp(lambda q, k, v, g, *s: forward(q, k, v, g, s[0] if s else None), *arrays)
        gradients = list(pull((dy, dstate)))
        if wrong:
            gradients[3] = gradients[3] * g if factor else gradients[3] / np.exp(g)
        return gradients

    cases = ("T > chunk", "start state") if factor else ("T > chunk", "start state", "open gate")
    report = run(GLA, forward, cases, backward=backward, decay=decay)
    assert report.right == (not wrong), str(report)
    if wrong:
        words = (
            "log(log_decay): the logarithm for the factor" if factor else "exp(log_decay): the factor for the logarithm"
        )
        assert report.slips == [f"the gradient of log_decay is with respect to {words}"]


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_gate_that_is_shut_is_checked_as_a_factor_too():
    """The gradient of a factor of 0 is left out: that of its logarithm is 0 · ∞."""

    def forward(q, k, v, g, state=None):
        return gated_linear_attention.recurrent(q, k, v, np.log(g), state=state)

    report = run(GLA, forward, ["shut gate"], decay="factor")
    assert report.right, str(report)

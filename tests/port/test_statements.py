"""Statements with a port in the form's place: right ports hold them, faults break the one that is about them."""

import numpy as np
import pytest

import minigrad as mg
from models.memory import delta_rule, gated_delta_rule
from models.ssm import ssd
from proofs import STATEMENTS
from proofs.checker.statements import identity
from proofs.checker.strategies import Betas, Keys, Queries, Values
from proofs.port import check
from proofs.port.checking import find_form
from proofs.port.frameworks import Framework
from proofs.port.reference import leaves, rebuild
from proofs.port.running import Port
from proofs.port.signature import declare
from proofs.port.stand_in import stand_in
from proofs.port.statements import check_statements, sides
from proofs.port.substitution import calls, form_function, substituted
from tests.port.numpy_ports import PORTS, make

DELTA, GLA, GDR = "memory.delta_rule.recurrent", "memory.gated_linear_attention.recurrent", "memory.gated_delta_rule"
LINEAR, SOFTMAX = "memory.linear_attention.recurrent", "attention.softmax.quadratic"
SSD = "ssm.ssd.recurrent"
GENERAL = ("streaming", "causality", "independence", "forms_agree")


def run(port, form, **options):
    return check(
        port, form, **{"cases": ["T = 1"], "precisions": ["float64", "float32"], "statements": True, **options}
    )


def statuses(report):
    """Return whether statements hold, by name without chapter and instance; of several instances the worst counts."""
    found = {}
    for stated in report.statements:
        name = stated.name.partition("[")[0].partition(".")[2]
        found[name] = min(found.get(name, "left out"), stated.status, key=["fails", "holds", "left out"].index)
    return found


COSTLY = (LINEAR, GLA, SOFTMAX, "ssm.selective_scan.recurrent", "ssm.lti.recurrent", "recurrent.rwkv7.recurrent", DELTA)


@pytest.mark.parametrize("form", [form for form in PORTS if form not in COSTLY])
def test_a_right_port_holds_all_statements(form):
    report = run(make(form), form)
    assert report.right, str(report)
    found = statuses(report)
    assert {"causality", "independence"} <= {name for name, status in found.items() if status == "holds"}
    assert all(stated.reason for stated in report.statements if stated.status == "left out")
    assert all(stated.examples for stated in report.statements if stated.status == "holds")


# A form, the text of its port, what it is replaced by, and the statements that must see it
FAULTS = [
    (SSD, "[..., t, :, None] * S, axis=-2)", "[..., t, :, None] * (S + B.mT @ x), axis=-2)", ["causality"]),
    (SSD, "axis=-2), S", "axis=-2), 2 * S", ["streaming"]),
    (SSD, "S = np.exp(d_t * A) * S", "S = np.exp(d_t * A) * S + S.sum(axis=0) * (S.ndim > 2)", ["independence"]),
    (DELTA, "v_t - k_t @ S", "v_t", ["write_is_a_gradient_step", "correction_is_a_product"]),
    (
        GLA,
        "S = np.exp(log_decay[..., t, None, None]) * S\n        S = S + k_t.mT @ v_t",
        "S = np.exp(log_decay[..., t, None, None]) * (S + k_t.mT @ v_t)",
        ["gated_write_is_a_gradient_step", "fading_after_the_write"],  # the second has no counterexample then
    ),
    ("memory.ttt.primal", "if (t + 1) % batch_size == 0:", "if True:", ["forms_agree"]),
    ("recurrent.lstm.recurrent", "i, f, g, o = np", "f, i, g, o = np", ["forms_agree"]),
]


@pytest.mark.parametrize(("form", "old", "new", "names"), FAULTS, ids=[row[3][0] for row in FAULTS])
def test_a_fault_breaks_what_is_said_of_it(form, old, new, names):
    report = run(make(form, old, new), form, precisions=["float64"])
    assert not report.right
    assert {name for name, status in statuses(report).items() if status == "fails"} >= set(names)


def test_a_failure_is_shown_with_its_sides_and_plain_numbers():
    report = run(make(DELTA, "v_t - k_t @ S", "v_t"), DELTA)
    assert not report.findings  # the first token has nothing to predict
    lines = str(report).splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("first statement that fails: "))
    assert lines[at].endswith("every_mechanism.forms_agree[delta_rule.chunkwise]")
    assert lines[at + 1] == "  All forms of a mechanism give the same outputs and the same final state"
    assert lines[at + 3] == "  left:  form(tokens, state, chunk_size)   (delta_rule.chunkwise)"
    assert lines[at + 4] == "  right: plainest(tokens, state, chunk_size)   (the port)"
    assert lines[at + 5].startswith("  in float64: ")
    scope = {}
    exec("\n".join(line.strip() for line in lines[at + 6 :] if " = " in line), scope)
    q, k, v, beta = (np.array(scope[name], dtype=float) for name in ("q", "k", "v", "beta"))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(
            make(DELTA, "v_t - k_t @ S", "v_t")(q, k, v, beta)[0], delta_rule.chunkwise(q, k, v, beta)[0]
        )


def test_the_sides_name_the_forms_that_variables_and_helpers_lead_to():
    form = find_form("memory.gated_delta_rule.chunkwise")
    left, right = sides(STATEMENTS["gated_delta_rule.open_gates"], form)
    assert left == "gated   (the port)"
    assert right == "delta_rule.recurrent(q, k, v, beta, state=state)   (delta_rule.recurrent)"
    left, _ = sides(STATEMENTS["delta_rule.write_is_a_gradient_step"], find_form(DELTA))
    assert left == "write_token(k, v, beta, state)   (the port)"


def differentiable(form, wrong=lambda gradients, lengths: gradients):
    """Return a form as a port, with a backward function by minigrad."""
    chosen = find_form(form)
    count = len(chosen.axes)

    def port(*arguments, state=None):
        return chosen.function(*arguments[:count], state=state)

    def backward(*arguments, state=None):
        def call(*arrays):
            before = None if state is None else rebuild(state, arrays[count:])
            y, after = chosen.function(*arrays[:count], state=before)
            return [y, *leaves(after)]

        arrays = [*arguments[:count], *leaves(state)]
        _, pull = mg.vjp(call, *arrays)
        return wrong(list(pull(list(arguments[count:]))), arrays[0].shape[-2])

    return port, backward, [*chosen.axes, "state=state"]


@pytest.mark.parametrize("form", [SSD, "ssm.s4d.recurrent"])
def test_gradients_are_the_port_s_own(form):
    port, backward, arguments = differentiable(form)
    report = run(port, form, backward=backward, arguments=arguments, precisions=["float64"])
    assert report.right, str(report)
    port, backward, arguments = differentiable(
        form, lambda gradients, T: [*gradients[:1], *(2 * g for g in gradients[1:])]
    )
    report = run(port, form, backward=backward, arguments=arguments, precisions=["float64"])
    assert report.failed_statement.system == "gradient"


def test_statements_that_differentiate_need_the_port_s_gradients():
    form = "recurrent.rnn.recurrent"
    reasons = {s.name: s.reason for s in run(make(form), form).statements}
    assert reasons["recurrent.gradient_is_bounded"] == "it differentiates the port, which has no gradients"
    port, backward, arguments = differentiable(form)
    report = run(port, form, backward=backward, arguments=arguments, precisions=["float64"])
    assert statuses(report)["gradient_is_bounded"] == "holds"


def test_a_declared_signature_is_kept_to():
    def port(q, k, v, g, beta, initial_state=None):
        x = [np.swapaxes(x, 1, 2) for x in (q * q.shape[-1] ** -0.5, k, v, beta, np.log(g))]
        y, S = gated_delta_rule.recurrent(*x, state=None if initial_state is None else initial_state.mT)
        return np.swapaxes(y, 1, 2), S.mT

    declared = {"layout": "b t h k", "scale": "1/sqrt(K)", "state": "v k", "decay": "factor"}
    report = run(port, f"{GDR}.recurrent", cases=["T not a multiple"], **declared)
    assert report.right, str(report)
    assert {statuses(report)[name] for name in GENERAL} == {"holds"}


def test_what_a_port_cannot_take_is_counted_and_said():
    report = run(make("recurrent.rwkv4.recurrent"), "recurrent.rwkv4.recurrent")
    text = str(report)
    assert report.right, text
    assert "left out (the port returns no state): every_mechanism.streaming" in text
    assert "left out (the port takes no state): rwkv4.shift_of_exponents, rwkv4.bonus_of_a_step" in text
    assert "left out (counts operations, memory or steps): every_mechanism.operations_in_time" in text
    held = sum(stated.status == "holds" for stated in report.statements)
    assert f"statements with the port in the form's place: {held} hold, 0 fail" in text


@pytest.mark.parametrize(("error", "right"), [(2.0**-52, True), (1e-10, False)])
def test_the_bound_is_some_roundings_of_the_port(error, right):
    def port(x, delta, A, B, C, state=None):
        y, S = ssd.quadratic(x, delta, A, B, C, state=state)
        return y * y.dtype.type(1 + error), S

    assert run(port, SSD, precisions=["float64"]).right == right


def made(form):
    chosen, port = find_form(form), make(form)
    return Port(port, declare(chosen, port), Framework())


def test_shapes_are_few_where_each_is_compiled():
    shapes, lengths = set(), set()

    def port(q, k, v, log_decay, state=None):
        shapes.add((q.shape, state is None))
        lengths.add(q.shape[-2])
        return make(GLA)(q, k, v, log_decay, state)

    library = Framework()
    library.name = "jax"
    chosen = find_form(GLA)
    found = list(check_statements(Port(port, declare(chosen, port), library), 16, ["float64", "float32"]))
    assert not [stated for stated in found if stated.status == "fails"]
    assert {"which JAX would compile" in s.reason for s in found if "fading_after_the_write" in s.name} == {True}
    assert {T for T in lengths if T < 16} <= {1, 2, 3}  # a boundary of kernels has its own length
    assert len(shapes) <= 16


def test_a_statement_that_does_not_reach_the_port_does_not_count():
    found = {s.name: s for s in check_statements(made(LINEAR), 16, ["float64"])}
    assert found["parallel_forms.parallel_form_computes_more"].reason == "it calls the form on numbers of its own"
    assert all(stated.reason != "never calls the form on floats" for stated in found.values())


def test_time_is_limited():
    found = list(check_statements(made(DELTA), 16, ["float64"], seconds=0.0))
    assert {stated.reason for stated in found} >= {"the time was over"}
    assert not any(stated.status == "holds" for stated in found)


def test_nothing_else_sees_the_port():
    before = dict(vars(delta_rule)), {name: s.function for name, s in STATEMENTS.items()}
    port = made(DELTA)
    statement = STATEMENTS["delta_rule.orthonormal_keys"]
    inserted = substituted(statement, port.form, stand_in(port, 16))
    assert (dict(vars(delta_rule)), {name: s.function for name, s in STATEMENTS.items()}) == before
    assert inserted.function.__wrapped__.__globals__["delta_rule"] is not delta_rule
    assert statement.function.__globals__["delta_rule"] is delta_rule


def test_forms_are_found_in_helpers_and_in_bound_arguments():
    found = {name for name, statement in STATEMENTS.items() if calls(statement, find_form(DELTA))}
    assert "delta_rule.write_is_a_gradient_step" in found  # by write_token
    assert "every_mechanism.forms_agree[delta_rule.chunkwise]" in found  # as `plainest`
    assert "every_mechanism.streaming[delta_rule.chunkwise]" not in found
    assert "delta_rule.unit_lower_triangular_inverse" not in found
    assert form_function(find_form(DELTA)) is delta_rule.recurrent


def test_a_statement_of_one_s_own_is_inserted_into():
    @identity("the port is twice the delta rule", source="minigrad, a false one", register=False)
    def twice(q: Queries, k: Keys, v: Values, beta: Betas):
        return delta_rule.recurrent(q, k, v, beta)[0], 2 * delta_rule.recurrent(q, k, v, beta)[0]

    (statement,) = twice.statements
    assert not calls(statement, find_form(DELTA))  # only code of proofs.identities is searched


def test_cases_that_are_chosen_run_no_statements():
    assert check(make(DELTA), DELTA, cases=["T = 1"], precisions=["float64"]).statements == []

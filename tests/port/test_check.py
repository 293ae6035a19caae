"""The check of a port: its declared signature, what counts as wrong, the report, and errors in one line."""

import re

import numpy as np
import pytest

from models.attention import softmax
from models.errors import UserError
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention
from proofs.checker.forms import forms
from proofs.port import CASES, check, compare
from proofs.port.forms import full_name
from tests.port.numpy_ports import make

DELTA, GDR = "memory.delta_rule.recurrent", "memory.gated_delta_rule.recurrent"
CHUNKS, GLA = "memory.linear_attention.chunkwise", "memory.gated_linear_attention.recurrent"
SHORT = ["T = 1", "T not a multiple", "start state", "shut gate"]


def run(port, form, **options):
    return check(port, form, **{"cases": SHORT, "precisions": ["float64"], **options})


FORMS = {form.name: form for form in forms() if not form.compiled}  # kernels are compared in tests/kernels


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_a_right_port_of_the_plainest(name):
    form = FORMS[name]
    plainest = next(x for x in FORMS.values() if x.name.split(".")[::2] == name.split(".")[::2] and x.axes == form.axes)
    report = check(
        form.function,
        full_name(plainest),
        variant=".".join(name.split(".")[2:]) or None,
        arguments=[*form.axes, "state=state"],
        cases=["T not a multiple", "start state"],
    )
    assert report.right, str(report)


def swapped(x):
    return np.swapaxes(x, 1, 2)


def as_fla(q, k, v, g, beta, initial_state=None):
    """Return [B, T, H, …] arrays and a state [B, H, V, K], with q scaled, of gates as factors."""
    S = None if initial_state is None else initial_state.mT
    y, S = gated_delta_rule.recurrent(
        *(swapped(x) for x in (q * q.shape[-1] ** -0.5, k, v, beta)), np.log(swapped(g)), state=S
    )
    return swapped(y), S.mT


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_declared_signature_adapts_layout_order_scale_state_and_gates():
    declared = {"layout": "b t h k", "scale": "1/sqrt(K)", "state": "v k", "decay": "factor"}
    assert run(as_fla, GDR, **declared).right
    assert run(as_fla, GDR, **declared, arguments="q,k,v,g,beta,initial_state=state").right
    for name in declared:
        report = run(as_fla, GDR, **{**declared, name: "log" if name == "decay" else None})
        assert not report.right, name


def test_a_scale_that_is_not_declared_is_named():
    report = run(as_fla, GDR, layout="b t h k", state="v k", decay="factor", cases=["T not a multiple"])
    assert report.slips == ["a scale of 1/√K too many"]
    state = run(as_fla, GDR, layout="b t h k", scale="1/sqrt(K)", decay="factor", cases=["T not a multiple"])
    assert state.slips == ["state transposed: its last axes are V, K (declare them by state, 'v k')"]
    assert "state: has shape (2, 3, 5, 4), expected (2, 3, 4, 5)" in str(state)


def test_a_declared_scale_replaces_that_of_the_form():
    def port(q, k, v, state=None):
        return softmax.quadratic(q, k, v, scale=0.25, state=state)

    report = run(port, "attention.softmax.quadratic", cases=["T not a multiple", "start state"])
    assert report.slips == ["a scale of 1/√K too many"]  # of K = 4
    for scale in (0.25, "0.25"):
        assert run(port, "attention.softmax.quadratic", cases=["T not a multiple", "start state"], scale=scale).right


def test_features_before_time_and_results_in_another_order():
    def port(v, k, q, beta):
        y, S = delta_rule.recurrent(q.mT, k.mT, v.mT, beta)
        return S, y.mT

    assert run(port, DELTA, layout="b d t", returns="state,y").right
    assert run(lambda *x: (0, *port(*x)), DELTA, layout="b d t", arguments="v,k,q,beta", returns="_,state,y").right
    assert not run(port, DELTA, layout="b d t").right


def test_a_variant_is_chosen():
    report = run(gated_linear_attention.recurrent, GLA, variant="log_decay T K")
    assert report.right
    assert report.form == GLA


def test_sizes_are_chosen():
    shapes = []

    def port(q, k, v, beta):
        shapes.append((q.shape[-1], v.shape[-1]))
        return delta_rule.recurrent(q, k, v, beta)

    assert run(port, DELTA, sizes={"K": 8, "V": 8}).right
    assert set(shapes) == {(8, 8)}


def test_a_slip_beyond_the_first_chunk_is_found_and_placed():
    port = make(CHUNKS, "        S = S + K.mT @ V\n", "        S = S + 2 * K.mT @ V\n")
    report = run(port, CHUNKS, cases=["T > chunk"])
    assert "y at batch 0, head 0, token 4 (chunk 1, place 0), channel V 0" in str(report.first.divergence)
    assert "k = np.array([[-0.25], " in report.snippet  # three tokens in chunks of two
    assert "chunk_size=2" in report.snippet


def test_only_long_sequences_tell():
    port = make(CHUNKS, "S = S + K.mT @ V", "S = S + K.mT @ V * (t + chunk_size <= 100)")
    report = check(port, CHUNKS, precisions=["float64"])
    assert {case for (_, case, _), cell in report.cells.items() if cell == "wrong"} == {"long"}
    assert "token 104 (chunk 26, place 0)" in str(report.first.divergence)


@pytest.mark.filterwarnings("ignore")
def test_nan_at_a_shut_gate_is_found_and_explained():
    """The decay from s to t as a quotient of products of decays, which is 0/0 after a gate that is shut."""

    def port(q, k, v, log_decay, state=None):
        gamma = np.exp(np.cumsum(log_decay, axis=-1))[..., None]
        S = np.zeros((*q.shape[:-2], k.shape[-1], v.shape[-1])) if state is None else state
        y = (q * gamma) @ S + np.tril((q * gamma) @ (k / gamma).mT) @ v
        return y, gamma[..., -1:, :] * (S + (k / gamma).mT @ v)

    report = run(port, GLA, cases=["T = 1", "T not a multiple", "shut gate"])
    assert {finding.case.name for finding in report.findings} == {"shut gate"}
    assert report.slips == ["at a shut gate a quotient of decays is 0/0, or a difference of their logarithms ∞ − ∞"]
    assert "-float('inf')" in report.snippet


@pytest.mark.filterwarnings("ignore")
def test_nan_at_a_shut_gate_is_explained_beside_gradients_that_are_wrong_elsewhere():
    """Elsewhere y is right, and so a factor of 1 explains nothing."""

    def port(q, k, v, log_decay, state=None):
        y, S = gated_linear_attention.recurrent(q, k, v, log_decay, state=state)
        shut = np.where(np.isinf(log_decay), np.nan, 1.0)[..., None]
        return y * shut, S

    def backward(q, k, v, log_decay, dy, dS):
        return [np.ones_like(x) for x in (q, k, v, log_decay)]

    report = run(port, GLA, cases=["T not a multiple", "shut gate"], backward=backward)
    assert {f.case.name for f in report.findings} == {"T not a multiple", "shut gate"}
    assert report.slips == ["at a shut gate a quotient of decays is 0/0, or a difference of their logarithms ∞ − ∞"]


def test_what_a_port_does_wrong_as_a_function_is_a_finding():
    def in_place(q, k, v, beta):
        y, S = delta_rule.recurrent(q, k, v, beta)
        q *= 2
        return y, S

    def raises(q, k, v, beta):
        raise RuntimeError("out of\nregisters")

    def shape(q, k, v, beta):
        return delta_rule.recurrent(q, k, v, beta)[0][..., :-1]

    def three(q, k, v, beta):
        return (*delta_rule.recurrent(q, k, v, beta), None)

    def short(q, k, v, beta):
        y, S = delta_rule.recurrent(*(x.astype(np.float32) for x in (q, k, v, beta)))
        return y, S

    def listed(q, k, v, beta):
        return delta_rule.recurrent(q, k, v, beta)[0].tolist()

    def nan(q, k, v, beta):
        return delta_rule.recurrent(q, k, v, beta)[0] * np.nan

    for port, words in {
        in_place: "the port changes its argument q in place",
        raises: "RuntimeError: out of registers",
        shape: "y: has shape (2, 3, 1, 4), expected (2, 3, 1, 5)",
        three: "3 results came, expected y, state",
        short: "y: has dtype float32 for arguments of float64",
        listed: "expected an array of numpy",
        nan: "y at batch 0, head 0, token 0, channel V 0: got nan",
    }.items():
        report = run(port, DELTA)
        assert not report.right
        assert words in str(report), words
        assert "\n" not in str(report.first.divergence)


@pytest.mark.parametrize(("precision", "least"), [("float64", 2e-13), ("float32", 1e-4)])
def test_bounds_are_some_units_in_the_last_place(precision, least):
    """An error of that size relative to the largest entry is found, one of a unit of roundoff is not."""
    unit = {"float64": 2.0**-53, "float32": 2.0**-24}[precision]
    for error, right in ((least, False), (unit, True)):

        def port(q, k, v, beta, error=error):
            y, S = delta_rule.chunkwise(q, k, v, beta)
            return y + y.dtype.type(error) * np.max(np.abs(y)), S

        assert run(port, DELTA, precisions=[precision], cases=[*SHORT, "long"]).right == right


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_zeros_for_small_outputs_are_wrong(scale):
    def port(q, k, v, beta):
        y, S = delta_rule.recurrent(q, k, v, beta)
        return y * 0, S

    assert not run(port, DELTA, scale=scale).right


def test_the_report_begins_with_the_verdict_and_shows_the_table():
    text = str(run(make(DELTA), DELTA)).splitlines()
    assert text[0].startswith("right: port (numpy) as memory.delta_rule.recurrent, in float64")
    assert text[2].split() == "float64 T = 1 T not a multiple start state shut gate".split()
    assert text[3].split() == ["y", "ok", "ok", "ok", "ok"]
    assert "no gradients were checked" in text[-1]
    text = str(run(make(DELTA, "v_t - k_t @ S", "v_t"), DELTA))
    parts = ["WRONG: ", "first failure: ", "this is the slip: the prediction is missing", "the smallest example"]
    assert sorted(parts, key=text.index) == parts


def test_a_snippet_prints_the_wrong_numbers(capsys):
    report = run(make(DELTA, "v_t - k_t @ S", "v_t"), DELTA, source="from tests.port import numpy_ports")
    code = report.snippet.replace(" = port(", " = numpy_ports.make(FORM, 'v_t - k_t @ S', 'v_t')(")
    exec(code, {"FORM": DELTA})
    printed = np.array(re.findall(r"[-\d.e]+", capsys.readouterr().out), dtype=float)
    expected = np.array(eval(code.split("# expected ")[1].splitlines()[0]))
    assert printed.size == expected.size
    assert not np.allclose(printed, expected.ravel())
    assert "token 1" in report.snippet  # the first token has nothing to predict


def test_nothing_checked_is_not_right():
    report = run(make(CHUNKS), CHUNKS, cases=["shut gate"])
    assert not report.right
    assert str(report).startswith("NOTHING was checked")
    assert "not run: shut gate (there is no gate)" in str(report)


def test_each_case_is_run_in_each_precision():
    report = check(make(GLA), GLA)
    assert report.right
    assert report.cases == list(CASES)
    assert report.precisions == ["float64", "float32"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "memory.delta_rule.chunkwize"}, "form: there is no memory.delta_rule.chunkwize (nearest: memory.del"),
        ({"port": 3}, "port: expected a function, got int"),
        ({"port": lambda q, k: q}, "the port takes 2 arguments (q, k), delta_rule.recurrent has 4 (q, k, v, beta)"),
        ({"arguments": "q,k,v"}, "arguments: beta is missing, expected q, k, v, beta in the port's order"),
        ({"arguments": "q,k,v,v,beta"}, "arguments: v is there twice"),
        ({"arguments": "q,k,v,bet"}, "arguments: expected one of q, k, v, beta, state, got 'bet' (nearest: beta)"),
        ({"layout": "b h"}, "layout: expected letters as in 'b t h k'"),
        ({"state": "k v v"}, "state: expected k v in some order, got 'k v v'"),
        ({"scale": "K"}, "scale: expected a number or 1/sqrt(K), got 'K'"),
        ({"decay": "gate"}, "decay: expected log or factor, got 'gate'"),
        ({"returns": "state"}, "returns: expected y, state and _"),
        ({"variant": "log_decay T"}, "variant: memory.delta_rule.recurrent has none, got 'log_decay T'"),
        ({"form": GDR, "port": make(GDR), "variant": "T"}, "variant: expected one of log_decay T, log_decay T K"),
        ({"cases": ["short"]}, "cases: expected one of T = 1"),
        ({"precisions": ["bfloat16"]}, "precisions: expected one of float64, float32, got 'bfloat16'"),
        ({"framework": "nolib"}, "framework: nolib cannot be imported"),
        ({"framework": "json"}, "framework: json has no from_dlpack"),
        ({"chunk": 0}, "chunk: expected at least 1, got 0"),
        ({"sizes": {"Q": 3}}, "sizes: expected one of K, V"),
    ],
)
def test_what_cannot_be_checked_is_one_line(options, words):
    arguments = {"port": make(DELTA), "form": DELTA, **options}
    with pytest.raises(UserError) as error:
        check(arguments.pop("port"), arguments.pop("form"), **arguments)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_dlpack_serves_other_libraries():
    def port(q, k, v):
        xp = q.__array_namespace__()
        y = xp.tril(q @ k.mT) @ v
        return y, k.mT @ v

    report = run(port, "memory.linear_attention.parallel", framework="array_api_strict", cases=["T not a multiple"])
    assert report.right, str(report)
    assert report.framework == "array_api_strict"
    wrong = run(
        lambda q, k, v: port(k, q, v)[0],
        "memory.linear_attention.parallel",
        framework="array_api_strict",
        arguments="q,k,v",
        cases=["T not a multiple"],
    )
    assert not wrong.right
    assert "q = array_api_strict.from_dlpack(np.array(" in wrong.snippet


def test_compare_two_functions():
    rng = np.random.default_rng(0)
    inputs = {"q": rng.normal(size=(5, 2)), "k": rng.normal(size=(5, 2)), "v": rng.normal(size=(5, 3))}
    inputs["beta"] = rng.uniform(size=5)
    compare(delta_rule.recurrent, delta_rule.chunkwise, inputs)
    with pytest.raises(AssertionError, match=r"result 0 at axis 0: 0, axis 1: 0: got .*, expected .*; off by"):
        compare(
            lambda q, k, v, beta: delta_rule.recurrent(q, k, v, beta)[0] * 2,
            lambda *x: delta_rule.recurrent(*x)[0],
            inputs,
        )
    with pytest.raises(AssertionError, match="2 results on the left, 1 on the right"):
        compare(delta_rule.recurrent, lambda *x: delta_rule.recurrent(*x)[0], inputs)
    with pytest.raises(AssertionError, match="gradient of beta at"):
        compare(
            lambda q, k, v, beta: delta_rule.recurrent(q, k, v, getattr(beta, "value", beta)),
            delta_rule.recurrent,
            inputs,
        )
    with pytest.raises(UserError, match="precision: expected one of"):
        compare(delta_rule.recurrent, delta_rule.recurrent, inputs, precision="float8")

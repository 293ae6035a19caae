"""Copies of the recurrent networks, each with one thing wrong: general statements and the chapter's catch them all.

A copy is the module's own source with one piece of text replaced. The copy with nothing replaced passes.
"""

import types

import pytest

from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.checker.systems import SYSTEMS
from tests.copies import copy_of, verdicts

FORMS = [
    # mechanism, form, text, what stands there instead, what is wrong
    ("lstm", "projected", "after_projection(x @ W.mT + b, U", "after_projection(x @ W.mT, U", "bias missing"),
    ("lstm", "projected", "cell(a_t + h @ U.mT, c)", "cell(a_t - h @ U.mT, c)", "sign flipped"),
    ("lstm", "recurrent", "c[..., 0, :])\n\n\n@form\n", "h[..., 0, :])\n\n\n@form\n", "h kept for c"),
    ("lstm", "recurrent", "h, c = state\n", "c, h = state\n", "the parts of the state exchanged"),
    ("rnn", "recurrent", "h @ W.mT + x_t", "0 * h @ W.mT + x_t", "state not read"),
]

BROKEN = [
    # module, text, what stands there instead, the statement that fails, what is wrong
    ("rnn", "h @ W.mT + x_t", "h @ W + x_t", "product_of_jacobians", "weights transposed"),
    ("rnn", "xp.tanh(h @ W.mT + x_t)", "h @ W.mT + x_t", "gradient_is_bounded", "no tanh"),
    ("rnn", "xp.tanh(h @ W.mT + x_t)", "xp.tanh(3 * (h @ W.mT + x_t))", "gradient_is_bounded", "a slope of 3"),
    ("rnn", "xp.tanh(h @ W.mT + x_t)", "xp.tanh(h @ W.mT + x_t) + h", "gradient_vanishes", "a residual path"),
    ("rnn", "xp.tanh(h @ W.mT + x_t)", "h @ W.mT + x_t", "gradient_explodes", "no tanh: then it does grow"),
    ("rnn", "xp.tanh(h @ W.mT + x_t)", "xp.tanh(h @ W.mT + x_t / 2)", "network_unit_by_unit", "half the input"),
    ("lstm", "* xp.tanh(c), c", "* c, c", "lstm_gate_by_gate", "an output that is not squashed"),
    ("lstm", "for n in range(4)", "for n in (3, 1, 2, 0)", "lstm_gate_by_gate", "the rows of i and o exchanged"),
    ("lstm", "mg.sigmoid(f) * c", "mg.sigmoid(i) * c", "cell_is_kept", "the cell kept by the input gate"),
    ("lstm", "mg.sigmoid(i) * xp.tanh(g)", "xp.tanh(g)", "cell_is_kept", "no input gate"),
    ("lstm", "mg.sigmoid(i) * xp.tanh(g)", "mg.sigmoid(i) * mg.sigmoid(g)", "cell_sums_writes", "σ for tanh"),
    ("lstm", "i, f, g, o = (", "i, g, f, o = (", "product_of_forget_gates", "gates in another order"),
    ("lstm", "mg.sigmoid(f) * c", "mg.sigmoid(f) * xp.tanh(c)", "product_of_forget_gates", "a squashed cell"),
    (
        "lstm",
        "x_t @ W.mT + h @ U.mT + b",
        "x_t @ W.mT + mg.stop_gradient(h) @ U.mT + b",
        "product_of_forget_gates_with_recurrent_weights",
        "the truncated gradient of 1997: then it is the product",
    ),
    (
        "lstm",
        "namespace(x, U).zeros_like(x[..., :1, :1] * U[:1, :])",
        "x[..., :1, :1] * U[:1, :]",
        "lstm_starts_from_zero",
        "a start that depends on the input",
    ),
    ("lti", "(u, A[None], B[None]", "(u, A[None].mT, B[None]", "linear_gradient_is_a_power", "weights transposed"),
    ("lti", "(u, A[None], B[None]", "(u, 2 * A[None], B[None]", "rotation_keeps_the_gradient", "twice the weights"),
    ("lti", "(u, A[None], B[None]", "(u, 0 * A[None], B[None]", "radius_bounds_the_gradient", "no weights: it holds"),
]
FAMILY = {"rnn": "recurrent", "lstm": "recurrent", "lti": "ssm"}


def verdict(statement):
    """Return the verdict on a statement of the chapter in the number systems of NumPy alone, up to a failure."""
    for system in systems_of(statement):
        if not SYSTEMS[system].library and check_system(statement, system).status == "failed":
            return "failed"
    return "holds"


@pytest.mark.parametrize(("mechanism", "form", "text", "instead", "wrong"), FORMS, ids=lambda x: x[:30])
def test_a_broken_form_is_caught(mechanism, form, text, instead, wrong):
    assert "failed" in verdicts(mechanism, form, copy_of(f"recurrent.{mechanism}", text, instead)), wrong


@pytest.mark.parametrize(("module", "text", "instead", "statement", "wrong"), BROKEN, ids=lambda x: x[:30])
def test_a_broken_copy_is_caught(module, text, instead, statement, wrong, monkeypatch):
    put_in_place(monkeypatch, module, text, instead)
    assert verdict(STATEMENTS[f"recurrent.{statement}"]) == "failed", wrong


@pytest.mark.parametrize("module", FAMILY)
def test_a_faithful_copy_passes(module, monkeypatch):
    put_in_place(monkeypatch, module)
    names = sorted({broken[3] for broken in BROKEN if broken[0] == module})
    assert [verdict(STATEMENTS[f"recurrent.{name}"]) for name in names] == ["holds"] * len(names)


def put_in_place(monkeypatch, name, text="", instead=""):
    """Let the functions of a copy replace those that the chapter calls."""
    from proofs.identities import recurrent as chapter

    copy = copy_of(f"{FAMILY[name]}.{name}", text, instead)
    for attribute, value in vars(copy).items():
        if isinstance(value, types.FunctionType) and value.__module__ == copy.__name__:
            monkeypatch.setattr(getattr(chapter, name), attribute, value)

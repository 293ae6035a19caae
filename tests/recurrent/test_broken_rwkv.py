"""Copies of RWKV-4's WKV and of RWKV-7's memory, each with one thing wrong: statements catch them all.

A copy is the module's own source with one piece of text replaced. The copy with nothing replaced passes.
"""

import importlib
import types

import pytest

from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.checker.systems import SYSTEMS
from tests.copies import copy_of, has_code_of_original, verdicts

FORMS = [
    # mechanism, form, text, what stands there instead, what is wrong
    ("rwkv4", "recurrent", "xp.concat([lse - w, k_t]", "xp.concat([lse, k_t]", "the state does not decay"),
    ("rwkv4", "recurrent", "xp.concat([lse, u + k_t]", "xp.concat([lse - w, u + k_t]", "read after a decay"),
    ("rwkv4", "parallel", "between >= -1]", "between >= 0]", "mask off by one: no present"),
    ("rwkv4", "parallel", "between >= -1]", "between >= -2]", "mask off by one: one future"),
    ("rwkv4", "parallel", "left = age.shape[-2] - 1 - age", "left = age.shape[-2] - age", "decayed once too often"),
    ("rwkv4", "parallel", "lse - age.shape[-2] * w, k", "lse - (age.shape[-2] - 1) * w, k", "the start's decay"),
    ("rwkv4", "parallel", "mean, lse = state\n    xp", "lse, mean = state\n    xp", "the parts of the state exchanged"),
    ("rwkv4", "chunkwise", "wkv, rows = _parallel", "wkv, _ = _parallel", "state lost between chunks"),
    ("rwkv7", "recurrent", "z_t = a_t @ S\n", "z_t = a_t @ (xp.exp(g_t).mT * S)\n", "read after the decay"),
    ("rwkv7", "recurrent", "b_t.mT @ z_t + k_t.mT", "a_t.mT @ z_t + k_t.mT", "a for b"),
    ("rwkv7", "chunkwise", "unit_lower_inverse(-A)", "unit_lower_inverse(A)", "sign of the system"),
    ("rwkv7", "chunkwise", "A = _products(a_c, Before, b_c)", "A = _products(a_c, Gamma, b_c)", "a decay too many"),
    ("rwkv7", "chunkwise", "(before * a_c) @ S", "(gamma * a_c) @ S", "the start decayed before it is read"),
    ("rwkv7", "chunkwise", "xp.tril(_products(a_c, Before, K), k=-1)", "xp.tril(_products(a_c, Before, K))", "present"),
    (
        "rwkv7",
        "chunkwise",
        "xp.tril(_products(R, Gamma, b_c)) @ Z",
        "xp.tril(_products(R, Gamma, b_c), k=-1) @ Z",
        "past",
    ),
    ("rwkv7", "chunkwise", "(to_end * b_c).mT @ Z", "b_c.mT @ Z", "what is written back does not decay"),
    ("rwkv7", "chunkwise", "S = gamma[..., -1:, :].mT * S", "S = gamma[..., :1, :].mT * S", "index of the decay"),
]

BROKEN = [
    # module, text, what stands there instead, the statement that fails, what is wrong
    ("rwkv4", "xp.concat([lse, u + k_t]", "xp.concat([lse - w, u + k_t]", "quotient_of_sums", "a step too many"),
    (
        "rwkv4",
        "xp.concat([lse, u + k_t]",
        "xp.concat([lse - w, u + k_t]",
        "one_more_step",
        "a step too many: then it is so",
    ),
    ("rwkv4", "xp.concat([lse - w, k_t]", "xp.concat([lse + w, k_t]", "quotient_of_sums", "growing weights"),
    (
        "rwkv4",
        "xp.concat([lse - w, k_t]",
        "xp.concat([lse + w, k_t]",
        "normalised_gated_linear_attention",
        "growing weights, of gates above 1",
    ),
    ("rwkv4", "lse - age.shape[-2] * w, k", "lse - w, k", "published_recurrence", "a chunk decayed as a token is"),
    (
        "rwkv4",
        "mg.logsumexp(exponents, axis=-2, keepdims=True)",
        "namespace(values).max(exponents, axis=-2, keepdims=True)",
        "published_recurrence",
        "the greatest exponent for the sum",
    ),
    (
        "rwkv4",
        "weights = mg.softmax(exponents, axis=-2, where=visible)",
        "weights = mg.exp(exponents)\n    weights = weights / mg.sum(weights, axis=-2, keepdims=True)",
        "shift_of_exponents",
        "no maximum subtracted: e^1000 overflows",
    ),
    ("rwkv4", "(u + k)[..., None, :, :]", "(u - k)[..., None, :, :]", "softmax_with_linear_bias", "sign of a key"),
    ("rwkv4", "- between[..., None] * w", "- 2 * between[..., None] * w", "softmax_with_linear_bias", "a slope of 2w"),
    ("rwkv4", "xp.concat([lse, u + k_t]", "xp.concat([lse, k_t]", "bonus_of_a_step", "no bonus"),
    ("rwkv4", "k[..., None, :, :] - between", "2 * k[..., None, :, :] - between", "no_decay", "keys doubled"),
    ("rwkv7", "+ b_t.mT @ z_t + k_t", "- b_t.mT @ z_t + k_t", "generalised_delta_rule", "sign flipped"),
    ("rwkv7", "unit_lower_inverse(-A)", "unit_lower_inverse(A)", "is_the_gated_delta_rule", "sign of the system"),
    ("rwkv7", "+ b_t.mT @ z_t + k_t", "+ k_t", "is_the_delta_rule", "nothing written back"),
    ("rwkv7", "to_end = Gamma[..., -1, :, :]", "to_end = Gamma[..., 0, :, :]", "is_gated_linear_attention", "no decay"),
    ("rwkv7", "(to_end * b_c).mT @ Z", "b_c.mT @ Z", "product_of_transitions", "what is written back does not decay"),
    ("rwkv7", "+ b_t.mT @ z_t + k_t", "+ 2 * b_t.mT @ z_t + k_t", "eigenvalue_of_the_removal", "twice the rate"),
    ("rwkv7", "+ b_t.mT @ z_t + k_t", "+ a_t.mT @ z_t + k_t", "exchange_of_rows", "a for b"),
    ("rwkv7", "z_t = a_t @ S", "z_t = a_t @ (xp.exp(g_t).mT * S)", "shut_gates", "read after the decay: then it is so"),
    ("rwkv7", "+ b_t.mT @ z_t + k_t", "+ 0 * b_t.mT @ z_t + k_t", "swapped", "neither a nor b used: then it is so"),
]


def verdict(statement):
    """Return the verdict on a statement in the number systems of NumPy alone, up to a failure."""
    for system in systems_of(statement):
        if not SYSTEMS[system].library and check_system(statement, system).status == "failed":
            return "failed"
    return "holds"


@pytest.mark.parametrize(("mechanism", "form", "text", "instead", "wrong"), FORMS, ids=lambda x: x[:40])
def test_a_broken_form_is_caught(mechanism, form, text, instead, wrong):
    assert "failed" in verdicts(mechanism, form, copy_of(f"recurrent.{mechanism}", text, instead)), wrong


@pytest.mark.parametrize(("module", "text", "instead", "statement", "wrong"), BROKEN, ids=lambda x: x[:40])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_a_broken_copy_is_caught(module, text, instead, statement, wrong, monkeypatch):
    put_in_place(monkeypatch, module, text, instead)
    assert verdict(STATEMENTS[f"{module}.{statement}"]) == "failed", wrong


@pytest.mark.parametrize("module", ["rwkv4", "rwkv7"])
def test_a_faithful_copy_is_the_original(module):
    """Its statements are in proofs/: what has the bytecode of the original passes where the original passes."""
    assert has_code_of_original(copy_of(f"recurrent.{module}"), f"recurrent.{module}")


@pytest.mark.parametrize("module", ["rwkv4", "rwkv7"])
def test_every_statement_of_the_chapter_has_been_broken(module):
    broken = {statement for name, _, _, statement, _ in BROKEN if name == module}
    assert broken == {name.partition(".")[2] for name, x in STATEMENTS.items() if x.chapter == module}


def put_in_place(monkeypatch, name, text, instead):
    """Let the functions of a copy replace those that the chapter calls."""
    original, copy = importlib.import_module(f"models.recurrent.{name}"), copy_of(f"recurrent.{name}", text, instead)
    for attribute, value in vars(copy).items():
        if isinstance(value, types.FunctionType) and value.__module__ == copy.__name__:
            monkeypatch.setattr(original, attribute, value)

"""Copies of the memories and of their inner models, each with one thing wrong: the chapters object.

A copy is the module's own source with one piece of text replaced. The statement that is to fail is named, so that a
mistake is caught by what says that it is one; the copy with nothing replaced passes them all.
"""

import importlib
import types

import pytest

from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.checker.systems import SYSTEMS
from tests.copies import copy_of

DECAY = "S = xp.exp(g_t).mT * S\n        u_t = beta_t * (v_t - k_t @ S)"  # of the gated delta rule

BROKEN = [
    # module, text, what stands there instead, the statement that fails, what is wrong
    (
        "gated_delta_rule",
        "xp.exp(g_t).mT",
        "xp.exp(xp.sum(g_t, axis=-1, keepdims=True))",
        "gated_delta_rule.one_gate_for_all_channels",
        "the product of all gates in each channel",
    ),
    (
        "gated_delta_rule",
        DECAY,
        "u_t = beta_t * (v_t - k_t @ S)\n        S = xp.exp(g_t).mT * S",
        "gated_delta_rule.channel_transition",
        "the error of the memory before its decay",
    ),
    (
        "gated_delta_rule",
        "xp.exp(g_t).mT",
        "xp.exp(g_t)[..., :1]",
        "gated_delta_rule.diagonal_plus_low_rank",
        "the first channel's gate for all rows",
    ),
    (
        "gated_delta_rule",
        "beta_t * (v_t - k_t @ S)",
        "beta_t * v_t - k_t @ S",
        "gated_delta_rule.write_at_decayed_rows_is_a_gradient_step",
        "a parenthesis: what is removed does not know β",
    ),
    (
        "gated_delta_rule",
        DECAY,
        "S = xp.exp(g_t).mT * (S - k_t.mT @ (beta_t * (k_t @ S)))\n        u_t = beta_t * v_t",
        "gated_delta_rule.channels_decay_after_the_delta_rule",
        "it does decay after the delta rule",
    ),
    (
        "gated_delta_rule",
        "v_t - k_t @ S",
        "v_t",
        "gated_delta_rule.orthonormal_keys_with_channel_gates",
        "the error is the value: it is gated linear attention",
    ),
    (
        "gated_delta_rule",
        "(gamma * K) @ S",
        "gamma[..., :1] * (K @ S)",
        "gated_delta_rule.attention_to_update_vectors",
        "the first channel's gate in the correction",
    ),
    (
        "gated_delta_rule",
        "decayed_products(K, K, Gamma)",
        "(K @ K.mT)",
        "gated_delta_rule.attention_to_update_vectors",
        "no decay between the update vectors of a chunk",
    ),
    (
        "ttt",
        "xp.tril(xp.ones_like(eta_b) * eta_b.mT)",
        "(xp.ones_like(eta_b) * eta_b.mT)",
        "ttt.linear_model_in_one_batch",
        "a query sees the writes after it",
    ),
    (
        "ttt",
        "xp.ones_like(eta_b) * eta_b.mT",
        "eta_b * xp.ones_like(eta_b).mT",
        "ttt.mlp_dual_is_primal",
        "the reader's rate",
    ),
    (
        "ttt",
        "Z_bar if i == 0 else inner.gelu(Z_bar)",
        "Z_bar",
        "ttt.mlp_dual_is_primal",
        "no GELU between the layers of a query",
    ),
    (
        "ttt",
        "/ 2\n    return mg.sum(losses)",
        "\n    return mg.sum(losses)",
        "ttt.linear_model_in_batches_of_one",
        "the ½ of the loss",
    ),
    ("ttt", "W - tau_b * G, copies, sums", "W - G, copies, sums", "ttt.shares", "the share τ of the sum"),
    (
        "ttt",
        "(copies, norm, XK, XV)",
        "(copies, norm, mg.stop_gradient(XK), XV)",
        "ttt.outer_gradient_of_views",
        "no gradient through the inner step's keys",
    ),
    ("inner", "(len(layer) - 1)", "0", "ttt.linear_dual_is_primal", "the bias not moved by what was written"),
    (
        "inner",
        "g - _mean(g) - unit * _mean(g * unit)",
        "g - unit * _mean(g * unit)",
        "ttt.layer_norm_by_hand",
        "the mean's part of the slope",
    ),
    (
        "inner",
        "(g - _mean(g) - unit * _mean(g * unit)) / deviation",
        "g - _mean(g) - unit * _mean(g * unit) / deviation",
        "ttt.layer_norm_by_hand",
        "a parenthesis in that slope",
    ),
    ("inner", "1 + 3 * CUBIC", "1 + CUBIC", "ttt.gelu_by_hand", "the cube's derivative"),
    ("inner", "* gelu_grad(z)", "* gelu(z)", "ttt.inner_gradient_by_hand", "the activation instead of its slope"),
    (
        "titans",
        "Gamma @ H * rate.mT, Gamma @ h",
        "H @ Gamma * rate.mT, Gamma @ h",
        "titans.memory_unrolled",
        "the two triangular products in the other order",
    ),
    (
        "titans",
        "Gamma @ H * rate.mT, Gamma @ h",
        "Gamma @ H * rate.mT, h",
        "titans.one_linear_recurrence",
        "past surprise not gathered over the batch",
    ),
    (
        "titans",
        "inner.add_residual(norm, Q, Z_bar)",
        "inner.add_residual(norm, K, Z_bar)",
        "titans.within_a_norm",
        "a key added to the answer, and not the query",
    ),
    (
        "titans",
        "error, grad_l_wrt_Z_last = inner.inner_loss_grad(norm, K, V, Z[-1])",
        "error = grad_l_wrt_Z_last = inner.inner_loss_grad(norm, K, V, Z[-1])[0]",
        "titans.within_a_norm",
        "the slope before the norm",
    ),
    ("titans", "decay * M + S", "decay * (M + S)", "titans.online_rule", "forgetting after the write"),
    ("titans", "eta * S - theta * u", "eta * S + theta * u", "titans.online_rule", "uphill"),
    ("titans", "(mix, H * rate.mT)", "(mix, Gamma * rate.mT)", "titans.momentum_unrolled", "one decay for the other"),
    ("titans", "start, left = M, batch_size", "left = batch_size", "titans.online_rule", "gradients at M₀ for ever"),
    (
        "titans",
        "g[..., -1:, :] * M + p",
        "M + p",
        "titans_optimiser.memory_is_bounded_by_surprises",
        "no decay of the memory that the next batch starts from",
    ),
    (
        "titans",
        "h[..., -1:, :] * S - u",
        "h[..., -1:, :] * S + u",
        "titans_optimiser.answers_of_one_key",
        "uphill in the surprise that the next batch starts from",
    ),
    (
        "titans",
        "eta * S - theta * u",
        "S - theta * u",
        "titans_optimiser.known_pair_writes_past_surprise",
        "past surprise that does not fade",
    ),
    ("ttt", "- tau_b * step", "+ tau_b * step", "ttt_updates.update_in_two_factors", "uphill"),
    (
        "delta_rule",
        "v_t - k_t @ S",
        "v_t + k_t @ S",
        "parallel_forms.delta_rule_in_brackets",
        "the memory's answer added to the value",
    ),
    ("delta_rule", "v_t - k_t @ S", "v_t - k_t @ S / 2", "delta_rule.a_pass_comes_nearer", "half of the answer"),
    (
        "linear_attention",
        "S = S + k_t.mT @ v_t",
        "S = S + q_t.mT @ v_t",
        "fixed_size_state.states_ignore_queries",
        "values written under the query",
    ),
    (
        "linear_attention",
        "S = S + k_t.mT @ v_t",
        "S = S + 1 * (k_t.mT @ v_t)",
        "parallel_forms.operations_of_each_form",
        "an operation more for each number of the state",
    ),
    (
        "linear_attention",
        "xp.tril(q @ k.mT)",
        "xp.tril(q @ k.mT, k=-1)",
        "parallel_forms.masked_scores",
        "the diagonal masked too",
    ),
]


def put_in_place(monkeypatch, name, text="", instead=""):
    """Let a copy's functions stand where the module's own stood."""
    original = importlib.import_module(f"models.memory.{name}")
    copy = copy_of(f"memory.{name}", text, instead)
    for attribute, value in list(vars(copy).items()):
        if isinstance(value, type) and value.__module__ == copy.__name__:
            setattr(copy, attribute, getattr(original, attribute))  # one `State`, whoever makes it
        if isinstance(value, types.FunctionType) and value.__module__ == copy.__name__:
            monkeypatch.setattr(original, attribute, value)


def verdict(name):
    """Return the verdict on a statement in the number systems of NumPy alone, up to the first failure."""
    statement = STATEMENTS[name]
    for system in systems_of(statement):
        if not SYSTEMS[system].library and check_system(statement, system).status == "failed":
            return "failed"
    return "holds"


@pytest.mark.parametrize(("module", "text", "instead", "statement", "wrong"), BROKEN, ids=lambda x: x[:40])
def test_a_broken_copy_is_caught(module, text, instead, statement, wrong, monkeypatch):
    put_in_place(monkeypatch, module, text, instead)
    assert verdict(statement) == "failed", wrong


@pytest.mark.parametrize("module", sorted({broken[0] for broken in BROKEN} - {"inner"}))
def test_a_faithful_copy_passes(module, monkeypatch):
    put_in_place(monkeypatch, module)
    named = sorted({broken[3] for broken in BROKEN if broken[0] == module})
    assert [verdict(name) for name in named] == ["holds"] * len(named)

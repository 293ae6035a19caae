"""Statements that show claims of the talks can fail: copies with one thing wrong, and every one of them is caught.

A copy is the module's own source with one piece of text replaced, put wherever the chapter looks for the module or for
what it defines. With the copy that has nothing replaced the same statements hold.
"""

import dataclasses
import importlib

import pytest

from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.checker.forms import Form
from proofs.identities import transformer
from tests.copies import copy_of

BROKEN = [
    # module, text, what stands there instead, the statements that fail, what is wrong
    (
        "ssm.hippo",
        "legvander(1 - 2 * age,",
        "legvander(1 - 2 * age * age,",
        ("polynomials.bases_are_orthonormal[legs]", "polynomials.indices_are_degrees"),
        "Legendre's polynomials of another argument",
    ),
    (
        "ssm.hippo",
        "lagvander(age,",
        "lagvander(2 * age,",
        ("polynomials.bases_are_orthonormal[lagt]", "polynomials.online_coefficients_are_the_best[lagt]"),
        "Laguerre's polynomials of another argument",
    ),
    (
        "ssm.hippo",
        "np.diag(np.arange(1.0, N + 1))",
        "np.diag(np.arange(1.0, N + 1) ** 2)",
        (
            "polynomials.online_coefficients_are_the_best[legs]",
            "polynomials.legs_does_not_fade",
            "polynomials.entries_of_legs",
            "polynomials.entries_of_the_diagonal",
        ),
        "LegS's diagonal squared",
    ),
    (
        "ssm.hippo",
        "2 * np.arange(N) + 1.0",
        "2.5 * np.arange(N) + 1.0",
        ("polynomials.reconstruction_is_stable", "polynomials.bound_is_attained"),
        "functions that are not normalised",
    ),
    (
        "ssm.hippo",
        "np.tril(np.outer(root, root), -1)",
        "np.tril(np.outer(root, root) ** 2, -1)",
        ("polynomials.entries_of_a_column",),
        "(2n + 1)(2k + 1) for its root",
    ),
    (
        "ssm.lti",
        "run_recurrence(u, A",
        "run_recurrence(u * u, A",
        ("lti.superposition", "lti.linear_in_input_and_state"),
        "inputs squared",
    ),
    (
        "ssm.lti",
        'C[None], state)\n\n\n@form(work="T²"',
        '1 + C[None], state)\n\n\n@form(work="T²"',
        ("lti.state_is_inferred", "lti.hidden_states_change_no_output"),
        "another row read",
    ),
    (
        "blocks.s4",
        "    mechanism = s4\n",
        "    mechanism = s4\n    __call__ = lambda self, x, state=None: self.system(x, state)\n",
        ("lti.layer_is_linear",),
        "a block without a nonlinearity: it is linear",
    ),
    (
        "ssm.s4",
        "return weights @",
        "return 0 * (poles @ poles.mT).sum() + weights @",
        ("s4.cost_of_cauchy_sums",),
        "N²",
    ),
    (
        "ssm.s4",
        "state, compiled_cauchy)",
        "state, cauchy)",
        ("s4.memory_of_cauchy_sums",),
        "an array of all terms",
    ),
    (
        "ssm.s4d",
        "weights[..., None] * coarse",
        "A[..., None] * weights[..., None] * coarse",
        ("s4.identity_in_the_matrix",),
        "an Ā too much",
    ),
    ("linear_systems", "else square(jump)", "else jump * jump", ("s4.cost_of_squaring",), "entries squared"),
    (
        "linear_systems",
        "h = matvec(A, h)",
        "h = matvec(square(A), h)",
        ("s4.cost_of_stepping",),
        "a product of matrices at each step",
    ),
    (
        "ssm.discretize",
        "return power, phi @ (delta * B)",
        "return power, phi @ (delta * B * B)",
        ("discretize.change_of_basis[zoh]",),
        "an input that is not linear in B",
    ),
    (
        "ssm.discretize",
        "power, phi = power @ power, phi",
        "power, phi = power + power, phi",
        ("discretize.commuting_matrices_add_up",),
        "doubled for squared",
    ),
    (
        "ssm.discretize",
        "return power, phi @",
        "return 0 * power, phi @",
        ("discretize.matrices_add_up",),
        "nothing kept: it holds",
    ),
    (
        "recurrent.rnn",
        "h @ W.mT + x_t",
        "h @ W.mT / 2 + x_t",
        ("recurrent.gradient_grows_near_zero",),
        "half of the weights",
    ),
    (
        "attention.softmax",
        "xp.concat([state[0], k], axis=-2), xp.concat([state[1], v], axis=-2)",
        "xp.concat([state[0][..., -2:, :], k], axis=-2), xp.concat([state[1][..., -2:, :], v], axis=-2)",
        (
            "every_mechanism.operations_of_the_next_softmax_token[softmax.quadratic]",
            "every_mechanism.operations_of_softmax_generation[softmax.quadratic]",
        ),
        "two tokens kept",
    ),
    (
        "attention.softmax",
        "axis=-1, where=visible) @ v",
        "axis=-1, where=visible) @ (2 * v)",
        ("stacks.attention_shrinks_the_range", "multihead.gradients_vanish_as_scores_grow"),
        "values doubled",
    ),
    (
        "attention.softmax",
        "scores = (q * scale) @ k.mT\n    return",
        "scores = (q * 0) @ k.mT\n    return",
        ("multihead.unscaled_slopes_fall", "multihead.scaled_slopes_stay"),
        "scores of 0",
    ),
    (
        "attention.softmax",
        "k=key_count - size) if causal else None",
        "k=key_count) if causal else None",
        ("stacks.two_layers_ignore_the_order",),
        "no mask: two layers ignore it too",
    ),
    (
        "attention.softmax",
        "    return mg.softmax(scores if bias",
        "    return -mg.softmax(scores if bias",
        ("stacks.residual_layers_lose_rank",),
        "the mean taken away: the range falls",
    ),
    (
        "attention.multihead",
        "heads, width // heads)), -3, -2)",
        "2 * heads, width // (2 * heads))), -3, -2)",
        ("multihead.a_head_has_one_weighting[softmax.quadratic]",),
        "twice as many heads",
    ),
    (
        "vision.encoder",
        "z = z + self.attention(self.attention_norm(z), mask)",
        "z = self.attention_norm(z) + self.attention(self.attention_norm(z), mask)",
        ("stacks.pre_norm_is_a_sum", "stacks.silent_stacks"),
        "a norm on the path",
    ),
    (
        "language.transformer",
        "[LayerNorm(config.width) for _ in range(2)]",
        "[lambda x: x for _ in range(2)]",
        ("stacks.post_norm_is_a_sum",),
        "no norms: it is a sum",
    ),
    (
        "language.transformer",
        "config.hidden, rng=rng)\n        self.out = Linear(config.hidden,",
        "config.width, rng=rng)\n        self.out = Linear(config.width,",
        ("stacks.the_feed_forward_has_most_weights",),
        "a feed-forward network as wide as the model",
    ),
    (
        "memory.linear_attention",
        "S = S +",
        "S = S / 2 +",
        ("stacks.a_sum_has_no_order",),
        "a decay",
    ),
    (
        "memory.gated_linear_attention",
        "S = xp.exp(g_t).mT * S +",
        "S = S +",
        ("stacks.a_decayed_sum_has_no_order",),
        "no decay: no order",
    ),
    (
        "language.transformer",
        "layer.cross.keys_and_values(x), None)",
        "self.decoder[0].cross.keys_and_values(x), None)",
        ("encoder_decoder.every_layer_reads_the_encoder",),
        "the first layer's keys and values for all",
    ),
    (
        "language.transformer",
        "for encoding in self.encoder:",
        "for encoding in self.encoder[:1]:",
        ("encoder_decoder.layers_are_paired",),
        "an encoder of one layer: it is the last",
    ),
    (
        "language.transformer",
        "softmax.cross(split_heads(self.query(y), self.heads), *pairs, mask=mask)",
        "softmax.cross(0 * split_heads(self.query(y), self.heads), *pairs, mask=mask)",
        ("encoder_decoder.one_vector_is_enough",),
        "queries of 0: the mean is enough",
    ),
    (
        "language.decoding",
        "feed = best[:, None]",
        "feed = 0 * best[:, None] + start",
        ("encoder_decoder.a_text_is_predicted_from_itself", "encoder_decoder.a_text_is_written_at_once"),
        "nothing read of what was written",
    ),
    (
        "attention.softmax",
        "for columns in _chunks(seen, keys):",
        "for columns in _chunks(min(seen, keys), keys):",
        ("lazy_softmax.operations_of_lazy_attention", "lazy_softmax.lazy_attention_computes_less"),
        "a chunk of keys alone",
    ),
    (
        "ssm.selective_scan",
        "(delta_t * u_t).mT @ B_t",
        "(delta_t * u_t * u_t).mT @ B_t",
        ("selective_steps.steps_of_channels_select_nothing", "selective_steps.linear_given_its_selection"),
        "inputs squared",
    ),
    (
        "ssm.selective_scan",
        "xp.exp(delta_t.mT * A) * h",
        "xp.exp(delta_t.mT * A) * h * (1 + len(y))",
        ("selective_steps.steps_add_up",),
        "a factor that depends on the time",
    ),
    (
        "ssm.selective_scan",
        "(delta_t * u_t).mT @ B_t",
        "u_t.mT @ B_t",
        ("selective_steps.no_step_keeps_the_state", "selective_steps.small_steps_keep_the_state"),
        "inputs without a step",
    ),
    (
        "ssm.selective_scan",
        "xp.exp(delta_t.mT * A) * h + (delta_t * u_t).mT @ B_t",
        "h + 0 * (delta_t * u_t).mT @ B_t",
        ("selective_steps.part_of_the_state_is_used",),
        "nothing written: all of it stays",
    ),
    (
        "ssm.selective_scan",
        "y.append(C_t @ h.mT)",
        "y.append(C_t @ h.mT if delta_t.flat[0].value else C_t[..., :1] @ h.mT[..., :1, :])",
        ("selective_steps.operations_for_any_step",),
        "a step of 0 skipped",
    ),
    (
        "ssm.selective_scan",
        "    return _compiled(u, delta, A, B, C, D, initial_state(state, u, A))",
        "    return associative(u, delta, A, B, C, D, state=state)",
        ("selective_steps.fusion_keeps_no_states",),
        "not fused",
    ),
    (
        "ssm.selective_scan",
        "    h = hillis_steele_scan(*_discrete(u, delta, A, B), initial_state(state, u, A))\n",
        "    return recurrent(u, delta, A, B, C, D, state=state)\n",
        ("selective_steps.the_scan_keeps_no_states",),
        "not a scan: no array of states",
    ),
]


@pytest.fixture
def fails(monkeypatch):
    """Return whether a statement fails with a copy, in its first number system."""

    def fails(module, copy, name):
        stated = STATEMENTS[name]
        for chapter in {importlib.import_module(f"proofs.identities.{stated.chapter}"), transformer}:
            for attribute, value in list(vars(chapter).items()):
                if value is importlib.import_module(f"models.{module}"):
                    monkeypatch.setattr(chapter, attribute, copy)
                elif getattr(value, "__module__", "") == f"models.{module}":
                    monkeypatch.setattr(chapter, attribute, getattr(copy, attribute))
        fixed = {key: replaced(value, module, copy) for key, value in stated.fixed.items()}
        transformer.cached_model.cache_clear()
        stated = dataclasses.replace(stated, fixed=fixed)  # a new one, whose bounds are not known yet
        return check_system(stated, systems_of(stated)[0]).status == "failed"

    yield fails
    transformer.cached_model.cache_clear()


def replaced(value, module, copy):
    """Return a fixed argument, a form or a function of the module, as that of the copy."""
    if isinstance(value, Form):
        return dataclasses.replace(value, function=getattr(copy, value.function.__name__))
    return getattr(copy, value.__name__) if getattr(value, "__module__", "") == f"models.{module}" else value


@pytest.mark.parametrize(
    ("module", "text", "instead", "statements", "wrong"), BROKEN, ids=[f"{case[3][0]}, {case[4]}" for case in BROKEN]
)
def test_a_broken_copy_is_caught(module, text, instead, statements, wrong, fails):
    copy = copy_of(module, text, instead)
    for statement in statements:
        assert fails(module, copy, statement), f"{statement}: {wrong}"


@pytest.mark.parametrize("module", sorted({case[0] for case in BROKEN}))
def test_a_faithful_copy_passes(module, fails):
    copy = copy_of(module)
    for statement in {name for case in BROKEN if case[0] == module for name in case[3]}:
        assert not fails(module, copy, statement)

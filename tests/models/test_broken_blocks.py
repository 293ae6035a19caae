"""Copies of blocks, each with one thing wrong: the statements about blocks object, those of other chapters need not."""

import dataclasses

import numpy as np
import pytest

from minigrad import namespace
from minigrad.nn import Conv1d
from models.attention import positions
from proofs.checker import PROFILES
from proofs.identities import (
    blocks,
    blocks_constants,
    blocks_learners,
    blocks_parameters,
    blocks_recurrent,
    blocks_state_spaces,
)
from tests.copies import copied_mixers, copy_of, statement_fails

LEARNERS, STATE_SPACES, CONSTANTS = "blocks_learners", "blocks_state_spaces", "blocks_constants"
RECURRENT, PARAMETERS = "blocks_recurrent", "blocks_parameters"
CHAPTERS = (blocks, blocks_constants, blocks_learners, blocks_parameters, blocks_recurrent, blocks_state_spaces)

RWKV4, RWKV7 = "rwkv4_starts_as_a_first_layer", "rwkv7_starts_as_a_first_layer"

BROKEN = [
    # file, text, what stands there instead, the statement that fails, what is wrong
    ("gated_linear_attention", " / TEMPERATURE", "", "blocks.gated_linear_attention", "no temperature"),
    ("gated_linear_attention", "RANK = 16", "RANK = 8", f"{CONSTANTS}.rank_of_the_gate", "a gate of rank 8"),
    ("delta_rule", "unit(mg.silu(k))", "mg.silu(k)", "blocks.delta_rule[float64]", "keys of any length"),
    ("delta_rule", "mg.sigmoid(self.beta(x))", "self.beta(x)", "blocks.delta_rule[float64]", "β without σ"),
    ("block", "EPSILON = 1e-6", "EPSILON = 1e-5", "blocks.delta_rule[float64]", "the ε of unit keys"),
    ("block", "* mg.silu(self.gate(x))", "* mg.gelu(self.gate(x))", "blocks.linear_attention", "GELU for SiLU"),
    (
        "block",
        "merge_heads(self.norm(y)) * mg.silu(self.gate(x))",
        "merge_heads(self.norm(split_heads(merge_heads(y) * mg.silu(self.gate(x)), self.heads)))",
        "blocks.linear_attention",
        "the norm after the gate",
    ),
    ("linear_attention", "elu_plus_one(k)", "mg.relu(k)", "blocks.linear_attention", "another feature map"),
    ("gated_delta_rule", "-rate * mg", "-mg", "blocks.gated_delta_rule[float64]", "no rate A"),
    (
        "gated_delta_rule",
        "rng.uniform(1.0, 16.0",
        "rng.uniform(0.0, 16.0",
        f"{CONSTANTS}.rates_are_uniform[gated_delta_rule]",
        "rates from 0",
    ),
    ("kda", "unit(q) * self.channels**-0.5", "unit(q)", "blocks.kda[float64]", "queries that are not scaled"),
    ("kda", "mg.sigmoid(self.g_b_proj", "mg.silu(self.g_b_proj", "blocks.kda[float64]", "SiLU for σ"),
    ("mamba", "y * mg.silu(z)", "y * mg.sigmoid(z)", f"{STATE_SPACES}.mamba", "σ for SiLU"),
    ("mamba", "u = mg.silu(x)", "u = x", f"{STATE_SPACES}.mamba", "no activation after the convolution"),
    (
        "mamba",
        "np.log(1e-3), np.log(1e-1)",
        "np.log(1e-3), np.log(1e-2)",
        f"{CONSTANTS}.steps_are_log_uniform[mamba]",
        "steps up to 0.01",
    ),
    (
        "mamba",
        "np.arange(1.0, self.states + 1)",
        "np.arange(0.5, self.states)",
        f"{CONSTANTS}.mamba_rates_are_whole_numbers",
        "A = −(n + ½)",
    ),
    ("mamba2", "self.norm(y * mg.silu(z))", "self.norm(y) * mg.silu(z)", f"{STATE_SPACES}.mamba2", "norm before gate"),
    ("mamba2", "y + self.D[:, None, None] * u", "y", f"{STATE_SPACES}.mamba2", "no skip"),
    ("ttt", "base_rate = 0.1", "base_rate = 1.0", f"{LEARNERS}.ttt_mlp[float64]", "TTT-Linear's rate"),
    ("ttt", "deviation = 0.02", "deviation = None", f"{CONSTANTS}.inner_matrices_start_normal[ttt_linear]", "1/√K"),
    ("titans", "mg.sigmoid(-momentum)", "mg.sigmoid(momentum)", f"{LEARNERS}.titans[float64]", "θ ∝ η"),
    ("titans", "log_sigmoid(-self.forget", "log_sigmoid(self.forget", f"{LEARNERS}.titans[float64]", "α for 1 − α"),
    ("titans", "self.attention(x + m,", "self.attention(m,", f"{LEARNERS}.titans_as_layer[float64]", "no residual"),
    (
        "titans",
        "self.attended(y) * mg.sigmoid(self.remembered(m))",
        "mg.sigmoid(self.attended(y)) * self.remembered(m)",
        f"{LEARNERS}.titans_as_gate[float64]",
        "attention gates the memory",
    ),
    ("titans", "unit(mg.silu(q))))", "mg.silu(q)))", f"{LEARNERS}.titans_as_context[float64]", "recall by any length"),
    ("window", "q.shape[-1] ** -0.5", "1", f"{LEARNERS}.titans_as_gate[float64]", "scores that are not scaled"),
    ("system", "mg.sigmoid(both[..., width:])", "both[..., width:]", f"{STATE_SPACES}.s4d", "a gate without σ"),
    ("system", "mg.gelu(y)", "mg.silu(y)", f"{STATE_SPACES}.s4[float64]", "SiLU for GELU"),
    ("s4", "C, self.D,", "C, 0 * self.D,", f"{STATE_SPACES}.s4[float64]", "no skip"),
    ("rnn", "self.run(self.enter(x),", "self.run(x,", f"{RECURRENT}.rnn[float64]", "no projection of the input"),
    ("lstm", "x, self.W, self.U", "x, self.U, self.W", f"{RECURRENT}.lstm[float64]", "weights exchanged"),
    (
        "rwkv4",
        "weight * x + (1 - weight) * before",
        "weight * before + (1 - weight) * x",
        f"{RECURRENT}.rwkv4[float64]",
        "the token shift the other way round",
    ),
    (
        "rwkv4",
        "w = mg.namespace(self.time_decay).exp(self.time_decay)",
        "w = -self.time_decay",
        f"{RECURRENT}.rwkv4[float64]",
        "w as stored",
    ),
    ("rwkv4", "self.value(k * k), last", "self.value(k), last", f"{RECURRENT}.rwkv4[float64]", "ReLU for its square"),
    ("rwkv7", "-math.exp(-0.5) * ", "-", f"{RECURRENT}.rwkv7[float64]", "a decay without e^(−1/2)"),
    ("rwkv7", "NORM_EPS = 64e-5", "NORM_EPS = 1e-5", f"{RECURRENT}.rwkv7[float64]", "the ε of a norm of one channel"),
    ("rwkv7", "(1 + (a - 1) * self.k_a)", "a", f"{RECURRENT}.rwkv7[float64]", "keys times the rate"),
    (
        "ttt",
        "x @ to_library_of(x, random_projection(x.shape[-1]))",
        "x @ to_library_of(x, random_projection(x.shape[-1]).T)",
        f"{LEARNERS}.ttt_target[random]",
        "the projection transposed",
    ),
    (
        "ttt",
        "x @ to_library_of(x, random",
        "(0 * x + 1) @ to_library_of(x, random",
        f"{LEARNERS}.ttt_target[random]",
        "no token in v",
    ),
    ("ttt", 'self.target == "input"', 'self.target != "input"', f"{LEARNERS}.ttt_target[input]", "targets exchanged"),
    (
        "s4",
        "np.broadcast_to(x, shape) for x in",
        "x for x in",
        f"{PARAMETERS}.channels_share_nothing[s4]",
        "one system for all channels",
    ),
    (
        "titans",
        "Linear(config.width, config.width, bias=False, rng=rng)",
        "Linear(config.width, config.width, rng=rng)",
        f"{PARAMETERS}.projections_have_no_bias[titans_mac]",
        "a bias on MAC's queries",
    ),
    (
        "kda",
        "Linear(width, inner, bias=False, rng=rng, dtype=dtype) for _ in range(3)",
        "Linear(width, inner, bias=False, rng=rng) for _ in range(3)",
        f"{PARAMETERS}.parameters_have_one_dtype[kda]",
        "projections in float32",
    ),
    ("rwkv4", "8 * (channel / max(inner - 1, 1))", "8 * (channel / (inner - 1))", f"{PARAMETERS}.{RWKV4}", "0/0"),
    ("rwkv4", "0.5 * ((channel + 1) % 3 - 1)", "0.5 * (channel % 3 - 1)", f"{PARAMETERS}.{RWKV4}", "u a channel late"),
    ("rwkv7", "np.full(width, 0.85, dtype)", "np.full(width, 1.85, dtype)", f"{PARAMETERS}.{RWKV7}", "κ = 1.85"),
    ("rwkv7", "(1 - ramp(config.width))", "(1 - ramp(config.width) ** 4)", f"{PARAMETERS}.{RWKV7}", "x_k of layers"),
    ("rwkv7", "(0.2, 0.9, 0.7, 0.7, 0.9, 0.2)", "(0.2, 0.7, 0.9, 0.7, 0.9, 0.2)", f"{PARAMETERS}.{RWKV7}", "w as k"),
    ("lssl", "np.geomspace", "np.linspace", f"{STATE_SPACES}.lssl", "a linear grid of steps"),
    (
        "titans",
        "split_heads(self.query(x), attention.heads)",
        "split_heads(self.query(x), attention.heads)[..., ::-1, :, :]",
        f"{LEARNERS}.titans_as_context[float64]",
        "the other head's memory read",
    ),
]


@pytest.fixture(autouse=True)
def _no_shrinking(monkeypatch):
    """Stop at the first example that fails."""
    monkeypatch.setitem(PROFILES, "short", dataclasses.replace(PROFILES["short"], shrink_seconds=0))


def put_in_place(monkeypatch, *change):
    """Let the statements take blocks of a new import of their sources."""
    mixers = copied_mixers(*change)
    for chapter in CHAPTERS:
        monkeypatch.setattr(chapter, "MIXERS", mixers)


@pytest.mark.parametrize(("name", "text", "instead", "statement", "wrong"), BROKEN, ids=lambda x: x[:40])
def test_a_broken_copy_is_caught(name, text, instead, statement, wrong, monkeypatch):
    put_in_place(monkeypatch, name, text, instead)
    assert statement_fails(statement), wrong


@pytest.mark.parametrize(
    "statement", ["blocks.delta_rule[float64]", "blocks_state_spaces.mamba", "blocks_constants.rank_of_the_gate"]
)
def test_a_faithful_copy_passes(statement, monkeypatch):
    put_in_place(monkeypatch)
    assert not statement_fails(statement)


def test_another_exponent_of_rotary_positions_is_caught(monkeypatch):
    def frequencies(width, base=10_000.0):
        return base ** (-2 * np.arange(width // 2) / (width + 2))

    monkeypatch.setattr(positions, "rotary_frequencies", frequencies)
    assert statement_fails("blocks.softmax_attention")
    assert statement_fails("blocks_learners.titans_as_layer[float64]")
    assert statement_fails("blocks_constants.rotary_frequencies_are_the_paper_s")


def test_latents_that_are_not_normed_are_caught(monkeypatch):
    copy = copy_of("blocks.latent_attention", "self.kv_a_layernorm(c), k_R", "c, k_R")
    monkeypatch.setattr(blocks, "latent_attention", copy)
    assert statement_fails("blocks.multi_head_latent_attention[float64]")


def test_a_convolution_that_is_one_token_late_is_caught(monkeypatch):
    def late(self, x, state=None, convolve=Conv1d.__call__):
        y, state = convolve(self, x, state)
        return namespace(y).concat([0 * y[..., :1, :], y[..., :-1, :]], axis=-2), state

    monkeypatch.setattr(Conv1d, "__call__", late)
    assert statement_fails("blocks.gated_linear_attention")
    assert statement_fails("blocks_state_spaces.mamba")

"""Kimi Linear from its published layout: every option accepted or refused by name, and a model in parts as a whole."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.errors import UserError
from models.published import load_model, read_architecture
from tests.kimi_linear_48b import PUBLISHED

LISTED = PUBLISHED["linear_attn_config"]
SMALL = PUBLISHED | {
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "linear_attn_config": {
        "kda_layers": [1, 3],
        "full_attn_layers": [2],
        "num_heads": 3,
        "head_dim": 4,
        "short_conv_kernel_size": 4,
    },
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "kv_lora_rank": 6,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2,
    "v_head_dim": 3,
    "moe_intermediate_size": 8,
    "num_experts": 8,
    "num_experts_per_token": 3,
    "num_expert_group": 4,
    "topk_group": 2,
    "num_shared_experts": 2,
}


def written(folder, **changes):
    """Write a folder as the authors did, of random weights that fit SMALL, with a config that may not."""
    (folder / "config.json").write_text(json.dumps(SMALL))
    rng, arrays = np.random.default_rng(0), {}
    for name, shape in read_architecture(folder / "config.json").shapes():
        if ".mlp." in name and not name.startswith("layers.0."):
            name = name.replace(".mlp.", ".block_sparse_moe.")
        arrays[name if name == "lm_head.weight" else f"model.{name}"] = rng.normal(0, 0.3, shape).astype(np.float32)
    (folder / "config.json").write_text(json.dumps(SMALL | changes))
    save_file(arrays, folder / "model.safetensors")
    return arrays


def test_a_layer_of_each_kind(tmp_path):
    arrays = written(tmp_path)
    parameters = load_model(tmp_path).named_parameters()
    prefix = "model.layers.2"
    taken = {
        "mlp.experts.5.gate_up_proj.weight": np.concatenate(
            [arrays[f"{prefix}.block_sparse_moe.experts.5.{x}.weight"] for x in ("w1", "w3")]
        ),
        "mlp.experts.5.down_proj.weight": arrays[f"{prefix}.block_sparse_moe.experts.5.w2.weight"],
        "mlp.gate.e_score_correction_bias": arrays[f"{prefix}.block_sparse_moe.gate.e_score_correction_bias"],
        "self_attn.forget_gate.A_log": arrays[f"{prefix}.self_attn.A_log"][0, 0, :, 0],
        "self_attn.forget_gate.f_a_proj.weight": arrays[f"{prefix}.self_attn.f_a_proj.weight"],
    }
    for name, array in taken.items():
        np.testing.assert_array_equal(parameters[f"layers.2.{name}"], array)
    filters = parameters["layers.2.self_attn.conv1d.weight"]
    np.testing.assert_array_equal(filters[12:24, 0], arrays[f"{prefix}.self_attn.k_conv1d.weight"][:, 0, 3])
    assert "layers.0.mlp.gate_up_proj.weight" in parameters and "layers.1.self_attn.kv_b_proj.weight" in parameters


@pytest.mark.parametrize("lengths", [[1] * 7, [3, 1, 1, 2]])
def test_a_sequence_in_parts(lengths, tmp_path):
    written(tmp_path)
    model, tokens = load_model(tmp_path), np.random.default_rng(0).integers(0, 24, (2, 7))
    parts, state, start = [], None, 0
    for length in lengths:
        y, state = model(tokens[:, start : start + length], state)
        parts.append(y)
        start += length
    whole, _ = model(tokens)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-4, atol=1e-5)
    assert model(tokens[:0])[0].shape == (0, 7, 24)


def test_the_published_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    of = read_architecture(tmp_path / "config.json")
    shapes = dict(of.shapes())
    assert len(of.layers) == 27 and shapes["layers.26.mlp.experts.255.w2.weight"] == (2304, 1024)
    latent = [i + 1 for i in range(27) if f"layers.{i}.self_attn.kv_b_proj.weight" in shapes]
    assert latent == LISTED["full_attn_layers"]
    assert round(sum(int(np.prod(shape)) for shape in shapes.values()) / 1e9) == 49


REFUSED = [
    ({"hidden_act": "gelu"}, 'hidden_act: expected "silu" or "swish", got "gelu"'),
    ({"mla_use_nope": False}, "mla_use_nope: expected true, since there is no code for another value, got false"),
    ({"moe_layer_freq": 2}, "moe_layer_freq: expected 1, since there is no code for another value, got 2"),
    (
        {"moe_router_activation_func": "softmax"},
        'moe_router_activation_func: expected "sigmoid", since there is no code for another value, got "softmax"',
    ),
    (
        {"num_nextn_predict_layers": 1},
        "num_nextn_predict_layers: expected 0, since there is no code for another value, got 1",
    ),
    ({"use_grouped_topk": False}, "use_grouped_topk: expected true, since there is no code for another value, got f"),
    ({"mla_use_output_gate": True}, "mla_use_output_gate: expected no such option, since there is no code for it, g"),
    ({"num_hidden_layers": 10**12}, "num_hidden_layers: expected at most 10000, got 1000000000000"),
    ({"num_key_value_heads": 8}, "num_key_value_heads: expected 32 or null, got 8"),
    ({"num_experts": 255, "num_expert_group": 2}, "num_expert_group: expected a divisor of 255 experts, got 2"),
    ({"num_expert_group": 256}, "num_expert_group: expected groups of at least 2 of 256 experts, got 256"),
    ({"topk_group": 2}, "topk_group: expected at most 1 groups, got 2"),
    (
        {"num_expert_group": 64, "topk_group": 1},
        "num_experts_per_token: expected at most 4 experts in 1 groups, got 8",
    ),
    ({"num_shared_experts": 0}, "num_shared_experts: expected a whole number of at least 1, got 0"),
    ({"moe_renormalize": 1}, "moe_renormalize: expected true or false, got 1"),
    ({"q_lora_rank": 0}, "q_lora_rank: expected a whole number of at least 1, got 0"),
    ({"kv_lora_rank": None}, "kv_lora_rank: expected a whole number of at least 1, got null"),
    ({"linear_attn_config": [1]}, "linear_attn_config: expected a JSON object, got [1]"),
    (
        {"linear_attn_config": LISTED | {"head_dim": "128"}},
        'linear_attn_config.head_dim: expected a whole number of at least 1, got "128"',
    ),
    (
        {"linear_attn_config": LISTED | {"gate_lower_bound": -5.0}},
        "linear_attn_config.gate_lower_bound: expected no such option, since there is no code for it, got -5.0",
    ),
    (
        {"linear_attn_config": LISTED | {"full_attn_layers": [4]}},
        "linear_attn_config.full_attn_layers: expected kda_layers and full_attn_layers to list each of 1 to 27 once, g",
    ),
    (
        {"linear_attn_config": {key: LISTED[key] for key in LISTED if key != "kda_layers"}},
        "linear_attn_config.kda_layers: expected kda_layers and full_attn_layers to list each of 1 to 27 once, got n",
    ),
    (
        {"linear_attn_config": LISTED | {"full_attn_layers": [4, 8, 12, 16, 20, 24, 24]}},
        "linear_attn_config.full_attn_layers: expected kda_layers and full_attn_layers to list each of 1 to 27 once, g",
    ),
    ({"linear_num_heads": 16}, "linear_num_heads: expected linear_attn_config.num_heads = 32, got 16"),
    (
        {"layer_types": ["full_attention"] * 27},
        "layer_types: expected the layers of linear_attn_config, got [",
    ),
    (
        {"layer_types": ["sliding_attention"] * 27},
        "layer_types: expected 27 of linear_attention and full_attention, one for each of num_hidden_layers, got [",
    ),
    (
        {"mlp_layer_types": ["sparse"] * 26},
        "mlp_layer_types: expected 27 of dense and sparse, one for each of num_hidden_layers, got [",
    ),
    (
        {"mlp_layer_types": ["sparse"] * 27},
        "mlp_layer_types: expected dense layers up to first_k_dense_replace = 1, got [",
    ),
]


@pytest.mark.parametrize("changes, message", REFUSED)
def test_options_that_there_is_no_code_for(changes, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED | changes))
    with pytest.raises(UserError) as excinfo:
        read_architecture(tmp_path / "config.json")
    assert str(excinfo.value).startswith(f"{tmp_path}/config.json: {message}") and "\n" not in str(excinfo.value)


DISAGREE = [
    ({"hidden_size": 20}, "embed_tokens.weight: expected shape (24, 20), got (24, 16)"),
    ({"vocab_size": 25}, "embed_tokens.weight: expected shape (25, 16), got (24, 16)"),
    ({"intermediate_size": 24}, "layers.0.mlp.gate_proj.weight: expected shape (24, 16), got (20, 16)"),
    (
        {"linear_attn_config": SMALL["linear_attn_config"] | {"num_heads": 4}},
        "layers.0.self_attn.q_proj.weight: expected shape (16, 16), got (12, 16)",
    ),
    (
        {"linear_attn_config": SMALL["linear_attn_config"] | {"short_conv_kernel_size": 3}},
        "layers.0.self_attn.q_conv1d.weight: expected shape (12, 1, 3), got (12, 1, 4)",
    ),
    ({"kv_lora_rank": 7}, "layers.1.self_attn.kv_a_proj_with_mqa.weight: expected shape (9, 16), got (8, 16)"),
    ({"v_head_dim": 4}, "layers.1.self_attn.o_proj.weight: expected shape (16, 8), got (16, 6)"),
    ({"q_lora_rank": 5}, "layers.1.self_attn.q_a_layernorm.weight: expected an array of shape (5,), got none"),
    (
        {"attention_bias": True},
        "layers.1.self_attn.kv_a_proj_with_mqa.bias: expected an array of shape (8,), got none",
    ),
    ({"num_experts": 12}, "layers.1.mlp.gate.weight: expected shape (12, 16), got (8, 16)"),
    ({"num_shared_experts": 1}, "layers.1.mlp.shared_experts.gate_proj.weight: expected shape (8, 16), got (16, 16)"),
    (
        {"linear_attn_config": SMALL["linear_attn_config"] | {"kda_layers": [1], "full_attn_layers": [2, 3]}},
        "layers.2.self_attn.kv_a_proj_with_mqa.weight: expected an array of shape (8, 16), got none",
    ),
    (
        {
            "num_hidden_layers": 2,
            "linear_attn_config": SMALL["linear_attn_config"] | {"kda_layers": [1]},
        },
        "layers.2.",
    ),
    ({"first_k_dense_replace": 2}, "layers.1.mlp.gate_proj.weight: expected an array of shape (20, 16), got none"),
]


@pytest.mark.parametrize("changes, message", DISAGREE)
def test_a_config_that_does_not_fit_the_weights(changes, message, tmp_path):
    written(tmp_path, **changes)
    with pytest.raises(UserError) as excinfo:
        load_model(tmp_path)
    assert str(excinfo.value).startswith(f"checkpoint {tmp_path}/model.safetensors: {message}")
    assert "\n" not in str(excinfo.value)

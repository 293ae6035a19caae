"""Folders of OLMo-hybrid that transformers writes, read from disk by us: logits, gradients, text, or one line."""

import json
import re

import numpy as np
import pytest

from models.errors import UserError
from models.published import load_model, read_architecture
from tests.parity.causal_lm import TOKENS, edited, reread, same_gradients, same_greedy_tokens, same_logits, theirs

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 24,
}
LINEAR, FULL = "linear_attention", "full_attention"
NOPE = {"rope_parameters": {"rope_type": "default", "rope_theta": None}}
YARN = {"rope_type": "yarn", "rope_theta": 50.0, "factor": 8.0, "original_max_position_embeddings": 8}
GROUPS = {"linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 5, "linear_value_head_dim": 7}
OPTIONS = {
    "as it is": {},
    "tied": {"tie_word_embeddings": True},
    "four layers, the fourth of attention": {"num_hidden_layers": 4},
    "layers of attention first": {"layer_types": [FULL, LINEAR, FULL]},
    "no positions": NOPE,
    "other base": {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}},
    "linear scaling": {"rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 3.0}},
    "yarn": {"rope_parameters": YARN},
    "biases of attention": {"attention_bias": True},
    "a key a head": {"num_key_value_heads": None},
    "beta up to one": {"linear_allow_neg_eigval": False},
    "groups": GROUPS,
    "narrow values": {"linear_key_head_dim": 6, "linear_value_head_dim": 2},
    "filter of one": {"linear_conv_kernel_dim": 1},
    "filter of six": {"linear_conv_kernel_dim": 6},
    "large epsilon": {"rms_norm_eps": 0.3},
    "initial values": {"linear_a_log_max": 2.0, "linear_dt_max": 5.0, "linear_dt_min": 0.5},
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def hybrid(torch, **options):
    return theirs(torch, "OlmoHybrid", **SIZES | options)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, torch, close, tmp_path):
    model = hybrid(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    same_logits(torch, close, model, tmp_path)


@pytest.mark.parametrize("name", ["as it is", "groups", "tied", "biases of attention", "beta up to one"])
def test_gradients(name, torch, close, tmp_path):
    model = hybrid(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    same_gradients(torch, close, model, tmp_path, in_file=lambda arrays: released(model, arrays))


def released(model, arrays):
    """Return arrays of their modules by the names of the released files, with filters for q, k and v."""
    result = {}
    for key, array in arrays.items():
        part = model.model.layers[int(key.split(".")[2])] if ".layers." in key else None
        if key.endswith("conv1d.weight"):
            sizes = [part.linear_attn.key_dim, part.linear_attn.key_dim, part.linear_attn.value_dim]
            split = zip("qkv", array.split(sizes), strict=True)
            result |= {key.replace("conv1d", f"{x}_conv1d"): filters.clone() for x, filters in split}
            continue
        if hasattr(part, "linear_attn"):
            key = key.replace("input_layernorm", "attention_layer_norm")
            key = key.replace("post_attention_layernorm", "feedforward_layer_norm")
        result[key] = array
    return result


@pytest.mark.parametrize("name", ["as it is", "groups", "no positions"])
def test_greedy_tokens(name, torch, tmp_path):
    model = hybrid(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    same_greedy_tokens(torch, model, tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("size", ["5GB", "6KB"])
def test_widths_and_shards(dtype, size, torch, close, tmp_path):
    hybrid(torch).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "6KB")
    same_logits(torch, close, reread(torch, tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["as it is", "groups", "narrow values"])
def test_the_layout_of_the_released_files(name, torch, close, tmp_path):
    """Filters of as many channels as q, k and v have, norms of attention as in modules, and arrays of another task."""
    from safetensors.torch import save_file

    model = hybrid(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    arrays = {"mtp.norm.weight": torch.ones(3), **released(model, model.state_dict())}
    save_file(arrays, tmp_path / "model.safetensors")
    close("their logits", *(m(torch.tensor(TOKENS)).logits.detach() for m in (reread(torch, tmp_path), model)), 2e-6)
    same_logits(torch, close, model, tmp_path)


WITHOUT = {
    "nothing": {},
    "null": {"rope_parameters": None},
    "no base": {"rope_theta": None},
    "neither": {"rope_parameters": None, "rope_theta": None},
    "empty": {"rope_parameters": {}},
    "a base beside it": {"rope_parameters": {}, "rope_theta": 5.0},
    "no base within": {"rope_parameters": {"rope_theta": None}},
}


@pytest.mark.parametrize("name", WITHOUT)
def test_where_positions_are_left_open(name, torch, close, tmp_path):
    hybrid(torch).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", **{"rope_parameters": ..., **WITHOUT[name]})
    same_logits(torch, close, reread(torch, tmp_path), tmp_path)


def test_what_a_config_leaves_out(torch, close, tmp_path):
    """A model of the class's own choices, but for a few sizes, from a config that names nothing else."""
    hybrid(torch).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SIZES | {"model_type": "olmo_hybrid", "eos_token_id": None}))
    same_logits(torch, close, load_with_padding(torch, tmp_path), tmp_path)


def load_with_padding(torch, folder):
    """Return their model, with a padding token within the vocabulary, which changes no logits."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, pad_token_id=0, dtype=torch.float32).eval()


def test_the_published_sizes(torch, tmp_path):
    """Compare the number of parameters at the default sizes, those of the 7B model, with that of their model."""
    import transformers

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "olmo_hybrid"}))
    with torch.device("meta"):
        model = transformers.OlmoHybridForCausalLM(transformers.OlmoHybridConfig())
    shapes = read_architecture(tmp_path / "config.json").shapes()
    assert sum(int(np.prod(shape)) for _, shape in shapes) == sum(p.numel() for p in model.parameters())


REFUSED = [
    ({"num_attention_heads": 3}, "num_attention_heads: expected a divisor of 16 channels, got 3"),
    ({"num_attention_heads": 16, "num_key_value_heads": 4}, "hidden_size / num_attention_heads: expected an even numb"),
    ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor of 4 heads, got 3"),
    ({"num_hidden_layers": 1, "layer_types": ...}, "num_hidden_layers: expected a whole number of at least 2, got 1"),
    ({"linear_num_key_heads": 3}, "linear_num_key_heads: expected a divisor of 4 heads of values, got 3"),
    ({"linear_key_head_dim": 0}, "linear_key_head_dim: expected a whole number of at least 1, got 0"),
    ({"layer_types": [LINEAR] * 3}, "layer_types: expected 3 of linear_attention and full_attention, some of each, g"),
    ({"layer_types": [LINEAR, FULL]}, "layer_types: expected 3 of linear_attention and full_attention, some of each, "),
    ({"layer_types": 3}, "layer_types: expected 3 of linear_attention and full_attention, some of each, got 3"),
    ({"hidden_act": "gelu"}, 'hidden_act: expected "silu" or "swish", got "gelu"'),
    ({"head_dim": 8}, "head_dim: expected no such option, since there is no code for it, got 8"),
    (
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
        'rope_parameters.rope_type: expected "default" or "linear" or "llama3" or "yarn", got "dynamic"',
    ),
]


@pytest.mark.parametrize("changes, message", REFUSED)
def test_a_config_that_cannot_be_read(changes, message, torch, tmp_path):
    hybrid(torch).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", **changes)
    with pytest.raises(UserError, match=f"^{re.escape(f'{tmp_path}/config.json: {message}')}"):
        load_model(tmp_path)


DISAGREEMENTS = [
    ({"hidden_size": 24}, "embed_tokens.weight: expected shape (24, 24), got (24, 16)"),
    (
        {"num_hidden_layers": 10**12, "layer_types": ...},
        "layers.2.linear_attn.q_proj.weight: expected an array of shap",
    ),
    (
        {"layer_types": [LINEAR, FULL, LINEAR]},
        "layers.1.self_attn.q_proj.weight: expected an array of shape (16, 16), ",
    ),
    ({"linear_key_head_dim": 4}, "layers.0.linear_attn.q_proj.weight: expected shape (16, 16), got (12, 16)"),
    ({"linear_conv_kernel_dim": 3}, "layers.0.linear_attn.q_conv1d.weight: expected shape (16, 1, 3), got (16, 1, 4)"),
    ({"attention_bias": True}, "layers.2.self_attn.q_proj.bias: expected an array of shape (16,), got none"),
]


@pytest.mark.parametrize("changes, message", DISAGREEMENTS)
def test_a_config_that_does_not_fit_the_weights(changes, message, torch, tmp_path):
    hybrid(torch).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", **changes)
    with pytest.raises(UserError, match=re.escape(f"checkpoint {tmp_path}/model.safetensors: {message}")):
        load_model(tmp_path)

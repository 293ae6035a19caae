"""Folders of Llama that transformers writes, read from disk by us: logits, gradients, text, or one line."""

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
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 24,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 8.0, "original_max_position_embeddings": 64}
LONG = np.random.default_rng(1).integers(0, 24, (2, 90))  # longer than the length that llama3 scales for
OPTIONS = {
    "as it is": {},
    "tied": {"tie_word_embeddings": True},
    "a key a head": {"num_key_value_heads": None},
    "one key": {"num_key_value_heads": 1},
    "narrow heads": {"head_dim": 2},
    "wide heads": {"head_dim": 10},
    "biases of attention": {"attention_bias": True},
    "biases of the MLP": {"mlp_bias": True},
    "biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "gelu": {"hidden_act": "gelu"},
    "tanh gelu": {"hidden_act": "gelu_pytorch_tanh"},
    "relu": {"hidden_act": "relu"},
    "one layer": {"num_hidden_layers": 1},
    "large epsilon": {"rms_norm_eps": 0.3},
    "no epsilon": {"rms_norm_eps": 0.0},
    "other base": {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 3.0}},
    "llama3": {"rope_parameters": LLAMA3},
    "yarn": {"rope_parameters": YARN},
    "yarn, its magnitude": {"rope_parameters": YARN | {"attention_factor": 1.7}},
    "yarn, two scales of it": {"rope_parameters": YARN | {"mscale": 2.0, "mscale_all_dim": 0.5}},
    "yarn, one scale of it": {"rope_parameters": YARN | {"mscale": 2.0}},
    "yarn, ends between pairs": {"rope_parameters": YARN | {"truncate": False}},
    "yarn, other ends": {"rope_parameters": YARN | {"beta_fast": 3.0, "beta_slow": 0.5}},
    "yarn, one end": {"rope_parameters": YARN | {"beta_fast": 2.0, "beta_slow": 2.0, "truncate": False}},
    "yarn, many pairs": {
        "head_dim": 32,
        "rope_parameters": YARN | {"original_max_position_embeddings": 2048},
    },
    "yarn, shorter": {"rope_parameters": YARN | {"factor": 0.5}},
    "yarn, not longer": {"rope_parameters": YARN | {"factor": 1.0}},
    "dropout": {"attention_dropout": 0.5},
    "sliced products": {"pretraining_tp": 2},
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def llama(torch, **options):
    return theirs(torch, "Llama", **SIZES | options)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, torch, close, tmp_path):
    model = llama(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    tokens = LONG if "rope_parameters" in OPTIONS[name] else TOKENS
    same_logits(torch, close, model, tmp_path, tokens)


@pytest.mark.parametrize("name", ["as it is", "biases", "llama3", "yarn", "gelu"])
def test_gradients(name, torch, close, tmp_path):
    model = llama(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    same_gradients(torch, close, model, tmp_path)


@pytest.mark.parametrize("name", ["as it is", "tied", "one key", "llama3"])
def test_greedy_tokens(name, torch, tmp_path):
    model = llama(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    same_greedy_tokens(torch, model, tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("size", ["5GB", "6KB"])
def test_widths_and_shards(dtype, size, torch, close, tmp_path):
    llama(torch).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "6KB")
    same_logits(torch, close, reread(torch, tmp_path), tmp_path)


BEFORE_5 = {
    "base": {"rope_theta": 5.0},
    "no scaling": {"rope_theta": 5.0, "rope_scaling": None},
    "linear": {"rope_scaling": {"type": "linear", "factor": 3.0}},
    "llama3": {"rope_theta": 100.0, "rope_scaling": {n: v for n, v in LLAMA3.items() if n != "rope_theta"}},
    "of the length of positions": {
        "rope_scaling": {n: v for n, v in LLAMA3.items() if n != "original_max_position_embeddings"},
        "max_position_embeddings": 64,
    },
    "length beside it": {"rope_scaling": LLAMA3, "original_max_position_embeddings": 32},
    "both names of the type": {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 3.0}},
}


@pytest.mark.parametrize("name", BEFORE_5)
def test_rotary_positions_before_transformers_5(name, torch, close, tmp_path):
    llama(torch).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", rope_parameters=..., **BEFORE_5[name])
    same_logits(torch, close, reread(torch, tmp_path), tmp_path, LONG)


def test_frequencies_among_the_weights(torch, close, tmp_path):
    from safetensors.torch import save_file

    model = llama(torch)
    model.save_pretrained(tmp_path)
    arrays = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2), **model.state_dict()}
    save_file(arrays, tmp_path / "model.safetensors")
    same_logits(torch, close, model, tmp_path)


def test_what_a_config_leaves_out(torch, close, tmp_path):
    """A model of the class's own choices, but for a few sizes, from a config that names nothing else."""
    llama(torch).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SIZES | {"model_type": "llama"}))
    same_logits(torch, close, reread(torch, tmp_path), tmp_path)


PUBLISHED = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}


def test_the_published_config(torch, close, tmp_path):
    """Read the config of Llama 3.2 1B: 1,235,814,400 parameters, and rotary frequencies that equal theirs."""
    import transformers
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    of = read_architecture(tmp_path / "config.json")
    assert sum(int(np.prod(shape)) for _, shape in of.shapes()) == 1_235_814_400
    expected = LlamaRotaryEmbedding(transformers.LlamaConfig.from_pretrained(tmp_path)).inv_freq.numpy()
    np.testing.assert_allclose(of.rope.frequencies(64), expected, rtol=1e-6)


REFUSED = [
    ({"num_attention_heads": 3}, "num_key_value_heads: expected a divisor of 3 heads, got 2"),
    ({"num_attention_heads": 3, "head_dim": ...}, "num_attention_heads: expected a divisor of 16 channels, got 3"),
    ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor of 4 heads, got 3"),
    ({"head_dim": 5}, "head_dim: expected an even number, for rotary positions, got 5"),
    ({"hidden_size": 10**12, "head_dim": 10**12}, None),
    ({"hidden_act": "tanh"}, 'hidden_act: expected "silu" or '),
    ({"rope_interleaved": True}, "rope_interleaved: expected false, since there is no code for another value, got tr"),
    ({"sliding_window": 4}, "sliding_window: expected no such option, since there is no code for it, got 4"),
    (
        {"quantization_config": {"bits": 4}},
        "quantization_config: expected no such option, since there is no code for i",
    ),
    ({"rope_scaling": 3}, "rope_scaling: expected a JSON object, got 3"),
    ({"rope_parameters": {"rope_theta": 0}}, "rope_parameters.rope_theta: expected a number above 0, got 0"),
    ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor: expected a number of at least 0, got none"),
    ({"rope_scaling": {"type": "linear", "factor": 0}}, "rope_scaling.factor: expected a number above 0, got 0"),
    (
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        'rope_scaling.rope_type: expected "default" or "linear" or "llama3" or "yarn", got "dynamic"',
    ),
    (
        {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}},
        'rope_parameters.rope_type: expected "default" or "linear" or "llama3" or "yarn", got "longrope"',
    ),
    (
        {"rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.5}},
        "rope_parameters.partial_rotary_factor: expected 1.0, since there is no code for another value, got 0.5",
    ),
    (
        {"rope_parameters": LLAMA3 | {"high_freq_factor": 1.0}},
        "rope_parameters.high_freq_factor: expected a number above low_freq_factor 1.0, got 1.0",
    ),
    (
        {"rope_parameters": LLAMA3 | {"mscale": 1.0}},
        "rope_parameters.mscale: expected no such option, since there is no code for it, got 1.0",
    ),
]


@pytest.mark.parametrize("changes, message", REFUSED)
def test_a_config_that_cannot_be_read(changes, message, torch, tmp_path):
    llama(torch).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", **changes)
    path = f"{tmp_path}/config.json: {message}" if message else f"checkpoint {tmp_path}/model.safetensors: "
    with pytest.raises(UserError, match=f"^{re.escape(path)}"):
        load_model(tmp_path)


DISAGREEMENTS = [
    ({"hidden_size": 20}, "embed_tokens.weight: expected shape (24, 20), got (24, 16)"),
    ({"num_hidden_layers": 3}, "layers.2.self_attn.q_proj.weight: expected an array of shape (16, 16), got none"),
    ({"num_hidden_layers": 1}, "layers.1.input_layernorm.weight: expected no such array, got one of shape (16,)"),
    ({"num_key_value_heads": 4}, "layers.0.self_attn.k_proj.weight: expected shape (16, 16), got (8, 16)"),
    ({"head_dim": 6}, "layers.0.self_attn.q_proj.weight: expected shape (24, 16), got (16, 16)"),
    ({"attention_bias": True}, "layers.0.self_attn.q_proj.bias: expected an array of shape (16,), got none"),
    ({"mlp_bias": True}, "layers.0.mlp.gate_proj.bias: expected an array of shape (20,), got none"),
    ({"tie_word_embeddings": True}, None),
]


@pytest.mark.parametrize("changes, message", DISAGREEMENTS)
def test_a_config_that_does_not_fit_the_weights(changes, message, torch, close, tmp_path):
    llama(torch).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", **changes)
    if message is None:  # two heads: the file's is used, as transformers decides it
        same_logits(torch, close, reread(torch, tmp_path), tmp_path)
        return
    with pytest.raises(UserError, match=re.escape(f"checkpoint {tmp_path}/model.safetensors: {message}")):
        load_model(tmp_path)

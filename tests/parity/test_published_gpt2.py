"""Folders of GPT-2 that transformers writes, read from disk by us: logits, gradients, text, or one line."""

import json
import re

import numpy as np
import pytest

from models.errors import UserError
from models.published import load_model, read_architecture
from tests.parity.causal_lm import edited, reread, same_gradients, same_greedy_tokens, same_logits, theirs

SIZES = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 16, "vocab_size": 24}
OPTIONS = {
    "as it is": {},
    "untied": {"tie_word_embeddings": False},
    "one head": {"n_head": 1},
    "heads of three channels": {"n_embd": 9, "n_head": 3},
    "one layer": {"n_layer": 1},
    "as many positions as tokens": {"n_positions": 11},
    "inner width": {"n_inner": 20},
    "exact gelu": {"activation_function": "gelu"},
    "tanh gelu by another name": {"activation_function": "gelu_pytorch_tanh"},
    "relu": {"activation_function": "relu"},
    "silu": {"activation_function": "silu"},
    "quick gelu": {"activation_function": "quick_gelu"},
    "large epsilon": {"layer_norm_epsilon": 0.3},
    "no epsilon": {"layer_norm_epsilon": 0.0},
    "no scale": {"scale_attn_weights": False},
    "scale by layer": {"scale_attn_by_inverse_layer_idx": True},
    "both": {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
    "dropout": {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5},
    "other order in half precision": {"reorder_and_upcast_attn": True},
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def gpt2(torch, **options):
    return theirs(torch, "GPT2", **SIZES | options)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, torch, close, tmp_path):
    model = gpt2(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    same_logits(torch, close, model, tmp_path)


@pytest.mark.parametrize("name", ["as it is", "untied", "both", "inner width"])
def test_gradients(name, torch, close, tmp_path):
    model = gpt2(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    same_gradients(torch, close, model, tmp_path)


@pytest.mark.parametrize("name", ["as it is", "untied", "scale by layer"])
def test_greedy_tokens(name, torch, tmp_path):
    model = gpt2(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    same_greedy_tokens(torch, model, tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("size", ["5GB", "6KB"])
def test_widths_and_shards(dtype, size, torch, close, tmp_path):
    gpt2(torch).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "6KB")
    same_logits(torch, close, reread(torch, tmp_path), tmp_path)


@pytest.mark.parametrize("mask", ["float32", "uint8", "bool"])
def test_the_layout_of_the_first_files(mask, torch, close, tmp_path):
    """Names without a prefix, the head left out, and causal masks among the weights, as in openai-community/gpt2."""
    from safetensors.torch import save_file

    model = gpt2(torch)
    model.save_pretrained(tmp_path)
    arrays = {n.removeprefix("transformer."): a for n, a in model.state_dict().items() if n != "lm_head.weight"}
    for layer in range(2):
        arrays[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 16, 16).tril().to(getattr(torch, mask))
        arrays[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(arrays, tmp_path / "model.safetensors")
    same_logits(torch, close, model, tmp_path)


def test_what_a_config_leaves_out(torch, close, tmp_path):
    """A model of the class's own choices, but for a few sizes, from a config that names nothing else."""
    model = gpt2(torch)
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SIZES | {"model_type": "gpt2"}))
    same_logits(torch, close, reread(torch, tmp_path), tmp_path)


def test_a_head_of_its_own_that_the_config_does_not_speak_of(torch, close, tmp_path, capsys):
    gpt2(torch, tie_word_embeddings=False).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", tie_word_embeddings=...)
    same_logits(torch, close, reread(torch, tmp_path), tmp_path)
    assert "the config ties it to the embedding, the file holds another: the file's is used" in capsys.readouterr().err


PUBLISHED = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}


def test_the_published_config(tmp_path):
    """Read the config of the 124M model and count its 124,439,808 parameters."""
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    shapes = read_architecture(tmp_path / "config.json").shapes()
    assert sum(int(np.prod(shape)) for _, shape in shapes) == 124_439_808


REFUSED = [
    ({"n_head": 3}, "n_head: expected a divisor of 16 channels, got 3"),
    ({"n_embd": 0}, "n_embd: expected a whole number of at least 1, got 0"),
    ({"n_layer": 0}, "n_layer: expected a whole number of at least 1, got 0"),
    ({"n_inner": -1}, "n_inner: expected a whole number of at least 1, got -1"),
    ({"layer_norm_epsilon": "x"}, 'layer_norm_epsilon: expected a number of at least 0, got "x"'),
    ({"activation_function": "mish"}, 'activation_function: expected "gelu" or "gelu_new" or '),
    ({"add_cross_attention": True}, "add_cross_attention: expected false, since there is no code for another value, g"),
    ({"sliding_window": 4}, "sliding_window: expected no such option, since there is no code for it, got 4"),
]


@pytest.mark.parametrize("changes, message", REFUSED)
def test_a_config_that_cannot_be_read(changes, message, torch, tmp_path):
    gpt2(torch).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", **changes)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/config.json: {message}")):
        load_model(tmp_path)


DISAGREEMENTS = [
    ({"n_embd": 20}, "wte.weight: expected shape (24, 20), got (24, 16)"),
    ({"n_positions": 8}, "wpe.weight: expected shape (8, 16), got (16, 16)"),
    ({"n_layer": 3}, "h.2.attn.c_attn.weight: expected an array of shape (16, 48), got none"),
    ({"n_layer": 10**12}, "h.2.attn.c_attn.weight: expected an array of shape (16, 48), got none"),
    ({"n_layer": 1}, "h.1.attn.c_attn.bias: expected no such array, got one of shape (48,)"),
    ({"n_inner": 20}, "h.0.mlp.c_fc.weight: expected shape (16, 20), got (16, 64)"),
    ({"tie_word_embeddings": False}, "lm_head.weight: expected an array of shape (24, 16), got none"),
]


@pytest.mark.parametrize("changes, message", DISAGREEMENTS)
def test_a_config_that_does_not_fit_the_weights(changes, message, torch, tmp_path):
    gpt2(torch).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", **changes)
    with pytest.raises(UserError, match=re.escape(f"checkpoint {tmp_path}/model.safetensors: {message}")):
        load_model(tmp_path)


def test_a_text_longer_than_the_positions(torch, tmp_path):
    gpt2(torch).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="^tokens: expected at most 16, the learned positions, got 17$"):
        load_model(tmp_path)(np.zeros(17, int))

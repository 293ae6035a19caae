"""Folders of CLIP without transformers: what a file may hold, and one line for what cannot be read."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.errors import UserError
from models.generate import generate
from models.published import clip_tokenizer, load_model, read_architecture

ENCODER = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 12}
SIZES = {
    "model_type": "clip",
    "projection_dim": 6,
    "text_config": ENCODER | {"vocab_size": 9, "max_position_embeddings": 5, "eos_token_id": 8},
    "vision_config": ENCODER | {"image_size": 8, "patch_size": 4},
}
PIXELS, TOKENS = np.ones((2, 3, 8, 8), np.float32), np.array([[1, 3, 8]])


def changed(part="", **changes):
    """Return the config with other options, of an encoder or of both."""
    return SIZES | ({part: SIZES[part] | changes} if part else changes)


def written(folder, config=None, *, without=(), others=()):
    """Write a folder of random weights, without some arrays and with others."""
    (folder / "config.json").write_text(json.dumps(SIZES))
    rng = np.random.default_rng(0)
    shapes = {**dict(read_architecture(folder / "config.json").shapes()), **dict(others)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    save_file({name: np.array(x) for name, x in arrays.items() if name not in without}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config or SIZES))
    return folder


def test_arrays_have_their_places(tmp_path):
    model = load_model(written(tmp_path, others={"text_model.embeddings.position_ids": (1, 5)}))
    assert model(PIXELS, TOKENS).shape == (2, 1)
    assert model.log_scale.shape == () and model.image.projection.bias is None and model.text.projection.bias is None
    assert model.text.positions.shape == (5, 8) and model.image.tokens.positions.shape == (5, 8)
    assert (model.text.pooling, model.text.end) == ("end", 8)


def test_an_end_token_of_2_means_the_largest(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(changed("text_config", eos_token_id=2)))
    assert read_architecture(tmp_path / "config.json").config.pooling == "largest"


def test_what_is_not_said_has_the_defaults_of_the_class(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    of = read_architecture(tmp_path / "config.json").config
    assert (of.vocab, of.context, of.end, of.features, of.image_size, of.patch_size) == (49408, 77, 49407, 512, 224, 32)
    assert (of.text.width, of.text.heads, of.text.layers, of.text.hidden, of.text.eps) == (512, 8, 12, 2048, 1e-5)
    assert (of.image.width, of.image.heads, of.image.hidden, of.image.activation) == (768, 12, 3072, "quick_gelu")


TEXT, IMAGE = "text_config", "vision_config"
REFUSED = [
    (changed(TEXT, hidden_act="mish"), 'text_config.hidden_act: expected "gelu" or '),
    (changed(TEXT, vocab_size=8), "text_config.eos_token_id: expected a token below vocab_size 8, got 8"),
    (
        changed(TEXT, eos_token_id=[2, 3]),
        "text_config.eos_token_id: expected a whole number of at least 0, got [2, 3]",
    ),
    (changed(TEXT, num_attention_heads=3), "text_config.num_attention_heads: expected a divisor of 8 channels, got 3"),
    (
        changed(TEXT, add_cross_attention=True),
        "text_config.add_cross_attention: expected false, since there is no code",
    ),
    (
        changed(TEXT, use_rope=True),
        "text_config.use_rope: expected no such option, since there is no code for it, got true",
    ),
    (changed(IMAGE, patch_size=5), "vision_config.patch_size: expected a divisor of 8 pixels, got 5"),
    (changed(IMAGE, image_size=[8, 4]), "vision_config.image_size: expected a whole number of at least 1, got [8, 4]"),
    (changed(IMAGE, layer_norm_eps=-1), "vision_config.layer_norm_eps: expected a number of at least 0, got -1"),
    (changed(vision_config=[]), "vision_config: expected an object with the options of an encoder, got []"),
    (changed(text_config_dict=3), "text_config_dict: expected an object with the options of an encoder, got 3"),
    (changed(fusion="late"), 'fusion: expected no such option, since there is no code for it, got "late"'),
]


@pytest.mark.parametrize(("config", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_a_config_that_cannot_be_read(config, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/config.json: {message}")):
        load_model(written(tmp_path, config))


@pytest.mark.parametrize(
    ("config", "without", "message"),
    [
        (SIZES, ("logit_scale",), "logit_scale: expected an array of shape (), got none"),
        (changed(projection_dim=7), (), "text_projection.weight: expected shape (7, 8), got (6, 8)"),
        (changed(IMAGE, image_size=12), (), "position_embedding.weight: expected shape (10, 8), got (5, 8)"),
        (
            changed(TEXT, num_hidden_layers=2),
            (),
            "text_model.encoder.layers.1.self_attn.q_proj.weight: expected an array",
        ),
    ],
)
def test_weights_that_do_not_fit(config, without, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)):
        load_model(written(tmp_path, config, without=without))


def test_it_writes_no_text(tmp_path):
    with pytest.raises(UserError, match="expected a language model, got one of pictures: see run$"):
        generate(written(tmp_path), "text", tokens=1, temperature=0, seed=0)


def test_a_folder_without_a_tokenizer(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    line = "expected a tokenizer in tokenizer.json, or in vocab.json and merges.txt, got no such file"
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / 'merges.txt'))}: {line}$"):
        clip_tokenizer.load(tmp_path, 9, 5)

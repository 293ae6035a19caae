"""Folders of ViT without transformers: what a file may hold, and one line for what cannot be read."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.errors import UserError
from models.generate import generate
from models.published import load_model, read_architecture
from models.translate import translate

SIZES = {
    "model_type": "vit",
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 2,
    "id2label": {"1": "dog", "0": "cat", "2": "bird"},
}


def written(folder, changes=None, *, without=(), prefix=""):
    """Write a folder of random weights, without the arrays whose names start with one of `without`."""
    (folder / "config.json").write_text(json.dumps(SIZES | (changes or {})))
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape) for name, shape in read_architecture(folder / "config.json").shapes()}
    arrays = {
        prefix * (not name.startswith("classifier")) + name: array.astype(np.float32)
        for name, array in arrays.items()
        if not name.startswith(without)
    }
    save_file(arrays, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_a_prefix_is_optional(prefix, tmp_path):
    model = load_model(written(tmp_path, prefix=prefix))
    assert model(np.ones((2, 2, 8, 8), np.float32)).shape == (2, 3)
    assert model.pooled(np.ones((2, 8, 8), np.float32)).shape == (12,)
    assert model.tokens.positions.shape == (5, 12)


def test_head_and_pooler_are_those_of_the_file(tmp_path):
    model = load_model(written(tmp_path, without=("classifier", "pooler")))
    assert model.head is None
    assert model.pooler is None
    assert model.features(np.ones((2, 8, 8), np.float32)).shape == (5, 12)


def test_labels_in_order(tmp_path):
    assert read_architecture(written(tmp_path) / "config.json").labels == ("cat", "dog", "bird")


def test_labels_without_names(tmp_path):
    written(tmp_path, {"id2label": None, "num_labels": 3})
    assert read_architecture(tmp_path / "config.json").labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    written(tmp_path, {"id2label": None})
    assert read_architecture(tmp_path / "config.json").labels == ("LABEL_0", "LABEL_1")


SIDES = "image_size: expected a multiple of the patch_size 4, or height and width that are, got "
REFUSED = [
    ({"hidden_size": 0}, "hidden_size: expected a whole number of at least 1, got 0"),
    ({"num_attention_heads": 5}, "num_attention_heads: expected a divisor of 12 channels, got 5"),
    ({"patch_size": [4, 2]}, "patch_size: expected a whole number of at least 1, got [4, 2]"),
    ({"image_size": 10}, f"{SIDES}10"),
    ({"image_size": [8, 8, 8]}, f"{SIDES}[8, 8, 8]"),
    ({"image_size": True}, f"{SIDES}true"),
    ({"image_size": 0}, f"{SIDES}0"),
    ({"hidden_act": "laplace"}, 'hidden_act: expected "gelu" or '),
    ({"pooler_act": "relu"}, 'pooler_act: expected "tanh", got "relu"'),
    ({"qkv_bias": 1}, "qkv_bias: expected true or false, got 1"),
    ({"layer_norm_eps": -1}, "layer_norm_eps: expected a number of at least 0, got -1"),
    ({"head_dim": 5}, "head_dim: expected no such option, since there is no code for it, got 5"),
    ({"id2label": {"1": "dog", "2": "cat"}}, "id2label: expected a label for each of 0, 1, 2, …, got "),
    ({"id2label": ["dog"]}, 'id2label: expected a label for each of 0, 1, 2, …, got ["dog"]'),
    ({"id2label": None, "num_labels": -1}, "num_labels: expected a whole number of at least 0, got -1"),
]


@pytest.mark.parametrize("changes, message", REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_a_config_that_cannot_be_read(changes, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SIZES | changes))
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/config.json: {message}")):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"id2label": {"0": "cat"}}, "classifier.weight: expected shape (1, 12), got (3, 12)"),
        ({"image_size": 12}, "embeddings.position_embeddings: expected shape (1, 10, 12), got (1, 5, 12)"),
        (
            {"qkv_bias": False},
            "encoder.layer.0.attention.attention.key.bias: expected no such array, got one of shape",
        ),
        ({"num_hidden_layers": 3}, "encoder.layer.2.attention.attention.query.weight: expected an array of shape"),
    ],
)
def test_weights_that_do_not_fit(changes, message, tmp_path):
    written(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SIZES | changes))
    with pytest.raises(UserError, match=re.escape(f": {message}")):
        load_model(tmp_path)


def test_a_model_of_pictures_writes_no_text(tmp_path):
    written(tmp_path)
    with pytest.raises(UserError, match="expected a language model, got one of pictures: see run$"):
        generate(tmp_path, "text", tokens=1, temperature=0, seed=0)
    with pytest.raises(UserError, match="expected an encoder and decoder, got a model of pictures: see run$"):
        translate(tmp_path, "text", None)

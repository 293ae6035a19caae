"""Folders of ViT that transformers writes, read from disk by us: logits, features, gradients, positions, in float64."""

import json
import logging

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import map_arrays
from models.published import load_model, read_architecture
from models.vision import interpolation
from models.vision.convolution import conv2d, conv_transpose2d

TOLERANCE = 1e-12  # of float64, relative to the largest number
SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 2,
    "num_labels": 5,
}
OPTIONS = {
    "as it is": {},
    "no biases of queries, keys and values": {"qkv_bias": False},
    "large epsilon": {"layer_norm_eps": 0.3},
    "no epsilon": {"layer_norm_eps": 0.0},
    "quick gelu": {"hidden_act": "quick_gelu"},
    "tanh gelu": {"hidden_act": "gelu_new"},
    "tanh gelu by another name": {"hidden_act": "gelu_pytorch_tanh"},
    "relu": {"hidden_act": "relu"},
    "silu": {"hidden_act": "silu"},
    "one head": {"num_attention_heads": 1},
    "one layer": {"num_hidden_layers": 1},
    "one patch": {"image_size": 4},
    "one pixel a patch": {"image_size": 3, "patch_size": 1},
    "wide pictures": {"image_size": [4, 12]},
    "tall pictures": {"image_size": [12, 4]},
    "pictures in grey": {"num_channels": 1},
    "one class": {"num_labels": 1},
    "dropout": {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5},
    "pooler of another width": {"pooler_output_size": 7},
}


def written(torch, folder, kind, **options):
    """Return their model of random weights of distinguishable size, in float64, after writing it in float32."""
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.ViTConfig(**SIZES | options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model.double()


def in_float64(folder):
    """Return our model of a folder with its weights in float64."""
    return map_arrays(lambda array: array.astype(np.float64), load_model(folder))


def pictures(model, sides=None):
    """Return two pictures (2, C, H, W) of the model's size, or of others."""
    size = sides or model.config.image_size
    sides = size if isinstance(size, list | tuple) else (size, size)
    return np.random.default_rng(0).standard_normal((2, model.config.num_channels, *sides))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_logits_and_gradients(options, tmp_path, torch, close):
    model = written(torch, tmp_path, "ViTForImageClassification", **options)
    pixels = pictures(model)
    weights = np.random.default_rng(1).standard_normal((2, model.config.num_labels))
    logits = model(torch.tensor(pixels)).logits
    (logits * torch.tensor(weights)).sum().backward()
    ours, of = in_float64(tmp_path), read_architecture(tmp_path / "config.json")
    close("logits", ours(pixels), logits.detach().numpy(), TOLERANCE)
    names = {new: old for old, new in names_in_file(model).items()}
    gradients = {of.name(names[name]): p.grad.numpy() for name, p in model.named_parameters()}
    same_gradients(close, of, ours, gradients, lambda m: mg.sum(m(pixels) * weights))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_features_and_pooler(options, tmp_path, torch, close):
    model = written(torch, tmp_path, "ViTModel", **options)
    pixels, ours, of = pictures(model), in_float64(tmp_path), read_architecture(tmp_path / "config.json")
    output = model(torch.tensor(pixels))
    close("features", ours.features(pixels), output.last_hidden_state.detach().numpy(), TOLERANCE)
    close("pooled", ours.pooled(pixels), output.pooler_output.detach().numpy(), TOLERANCE)
    weights = np.random.default_rng(1).standard_normal(output.pooler_output.shape)
    (output.pooler_output * torch.tensor(weights)).sum().backward()
    names = {new: old for old, new in names_in_file(model).items()}
    gradients = {of.name(names[name]): p.grad.numpy() for name, p in model.named_parameters()}
    same_gradients(close, of, ours, gradients, lambda m: mg.sum(m.pooled(pixels) * weights))


def names_in_file(model):
    """Return what their parameters are called in files → what they are called in their modules."""
    parts = {"attention.q_proj": "attention.attention.query", "attention.k_proj": "attention.attention.key"}
    parts |= {"attention.v_proj": "attention.attention.value", "attention.o_proj": "attention.output.dense"}
    parts |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    names = {}
    for name, _ in model.named_parameters():
        old = name.replace("layers.", "encoder.layer.")
        for new_part, old_part in parts.items():
            old = old.replace(f".{new_part}.", f".{old_part}.")
        names[old] = name
    return names


def same_gradients(close, of, ours, gradients, loss):
    """Compare the gradient by every parameter, under our names."""
    expected = dict(of.of_file({name: g.shape for name, g in gradients.items()}).parameters(gradients))
    actual = mg.grad(loss)(ours).named_parameters()
    assert actual.keys() - expected.keys() <= {"pooler.weight", "pooler.bias", "head.weight", "head.bias"}
    for name, gradient in expected.items():
        if name.endswith("attention.key.bias"):  # which the softmax takes no notice of: rounding on both sides
            assert np.abs(actual[name]).max() < TOLERANCE and np.abs(gradient).max() < TOLERANCE
        else:
            close(f"gradient of {name}", actual[name], gradient, 100 * TOLERANCE)


@pytest.mark.parametrize("sides", [(12, 12), (4, 4), (4, 16), (20, 8), (8, 12)], ids=str)
def test_positions_are_interpolated(sides, tmp_path, torch, close):
    model = written(torch, tmp_path, "ViTForImageClassification")
    pixels, ours, of = pictures(model, sides), in_float64(tmp_path), read_architecture(tmp_path / "config.json")
    logits = model(torch.tensor(pixels), interpolate_pos_encoding=True).logits
    close("logits", ours(pixels), logits.detach().numpy(), TOLERANCE)
    logits.sum().backward()
    names = {new: old for old, new in names_in_file(model).items()}
    gradients = {of.name(names[name]): p.grad.numpy() for name, p in model.named_parameters()}
    same_gradients(close, of, ours, gradients, lambda m: mg.sum(m(pixels)))


def test_attention_is_theirs(tmp_path, torch, close):
    model = written(torch, tmp_path, "ViTForImageClassification")
    model.set_attn_implementation("eager")
    pixels = pictures(model)
    theirs = model(torch.tensor(pixels), output_attentions=True).attentions
    expected = np.stack([layer.detach().numpy() for layer in theirs], axis=1)
    close("attention", in_float64(tmp_path).attention(pixels), expected, 1e-6)  # their softmax is in float32


def test_labels_are_those_of_the_config(tmp_path, torch):
    model = written(torch, tmp_path, "ViTForImageClassification", id2label={1: "dog", 0: "cat"}, num_labels=2)
    assert model.config.num_labels == 2
    assert read_architecture(tmp_path / "config.json").labels == ("cat", "dog")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["id2label"] == {"0": "cat", "1": "dog"}


@pytest.mark.parametrize("stride, padding, kernel", [(1, 0, (3, 2)), (2, 1, (3, 3)), (3, 2, (1, 4)), (2, 0, (2, 2))])
def test_convolutions(stride, padding, kernel, torch, compare):
    rng = np.random.default_rng(0)
    inputs = {"x": (2, 7, 9, 3), "w": (4, 3, *kernel), "b": (4,)}
    inputs = {name: rng.standard_normal(shape) for name, shape in inputs.items()}

    def theirs(x, w, b):
        y = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), w, b, stride=stride, padding=padding)
        return (y.permute(0, 2, 3, 1),)

    compare(lambda x, w, b: (conv2d(x, w, b, stride=stride, padding=padding),), theirs, inputs, TOLERANCE)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed_convolutions(stride, torch, compare):
    rng = np.random.default_rng(0)
    inputs = {"x": (2, 3, 4, 3), "w": (3, 5, stride, stride), "b": (5,)}
    inputs = {name: rng.standard_normal(shape) for name, shape in inputs.items()}

    def theirs(x, w, b):
        y = torch.nn.functional.conv_transpose2d(x.permute(0, 3, 1, 2), w, b, stride=stride)
        return (y.permute(0, 2, 3, 1),)

    compare(lambda x, w, b: (conv_transpose2d(x, w, b),), theirs, inputs, TOLERANCE)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(5, 7), (9, 4), (2, 20), (1, 1)], ids=str)
def test_interpolation(mode, size, torch, compare):
    kind = {"bilinear": interpolation.linear, "bicubic": interpolation.bicubic}[mode]

    def theirs(x):
        y = torch.nn.functional.interpolate(x.permute(0, 3, 1, 2), size=size, mode=mode, align_corners=False)
        return (y.permute(0, 2, 3, 1),)

    inputs = {"x": np.random.default_rng(0).standard_normal((2, 5, 7, 3))}
    compare(lambda x: (interpolation.resize(x, *size, kind),), theirs, inputs, TOLERANCE)

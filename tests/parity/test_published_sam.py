"""Folders of SAM that transformers writes, read from disk by us: embeddings, masks, scores, gradients, or one line."""

import json
import re

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import map_arrays
from models.errors import UserError
from models.published import load_model, read_architecture
from tests.parity.causal_lm import edited

EXACT, SINGLE = 1e-12, 1e-4  # in float64, and in float32, relative to the largest number
SIDE, GRID, WIDTH = 40, 5, 16
VISION = {
    "hidden_size": 24,
    "output_channels": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": SIDE,
    "patch_size": 8,
    "window_size": 2,
    "global_attn_indexes": [1],
    "num_pos_feats": WIDTH // 2,
    "mlp_dim": 20,
}
PROMPT = {"hidden_size": WIDTH, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 8}
DECODER = {
    "hidden_size": WIDTH,
    "mlp_dim": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 10,
}
OPTIONS = {
    "as it is": ({}, {}, {}),
    "windows that divide": ({"window_size": 5}, {}, {}),
    "windows larger than the map": ({"window_size": 7}, {}, {}),
    "no windows": ({"window_size": 0}, {}, {}),
    "global everywhere": ({"global_attn_indexes": [0, 1, 2]}, {}, {}),
    "no relative positions": ({"use_rel_pos": False}, {}, {}),
    "no absolute positions": ({"use_abs_pos": False}, {}, {}),
    "no biases": ({"qkv_bias": False}, {}, {}),
    "one channel": ({"num_channels": 1}, {}, {}),
    "a ratio": ({"mlp_dim": None, "mlp_ratio": 1.5}, {}, {}),
    "activations": ({"hidden_act": "relu"}, {"hidden_act": "silu"}, {"hidden_act": "gelu"}),
    "epsilons": ({"layer_norm_eps": 0.1}, {"layer_norm_eps": 0.2}, {"layer_norm_eps": 0.3}),
    "more of the decoder": ({}, {}, {"num_hidden_layers": 3, "num_attention_heads": 4}),
    "other masks": ({}, {}, {"num_multimask_outputs": 2, "iou_head_depth": 4}),
    "a short head": ({}, {}, {"iou_head_depth": 1}),
    "channels of masks": ({}, {"mask_input_channels": 12}, {}),
}
RNG = np.random.default_rng(0)
POINTS, LABELS = RNG.uniform(0, SIDE, (2, 3, 2, 2)), RNG.integers(0, 2, (2, 3, 2))
BOXES = np.sort(RNG.uniform(0, SIDE, (2, 3, 2, 2)), axis=-2).reshape(2, 3, 4)
MASKS = 5 * RNG.standard_normal((2, 1, 4 * GRID, 4 * GRID))
PROMPTS = {
    "points": {"points": POINTS, "labels": LABELS},
    "one point": {"points": POINTS[:, :, :1], "labels": LABELS[:, :, :1]},
    "points without labels": {"points": POINTS},
    "boxes": {"boxes": BOXES},
    "points and boxes": {"points": POINTS, "labels": LABELS, "boxes": BOXES},
    "points and masks": {"points": POINTS, "labels": LABELS, "masks": MASKS},
    "boxes and masks": {"boxes": BOXES, "masks": MASKS},
    "masks": {"masks": MASKS},
    "all": {"points": POINTS, "labels": LABELS, "boxes": BOXES, "masks": MASKS},
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def sam(torch, vision=(), prompt=(), decoder=(), seed=0):
    """Return their model, whose weights are large enough for every gradient to be seen."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.SamConfig(
        vision_config=VISION | dict(vision),
        prompt_encoder_config=PROMPT | dict(prompt),
        mask_decoder_config=DECODER | dict(decoder),
    )
    model = transformers.SamModel(config).eval()
    with torch.no_grad():
        for name, array in model.named_parameters():
            if "positional_embedding" in name:
                array.copy_(torch.randn_like(array))
            else:
                array.add_(0.2 * torch.randn_like(array))
    return model


def pixels_of(model):
    return np.random.default_rng(1).standard_normal((2, model.config.vision_config.num_channels, SIDE, SIDE))


def tensors(torch, prompts, dtype):
    """Return the prompts under their names."""
    arrays = {f"input_{name}": torch.tensor(array) for name, array in prompts.items()}
    return {name: array if name == "input_labels" else array.to(dtype) for name, array in arrays.items()}


def in_float64(model):
    return map_arrays(lambda array: array.astype(np.float64), model)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, torch, close, tmp_path):
    """Compare three masks and the single one in float64, with weights that both have from the file."""
    model = sam(torch, *OPTIONS[name])
    model.save_pretrained(tmp_path)
    model, pixels = model.double(), pixels_of(model)
    ours = in_float64(load_model(tmp_path))
    with torch.no_grad():
        embedding = model.get_image_embeddings(torch.tensor(pixels)).permute(0, 2, 3, 1).numpy()
        close("embedding", ours.encode(pixels), embedding, EXACT)
        for ambiguous in (True, False):
            prompts = PROMPTS["points and masks"]
            theirs = model(torch.tensor(pixels), **tensors(torch, prompts, torch.float64), multimask_output=ambiguous)
            masks, scores = ours(pixels, ambiguous=ambiguous, **prompts)
            close("masks", masks, theirs.pred_masks.numpy(), EXACT)
            close("scores", scores, theirs.iou_scores.numpy(), EXACT)


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(name, torch, close, tmp_path):
    model = sam(torch)
    model.save_pretrained(tmp_path)
    model, pixels = model.double(), pixels_of(model)
    with torch.no_grad():
        theirs = model(torch.tensor(pixels), **tensors(torch, PROMPTS[name], torch.float64))
    masks, scores = in_float64(load_model(tmp_path))(pixels, **PROMPTS[name])
    close("masks", masks, theirs.pred_masks.numpy(), EXACT)
    close("scores", scores, theirs.iou_scores.numpy(), EXACT)


def test_float32(torch, close, tmp_path):
    model = sam(torch)
    model.save_pretrained(tmp_path)
    pixels = pixels_of(model).astype(np.float32)
    with torch.no_grad():
        theirs = model(torch.tensor(pixels), **tensors(torch, PROMPTS["all"], torch.float32))
    masks, scores = load_model(tmp_path)(pixels, **(PROMPTS["all"] | {"masks": MASKS.astype(np.float32)}))
    assert masks.dtype == scores.dtype == np.float32
    close("masks", masks, theirs.pred_masks.numpy(), SINGLE)
    close("scores", scores, theirs.iou_scores.numpy(), SINGLE)


@pytest.mark.parametrize("options", ["as it is", "windows that divide", "activations"])
@pytest.mark.parametrize("prompt", ["all", "points", "boxes"])
def test_gradients(options, prompt, torch, close, tmp_path):
    """Compare gradients of a random combination of all masks and scores; a key's bias moves no softmax."""
    model = sam(torch, *OPTIONS[options])
    model.save_pretrained(tmp_path)
    model, pixels = model.double(), pixels_of(model)
    rng = np.random.default_rng(2)
    of_masks, of_scores = rng.standard_normal((2, 3, 4, 4 * GRID, 4 * GRID)), rng.standard_normal((2, 3, 4))
    loss = 0
    for ambiguous, part in ((True, slice(1, None)), (False, slice(0, 1))):
        given = tensors(torch, PROMPTS[prompt], torch.float64)
        theirs = model(torch.tensor(pixels), **given, multimask_output=ambiguous)
        loss = loss + (theirs.pred_masks * torch.tensor(of_masks[:, :, part])).sum()
        loss = loss + (theirs.iou_scores * torch.tensor(of_scores[:, :, part])).sum()
    loss.backward()
    of = read_architecture(tmp_path / "config.json")
    named = {name: array for name, array in model.named_parameters() if name not in of.copies}
    zeros = {name: np.zeros(shape) for name, shape in of.shapes()}
    assert named.keys() == zeros.keys()
    gradients = {name: array.grad.numpy() for name, array in named.items() if array.grad is not None}
    expected = dict(of.parameters(zeros | gradients))

    def ours(module):
        logits, scores = module.decode(module.encode(pixels), **PROMPTS[prompt])
        return mg.sum(logits * of_masks) + mg.sum(scores * of_scores)

    value, tree = mg.value_and_grad(ours)(in_float64(load_model(tmp_path)))
    assert abs(float(value) - loss.item()) <= EXACT * max(1.0, abs(loss.item()))
    actual = tree.named_parameters()
    assert actual.keys() == expected.keys()
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in actual.items():
        if name.endswith("key.bias") or not expected[name].any():
            assert np.abs(gradient - expected[name]).max() <= EXACT * largest, name
        else:
            close(f"gradient of {name}", gradient, expected[name], 100 * EXACT)


def test_every_array_has_a_gradient_when_all_prompts_are_given(torch, tmp_path):
    """So that the comparison above leaves nothing out but what no prompt of it reads."""
    sam(torch).save_pretrained(tmp_path)

    def loss(module):
        embedding = module.encode(pixels_of(sam(torch)))
        both = [module.decode(embedding, **PROMPTS[name]) for name in ("all", "points")]
        return sum(mg.sum(logits * logits) + mg.sum(scores * scores) for logits, scores in both)

    gradients = mg.grad(loss)(in_float64(load_model(tmp_path))).named_parameters()
    zero = [name for name, gradient in gradients.items() if np.abs(gradient).max() < 1e-9]
    assert all(name.endswith("key.bias") for name in zero), zero


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_widths_and_shards(dtype, torch, close, tmp_path):
    import transformers

    sam(torch).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    model = transformers.SamModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    pixels = pixels_of(model).astype(np.float32)
    with torch.no_grad():
        theirs = model(torch.tensor(pixels), **tensors(torch, PROMPTS["points"], torch.float32))
    close("masks", load_model(tmp_path)(pixels, **PROMPTS["points"])[0], theirs.pred_masks.numpy(), SINGLE)


def test_the_layout_of_old_files(torch, close, tmp_path):
    """Read files that hold G twice, or only as the prompt encoder's."""
    model = sam(torch)
    model.save_pretrained(tmp_path)
    arrays = {name: array.clone() for name, array in model.state_dict().items()}
    copy, original = (
        "prompt_encoder.shared_embedding.positional_embedding",
        "shared_image_embedding.positional_embedding",
    )
    assert {copy, original} <= arrays.keys()
    (tmp_path / "model.safetensors").unlink()
    for left_out in (None, copy, original):
        torch.save({name: array for name, array in arrays.items() if name != left_out}, tmp_path / "pytorch_model.bin")
        close("G", load_model(tmp_path).prompt_encoder.frequencies, arrays[original].numpy(), 0)
    torch.save(arrays | {copy: 2 * arrays[copy]}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=re.escape(f"{copy}: expected the numbers of {original}, got others")):
        load_model(tmp_path)


PUBLISHED = {
    "_commit_hash": None,
    "architectures": ["SamModel"],
    "initializer_range": 0.02,
    "mask_decoder_config": {
        "_name_or_path": "",
        "attention_downsample_rate": 2,
        "hidden_act": "relu",
        "hidden_size": 256,
        "iou_head_depth": 3,
        "iou_head_hidden_dim": 256,
        "layer_norm_eps": 1e-06,
        "mlp_dim": 2048,
        "model_type": "",
        "num_attention_heads": 8,
        "num_hidden_layers": 2,
        "num_multimask_outputs": 3,
    },
    "model_type": "sam",
    "prompt_encoder_config": {
        "_name_or_path": "",
        "hidden_act": "gelu",
        "hidden_size": 256,
        "image_embedding_size": 64,
        "image_size": 1024,
        "layer_norm_eps": 1e-06,
        "mask_input_channels": 16,
        "model_type": "",
        "num_point_embeddings": 4,
        "patch_size": 16,
    },
    "torch_dtype": "float32",
    "transformers_version": None,
    "vision_config": {
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "global_attn_indexes": [2, 5, 8, 11],
        "hidden_act": "gelu",
        "hidden_size": 768,
        "image_size": 1024,
        "initializer_factor": 1.0,
        "initializer_range": 1e-10,
        "intermediate_size": 6144,
        "layer_norm_eps": 1e-06,
        "mlp_dim": 3072,
        "mlp_ratio": 4.0,
        "model_type": "",
        "num_attention_heads": 12,
        "num_channels": 3,
        "num_hidden_layers": 12,
        "num_pos_feats": 128,
        "output_channels": 256,
        "patch_size": 16,
        "projection_dim": 512,
        "qkv_bias": True,
        "use_abs_pos": True,
        "use_rel_pos": True,
        "window_size": 14,
    },
}


def test_a_published_config(torch, tmp_path):
    """Read the layout of ViT-B's, with the number of parameters that the class of transformers has."""
    import transformers

    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    of = read_architecture(tmp_path / "config.json")
    with torch.device("meta"):
        theirs = transformers.SamModel(transformers.SamConfig(**PUBLISHED))
    expected = {name: tuple(array.shape) for name, array in theirs.named_parameters() if name not in of.copies}
    assert dict(of.shapes()) == expected


DISAGREEMENTS = [
    (
        "vision_config",
        {"hidden_size": 36},
        "vision_encoder.patch_embed.projection.weight: expected shape (36, 3, 8, 8)",
    ),
    ("vision_config", {"window_size": 3}, "attn.rel_pos_h: expected shape (5, 8), got (3, 8)"),
    ("vision_config", {"global_attn_indexes": []}, "layers.1.attn.rel_pos_h: expected shape (3, 8), got (9, 8)"),
    ("vision_config", {"use_rel_pos": False}, "rel_pos_h: expected no such array, got one of shape"),
    (
        "vision_config",
        {"num_hidden_layers": 10**12},
        "layers.3.layer_norm1.weight: expected an array of shape (24,), got",
    ),
    (
        "mask_decoder_config",
        {"num_multimask_outputs": 4},
        "output_hypernetworks_mlps.4.proj_in.weight: expected an arr",
    ),
    (
        "mask_decoder_config",
        {"iou_head_depth": 2},
        "iou_prediction_head.layers.0.bias: expected no such array, got one",
    ),
]


@pytest.mark.parametrize("part, changes, message", DISAGREEMENTS)
def test_a_config_that_does_not_fit_the_weights(part, changes, message, torch, tmp_path):
    sam(torch).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    edited(path, **{part: json.loads(path.read_text())[part] | changes})
    with pytest.raises(UserError, match=re.escape(message)):
        load_model(tmp_path)

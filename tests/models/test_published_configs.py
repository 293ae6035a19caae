"""Invalid values in config.json: each is refused by name, before an array is allocated."""

import json
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.errors import UserError
from models.published import MODEL_TYPES, load_model, read_architecture
from models.published.fields import Fields

SMALL = {
    "mamba": {"hidden_size": 8, "state_size": 3, "vocab_size": 12, "num_hidden_layers": 2},
    "falcon_mamba": {"hidden_size": 8, "state_size": 3, "vocab_size": 12, "num_hidden_layers": 2},
    "mamba2": {
        "hidden_size": 8,
        "state_size": 3,
        "vocab_size": 12,
        "num_hidden_layers": 2,
        "num_heads": 4,
        "head_dim": 4,
        "n_groups": 2,
    },
}
NATIVE = {
    "Mamba1": {"d_model": 8, "n_layer": 2, "vocab_size": 9, "ssm_cfg": {"d_state": 3}},
    "Mamba2": {
        "d_model": 8,
        "n_layer": 2,
        "vocab_size": 9,
        "ssm_cfg": {"layer": "Mamba2", "d_state": 3, "headdim": 4, "ngroups": 2},
    },
}
SIZES = ["hidden_size", "state_size", "vocab_size", "conv_kernel"]
WRONG_SIZES = {
    '"5"': "5",
    "null": None,
    "8.0": 8.0,
    "1000000000000.0": 1e12,
    "0": 0,
    "-1": -1,
    "true": True,
    "[8]": [8],
}
RANK = 'time_step_rank: expected "auto" or a whole number of at least 1, got '
LIMIT = "time_step_limit: expected two numbers, low ≤ high and 0 ≤ high, got "
KINDS = ", ".join(MODEL_TYPES)
OTHER = {
    "mamba": {"use_bias": True, "use_conv_bias": False, "expand": 1.5},
    "mamba2": {"use_bias": True, "use_conv_bias": False, "expand": 1.5, "num_heads": 3, "n_groups": 3},
    None: {"ssm_cfg": {"d_state": 5, "bias": True, "conv_bias": False, "expand": 1.5}},
}
WHOLE = "expected a whole number of at least 1, got "


def written(folder, config):
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder / "config.json"


def refused(folder, config):
    """Return the one-line error for a config, without the path."""
    path = written(folder, config)
    with pytest.raises(UserError) as excinfo:
        read_architecture(path)
    assert "\n" not in str(excinfo.value)
    return str(excinfo.value).removeprefix(f"{path}: ")


CASES = (
    [(kind, name, text, value) for kind in SMALL for name in SIZES for text, value in WRONG_SIZES.items()]
    + [("mamba2", n, s, v) for n in ("num_heads", "head_dim", "n_groups") for s, v in WRONG_SIZES.items()]
    + [("mamba", "intermediate_size", text, value) for text, value in WRONG_SIZES.items()]
)


@pytest.mark.parametrize("kind, name, text, value", CASES)
def test_a_size_is_a_whole_number(kind, name, text, value, tmp_path):
    assert refused(tmp_path, {"model_type": kind, **SMALL[kind], name: value}) == f"{name}: {WHOLE}{text}"


@pytest.mark.parametrize(
    "kind, change, message",
    [
        ("mamba", {"time_step_rank": None}, f"{RANK}null"),
        ("mamba", {"time_step_rank": 1.5}, f"{RANK}1.5"),
        ("mamba", {"expand": "2"}, 'expand: expected a number of at least 0, got "2"'),
        ("mamba", {"expand": 0.01}, "expand: expected at least 1 channel of 8 × expand, got 0.01"),
        ("mamba", {"expand": 1e308}, "expand: expected at least 1 channel of 8 × expand, got 1e+308"),
        ("mamba", '{"model_type": "mamba", "expand": NaN}', "expand: expected a number of at least 0, got NaN"),
        ("mamba", {"expand": 10**400}, "expand: expected a number of at least 0, got 1000"),
        ("mamba", {"use_bias": 1}, "use_bias: expected true or false, got 1"),
        ("mamba", {"use_conv_bias": None}, "use_conv_bias: expected true or false, got null"),
        ("mamba", {"tie_word_embeddings": "yes"}, 'tie_word_embeddings: expected true or false, got "yes"'),
        ("mamba", {"layer_norm_epsilon": "1e-5"}, 'layer_norm_epsilon: expected a number of at least 0, got "1e-5"'),
        ("mamba", {"hidden_act": "relu"}, 'hidden_act: expected "silu" or "swish", got "relu"'),
        ("mamba", {"hidden_act": None}, 'hidden_act: expected "silu" or "swish", got null'),
        ("mamba", {"model_type": ["mamba"]}, f"model_type: expected one of {KINDS}, got '['mamba']'"),
        ("falcon_mamba", {"mixer_rms_eps": None}, "mixer_rms_eps: expected a number of at least 0, got null"),
        ("mamba2", {"num_heads": 3}, "num_heads: expected num_heads × head_dim = 16, got 3 × 4"),
        ("mamba2", {"n_groups": 3}, "n_groups: expected a divisor of 4 heads, got 3"),
        ("mamba2", {"time_step_limit": [0]}, f"{LIMIT}[0]"),
        ("mamba2", {"time_step_limit": [2, 1]}, f"{LIMIT}[2, 1]"),
        ("mamba2", {"time_step_limit": 0.1}, f"{LIMIT}0.1"),
        ("mamba2", {"time_step_limit": None}, f"{LIMIT}null"),
        ("mamba2", {"time_step_limit": [-2.0, -1.0]}, f"{LIMIT}[-2.0, -1.0]"),
        ("mamba2", {"num_hidden_layers": -1}, "num_hidden_layers: expected a whole number of at least 0, got -1"),
        ("mamba2", {"num_hidden_layers": 2.0}, "num_hidden_layers: expected a whole number of at least 0, got 2.0"),
        ("mamba2", "[]", "expected a JSON object, got list"),
        ("mamba2", "{", "expected JSON, got: "),
        ("mamba2", 100_000 * "[", "expected JSON, got: "),
        ("mamba2", "{}", f"model_type: expected one of {KINDS}, got none"),
    ],
)
def test_other_values_that_do_not_fit(kind, change, message, tmp_path):
    config = change if isinstance(change, str) else {"model_type": kind, **SMALL[kind], **change}
    assert refused(tmp_path, config).startswith(message)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"d_model": "8"}, f'd_model: {WHOLE}"8"'),
        ({"n_layer": None}, "n_layer: expected a whole number of at least 0, got null"),
        ({"vocab_size": 1e12}, f"vocab_size: {WHOLE}1000000000000.0"),
        ({"pad_vocab_size_multiple": 0}, f"pad_vocab_size_multiple: {WHOLE}0"),
        ({"ssm_cfg": [1]}, "ssm_cfg: expected a JSON object, got [1]"),
        ({"ssm_cfg": {"layer": "Mamba3"}}, "ssm_cfg.layer: expected one of Mamba1, Mamba2, got 'Mamba3'"),
        ({"ssm_cfg": {"d_stat": 3}}, "ssm_cfg: expected one of "),
        ({"ssm_cfg": {"d_state": 3.0}}, f"ssm_cfg.d_state: {WHOLE}3.0"),
        ({"ssm_cfg": {"layer": "Mamba2", "headdim": 5}}, "ssm_cfg.headdim: expected a divisor of 16 channels inside"),
        ({"ssm_cfg": {"layer": "Mamba2", "headdim": 4, "D_has_hdim": True}}, "ssm_cfg.D_has_hdim: expected false, got"),
        ({"ssm_cfg": {"layer": "Mamba2", "headdim": 4, "d_ssm": 8}}, "ssm_cfg.d_ssm: expected null, got 8"),
        ({"attn_layer_idx": [1]}, "attn_layer_idx: expected none, since every layer is a Mamba block, got [1]"),
        ({"d_intermediate": 64}, "d_intermediate: expected none, since every layer is a Mamba block, got 64"),
        ({"rms_norm": None}, "rms_norm: expected true or false, got null"),
    ],
)
def test_values_of_mamba_ssm_that_do_not_fit(change, message, tmp_path):
    assert refused(tmp_path, {**NATIVE["Mamba1"], **change}).startswith(message)


@pytest.mark.parametrize(
    "config",
    [{"model_type": kind, **small} for kind, small in SMALL.items()]
    + [*NATIVE.values(), {**NATIVE["Mamba2"], "rms_norm": False, "tie_embeddings": False}],
    ids=[*SMALL, *NATIVE, "layer norm, untied"],
)
@pytest.mark.parametrize("changed", [False, True])
def test_the_shapes_expected_of_a_file_are_those_of_the_model(config, changed, tmp_path):
    """Compare shapes, but for the middle axis of 1 that a convolution has in a file."""
    kind = config.get("model_type")
    change = OTHER["mamba" if kind == "falcon_mamba" else kind] if changed else {}
    of = read_architecture(written(tmp_path, {**config, **change}))
    expected = {
        name: (x.shape[0], 1, x.shape[1]) if name.endswith("conv1d.weight") else x.shape
        for name, x in of.build(np.random.default_rng(0)).named_parameters().items()
    }
    assert dict(of.shapes()) == expected


@pytest.mark.parametrize(
    "given, message",
    [
        ({"window": 64}, "window: expected no such option, since there is no code for it, got 64"),
        ({"window": None}, None),  # says nothing
        ({"window": False}, "window: expected no such option, since there is no code for it, got false"),
        ({"clip": 8.0}, "clip: expected null, since there is no code for another value, got 8.0"),
        ({"clip": None}, None),  # the default
        ({"scale": True}, None),
        ({"scale": None}, "scale: expected true, since there is no code for another value, got null"),
        ({"size": 7}, None),  # asked for
        ({"dropout": 0.5}, None),  # irrelevant to the family
        ({"transformers_version": "9", "eos_token_id": 3, "torch_dtype": "float16"}, None),  # to every family
        ({"first": 1, "second": 2}, "first: expected no such option, since there is no code for it, got 1"),
    ],
)
def test_options_that_nobody_asked_for(given, message, tmp_path):
    fields = Fields(tmp_path, given, {"size": 3, "scale": True, "clip": None})
    assert fields.size("size") == given.get("size", 3)
    if message is None:
        fields.refuse_others({"dropout"})
        return
    with pytest.raises(UserError) as excinfo:
        fields.refuse_others({"dropout"})
    assert str(excinfo.value) == f"{tmp_path}: {message}"


def test_what_a_config_leaves_out(tmp_path):
    """As transformers' classes and mamba_ssm's fill it in."""
    of = read_architecture(written(tmp_path, {"model_type": "mamba"}))
    assert (of.vocab, of.layers, of.eps, of.tied) == (50280, 32, 1e-5, True)
    assert (of.block.width, of.block.inner, of.block.rank, of.block.states, of.block.conv) == (768, 1536, 48, 16, 4)
    of = read_architecture(written(tmp_path, {"model_type": "mamba2"}))
    assert (of.vocab, of.layers, of.tied) == (32768, 64, False)
    assert (of.block.inner, of.block.heads, of.block.groups, of.block.limits) == (8192, 128, 8, (0, np.inf))
    assert read_architecture(written(tmp_path, {"model_type": "falcon_mamba"})).block.norm_eps == 1e-6
    of = read_architecture(written(tmp_path, {"d_model": 768, "n_layer": 24, "vocab_size": 50277}))
    assert (of.vocab, of.block.states, of.block.rank, of.layer_norm, of.tied) == (50280, 16, 48, False, True)
    native = {
        "d_model": 768,
        "n_layer": 24,
        "vocab_size": 50277,
        "ssm_cfg": {"layer": "Mamba2"},
        "pad_vocab_size_multiple": 16,
        "attn_layer_idx": [],
        "attn_cfg": {},
        "d_intermediate": 0,
    }
    of = read_architecture(written(tmp_path, native))
    assert (of.vocab, of.block.heads, of.block.states, of.block.groups) == (50288, 24, 128, 1)


@pytest.mark.parametrize("text", ['[0.0, {"__float__": "Infinity"}]', "[0.0, Infinity]"])
def test_infinity_as_it_is_published(text, tmp_path):
    config = json.dumps({"model_type": "mamba2", **SMALL["mamba2"]})[:-1] + f', "time_step_limit": {text}' + "}"
    assert read_architecture(written(tmp_path, config)).block.limits == (0.0, np.inf)


@pytest.mark.parametrize(
    "name",
    [
        "hidden_size",
        "vocab_size",
        "state_size",
        "num_hidden_layers",
        "conv_kernel",
        "intermediate_size",
        "time_step_rank",
    ],
)
def test_a_size_that_no_machine_has_room_for_is_said_before_anything_is_made(name, tmp_path):
    """The file's header is compared first, whose shapes are others."""
    small = {"model_type": "mamba", **SMALL["mamba"]}
    model = read_architecture(written(tmp_path, small)).build(np.random.default_rng(0))
    arrays = model.named_parameters()
    save_file(
        {n: x[:, None] if n.endswith("conv1d.weight") else x for n, x in arrays.items()}, tmp_path / "model.safetensors"
    )
    written(tmp_path, {**small, name: 10**12})
    tracemalloc.start()
    with pytest.raises(UserError, match=r"model\.safetensors: \S+: expected (an array of )?shape .*, got "):
        load_model(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    written(tmp_path, {"model_type": "mamba", **SMALL["mamba"]})
    model = read_architecture(tmp_path / "config.json").build(np.random.default_rng(0))
    save_file(
        {n: x[:, None] if n.endswith("conv1d.weight") else x for n, x in model.named_parameters().items()},
        tmp_path / "model.safetensors",
    )
    load_model(tmp_path)
    monkeypatch.setattr("models.room.available", lambda: 1024)
    numbers = sum(x.size for x in model.named_parameters().values())
    with pytest.raises(UserError) as excinfo:
        load_model(tmp_path)
    assert str(excinfo.value) == (
        f"memory: expected the weights of {tmp_path}/model.safetensors, twice in float32, to fit into 1 KiB, "
        f"got {8 * numbers / 1024:.3g} KiB (try a smaller model)"
    )

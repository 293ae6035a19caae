"""Published checkpoints: small weights in the published layout, read back, generated from, and refused when broken."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.errors import UserError
from models.published import load_model, read_architecture

ROOT = Path(__file__).parents[2]
CONFIGS = {
    "mamba": {"model_type": "mamba", "hidden_size": 8, "state_size": 3, "conv_kernel": 4, "time_step_rank": 2},
    "mamba2": {
        "model_type": "mamba2",
        "hidden_size": 8,
        "state_size": 3,
        "conv_kernel": 4,
        "num_heads": 4,
        "head_dim": 4,
        "n_groups": 2,
        "time_step_limit": [0.0, {"__float__": "Infinity"}],
        "tie_word_embeddings": False,
    },
}


def written(folder, kind, *, config=None, change=None):
    """Write a folder as Hugging Face does: prefixed names, convolutions (channels, 1, W) with the present last."""
    config = {**CONFIGS[kind], "vocab_size": 12, "num_hidden_layers": 2, **(config or {})}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIGS[kind], "vocab_size": 12, "num_hidden_layers": 2}))
    model = read_architecture(folder / "config.json").build(np.random.default_rng(0))
    arrays = {}
    for name, array in model.named_parameters().items():
        array = array[:, None, ::-1] if name.endswith("conv1d.weight") else array
        arrays[name if name == "lm_head.weight" else f"backbone.{name}"] = np.ascontiguousarray(array)
    if change:
        change(arrays)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(arrays, folder / "model.safetensors")
    return model


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_written_model_is_read_back(kind, tmp_path):
    model, tokens = written(tmp_path, kind), np.arange(7)[None]
    np.testing.assert_array_equal(load_model(tmp_path)(tokens)[0], model(tokens)[0])


@pytest.mark.parametrize("kind", CONFIGS)
def test_prefill_and_steps_are_one_pass(kind, tmp_path):
    written(tmp_path, kind)
    model, tokens = load_model(tmp_path), np.random.default_rng(0).integers(0, 12, (2, 9))
    full, _ = model(tokens)
    parts, state = model(tokens[:, :4])
    parts = [parts]
    for t in range(4, 9):
        logits, state = model(tokens[:, t : t + 1], state)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), full, rtol=1e-4, atol=1e-6)


def poison(arrays):
    arrays["backbone.norm_f.weight"][0] = np.nan


def drop(arrays):
    del arrays["backbone.layers.1.mixer.D"]


BROKEN = [
    ("mamba", {"model_type": "bert"}, None, "model_type"),
    ("mamba", {"hidden_act": "relu"}, None, "hidden_act"),
    ("mamba", {"state_size": 4}, None, "x_proj.weight"),
    ("mamba2", {"num_heads": 3}, None, "num_heads: expected num_heads × head_dim = 16, got 3 × 4"),
    ("mamba2", {"n_groups": 3}, None, "n_groups: expected a divisor of 4 heads, got 3"),
    ("mamba", {}, poison, "norm_f.weight: expected finite numbers, got nan"),
    ("mamba", {}, drop, "layers.1.mixer.D"),
]


@pytest.mark.parametrize(("kind", "config", "change", "message"), BROKEN)
def test_a_config_that_does_not_fit_its_weights_is_refused(kind, config, change, message, tmp_path):
    written(tmp_path, kind, config=config, change=change)
    with pytest.raises(UserError) as excinfo:
        load_model(tmp_path)
    assert message in str(excinfo.value) and str(tmp_path) in str(excinfo.value) and "\n" not in str(excinfo.value)


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "models", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path):
    written(tmp_path, "mamba")
    full = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(full[: len(full) // 2])
    process = run("generate", "--checkpoint", str(tmp_path))
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.count("\n") == 1 and "expected a whole safetensors file" in process.stderr
    (tmp_path / "config.json").write_text("{")
    process = run("generate", "--checkpoint", str(tmp_path))
    assert process.returncode == 2 and process.stderr.count("\n") == 1 and "expected JSON" in process.stderr

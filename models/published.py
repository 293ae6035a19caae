"""Published Mamba and Mamba-2 checkpoints in Hugging Face's layout: config.json, model.safetensors, tokenizer.json.

The names in the file are the names here, but for the prefix "backbone." and for the convolution: PyTorch keeps
(channels, 1, W) with the present last, `minigrad.nn.Conv1d` (channels, W) with the present first.

What cannot be read raises UserError, with the path.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from models.blocks.mamba import MambaConfig
from models.blocks.mamba2 import Mamba2Config
from models.checkpoints import match
from models.errors import UserError, known_name
from models.language.mamba import MambaModel

KINDS = ("mamba", "mamba2")


def load_model(folder: str | Path) -> MambaModel:
    """Return the model a folder holds, in float32.

    Raises: UserError when a file is missing or unreadable, the config is of another kind, or does not fit the weights.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    model = build(folder / "config.json", config)
    path = folder / "model.safetensors"
    arrays = {renamed(name): turned(name, array) for name, array in read_arrays(path).items()}
    if model.lm_head is None:
        arrays.pop("lm_head.weight", None)  # some files hold the tied matrix twice
    match(path, arrays, model.named_parameters())
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"checkpoint {path}: {name}: expected finite numbers, got {array[~np.isfinite(array)][0]}")
    model.load_parameters(arrays)
    return model


def load_tokenizer(folder: str | Path) -> Any:
    """Return the folder's tokenizer, with `encode(text).ids` and `decode(ids)`.

    Raises: UserError when the file or the `tokenizers` library is missing.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        how = "which the extra 'published' installs: pip install -e '.[published]'"
        raise UserError(f"tokenizer.json: expected tokenizers, {how}") from None
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: expected a tokenizer, got no such file")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exceptions
        raise UserError(f"{path}: expected a tokenizer, got: {error}") from None


def build(path: Path, config: Mapping[str, Any]) -> MambaModel:
    """Return a model of the config's sizes, not yet its weights."""

    def get(name: str) -> Any:
        if name not in config:
            raise UserError(f"{path}: {name}: expected a value, got none")
        return config[name]

    kind = known_name(str(get("model_type")), f"{path}: model_type", KINDS)
    known_name(str(config.get("hidden_act", "silu")), f"{path}: hidden_act", ["silu"])
    width, eps = get("hidden_size"), config.get("layer_norm_epsilon", 1e-5)
    shared = {"width": width, "states": get("state_size"), "conv": get("conv_kernel")}
    shared |= {"bias": config.get("use_bias", False), "conv_bias": config.get("use_conv_bias", True)}
    block: MambaConfig | Mamba2Config
    if kind == "mamba":
        inner = config.get("intermediate_size", config.get("expand", 2) * width)
        rank = config.get("time_step_rank", "auto")
        block = MambaConfig(**shared, inner=inner, rank=-(-width // 16) if rank == "auto" else rank)
    else:
        inner, heads, groups = int(config.get("expand", 2) * width), get("num_heads"), get("n_groups")
        if heads * get("head_dim") != inner:
            got = f"{heads} × {get('head_dim')}"
            raise UserError(f"{path}: num_heads: expected num_heads × head_dim = {inner}, got {got}")
        if heads % groups:
            raise UserError(f"{path}: n_groups: expected a divisor of {heads} heads, got {groups}")
        low, high = map(number, config.get("time_step_limit", (0.0, float("inf"))))
        block = Mamba2Config(**shared, inner=inner, heads=heads, groups=groups, eps=eps, limits=(low, high))
    sizes = {"vocab": get("vocab_size"), "layers": get("num_hidden_layers")}
    tied = config.get("tie_word_embeddings", kind == "mamba")
    return MambaModel(block, np.random.default_rng(0), **sizes, eps=eps, tied=tied)


def number(value: Any) -> float:
    """Return a number of a config; infinity, which JSON lacks, is published as {"__float__": "Infinity"}."""
    return float(value["__float__"] if isinstance(value, dict) else value)


def renamed(name: str) -> str:
    """Return our name of a published one."""
    return name.removeprefix("backbone.").replace("embedding.", "embeddings.")


def turned(name: str, array: np.ndarray) -> np.ndarray:
    """Return a published array as ours: a convolution's filters without their middle axis, the present first."""
    if name.endswith("conv1d.weight") and array.ndim == 3 and array.shape[1] == 1:
        array = array[:, 0, ::-1]
    return np.asarray(array, dtype=np.float32, order="C")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: expected a readable file, got: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, got: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise UserError(f"checkpoint {path}: expected a readable file, got: {error.strerror or error}") from None
    except (SafetensorError, TypeError, KeyError) as error:  # TypeError, KeyError: an element type NumPy has not
        raise UserError(f"checkpoint {path}: expected a whole safetensors file of floats, got: {error}") from None

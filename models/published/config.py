"""Parsing of config.json: the kind of a model's blocks and their sizes, validated before use.

Two vocabularies are read. Hugging Face's has a `model_type`: mamba, mamba2 or falcon_mamba, whose classes fill in what
the file leaves out. The authors' own (mamba_ssm) has `d_model` and `n_layer`, and `ssm_cfg` for the blocks.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.blocks.mamba import MambaConfig
from models.blocks.mamba2 import Mamba2Config
from models.errors import UserError, known_name

SHARED = {
    "layer_norm_epsilon": 1e-5,
    "expand": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "hidden_act": "silu",
}
MAMBA = SHARED | {
    "vocab_size": 50280,
    "hidden_size": 768,
    "state_size": 16,
    "num_hidden_layers": 32,
    "time_step_rank": "auto",
    "tie_word_embeddings": True,
}
MAMBA2 = SHARED | {
    "vocab_size": 32768,
    "hidden_size": 4096,
    "state_size": 128,
    "num_hidden_layers": 64,
    "num_heads": 128,
    "head_dim": 64,
    "n_groups": 8,
    "time_step_limit": (0.0, math.inf),
    "tie_word_embeddings": False,
}
DEFAULTS = {"mamba": MAMBA, "mamba2": MAMBA2, "falcon_mamba": MAMBA | {"mixer_rms_eps": 1e-6}}
"""Defaults of the configuration classes of transformers."""

NATIVE = {
    "ssm_cfg": {},
    "rms_norm": True,
    "pad_vocab_size_multiple": 8,
    "tie_embeddings": True,
    "d_intermediate": 0,
    "attn_layer_idx": [],
}
NATIVE_BLOCK = {"layer": "Mamba1", "d_conv": 4, "expand": 2, "bias": False, "conv_bias": True}
NATIVE_BLOCKS: dict[str, dict[str, Any]] = {
    "Mamba1": {"d_state": 16, "dt_rank": "auto"},
    "Mamba2": {
        "d_state": 128,
        "headdim": 64,
        "ngroups": 1,
        "dt_limit": (0.0, math.inf),
        "d_ssm": None,
        "D_has_hdim": False,
        "rmsnorm": True,
        "norm_before_gate": False,
    },
}
"""Defaults of mamba_ssm, by the layer that `ssm_cfg` names."""
# initialisation and choice of kernels: a trained model's results do not depend on them
IRRELEVANT = {
    "dt_min",
    "dt_max",
    "dt_init",
    "dt_scale",
    "dt_init_floor",
    "A_init_range",
    "conv_init",
    "use_fast_path",
    "use_mem_eff_path",
    "chunk_size",
}
FIXED = {"D_has_hdim": False, "rmsnorm": True, "norm_before_gate": False, "d_ssm": None}
"""Choices of mamba_ssm's Mamba-2 that no published model makes otherwise."""


@dataclass(frozen=True)
class Architecture:
    """Everything that decides a model's arrays: its blocks, how many, its vocabulary, norms and head."""

    block: MambaConfig | Mamba2Config
    vocab: int
    layers: int
    eps: float = 1e-5
    tied: bool = True
    layer_norm: bool = False


def read_architecture(path: Path) -> Architecture:
    """Return the architecture in a config.json, of either vocabulary.

    Raises: UserError for a file that cannot be read, another kind of model, or an invalid value.
    """
    config = read_json(path)
    if "model_type" not in config and "d_model" in config:
        return _native(path, config)
    if "model_type" not in config:
        raise UserError(f"{path}: model_type: expected one of {', '.join(DEFAULTS)}, got none")
    kind = known_name(str(config["model_type"]), f"{path}: model_type", DEFAULTS)
    return _hugging_face(kind, Fields(path, {**DEFAULTS[kind], **config}))


def _hugging_face(kind: str, fields: "Fields") -> Architecture:
    fields.one_of("hidden_act", "silu", "swish")
    width, eps = fields.size("hidden_size"), fields.number("layer_norm_epsilon")
    has_inner = kind != "mamba2" and "intermediate_size" in fields.values  # Mamba-2's class ignores it
    inner = fields.size("intermediate_size") if has_inner else fields.expanded(width)
    shared: dict[str, Any] = {
        "width": width,
        "inner": inner,
        "states": fields.size("state_size"),
        "conv": fields.size("conv_kernel"),
        "bias": fields.flag("use_bias"),
        "conv_bias": fields.flag("use_conv_bias"),
    }
    block: MambaConfig | Mamba2Config
    if kind == "mamba2":
        heads, per_head = fields.size("num_heads"), fields.size("head_dim")
        if heads * per_head != inner:
            expected = f"num_heads × head_dim = {inner}"
            raise UserError(f"{fields.path}: num_heads: expected {expected}, got {heads} × {per_head}")
        groups, limits = fields.divisor("n_groups", heads, "heads"), fields.interval("time_step_limit")
        block = Mamba2Config(**shared, heads=heads, groups=groups, eps=eps, limits=limits)
    else:
        norm = fields.number("mixer_rms_eps") if kind == "falcon_mamba" else None
        block = MambaConfig(**shared, rank=fields.rank("time_step_rank", width), norm_eps=norm)
    layers, tied = fields.size("num_hidden_layers", least=0), fields.flag("tie_word_embeddings")
    return Architecture(block, fields.size("vocab_size"), layers, eps, tied)


def _native(path: Path, config: Mapping[str, Any]) -> Architecture:
    fields = Fields(path, {**NATIVE, **config})
    if fields.values["d_intermediate"] or fields.values["attn_layer_idx"]:
        name = "d_intermediate" if fields.values["d_intermediate"] else "attn_layer_idx"
        raise UserError(
            f"{path}: {name}: expected none, since every layer is a Mamba block, got {fields.excerpt(name)}"
        )
    ssm = fields.values["ssm_cfg"]
    if not isinstance(ssm, dict):
        raise fields.error("ssm_cfg", "a JSON object")
    kind = known_name(str(ssm.get("layer", "Mamba1")), f"{path}: ssm_cfg.layer", NATIVE_BLOCKS)
    block_fields = Fields(path, {**NATIVE_BLOCK, **NATIVE_BLOCKS[kind], **ssm}, "ssm_cfg.")
    for name in ssm:
        known_name(name, f"{path}: ssm_cfg", [*NATIVE_BLOCK, *NATIVE_BLOCKS[kind], *IRRELEVANT])
    width = fields.size("d_model")
    shared: dict[str, Any] = {
        "width": width,
        "inner": block_fields.expanded(width),
        "states": block_fields.size("d_state"),
        "conv": block_fields.size("d_conv"),
        "bias": block_fields.flag("bias"),
        "conv_bias": block_fields.flag("conv_bias"),
    }
    block: MambaConfig | Mamba2Config
    if kind == "Mamba1":
        block = MambaConfig(**shared, rank=block_fields.rank("dt_rank", width))
    else:
        for name, only in FIXED.items():
            block_fields.one_of(name, only)
        heads = shared["inner"] // block_fields.divisor("headdim", shared["inner"], "channels inside")
        groups = block_fields.divisor("ngroups", heads, "heads")
        block = Mamba2Config(**shared, heads=heads, groups=groups, limits=block_fields.interval("dt_limit"))
    multiple = fields.size("pad_vocab_size_multiple")
    vocab = -(-fields.size("vocab_size") // multiple) * multiple
    layers, tied = fields.size("n_layer", least=0), fields.flag("tie_embeddings")
    return Architecture(block, vocab, layers, tied=tied, layer_norm=not fields.flag("rms_norm"))


@dataclass(frozen=True)
class Fields:
    """The values of a config by name; asking for one checks it, and names file, key and value if it does not fit."""

    path: Path
    values: Mapping[str, Any]
    prefix: str = ""

    def error(self, name: str, expected: str) -> UserError:
        """Return the UserError for a value that its key does not allow."""
        return UserError(f"{self.path}: {self.prefix}{name}: expected {expected}, got {self.excerpt(name)}")

    def excerpt(self, name: str) -> str:
        """Return a value as JSON writes it, cut to a line."""
        if name not in self.values:
            return "none"
        text = json.dumps(self.values[name])
        return text if len(text) <= 60 else f"{text[:57]}..."

    def size(self, name: str, least: int = 1) -> int:
        """Return a whole number of at least `least`."""
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.error(name, f"a whole number of at least {least}")
        return value

    def number(self, name: str) -> float:
        """Return a finite number of at least 0."""
        value = self.values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= sys.float_info.max:
            raise self.error(name, "a number of at least 0")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def one_of(self, name: str, *choices: Any) -> None:
        """Raise UserError for a value that is not one of the supported ones."""
        if self.values.get(name) not in choices:
            raise self.error(name, " or ".join(json.dumps(value) for value in choices))

    def rank(self, name: str, width: int) -> int:
        """Return the rank R of Mamba's step: a size, or a sixteenth of the width for "auto"."""
        if self.values.get(name) == "auto":
            return -(-width // 16)
        try:
            return self.size(name)
        except UserError:
            raise self.error(name, '"auto" or a whole number of at least 1') from None

    def expanded(self, width: int) -> int:
        """Return the inner width, `expand` times the model's, rounded down: `expand` may be a fraction."""
        inner = self.number("expand") * min(width, sys.maxsize)
        if not 1 <= inner < sys.maxsize:
            raise self.error("expand", f"at least 1 channel of {width} × expand")
        return int(inner)

    def interval(self, name: str) -> tuple[float, float]:
        """Return the lowest and the highest step; infinity, which JSON lacks, is written {"__float__": "Infinity"}."""
        value: Any = self.values.get(name)
        try:
            low, high = (float(end["__float__"] if isinstance(end, dict) else end) for end in value)
            if low <= high and 0 <= high:
                return low, high
        except (TypeError, ValueError, KeyError, OverflowError):
            pass
        raise self.error(name, "two numbers, low ≤ high and 0 ≤ high")

    def divisor(self, name: str, of: int, unit: str) -> int:
        """Return a size that divides another."""
        value = self.size(name)
        if of % value:
            raise self.error(name, f"a divisor of {of} {unit}")
        return value


def shapes(of: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and the shape of every array that a file must hold, without making any."""
    block = of.block
    yield "embeddings.weight", (of.vocab, block.width)
    for layer in range(of.layers):
        yield from _norm(f"layers.{layer}.norm", of)
        arrays = _mamba(block) if isinstance(block, MambaConfig) else _mamba2(block)
        yield from ((f"layers.{layer}.mixer.{name}", shape) for name, shape in arrays)
    yield from _norm("norm_f", of)
    if not of.tied:
        yield "lm_head.weight", (of.vocab, block.width)


def _norm(name: str, of: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (of.block.width,)
    if of.layer_norm:
        yield f"{name}.bias", (of.block.width,)


def _mamba(block: MambaConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _around(block, projected=2 * block.inner, convolved=block.inner)
    yield "x_proj.weight", (block.rank + 2 * block.states, block.inner)
    yield "dt_proj.weight", (block.inner, block.rank)
    yield "dt_proj.bias", (block.inner,)
    yield "A_log", (block.inner, block.states)
    yield "D", (block.inner,)


def _mamba2(block: Mamba2Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    convolved = block.inner + 2 * block.groups * block.states
    yield from _around(block, projected=block.inner + convolved + block.heads, convolved=convolved)
    yield from ((name, (block.heads,)) for name in ("dt_bias", "A_log", "D"))
    yield "norm.weight", (block.inner,)


def _around(
    block: MambaConfig | Mamba2Config, *, projected: int, convolved: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "in_proj.weight", (projected, block.width)
    yield "conv1d.weight", (convolved, 1, block.conv)
    yield "out_proj.weight", (block.width, block.inner)
    if block.bias:
        yield "in_proj.bias", (projected,)
        yield "out_proj.bias", (block.width,)
    if block.conv_bias:
        yield "conv1d.bias", (convolved,)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: expected a readable file, got: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON, got: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config

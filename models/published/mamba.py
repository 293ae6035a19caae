"""Mamba, Mamba-2 and Falcon-Mamba: blocks of one kind, `models.language.mamba`.

Two vocabularies are read. Hugging Face's has a `model_type`: mamba, mamba2 or falcon_mamba, whose classes fill in what
the file leaves out. The authors' own (mamba_ssm) has `d_model` and `n_layer`, and `ssm_cfg` for the blocks.

The names in the files are the names here, but for the prefix "backbone." and mamba_ssm's "embedding", and so are the
arrays, but for the convolution: PyTorch keeps (channels, 1, W) with the present last, `minigrad.nn.Conv1d`
(channels, W) with the present first.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.blocks.mamba import MambaConfig
from models.blocks.mamba2 import Mamba2Config
from models.errors import UserError, known_name
from models.language.mamba import MambaModel
from models.published.architecture import Shapes, TextArchitecture
from models.published.fields import Fields

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
IRRELEVANT = frozenset(
    (
        # initialisation, types and choice of kernels: a trained model's results do not depend on them
        "chunk_size fused_add_norm rescale_prenorm_residual residual_in_fp32 time_step_floor time_step_init_scheme "
        "time_step_max time_step_min time_step_scale use_associative_scan use_mambapy "
        # what transformers' classes do not read where it is not asked for here; some comes from mamba_ssm
        "d_inner d_model expand intermediate_size n_layer norm_before_gate pad_vocab_size_multiple rms_norm ssm_cfg "
        "time_step_limit time_step_rank"
    ).split()
)
NATIVE_IRRELEVANT = (
    "A_init_range chunk_size conv_init dt_init dt_init_floor dt_max dt_min dt_scale use_fast_path use_mem_eff_path"
).split()
FIXED = {"D_has_hdim": False, "rmsnorm": True, "norm_before_gate": False, "d_ssm": None}
"""Choices of mamba_ssm's Mamba-2 that no published model makes otherwise."""


@dataclass(frozen=True, kw_only=True)
class Mamba(TextArchitecture):
    """The blocks, how many, and the norms between them."""

    prefix = "backbone."

    block: MambaConfig | Mamba2Config
    layers: int
    eps: float = 1e-5
    layer_norm: bool = False

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        block = self.block
        yield "embeddings.weight", (self.vocab, block.width)
        for layer in range(self.layers):
            yield from self._norm(f"layers.{layer}.norm")
            arrays = _mamba(block) if isinstance(block, MambaConfig) else _mamba2(block)
            yield from ((f"layers.{layer}.mixer.{name}", shape) for name, shape in arrays)
        yield from self._norm("norm_f")
        if not self.tied:
            yield "lm_head.weight", (self.vocab, block.width)

    def _norm(self, name: str) -> Shapes:
        yield f"{name}.weight", (self.block.width,)
        if self.layer_norm:
            yield f"{name}.bias", (self.block.width,)

    def build(self, rng: np.random.Generator) -> MambaModel:
        """Return a new model."""
        sizes = {"vocab": self.vocab, "layers": self.layers}
        return MambaModel(self.block, rng, **sizes, eps=self.eps, tied=self.tied, layer_norm=self.layer_norm)

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under its name, a convolution's filters without their middle axis, the present first."""
        for name, array in arrays.items():
            yield name, array[:, 0, ::-1] if name.endswith("conv1d.weight") else array

    def name(self, in_file: str) -> str | None:
        """Return the name of Hugging Face."""
        return in_file.removeprefix(self.prefix).replace("embedding.", "embeddings.")


def read(path: Path, config: Mapping[str, Any]) -> Mamba:
    """Return the architecture in a config with a `model_type`."""
    kind = config["model_type"]
    fields = Fields(path, config, DEFAULTS[kind])
    fields.one_of("hidden_act", "silu", "swish")
    width, eps = fields.size("hidden_size"), fields.number("layer_norm_epsilon")
    has_inner = kind != "mamba2" and "intermediate_size" in config  # Mamba-2's class ignores it
    inner = fields.size("intermediate_size") if has_inner else _expanded(fields, width)
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
        groups, limits = fields.divisor("n_groups", heads, "heads"), _interval(fields, "time_step_limit")
        block = Mamba2Config(**shared, heads=heads, groups=groups, eps=eps, limits=limits)
    else:
        norm = fields.number("mixer_rms_eps") if kind == "falcon_mamba" else None
        block = MambaConfig(**shared, rank=_rank(fields, "time_step_rank", width), norm_eps=norm)
    layers, tied = fields.size("num_hidden_layers", least=0), fields.flag("tie_word_embeddings")
    vocab = fields.size("vocab_size")
    fields.refuse_others(IRRELEVANT)
    return Mamba(block=block, vocab=vocab, layers=layers, eps=eps, tied=tied)


def read_native(path: Path, config: Mapping[str, Any]) -> Mamba:
    """Return the architecture in a config of mamba_ssm."""
    fields = Fields(path, config, NATIVE)
    for name in ("d_intermediate", "attn_layer_idx"):
        if fields.get(name):
            raise fields.error(name, "none, since every layer is a Mamba block")
    ssm = fields.get("ssm_cfg")
    if not isinstance(ssm, dict):
        raise fields.error("ssm_cfg", "a JSON object")
    kind = known_name(str(ssm.get("layer", "Mamba1")), f"{path}: ssm_cfg.layer", NATIVE_BLOCKS)
    block_fields = Fields(path, ssm, {**NATIVE_BLOCK, **NATIVE_BLOCKS[kind]}, "ssm_cfg.")
    for name in ssm:
        known_name(name, f"{path}: ssm_cfg", [*NATIVE_BLOCK, *NATIVE_BLOCKS[kind], *NATIVE_IRRELEVANT])
    width = fields.size("d_model")
    shared: dict[str, Any] = {
        "width": width,
        "inner": _expanded(block_fields, width),
        "states": block_fields.size("d_state"),
        "conv": block_fields.size("d_conv"),
        "bias": block_fields.flag("bias"),
        "conv_bias": block_fields.flag("conv_bias"),
    }
    block: MambaConfig | Mamba2Config
    if kind == "Mamba1":
        block = MambaConfig(**shared, rank=_rank(block_fields, "dt_rank", width))
    else:
        for name, only in FIXED.items():
            block_fields.one_of(name, only)
        heads = shared["inner"] // block_fields.divisor("headdim", shared["inner"], "channels inside")
        groups = block_fields.divisor("ngroups", heads, "heads")
        block = Mamba2Config(**shared, heads=heads, groups=groups, limits=_interval(block_fields, "dt_limit"))
    multiple = fields.size("pad_vocab_size_multiple")
    vocab = -(-fields.size("vocab_size") // multiple) * multiple
    layers, tied = fields.size("n_layer", least=0), fields.flag("tie_embeddings")
    layer_norm = not fields.flag("rms_norm")
    fields.refuse_others(("attn_cfg", "fused_add_norm", "residual_in_fp32"))
    return Mamba(block=block, vocab=vocab, layers=layers, tied=tied, layer_norm=layer_norm)


def _rank(fields: Fields, name: str, width: int) -> int:
    """Return the rank R of Mamba's step: a size, or a sixteenth of the width for "auto"."""
    if fields.get(name) == "auto":
        return -(-width // 16)
    try:
        return fields.size(name)
    except UserError:
        raise fields.error(name, '"auto" or a whole number of at least 1') from None


def _expanded(fields: Fields, width: int) -> int:
    """Return the inner width, `expand` times the model's, rounded down: `expand` may be a fraction."""
    inner = fields.number("expand") * min(width, sys.maxsize)
    if not 1 <= inner < sys.maxsize:
        raise fields.error("expand", f"at least 1 channel of {width} × expand")
    return int(inner)


def _interval(fields: Fields, name: str) -> tuple[float, float]:
    """Return the lowest and the highest step; infinity, which JSON lacks, is written {"__float__": "Infinity"}."""
    value: Any = fields.get(name)
    try:
        low, high = (float(end["__float__"] if isinstance(end, dict) else end) for end in value)
        if low <= high and 0 <= high:
            return low, high
    except (TypeError, ValueError, KeyError, OverflowError):
        pass
    raise fields.error(name, "two numbers, low ≤ high and 0 ≤ high")


def _mamba(block: MambaConfig) -> Shapes:
    yield from _around(block, projected=2 * block.inner, convolved=block.inner)
    yield "x_proj.weight", (block.rank + 2 * block.states, block.inner)
    yield "dt_proj.weight", (block.inner, block.rank)
    yield "dt_proj.bias", (block.inner,)
    yield "A_log", (block.inner, block.states)
    yield "D", (block.inner,)


def _mamba2(block: Mamba2Config) -> Shapes:
    convolved = block.inner + 2 * block.groups * block.states
    yield from _around(block, projected=block.inner + convolved + block.heads, convolved=convolved)
    yield from ((name, (block.heads,)) for name in ("dt_bias", "A_log", "D"))
    yield "norm.weight", (block.inner,)


def _around(block: MambaConfig | Mamba2Config, *, projected: int, convolved: int) -> Shapes:
    yield "in_proj.weight", (projected, block.width)
    yield "conv1d.weight", (convolved, 1, block.conv)
    yield "out_proj.weight", (block.width, block.inner)
    if block.bias:
        yield "in_proj.bias", (projected,)
        yield "out_proj.bias", (block.width,)
    if block.conv_bias:
        yield "conv1d.bias", (convolved,)

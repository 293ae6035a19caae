"""OLMo-hybrid, `models.language.olmo_hybrid`: layers of the gated delta rule and of softmax attention.

Linear layers and convolutions of a file are joined, [q ‖ k ‖ v] and [gate ‖ up]. PyTorch keeps filters (channels, 1, W)
with the present last, `minigrad.nn.Conv1d` (channels, W) with the present first. Files differ in two ways:

- The norms of a layer have the names of the released files, or those of transformers' modules.
- The filters of q, k and v are 3 arrays of as many channels as each has, or, written by transformers 5, 3 equal parts
  of all of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from models.language.olmo_hybrid import HybridConfig, OlmoHybrid
from models.published.architecture import Shapes, TextArchitecture
from models.published.fields import Fields
from models.published.rope import ROPE, Rope, even, has_rope, read_rope

DEFAULTS = ROPE | {
    "vocab_size": 100352,
    "hidden_size": 3840,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 30,
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "layer_types": None,
    "linear_num_key_heads": None,
    "linear_num_value_heads": None,
    "linear_key_head_dim": None,
    "linear_value_head_dim": None,
    "linear_conv_kernel_dim": 4,
    "linear_allow_neg_eigval": True,
    "tie_word_embeddings": False,
}
"""Defaults of the configuration class of transformers."""
IRRELEVANT = frozenset(
    # dropout, initialisation, and how far rotary positions were trained
    (
        "attention_dropout linear_a_log_max linear_a_log_min linear_dt_init_floor linear_dt_max linear_dt_min "
        "max_position_embeddings"
    ).split()
)
KINDS = ("linear_attention", "full_attention")

RELEASED = {"attention_layer_norm": "input_layernorm", "feedforward_layer_norm": "post_attention_layernorm"}
"""Names of norms in the released files, and those of transformers' modules."""
MLP = {"mlp_in.weight": ["mlp.gate_proj.weight", "mlp.up_proj.weight"], "mlp_out.weight": ["mlp.down_proj.weight"]}
DELTA = MLP | {
    "block_norm.weight": ["input_layernorm.weight"],
    "mlp_norm.weight": ["post_attention_layernorm.weight"],
    "block.qkv.weight": [f"linear_attn.{x}_proj.weight" for x in "qkv"],
    "block.conv.weight": [f"linear_attn.{x}_conv1d.weight" for x in "qkv"],
    "block.beta.weight": ["linear_attn.b_proj.weight"],
    "block.decay.weight": ["linear_attn.a_proj.weight"],
    "block.decay_log_rate": ["linear_attn.A_log"],
    "block.decay_bias": ["linear_attn.dt_bias"],
    "block.gate.weight": ["linear_attn.g_proj.weight"],
    "block.norm.weight": ["linear_attn.o_norm.weight"],
    "block.output.weight": ["linear_attn.o_proj.weight"],
}
SOFTMAX = MLP | {
    "block_norm.weight": ["post_attention_layernorm.weight"],
    "mlp_norm.weight": ["post_feedforward_layernorm.weight"],
    "block.qkv.weight": [f"self_attn.{x}_proj.weight" for x in "qkv"],
    "block.q_norm.weight": ["self_attn.q_norm.weight"],
    "block.k_norm.weight": ["self_attn.k_norm.weight"],
    "block.output.weight": ["self_attn.o_proj.weight"],
}
BIASES = {"block.qkv.bias": [f"self_attn.{x}_proj.bias" for x in "qkv"], "block.output.bias": ["self_attn.o_proj.bias"]}
"""Parameters of a layer, and the arrays of a file that make up each."""


@dataclass(frozen=True, kw_only=True)
class Hybrid(TextArchitecture):
    """The sizes, the rotary positions if there are any, and whether a file has filters in three equal parts."""

    prefix = "model."
    embedding = "embed_tokens.weight"

    config: HybridConfig
    rope: Rope | None
    equal_parts: bool = False

    def name(self, in_file: str) -> str | None:
        """Return the name of transformers' modules; what predicts more tokens than one is passed over."""
        if in_file.startswith("mtp."):
            return None
        *before, module, kind = ["", *in_file.removeprefix(self.prefix).split(".")]
        return ".".join([*before, RELEASED.get(module, module), kind]).removeprefix(".")

    def of_file(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """Return the architecture of a file that has arrays of these shapes."""
        parts = replace(self, equal_parts=True)._filters()
        names = [name for name in shapes if name.endswith("linear_attn.q_conv1d.weight")]
        return replace(self, equal_parts=bool(names) and shapes[names[0]][:1] == (parts[0],))

    def _filters(self) -> tuple[int, int, int]:
        """Return the channels of the three arrays of filters."""
        channels = sum(self.config.convolved)
        part = -(-channels // 3)
        return (part, part, channels - 2 * part) if self.equal_parts else self.config.convolved

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        of = self.config
        yield self.embedding, (self.vocab, of.width)
        for layer in range(of.layers):
            arrays = self._softmax() if of.attends(layer) else self._delta()
            yield from ((f"layers.{layer}.{name}", shape) for name, shape in arrays)
            for name in ("gate_proj", "up_proj"):
                yield f"layers.{layer}.mlp.{name}.weight", (of.hidden, of.width)
            yield f"layers.{layer}.mlp.down_proj.weight", (of.width, of.hidden)
        yield "norm.weight", (of.width,)
        if not self.tied:
            yield self.head, (self.vocab, of.width)

    def _delta(self) -> Shapes:
        of = self.config
        values = of.convolved[2]
        for name, channels, filters in zip("qkv", of.convolved, self._filters(), strict=True):
            yield f"linear_attn.{name}_proj.weight", (channels, of.width)
            yield f"linear_attn.{name}_conv1d.weight", (filters, 1, of.conv)
        for name in ("a_proj", "b_proj"):
            yield f"linear_attn.{name}.weight", (of.value_heads, of.width)
        for name in ("A_log", "dt_bias"):
            yield f"linear_attn.{name}", (of.value_heads,)
        yield "linear_attn.g_proj.weight", (values, of.width)
        yield "linear_attn.o_norm.weight", (of.value_size,)
        yield "linear_attn.o_proj.weight", (of.width, values)
        yield "input_layernorm.weight", (of.width,)
        yield "post_attention_layernorm.weight", (of.width,)

    def _softmax(self) -> Shapes:
        of = self.config
        keys = of.kv_heads * (of.width // of.heads)
        for name, channels in (("q", of.width), ("k", keys), ("v", keys), ("o", of.width)):
            yield f"self_attn.{name}_proj.weight", (channels, of.width)
            if of.bias:
                yield f"self_attn.{name}_proj.bias", (channels,)
        yield "self_attn.q_norm.weight", (of.width,)
        yield "self_attn.k_norm.weight", (keys,)
        yield "post_attention_layernorm.weight", (of.width,)
        yield "post_feedforward_layernorm.weight", (of.width,)

    def build(self, rng: np.random.Generator) -> OlmoHybrid:
        """Return a new model."""
        of = self.config
        frequencies = () if self.rope is None else self.rope.frequencies(of.width // of.heads)
        model = OlmoHybrid(replace(of, tied=self.tied, frequencies=frequencies), rng)
        for i, layer in enumerate(model.layers):
            if self.rope is not None and of.attends(i):
                block: Any = layer.block
                block.scale *= self.rope.magnitude**2  # a factor of queries and one of keys
        return model

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under its name in the model, joined and turned as the module says."""
        yield "embedding.weight", arrays[self.embedding]
        yield "norm.weight", arrays["norm.weight"]
        if not self.tied:
            yield "head.weight", arrays[self.head]
        softmax = SOFTMAX | (BIASES if self.config.bias else {})
        for layer in range(self.config.layers):
            for name, parts in (softmax if self.config.attends(layer) else DELTA).items():
                joined = np.concatenate([arrays[f"layers.{layer}.{part}"] for part in parts])
                yield f"layers.{layer}.{name}", joined[:, 0, ::-1] if name == "block.conv.weight" else joined


def read(path: Path, config: Mapping[str, Any]) -> Hybrid:
    """Return the architecture in a config.json."""
    fields = Fields(path, config, DEFAULTS)
    fields.one_of("hidden_act", "silu", "swish")
    width = fields.size("hidden_size")
    heads = fields.divisor("num_attention_heads", width, "channels")

    def size(name: str, usual: int) -> int:
        return usual if fields.get(name) is None else fields.size(name)

    value_heads = size("linear_num_value_heads", heads)
    key_heads = size("linear_num_key_heads", heads)
    if value_heads % key_heads:
        raise fields.error("linear_num_key_heads", f"a divisor of {value_heads} heads of values")
    key_size = size("linear_key_head_dim", 3 * width // (4 * key_heads))
    layers, groups = fields.size("num_hidden_layers", least=2), fields.get("num_key_value_heads")
    rope = read_rope(fields) if has_rope(fields) else None
    if rope is not None:
        even(fields, "hidden_size / num_attention_heads", width // heads)
    tied, vocab = fields.flag("tie_word_embeddings"), fields.size("vocab_size")
    sizes = HybridConfig(
        vocab=vocab,
        width=width,
        hidden=fields.size("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=heads if groups is None else fields.divisor("num_key_value_heads", heads, "heads"),
        key_heads=key_heads,
        value_heads=value_heads,
        key_size=key_size,
        value_size=size("linear_value_head_dim", 2 * key_size),
        conv=fields.size("linear_conv_kernel_dim"),
        negative=fields.flag("linear_allow_neg_eigval"),
        bias=fields.flag("attention_bias"),
        eps=fields.number("rms_norm_eps"),
        types=_types(fields, layers),
    )
    fields.refuse_others(IRRELEVANT)
    return Hybrid(vocab=vocab, tied=tied, config=sizes, rope=rope)


def _types(fields: Fields, layers: int) -> tuple[bool, ...] | None:
    """Return which layers are of softmax attention; None where the config does not say."""
    types = fields.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list) or len(types) != layers or set(types) != set(KINDS):
        raise fields.error("layer_types", f"{layers} of {' and '.join(KINDS)}, some of each")
    return tuple(kind == "full_attention" for kind in types)

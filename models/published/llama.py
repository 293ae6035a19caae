"""Llama: the language model of `models.language.lm` with grouped queries, rotary positions and no convolution.

A file has queries, keys and values one by one, and so gate and up, of which down reads silu(gate) ⊙ up. Here they are
joined: `qkv` is [q ‖ k ‖ v] and `mlp_in` is [gate ‖ up]. Channels (c, c + K/2) are rotated, there as here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.language.config import Config
from models.language.lm import LanguageModel
from models.published.architecture import Shapes, TextArchitecture
from models.published.fields import Fields
from models.published.rope import ROPE, Rope, even, read_rope

DEFAULTS = ROPE | {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "rope_interleaved": False,
}
"""Defaults of the configuration class of transformers."""

GATES = {
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu": "geglu",
    "gelu_new": "geglu_tanh",
    "gelu_pytorch_tanh": "geglu_tanh",
    "relu": "reglu",
}
"""Our name of an MLP by that of its gate's activation."""
IRRELEVANT = frozenset(
    # dropout, how many matrices a product is computed by, how far rotary positions were trained; what no class reads
    ("attention_dropout pretraining_tp max_position_embeddings is_llama_config transformers.js_config").split()
)

NAMES = {
    "block_norm": ["input_layernorm"],
    "block.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "block.output": ["self_attn.o_proj"],
    "mlp_norm": ["post_attention_layernorm"],
    "mlp_in": ["mlp.gate_proj", "mlp.up_proj"],
    "mlp_out": ["mlp.down_proj"],
}
"""Modules of a layer, and those in a file that make up each."""


@dataclass(frozen=True, kw_only=True)
class Llama(TextArchitecture):
    """The model's options, and its rotary positions."""

    prefix = "model."
    unused = (".rotary_emb.inv_freq",)
    embedding = "embed_tokens.weight"

    config: Config
    rope: Rope

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        of, width = self.config, self.config.width
        queries, keys = of.heads * of.head_size, of.kv_heads * of.head_size
        attention = {"q_proj": (queries, width), "k_proj": (keys, width), "v_proj": (keys, width)}
        attention["o_proj"] = (width, queries)
        mlp = {"gate_proj": (of.hidden, width), "up_proj": (of.hidden, width), "down_proj": (width, of.hidden)}
        yield self.embedding, (self.vocab, width)
        for layer in range(of.layers):
            for part, matrices, bias in (("self_attn", attention, of.bias), ("mlp", mlp, of.mlp_bias)):
                for name, shape in matrices.items():
                    yield f"layers.{layer}.{part}.{name}.weight", shape
                    if bias:
                        yield f"layers.{layer}.{part}.{name}.bias", shape[:1]
            yield f"layers.{layer}.input_layernorm.weight", (width,)
            yield f"layers.{layer}.post_attention_layernorm.weight", (width,)
        yield "norm.weight", (width,)
        if not self.tied:
            yield self.head, (self.vocab, width)

    def build(self, rng: np.random.Generator) -> LanguageModel:
        """Return a new model."""
        frequencies = self.rope.frequencies(self.config.head_size)
        model = LanguageModel(replace(self.config, tied=self.tied, frequencies=frequencies), rng)
        for layer in model.layers:
            block: Any = layer.block
            block.scale *= self.rope.magnitude**2  # a factor of queries and one of keys
        return model

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under its name in the model; q, k and v, and gate and up, are joined."""
        held = set(arrays)
        yield "embedding.weight", arrays[self.embedding]
        yield "norm.weight", arrays["norm.weight"]
        if not self.tied:
            yield "head.weight", arrays[self.head]
        for layer in range(self.config.layers):
            for name, parts in NAMES.items():
                for kind in ("weight", "bias"):
                    in_file = [f"layers.{layer}.{part}.{kind}" for part in parts]
                    if in_file[0] in held:
                        yield f"layers.{layer}.{name}.{kind}", np.concatenate([arrays[each] for each in in_file])


def read(path: Path, config: Mapping[str, Any]) -> Llama:
    """Return the architecture in a config.json."""
    fields = Fields(path, config, DEFAULTS)
    width, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    if fields.get("head_dim") is None:
        head_size = width // fields.divisor("num_attention_heads", width, "channels")
    else:
        head_size = fields.size("head_dim")
    groups = fields.get("num_key_value_heads")
    tied, vocab, rope = fields.flag("tie_word_embeddings"), fields.size("vocab_size"), read_rope(fields)
    options = Config(
        mixer="softmax",
        vocab=vocab,
        width=width,
        layers=fields.size("num_hidden_layers"),
        heads=heads,
        kv_heads=heads if groups is None else fields.divisor("num_key_value_heads", heads, "heads"),
        head_size=even(fields, "head_dim", head_size),
        conv=0,
        bias=fields.flag("attention_bias"),
        eps=fields.number("rms_norm_eps"),
        mlp=GATES[fields.one_of("hidden_act", *GATES)],
        hidden=fields.size("intermediate_size"),
        mlp_bias=fields.flag("mlp_bias"),
    )
    fields.refuse_others(IRRELEVANT)
    return Llama(vocab=vocab, tied=tied, config=options, rope=rope)

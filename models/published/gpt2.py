"""GPT-2: the language model of `models.language.lm` with learned positions, LayerNorm, the tanh GELU and biases.

A file has no prefix where OpenAI's weights were converted, and "transformer." where transformers wrote it. Its linear
layers are of the class Conv1D: weights are (inputs, outputs) and are transposed here. The outputs of `c_attn` are
queries, keys and values in this order, as in our `qkv`. The `attn.bias` of old files is the causal mask.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.language.config import Config
from models.language.lm import LanguageModel
from models.published.activations import ACTIVATIONS
from models.published.architecture import Shapes, TextArchitecture
from models.published.fields import Fields

DEFAULTS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
"""Defaults of the configuration class of transformers."""

IRRELEVANT = frozenset(
    (
        # dropout, and the order of operations in half precision
        "attn_pdrop embd_pdrop resid_pdrop reorder_and_upcast_attn "
        # heads of other tasks
        "summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj "
        # what configs of 2019 have and no class reads
        "n_ctx n_special output_past predict_special_tokens"
    ).split()
)

NAMES = {
    "ln_1": "block_norm",
    "attn.c_attn": "block.qkv",
    "attn.c_proj": "block.output",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp_in",
    "mlp.c_proj": "mlp_out",
}
"""Modules of a layer, by their names in files."""


@dataclass(frozen=True, kw_only=True)
class GPT2(TextArchitecture):
    """The model's options, and what scores are multiplied by: `scale`, or `scale` / i in layer i = 1, 2, …."""

    prefix = "transformer."
    unused = (".attn.bias", ".attn.masked_bias")
    embedding = "wte.weight"

    config: Config
    scale: float
    scale_by_layer: bool

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        width, hidden = self.config.width, self.config.hidden
        linear = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width)}
        linear |= {"mlp.c_fc": (width, hidden), "mlp.c_proj": (hidden, width)}
        yield self.embedding, (self.vocab, width)
        yield "wpe.weight", (self.config.max_positions, width)
        for layer in range(self.config.layers):
            for name, shape in linear.items():
                yield f"h.{layer}.{name}.weight", shape
                yield f"h.{layer}.{name}.bias", shape[1:]
            for name in ("ln_1", "ln_2"):
                yield f"h.{layer}.{name}.weight", (width,)
                yield f"h.{layer}.{name}.bias", (width,)
        yield "ln_f.weight", (width,)
        yield "ln_f.bias", (width,)
        if not self.tied:
            yield self.head, (self.vocab, width)

    def build(self, rng: np.random.Generator) -> LanguageModel:
        """Return a new model."""
        model = LanguageModel(replace(self.config, tied=self.tied), rng)
        for i, layer in enumerate(model.layers):
            block: Any = layer.block
            block.scale = self.scale / (i + 1 if self.scale_by_layer else 1)
        return model

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under its name in the model, weights of linear layers transposed."""
        names = {"wte.weight": "embedding.weight", "wpe.weight": "position_embedding", self.head: "head.weight"}
        names |= {f"ln_f.{kind}": f"norm.{kind}" for kind in ("weight", "bias")}
        for name, array in arrays.items():
            if name in names:
                yield names[name], array
                continue
            _, layer, rest = name.split(".", 2)
            module, _, kind = rest.rpartition(".")
            is_linear = kind == "weight" and not module.startswith("ln_")
            yield f"layers.{layer}.{NAMES[module]}.{kind}", array.T if is_linear else array


def read(path: Path, config: Mapping[str, Any]) -> GPT2:
    """Return the architecture in a config.json."""
    fields = Fields(path, config, DEFAULTS)
    width, layers = fields.size("n_embd"), fields.size("n_layer")
    heads = fields.divisor("n_head", width, "channels")
    scale = (width // heads) ** -0.5 if fields.flag("scale_attn_weights") else 1.0
    by_layer = fields.flag("scale_attn_by_inverse_layer_idx")
    tied, vocab = fields.flag("tie_word_embeddings"), fields.size("vocab_size")
    options = Config(
        mixer="softmax",
        vocab=vocab,
        width=width,
        layers=layers,
        heads=heads,
        head_size=width // heads,
        conv=0,
        bias=True,
        positions="learned",
        max_positions=fields.size("n_positions"),
        norm="layer",
        eps=fields.number("layer_norm_epsilon"),
        mlp=ACTIVATIONS[fields.one_of("activation_function", *ACTIVATIONS)],
        hidden=4 * width if fields.get("n_inner") is None else fields.size("n_inner"),
        mlp_bias=True,
    )
    fields.refuse_others(IRRELEVANT)
    return GPT2(vocab=vocab, tied=tied, config=options, scale=scale, scale_by_layer=by_layer)

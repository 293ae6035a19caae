"""RWKV-4 in the layout of Hugging Face, `model_type` rwkv: `models.language.rwkv` with the blocks of RWKV-4.

The names are those of transformers: `pre_ln`, of the first block, is `ln0` here, `attention` time mixing and
`feed_forward` channel mixing. The weights of the token shift are (1, 1, width) in a file and (width,) here. Two things
that a config does not say: the last norm has PyTorch's ε of 10⁻⁵, whatever `layer_norm_epsilon` is; and at inference
transformers halves hidden states and weights every `rescale_every` layers, lest float16 overflow. Norms undo that but
for their ε, so the weights are used as they are in the file, as transformers does in training.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.blocks.rwkv4 import RWKV4Config
from models.language.rwkv import RWKVModel
from models.published.architecture import Shapes, TextArchitecture
from models.published.fields import Fields

DEFAULTS = {
    "vocab_size": 50277,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "attention_hidden_size": None,
    "intermediate_size": None,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
}
"""Defaults of the configuration class of transformers."""

# the limit of a CUDA kernel, under two names; and the halving for float16
IRRELEVANT = ("context_length", "max_position_embeddings", "rescale_every")

MODULES = {"attention": "time_mixing", "feed_forward": "channel_mixing"}
"""Modules of a layer, by their names in files, where those here are others."""


@dataclass(frozen=True, kw_only=True)
class RWKV4(TextArchitecture):
    """The sizes of the blocks, how many, and the ε of their norms."""

    prefix = "rwkv."
    head = "head.weight"

    block: RWKV4Config
    layers: int
    eps: float

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        width, inner, hidden = self.block.width, self.block.inner, self.block.hidden
        arrays: dict[str, tuple[int, ...]] = {
            "attention.time_decay": (inner,),
            "attention.time_first": (inner,),
            "attention.time_mix_key": (1, 1, width),
            "attention.time_mix_value": (1, 1, width),
            "attention.time_mix_receptance": (1, 1, width),
            "attention.key.weight": (inner, width),
            "attention.value.weight": (inner, width),
            "attention.receptance.weight": (inner, width),
            "attention.output.weight": (width, inner),
            "feed_forward.time_mix_key": (1, 1, width),
            "feed_forward.time_mix_receptance": (1, 1, width),
            "feed_forward.key.weight": (hidden, width),
            "feed_forward.receptance.weight": (width, width),
            "feed_forward.value.weight": (width, hidden),
        }
        yield self.embedding, (self.vocab, width)
        yield from self._norm("blocks.0.pre_ln")
        for layer in range(self.layers):
            yield from self._norm(f"blocks.{layer}.ln1")
            yield from self._norm(f"blocks.{layer}.ln2")
            yield from ((f"blocks.{layer}.{name}", shape) for name, shape in arrays.items())
        yield from self._norm("ln_out")
        if not self.tied:
            yield self.head, (self.vocab, width)

    def _norm(self, name: str) -> Shapes:
        yield f"{name}.weight", (self.block.width,)
        yield f"{name}.bias", (self.block.width,)

    def build(self, rng: np.random.Generator) -> RWKVModel:
        """Return a new model."""
        return RWKVModel(self.block, rng, vocab=self.vocab, layers=self.layers, eps=self.eps, tied=self.tied)

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under its name in the model, weights of the token shift without axes of one."""
        names = {self.embedding: "embedding.weight"}
        names |= {f"blocks.0.pre_ln.{kind}": f"ln0.{kind}" for kind in ("weight", "bias")}
        for name, array in arrays.items():
            if name in names or not name.startswith("blocks."):
                yield names.get(name, name), array
                continue
            _, layer, module, rest = name.split(".", 3)
            array = array[0, 0] if rest.startswith("time_mix_") else array
            yield f"layers.{layer}.{MODULES.get(module, module)}.{rest}", array


def read(path: Path, config: Mapping[str, Any]) -> RWKV4:
    """Return the architecture in a config.json."""
    fields = Fields(path, config, DEFAULTS)
    width = fields.size("hidden_size")
    inner = width if fields.get("attention_hidden_size") is None else fields.size("attention_hidden_size")
    hidden = 4 * width if fields.get("intermediate_size") is None else fields.size("intermediate_size")
    layers, vocab = fields.size("num_hidden_layers"), fields.size("vocab_size")
    eps, tied = fields.number("layer_norm_epsilon"), fields.flag("tie_word_embeddings")
    fields.refuse_others(IRRELEVANT)
    return RWKV4(vocab=vocab, tied=tied, block=RWKV4Config(width, inner, hidden), layers=layers, eps=eps)

"""Marian: the encoder and decoder of `models.language.marian`, as in the translators of OPUS-MT.

The names in files are those of transformers. Linear layers are stored as they are here, and the bias of the logits with
an axis more. Where source, target and head share an embedding a file may have it under any of four names. The tables
`embed_positions` of old files are the sinusoids, which is checked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.attention import positions
from models.language.marian import Marian, MarianConfig
from models.language.transformer import TransformerConfig
from models.published import generation
from models.published.activations import ACTIVATIONS
from models.published.architecture import EncoderDecoder, Shapes
from models.published.fields import Fields

DEFAULTS = {
    "vocab_size": 58101,
    "decoder_vocab_size": None,
    "max_position_embeddings": 1024,
    "d_model": 1024,
    "encoder_layers": 12,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_layers": 12,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
    "activation_function": "gelu",
    "scale_embedding": False,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    # in configs of 2020; the class of transformers is that of these values
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "normalize_before": False,
    "normalize_embedding": False,
    "static_position_embeddings": True,
}
"""Defaults of the configuration class of transformers."""

IRRELEVANT = frozenset(
    (
        # dropout and initialisation
        "activation_dropout attention_dropout classif_dropout classifier_dropout decoder_layerdrop dropout "
        "encoder_layerdrop init_std "
        # the same as encoder_layers, and what no class reads
        "extra_pos_embeddings force_bos_token_to_be_generated num_hidden_layers"
    ).split()
) | {*generation.DEFAULTS, *generation.IRRELEVANT}  # `generation` reads them

NAMES = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "output",
    "self_attn": "attention",
    "encoder_attn": "cross",
    "fc1": "feed_forward.into",
    "fc2": "feed_forward.out",
}
"""Modules of a layer other than its norms, by their names in files."""
NORMS = {
    "encoder": ("self_attn_layer_norm", "final_layer_norm"),
    "decoder": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
}
"""Norms of a layer, in our order."""
SOURCE, TARGET = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
POSITIONS = ".embed_positions.weight"


@dataclass(frozen=True, kw_only=True)
class MarianArchitecture(EncoderDecoder):
    """The sizes of encoder and decoder, and what their embeddings share."""

    prefix = "model."
    unused = (POSITIONS,)

    config: MarianConfig

    @property
    def embedding(self) -> str:
        """Return the name of the target's embedding."""
        return "shared.weight" if self.config.shared else TARGET

    @property
    def copies(self) -> Mapping[str, str]:
        """Return the names of the source's and the target's where they are the same."""
        return dict.fromkeys((SOURCE, TARGET), self.embedding) if self.config.shared else {}

    @property
    def max_positions(self) -> int:
        """Return how many tokens a source or a target may have."""
        return self.config.max_positions

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        width, vocab = self.config.decoder.width, self.config.decoder.vocab
        yield self.embedding, (vocab, width)
        if not self.config.shared:
            yield SOURCE, (self.vocab, width)
        if not self.tied:
            yield self.head, (vocab, width)
        yield "final_logits_bias", (1, vocab)
        for side, of in (("encoder", self.config.encoder), ("decoder", self.config.decoder)):
            linear = {"fc1": (of.hidden, width), "fc2": (width, of.hidden)}
            for attention in ("self_attn", "encoder_attn")[: len(NORMS[side]) - 1]:
                linear |= {f"{attention}.{name}": (width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
            for layer in range(of.layers):
                for name, shape in linear.items():
                    yield f"{side}.layers.{layer}.{name}.weight", shape
                    yield f"{side}.layers.{layer}.{name}.bias", shape[:1]
                for name in NORMS[side]:
                    yield f"{side}.layers.{layer}.{name}.weight", (width,)
                    yield f"{side}.layers.{layer}.{name}.bias", (width,)

    def build(self, rng: np.random.Generator) -> Marian:
        """Return a new model."""
        return Marian(replace(self.config, tied=self.tied), rng)

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under its name in the model."""
        target = "embedding.weight" if self.config.shared else "target_embedding.weight"
        names = {SOURCE: "embedding.weight", self.embedding: target, self.head: "head.weight"}
        for name, array in arrays.items():
            if name in names:
                yield names[name], array
            elif name == "final_logits_bias":
                yield "bias", array[0]
            else:
                yield _in_layer(name), array

    def constant(self, in_file: str) -> np.ndarray | None:
        """Return the sinusoids, which files may have."""
        count, width = self.config.max_positions, self.config.encoder.width
        return np.asarray(positions.sinusoidal(np.empty((count, width)), np.arange(count), layout="halves"))

    def generation(self, folder: Path) -> generation.Generation:
        """Return how a target is decoded."""
        return generation.read(folder, self.config.decoder.vocab, self.max_positions)


def _in_layer(name: str) -> str:
    """Return the name in the model of a parameter of a layer."""
    side, _, layer, *modules, kind = name.split(".")
    if modules[0] in NORMS[side]:
        return f"{side}.{layer}.norms.{NORMS[side].index(modules[0])}.{kind}"
    return ".".join((side, layer, *(NAMES[module] for module in modules), kind))


def read(path: Path, config: Mapping[str, Any]) -> MarianArchitecture:
    """Return the architecture in a config.json."""
    fields = Fields(path, config, DEFAULTS)
    width, vocab = fields.size("d_model"), fields.size("vocab_size")
    if width % 2:
        raise fields.error("d_model", "an even number, for sinusoids are pairs")
    shared, tied = fields.flag("share_encoder_decoder_embeddings"), fields.flag("tie_word_embeddings")
    if shared and not tied:
        raise fields.error("tie_word_embeddings", "true, since share_encoder_decoder_embeddings is")
    target = fields.size("decoder_vocab_size") if fields.get("decoder_vocab_size") else vocab
    if shared and target != vocab:
        raise fields.error("decoder_vocab_size", f"vocab_size {vocab}, since share_encoder_decoder_embeddings is true")
    activation = ACTIVATIONS[fields.one_of("activation_function", *ACTIVATIONS)]
    sizes = MarianConfig(
        encoder=_side(fields, "encoder", vocab, width, activation),
        decoder=_side(fields, "decoder", target, width, activation),
        max_positions=fields.size("max_position_embeddings"),
        shared=shared,
        tied=tied,
        scaled=fields.flag("scale_embedding"),
    )
    fields.refuse_others(IRRELEVANT)
    return MarianArchitecture(vocab=vocab, tied=tied, config=sizes)


def _side(fields: Fields, side: str, vocab: int, width: int, activation: str) -> TransformerConfig:
    """Return the sizes of an encoder or decoder."""
    return TransformerConfig(
        vocab=vocab,
        width=width,
        layers=fields.size(f"{side}_layers"),
        heads=fields.divisor(f"{side}_attention_heads", width, "channels"),
        hidden=fields.size(f"{side}_ffn_dim"),
        dropout=0.0,
        bias=True,
        activation=activation,
    )

"""CLIP: the two encoders of `models.vision.clip`, from files of CLIPModel.

The projection of images is stored beside the encoders, as that of texts and the logarithm of the scale are; linear
layers are stored as they are here. Old files have the integers `position_ids`, which are no parameters, and configs
with `text_config_dict` and `vision_config_dict`, which replace `text_config` and `vision_config`. A config whose end
token is 2 is of before the end token was written into it: transformers then reads the token of the largest number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.published import generation
from models.published.architecture import Architecture, Shapes
from models.published.encoders import read_encoder
from models.published.fields import Fields
from models.vision.clip import Clip, ClipConfig

DEFAULTS: dict[str, Any] = {
    "text_config": None,
    "text_config_dict": None,
    "vision_config": None,
    "vision_config_dict": None,
    "projection_dim": 512,
}
ENCODER: dict[str, Any] = {
    "num_hidden_layers": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    # in configs of 2021, written by the class of all models
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "pruned_heads": {},
    "tie_encoder_decoder": False,
}
TEXT = ENCODER | {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
IMAGE = ENCODER | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
"""Defaults of the configuration classes of transformers."""
BEFORE_ENDS = 2  # the end token in configs that do not name the tokenizer's

IRRELEVANT = frozenset(
    # initialisation and dropout, the one projection_dim that counts being that of both, and tied heads of texts
    (
        "attention_dropout dropout initializer_factor logit_scale_init_value projection_dim tie_word_embeddings "
        "forced_bos_token_id bad_words_ids length_penalty"
    ).split()
) | {*generation.DEFAULTS, *generation.IRRELEVANT}  # no text is generated

NAMES = {
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.out_proj": "attention.output",
    "layer_norm1": "attention_norm",
    "layer_norm2": "mlp_norm",
    "mlp.fc1": "mlp_in",
    "mlp.fc2": "mlp_out",
}
"""Modules of a layer, by their names in files."""
OTHERS = {
    "logit_scale": "log_scale",
    "text_model.embeddings.token_embedding.weight": "text.embedding.weight",
    "text_model.embeddings.position_embedding.weight": "text.positions",
    "text_model.final_layer_norm.weight": "text.norm.weight",
    "text_model.final_layer_norm.bias": "text.norm.bias",
    "text_projection.weight": "text.projection.weight",
    "vision_model.embeddings.class_embedding": "image.tokens.class_token",
    "vision_model.embeddings.patch_embedding.weight": "image.tokens.patch.weight",
    "vision_model.embeddings.position_embedding.weight": "image.tokens.positions",
    "vision_model.pre_layrnorm.weight": "image.pre_norm.weight",  # as the files spell it
    "vision_model.pre_layrnorm.bias": "image.pre_norm.bias",
    "vision_model.post_layernorm.weight": "image.post_norm.weight",
    "vision_model.post_layernorm.bias": "image.post_norm.bias",
    "visual_projection.weight": "image.projection.weight",
}
"""Arrays outside the layers, by their names in files."""


@dataclass(frozen=True, kw_only=True)
class ClipArchitecture(Architecture):
    """The sizes of both encoders."""

    unused = (".position_ids",)

    config: ClipConfig

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        of, image, text = self.config, self.config.image.width, self.config.text.width
        side = of.image_size // of.patch_size
        yield "logit_scale", ()
        yield "text_projection.weight", (of.features, text)
        yield "visual_projection.weight", (of.features, image)
        yield "text_model.embeddings.token_embedding.weight", (of.vocab, text)
        yield "text_model.embeddings.position_embedding.weight", (of.context, text)
        yield "vision_model.embeddings.class_embedding", (image,)
        yield "vision_model.embeddings.patch_embedding.weight", (image, of.channels, of.patch_size, of.patch_size)
        yield "vision_model.embeddings.position_embedding.weight", (1 + side * side, image)
        for kind in ("weight", "bias"):
            yield f"text_model.final_layer_norm.{kind}", (text,)
            yield f"vision_model.pre_layrnorm.{kind}", (image,)
            yield f"vision_model.post_layernorm.{kind}", (image,)
        for model, encoder in (("text_model", of.text), ("vision_model", of.image)):
            width, hidden = encoder.width, encoder.hidden
            linear = {name: (width, width) for name in NAMES if name.startswith("self_attn")}
            linear |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
            for layer in range(encoder.layers):
                at = f"{model}.encoder.layers.{layer}"
                for name, shape in linear.items():
                    yield f"{at}.{name}.weight", shape
                    yield f"{at}.{name}.bias", shape[:1]
                for name in ("layer_norm1", "layer_norm2"):
                    yield f"{at}.{name}.weight", (width,)
                    yield f"{at}.{name}.bias", (width,)

    def build(self, rng: np.random.Generator) -> Clip:
        """Return a new model."""
        return Clip(self.config, rng)

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under its name in the model."""
        for name, array in arrays.items():
            if name in OTHERS:
                yield OTHERS[name], array
                continue
            model, _, _, layer, rest = name.split(".", 4)
            module, _, kind = rest.rpartition(".")
            side = "text" if model == "text_model" else "image"
            yield f"{side}.encoder.layers.{layer}.{NAMES[module]}.{kind}", array


def read(path: Path, config: Mapping[str, Any]) -> ClipArchitecture:
    """Return the architecture in a config.json."""
    fields = Fields(path, config, DEFAULTS)
    text, image = _part(fields, "text_config", TEXT), _part(fields, "vision_config", IMAGE)
    vocab, size, end = text.size("vocab_size"), image.size("image_size"), text.size("eos_token_id", 0)
    if end >= vocab:
        raise text.error("eos_token_id", f"a token below vocab_size {vocab}")
    sizes = ClipConfig(
        image=read_encoder(image, causal=False),
        text=read_encoder(text, causal=True),
        image_size=size,
        patch_size=image.divisor("patch_size", size, "pixels"),
        channels=image.size("num_channels"),
        vocab=vocab,
        context=text.size("max_position_embeddings"),
        end=end,
        features=fields.size("projection_dim"),
        pooling="largest" if end == BEFORE_ENDS else "end",
    )
    for part in (fields, text, image):
        part.refuse_others(IRRELEVANT)
    return ClipArchitecture(config=sizes)


def _part(fields: Fields, name: str, defaults: Mapping[str, Any]) -> Fields:
    """Return the options of one encoder."""
    replaced = fields.get(f"{name}_dict") is not None
    both = [fields.get(key) for key in (name, f"{name}_dict")]
    value = both[1] if replaced else {} if both[0] is None else both[0]
    if not isinstance(value, dict):
        raise fields.error(f"{name}_dict" if replaced else name, "an object with the options of an encoder")
    return Fields(fields.path, value, defaults, prefix=f"{name}.")

"""ViT: the image classifier of `models.vision.vit`, from files of ViTForImageClassification and ViTModel.

A file has the prefix "vit." where a head was saved beside the model. The head is `classifier`, on the class token; the
`pooler`, which ViTModel saves, is the hidden layer of the paper's head in pre-training, and no logits read it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.published.architecture import Architecture, Shapes
from models.published.encoders import read_encoder
from models.published.fields import Fields
from models.vision import vit

DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
    "pooler_act": "tanh",
}
"""Defaults of the configuration class of transformers."""

IRRELEVANT = frozenset(
    # dropout, and the head of masked image modelling
    ("attention_probs_dropout_prob encoder_stride hidden_dropout_prob").split()
)

NAMES = {
    "embeddings.cls_token": "tokens.class_token",
    "embeddings.position_embeddings": "tokens.positions",
    "embeddings.patch_embeddings.projection": "tokens.patch",
    "layernorm": "norm",
    "pooler.dense": "pooler",
    "classifier": "head",
}
"""Modules and arrays outside the layers, by their names in files."""

LAYER_NAMES = {
    "layernorm_before": "attention_norm",
    "attention.attention.query": "attention.query",
    "attention.attention.key": "attention.key",
    "attention.attention.value": "attention.value",
    "attention.output.dense": "attention.output",
    "layernorm_after": "mlp_norm",
    "intermediate.dense": "mlp_in",
    "output.dense": "mlp_out",
}
"""Modules of a layer, by their names in files."""


@dataclass(frozen=True, kw_only=True)
class ViTArchitecture(Architecture):
    """The model's sizes, and the label of each class, in order; none where the file has no classifier."""

    prefix = "vit."

    config: vit.ViTConfig
    labels: tuple[str, ...]

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        of, (rows, columns) = self.config, self.config.grid
        width, hidden = of.encoder.width, of.encoder.hidden
        linear: dict[str, tuple[int, ...]] = {
            f"attention.attention.{name}": (width, width) for name in ("query", "key", "value")
        }
        linear |= {"attention.output.dense": (width, width)}
        linear |= {"intermediate.dense": (hidden, width), "output.dense": (width, hidden)}
        yield "embeddings.cls_token", (1, 1, width)
        yield "embeddings.position_embeddings", (1, 1 + rows * columns, width)
        yield "embeddings.patch_embeddings.projection.weight", (width, of.channels, of.patch, of.patch)
        yield "embeddings.patch_embeddings.projection.bias", (width,)
        for layer in range(of.encoder.layers):
            at = f"encoder.layer.{layer}"
            for name, shape in linear.items():
                yield f"{at}.{name}.weight", shape
                if of.encoder.qkv_bias or ".attention." not in name:
                    yield f"{at}.{name}.bias", shape[:1]
            for name in ("layernorm_before", "layernorm_after"):
                yield f"{at}.{name}.weight", (width,)
                yield f"{at}.{name}.bias", (width,)
        outputs: dict[str, tuple[int, ...]] = {"layernorm": (width,)}
        outputs |= {"pooler.dense": (of.pooled, width)} if of.pooled else {}
        outputs |= {"classifier": (of.classes, width)} if of.classes else {}
        for name, shape in outputs.items():
            yield f"{name}.weight", shape
            yield f"{name}.bias", shape[:1]

    def build(self, rng: np.random.Generator) -> vit.ViT:
        """Return a new model."""
        return vit.ViT(self.config, rng)

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under its name in the model; class token and positions without their axes of size 1."""
        for name, array in arrays.items():
            if name in NAMES:
                yield NAMES[name], array.reshape(array.shape[1 if "position" in name else 2 :])
                continue
            module, _, kind = name.rpartition(".")
            if module in NAMES:
                yield f"{NAMES[module]}.{kind}", array
                continue
            _, _, layer, rest = module.split(".", 3)
            yield f"encoder.layers.{layer}.{LAYER_NAMES[rest]}.{kind}", array

    def of_file(self, shapes: Mapping[str, tuple[int, ...]]) -> "ViTArchitecture":
        """Return the architecture with the outputs that the file has."""
        has_head, has_pooler = ("classifier.weight" in shapes, "pooler.dense.weight" in shapes)
        classes, pooled = self.config.classes * has_head, self.config.pooled * has_pooler
        config = replace(self.config, classes=classes, pooled=pooled)
        return replace(self, config=config, labels=self.labels if has_head else ())


def read(path: Path, config: Mapping[str, Any]) -> ViTArchitecture:
    """Return the architecture in a config.json, with head and pooler until `of_file` says which of them a file has."""
    fields = Fields(path, config, DEFAULTS)
    patch = fields.size("patch_size")
    labels = _labels(fields)
    height, across = _sides(fields, patch)
    fields.one_of("pooler_act", "tanh")
    encoder = read_encoder(fields, qkv_bias=fields.flag("qkv_bias"))
    sizes = vit.ViTConfig(
        height=height,
        width=across,
        patch=patch,
        channels=fields.size("num_channels"),
        classes=len(labels),
        pooled=encoder.width if fields.get("pooler_output_size") is None else fields.size("pooler_output_size"),
        encoder=encoder,
    )
    fields.refuse_others(IRRELEVANT)
    return ViTArchitecture(config=sizes, labels=labels)


def _sides(fields: Fields, patch: int) -> tuple[int, int]:
    """Return height and width of a picture: of a square, or of two sides; multiples of the patch's."""
    value = fields.get("image_size")
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or any(type(side) is not int or side < 1 or side % patch for side in sides):
        raise fields.error("image_size", f"a multiple of the patch_size {patch}, or height and width that are")
    return sides[0], sides[1]


def _labels(fields: Fields) -> tuple[str, ...]:
    """Return the label of each class, in order; two without names where the config says nothing, as in transformers."""
    labels = fields.get("id2label")
    if labels is None:
        count = 2 if fields.get("num_labels") is None else fields.size("num_labels", least=0)
        return tuple(f"LABEL_{i}" for i in range(count))
    if not isinstance(labels, dict) or set(labels) != {str(i) for i in range(len(labels))}:
        raise fields.error("id2label", "a label for each of 0, 1, 2, …")
    return tuple(str(labels[str(i)]) for i in range(len(labels)))

"""Reading of the options that the encoders of ViT and CLIP share in a config.json."""

from typing import Any

from models.published.activations import ACTIVATIONS
from models.published.fields import Fields
from models.vision.encoder import EncoderConfig


def read_encoder(fields: Fields, **options: Any) -> EncoderConfig:
    """Return the sizes of an encoder, with the compiled form of attention; `options` are what else a family sets."""
    width = fields.size("hidden_size")
    return EncoderConfig(
        width=width,
        layers=fields.size("num_hidden_layers"),
        heads=fields.divisor("num_attention_heads", width, "channels"),
        hidden=fields.size("intermediate_size"),
        activation=ACTIVATIONS[fields.one_of("hidden_act", *ACTIVATIONS)],
        eps=fields.number("layer_norm_eps"),
        form="fused",
        **options,
    )

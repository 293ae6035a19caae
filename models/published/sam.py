"""Segment Anything, as SamModel of transformers keeps it: three configurations in one, and files of their names.

A published model is `models.vision.sam.SAM`, and takes pixels that are resized, normalised and padded. It differs from
the library's in what it refuses: a point labelled −10, with which the library pads rows of unlike lengths, and which
changes what comes out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.published.activations import ACTIVATIONS
from models.published.architecture import Architecture, Shapes
from models.published.fields import Fields
from models.vision.sam import SAM, ImageEncoderConfig, MaskDecoderConfig, PromptEncoderConfig, SAMConfig

DEFAULTS: dict[str, Any] = {
    "initializer_range": 0.02,
    "mask_decoder_config": None,
    "prompt_encoder_config": None,
    "tie_word_embeddings": True,
    "vision_config": None,
}
VISION: dict[str, Any] = {
    "attention_dropout": 0.0,
    "global_attn_indexes": [2, 5, 8, 11],
    "hidden_act": "gelu",
    "hidden_size": 768,
    "image_size": 1024,
    "layer_norm_eps": 1e-6,
    "mlp_dim": None,
    "mlp_ratio": 4.0,
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "num_pos_feats": 128,
    "output_channels": 256,
    "patch_size": 16,
    "qkv_bias": True,
    "use_abs_pos": True,
    "use_rel_pos": True,
    "window_size": 14,
}
PROMPT: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_size": 256,
    "image_embedding_size": None,
    "image_size": 1024,
    "layer_norm_eps": 1e-6,
    "mask_input_channels": 16,
    "num_point_embeddings": 4,
    "patch_size": 16,
}
DECODER: dict[str, Any] = {
    "attention_downsample_rate": 2,
    "hidden_act": "relu",
    "hidden_size": 256,
    "iou_head_depth": 3,
    "iou_head_hidden_dim": 256,
    "layer_norm_eps": 1e-6,
    "mlp_dim": 2048,
    "num_attention_heads": 8,
    "num_hidden_layers": 2,
    "num_multimask_outputs": 3,
}
# dropout; `scale` is the deviation of G before it is drawn, which files hold as it is
IRRELEVANT = frozenset(("attention_dropout", "scale", "projection_dim", "dropout", "initializer_factor"))
"""Options of a part that no results depend on; the last three are in published files, and no class reads them."""

G, ITS_COPY = "shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"
LABELS = ("not_a_point_embed", *(f"point_embed.{label}" for label in range(4)))
OWN_TOKENS = ("mask_decoder.iou_token.weight", "mask_decoder.mask_tokens.weight")
ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
NAMES = {
    "vision_encoder": "image_encoder",
    "patch_embed.projection": "patch",
    "pos_embed": "positions",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.output",
    "rel_pos_h": "rows",
    "rel_pos_w": "columns",
    "layer_norm1": "attention_norm",
    "layer_norm2": "mlp_norm",
    "mlp.lin1": "mlp_in",
    "mlp.lin2": "mlp_out",
    "neck.conv1": "neck.0",
    "neck.layer_norm1": "neck.1",
    "neck.conv2": "neck.2",
    "neck.layer_norm2": "neck.3",
}

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
IRRELEVANT = frozenset("attention_dropout dropout scale initializer_factor intermediate_size projection_dim".split())
"""Options of a part that no results depend on; the last three are in published files, and no class reads them."""

G, ITS_COPY = "shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"
POSITIONS, NO_MASK = "vision_encoder.pos_embed", "prompt_encoder.no_mask_embed.weight"
LABELS = tuple(
    f"prompt_encoder.{name}.weight" for name in ("not_a_point_embed", *(f"point_embed.{i}" for i in range(4)))
)
OWN_TOKENS = ("mask_decoder.iou_token.weight", "mask_decoder.mask_tokens.weight")
Entry = tuple[str, str, tuple[int, ...]]
"""An array's name in files, its name in the model, and its shape."""


@dataclass(frozen=True, kw_only=True)
class SAMArchitecture(Architecture):
    """The sizes of the three parts."""

    config: SAMConfig

    @property
    def copies(self) -> Mapping[str, str]:
        """Return the name of G in the prompt encoder, which is tied to the one that files always have."""
        return {ITS_COPY: G}

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        width, masks = self.config.image.output, self.config.decoder.masks + 1
        for theirs, _, shape in self._entries():
            yield theirs, shape
        if self.config.image.absolute:
            grid = self.config.image.grid
            yield POSITIONS, (1, grid, grid, self.config.image.width)
        for name in (NO_MASK, *LABELS):
            yield name, (1, width)
        for name, count in zip(OWN_TOKENS, (1, masks), strict=True):
            yield name, (count, width)

    def build(self, rng: np.random.Generator) -> SAM:
        """Return a new model."""
        return SAM(self.config, rng)

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under its name in the model; vectors of labels and tokens are joined to one array each."""
        for theirs, ours, _ in self._entries():
            yield ours, arrays[theirs]
        if self.config.image.absolute:
            yield "image_encoder.positions", arrays[POSITIONS][0]
        yield "prompt_encoder.no_mask", arrays[NO_MASK][0]
        yield "prompt_encoder.labels", np.concatenate([arrays[name] for name in LABELS])
        yield "mask_decoder.own_tokens", np.concatenate([arrays[name] for name in OWN_TOKENS])

    def _entries(self) -> Iterator[Entry]:
        """Yield the arrays that files and the model hold alike."""
        yield from self._vision()
        yield G, "prompt_encoder.frequencies", (2, self.config.image.output // 2)
        yield from self._mask_embedding()
        yield from self._decoder()

    def _vision(self) -> Iterator[Entry]:
        of = self.config.image
        yield from _both(
            "vision_encoder.patch_embed.projection", "image_encoder.patch", _square(of.width, of.channels, of.patch)
        )
        for layer in range(of.layers):
            theirs, ours = f"vision_encoder.layers.{layer}", f"image_encoder.layers.{layer}"
            yield from _both(f"{theirs}.layer_norm1", f"{ours}.attention_norm", (of.width,))
            yield from _both(f"{theirs}.layer_norm2", f"{ours}.mlp_norm", (of.width,))
            yield from _both(f"{theirs}.attn.qkv", f"{ours}.attention.qkv", (3 * of.width, of.width), bias=of.qkv_bias)
            yield from _both(f"{theirs}.attn.proj", f"{ours}.attention.output", (of.width, of.width))
            yield from _both(f"{theirs}.mlp.lin1", f"{ours}.mlp_in", (of.hidden, of.width))
            yield from _both(f"{theirs}.mlp.lin2", f"{ours}.mlp_out", (of.width, of.hidden))
            if of.relative:
                side = of.grid if layer in of.global_layers or of.window == 0 else of.window
                for table, name in (("rel_pos_h", "rows"), ("rel_pos_w", "columns")):
                    yield f"{theirs}.attn.{table}", f"{ours}.attention.{name}", (2 * side - 1, of.width // of.heads)
        neck = "vision_encoder.neck"
        yield from _both(f"{neck}.conv1", "image_encoder.neck.0", _square(of.output, of.width, 1), bias=False)
        yield from _both(f"{neck}.layer_norm1", "image_encoder.neck.1", (of.output,))
        yield from _both(f"{neck}.conv2", "image_encoder.neck.2", _square(of.output, of.output, 3), bias=False)
        yield from _both(f"{neck}.layer_norm2", "image_encoder.neck.3", (of.output,))

    def _mask_embedding(self) -> Iterator[Entry]:
        theirs, ours = "prompt_encoder.mask_embed", "prompt_encoder"
        width, channels = self.config.image.output, self.config.prompt.channels
        kernels = (_square(channels // 4, 1, 2), _square(channels, channels // 4, 2), _square(width, channels, 1))
        for i, kernel in enumerate(kernels):
            yield from _both(f"{theirs}.conv{i + 1}", f"{ours}.convolutions.{i}", kernel)
        for i, size in enumerate((channels // 4, channels)):
            yield from _both(f"{theirs}.layer_norm{i + 1}", f"{ours}.norms.{i}", (size,))

    def _decoder(self) -> Iterator[Entry]:
        of, width = self.config.decoder, self.config.image.output
        inner, masks = width // of.downsample, of.masks + 1
        for layer in range(of.layers):
            theirs, ours = f"mask_decoder.transformer.layers.{layer}", f"mask_decoder.layers.{layer}"
            yield from _attention(f"{theirs}.self_attn", f"{ours}.own", width, width)
            yield from _attention(f"{theirs}.cross_attn_token_to_image", f"{ours}.to_image", width, inner)
            yield from _attention(f"{theirs}.cross_attn_image_to_token", f"{ours}.to_tokens", width, inner)
            for i in range(4):
                yield from _both(f"{theirs}.layer_norm{i + 1}", f"{ours}.norms.{i}", (width,))
            yield from _both(f"{theirs}.mlp.lin1", f"{ours}.mlp_in", (of.hidden, width))
            yield from _both(f"{theirs}.mlp.lin2", f"{ours}.mlp_out", (width, of.hidden))
        theirs, ours = "mask_decoder", "mask_decoder"
        yield from _attention(f"{theirs}.transformer.final_attn_token_to_image", f"{ours}.final", width, inner)
        yield from _both(f"{theirs}.transformer.layer_norm_final_attn", f"{ours}.final_norm", (width,))
        for i, (inputs, outputs) in enumerate(((width, width // 4), (width // 4, width // 8))):
            yield f"{theirs}.upscale_conv{i + 1}.weight", f"{ours}.upscale.{i}.weight", (inputs, outputs, 2, 2)
            yield f"{theirs}.upscale_conv{i + 1}.bias", f"{ours}.upscale.{i}.bias", (outputs,)
        yield from _both(f"{theirs}.upscale_layer_norm", f"{ours}.upscale_norm", (width // 4,))
        for i in range(masks):
            yield from _mlp(
                f"{theirs}.output_hypernetworks_mlps.{i}", f"{ours}.readers.{i}", [width] * 3 + [width // 8]
            )
        widths = [width, *[of.iou_hidden] * (of.iou_layers - 1), masks]
        yield from _mlp(f"{theirs}.iou_prediction_head", f"{ours}.scores", widths)


def _both(theirs: str, ours: str, shape: tuple[int, ...], *, bias: bool = True) -> Iterator[Entry]:
    """Yield a weight, and a bias of as many numbers as it has outputs."""
    yield f"{theirs}.weight", f"{ours}.weight", shape
    if bias:
        yield f"{theirs}.bias", f"{ours}.bias", shape[:1]


def _square(outputs: int, inputs: int, kernel: int) -> tuple[int, ...]:
    return (outputs, inputs, kernel, kernel)


def _attention(theirs: str, ours: str, width: int, inner: int) -> Iterator[Entry]:
    for name, project in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        yield from _both(f"{theirs}.{name}", f"{ours}.{project}", (inner, width))
    yield from _both(f"{theirs}.out_proj", f"{ours}.output", (width, inner))


def _mlp(theirs: str, ours: str, widths: list[int]) -> Iterator[Entry]:
    """Yield the layers of an MLP, which files call proj_in, layers.0, layers.1 and so on, and proj_out."""
    names = ["proj_in", *(f"layers.{i}" for i in range(len(widths) - 3)), "proj_out"]
    for i, name in enumerate(names):
        yield from _both(f"{theirs}.{name}", f"{ours}.layers.{i}", (widths[i + 1], widths[i]))


def read(path: Path, config: Mapping[str, Any]) -> SAMArchitecture:
    """Return the architecture in a config.json."""
    whole = Fields(path, config, DEFAULTS)
    whole.one_of("tie_word_embeddings", True)  # one G, of points and of the picture's places
    vision, prompt, decoder = (
        _part(whole, name, defaults)
        for name, defaults in (
            ("vision_config", VISION),
            ("prompt_encoder_config", PROMPT),
            ("mask_decoder_config", DECODER),
        )
    )
    image = _image(vision)
    for part in (prompt, decoder):
        _require(part, "hidden_size", image.output, "output_channels")
    _require(prompt, "image_size", image.image, "image_size")
    _require(prompt, "patch_size", image.patch, "patch_size")
    if prompt.get("image_embedding_size") is not None:
        _require(prompt, "image_embedding_size", image.grid, "image_size // patch_size")
    prompt.one_of("num_point_embeddings", 4)
    channels = prompt.size("mask_input_channels", 4)
    if channels % 4:
        raise prompt.error("mask_input_channels", "a multiple of 4")
    sizes = SAMConfig(
        image,
        PromptEncoderConfig(channels, _activation(prompt), prompt.positive("layer_norm_eps")),
        _masks(decoder, image.output),
    )
    for part in (whole, vision, prompt, decoder):
        part.refuse_others(IRRELEVANT)
    return SAMArchitecture(config=sizes)


def _part(whole: Fields, name: str, defaults: Mapping[str, Any]) -> Fields:
    """Return the fields of one of the configurations."""
    value = whole.get(name)
    if value is not None and not isinstance(value, dict):
        raise whole.error(name, "a JSON object")
    return Fields(whole.path, value or {}, defaults, prefix=f"{name}.")


def _activation(part: Fields) -> str:
    return ACTIVATIONS[part.one_of("hidden_act", *ACTIVATIONS)]


def _require(part: Fields, name: str, expected: int, of: str) -> None:
    """Raise UserError for a size that another of the configurations has differently."""
    if part.size(name) != expected:
        raise part.error(name, f"{expected}, the {of} of vision_config")


def _image(vision: Fields) -> ImageEncoderConfig:
    side, width, output = vision.size("image_size"), vision.size("hidden_size"), vision.size("output_channels")
    if output % 8:
        raise vision.error("output_channels", "a multiple of 8")
    if 2 * vision.size("num_pos_feats") != output:
        raise vision.error("num_pos_feats", f"{output // 2}, half of output_channels")
    hidden = int(width * vision.positive("mlp_ratio"))
    if vision.get("mlp_dim") is not None:
        hidden = vision.size("mlp_dim")
    places = vision.get("global_attn_indexes")
    if not isinstance(places, list) or not all(isinstance(place, int) for place in places):
        raise vision.error("global_attn_indexes", "a list of whole numbers")
    return ImageEncoderConfig(
        image=side,
        patch=vision.divisor("patch_size", side, "pixels"),
        channels=vision.size("num_channels"),
        width=width,
        layers=vision.size("num_hidden_layers"),
        heads=vision.divisor("num_attention_heads", width, "channels"),
        hidden=hidden,
        window=vision.size("window_size", 0),
        global_layers=tuple(places),
        output=output,
        absolute=vision.flag("use_abs_pos"),
        relative=vision.flag("use_rel_pos"),
        qkv_bias=vision.flag("qkv_bias"),
        activation=_activation(vision),
        eps=vision.positive("layer_norm_eps"),
        form="fused",
    )


def _masks(decoder: Fields, width: int) -> MaskDecoderConfig:
    downsample = decoder.one_of("attention_downsample_rate", 2)  # the library's layers have 2 whatever it says
    return MaskDecoderConfig(
        layers=decoder.size("num_hidden_layers"),
        heads=decoder.divisor("num_attention_heads", width // downsample, "channels of cross-attention"),
        hidden=decoder.size("mlp_dim"),
        downsample=downsample,
        masks=decoder.size("num_multimask_outputs"),
        iou_layers=max(2, decoder.size("iou_head_depth")),  # the library's has two where it is 1
        iou_hidden=decoder.size("iou_head_hidden_dim"),
        activation=_activation(decoder),
        eps=decoder.positive("layer_norm_eps"),
    )

"""The sizes of Segment Anything's three parts, which default to those of the published ViT-B."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.blocks.mlp import PLAIN
from models.errors import UserError, known_name, require_counts
from models.vision.encoder import FORMS


@dataclass(frozen=True)
class ImageEncoderConfig:
    """The sizes of the image encoder, for pictures of `image` × `image` pixels.

    `window` is the side of a window in patches, 0 for global attention in every layer; `global_layers` attend globally
    whatever it is. `absolute` and `relative` are whether there are absolute and relative positions. `output` is the
    width D of the embedding, `form` that of softmax attention. Raises UserError for sizes that do not fit each other.
    """

    image: int = 1024
    patch: int = 16
    channels: int = 3
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    window: int = 14
    global_layers: tuple[int, ...] = (2, 5, 8, 11)
    output: int = 256
    absolute: bool = True
    relative: bool = True
    qkv_bias: bool = True
    activation: str = "gelu"
    eps: float = 1e-6
    form: str = "quadratic"

    def __post_init__(self) -> None:
        known_name(self.activation, "activation", PLAIN)
        known_name(self.form, "form", FORMS)
        require_counts(self, "image", "patch", "channels", "width", "layers", "heads", "hidden", "output")
        _require_divisor("patch", self.patch, "image", self.image)
        _require_divisor("heads", self.heads, "width", self.width)
        if self.window < 0:
            raise UserError(f"window: expected at least 0, got {self.window}")

    @property
    def grid(self) -> int:
        """Return how many patches a side of a picture has."""
        return self.image // self.patch


@dataclass(frozen=True)
class PromptEncoderConfig:
    """The sizes of the prompt encoder; `channels` are those of a mask before its last convolution."""

    channels: int = 16
    activation: str = "gelu"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        known_name(self.activation, "activation", PLAIN)
        require_counts(self, "channels")
        if self.channels % 4:
            raise UserError(f"channels: expected a multiple of 4, got {self.channels}")


@dataclass(frozen=True)
class MaskDecoderConfig:
    """The sizes of the mask decoder.

    `masks` is how many masks an ambiguous prompt has; one more is for all others. `downsample` is how many times
    narrower cross-attention is than the embedding.
    """

    layers: int = 2
    heads: int = 8
    hidden: int = 2048
    downsample: int = 2
    masks: int = 3
    iou_layers: int = 3
    iou_hidden: int = 256
    activation: str = "relu"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        known_name(self.activation, "activation", PLAIN)
        require_counts(self, "layers", "heads", "hidden", "downsample", "masks", "iou_hidden")
        if self.iou_layers < 2:
            raise UserError(f"iou_layers: expected at least 2, got {self.iou_layers}")


@dataclass(frozen=True)
class SAMConfig:
    """The sizes of the three parts. Raises UserError where the decoder does not fit the width of the embedding."""

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    prompt: PromptEncoderConfig = field(default_factory=PromptEncoderConfig)
    decoder: MaskDecoderConfig = field(default_factory=MaskDecoderConfig)

    def __post_init__(self) -> None:
        width, decoder = self.image.output, self.decoder
        if width % 8:
            raise UserError(f"output: expected a multiple of 8, got {width}")
        _require_divisor("downsample", decoder.downsample, "output", width)
        _require_divisor("heads", decoder.heads, "output / downsample", width // decoder.downsample)

    @classmethod
    def of(cls, sizes: Mapping[str, Mapping[str, Any]]) -> "SAMConfig":
        """Return the configuration of which `dataclasses.asdict` gives these sizes."""
        parts = {"image": ImageEncoderConfig, "prompt": PromptEncoderConfig, "decoder": MaskDecoderConfig}
        return cls(**{name: part(**sizes[name]) for name, part in parts.items()})


def _require_divisor(name: str, size: int, of: str, whole: int) -> None:
    if whole % size:
        raise UserError(f"{name}: expected a divisor of {of} {whole}, got {size}")

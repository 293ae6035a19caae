"""Preprocessing of pictures as a folder's preprocessor_config.json says: the processors of ViT, CLIP and SAM.

    resize → centre crop → x · rescale_factor → (x − image_mean)/image_std → zeros below and on the right

Each step is one that its `do_…` asks for. Resizing is Pillow's, on eight bits: averages over all pixels that a new one
covers, rounded to eight bits after each axis. A centre crop begins at ⌊(H − h)/2⌋, and where the picture is smaller
than the crop, zeros are around it. The rest is in float32. So pixels are those of the processors of transformers with
the Pillow backend, bit by bit. Its torchvision backend rounds otherwise in resizing: beside torchvision 0.28 pixels
differ by at most one of 255 after bilinear resizing and by at most two after bicubic.

The three differ in defaults, and in what a `size` may be: a whole number is a square for ViT, and for CLIP the shorter
side; for SAM `longest_edge` is the longer side. Deviation: `do_convert_rgb` changes nothing here, since `read_image`
returns red, green and blue whatever the file holds; where it is false, transformers stops at any other picture.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from models import room
from models.errors import UserError
from models.published.fields import Fields, read_json

Size = tuple[int, int]  # height and width

SHARED: dict[str, Any] = {
    "do_resize": True,
    "do_center_crop": False,
    "do_rescale": True,
    "do_normalize": True,
    "do_pad": False,
    "do_convert_rgb": False,
    "default_to_square": True,
    "crop_size": None,
    "pad_size": None,
    "resample": 2,
    "rescale_factor": 1 / 255,
    # there is no code for other values of these
    "data_format": "channels_first",
    "input_data_format": None,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": SHARED
    | {
        "size": {"height": 224, "width": 224},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "CLIP": SHARED
    | {
        "do_center_crop": True,
        "do_convert_rgb": True,
        "default_to_square": False,
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
    "Sam": SHARED
    | {
        "do_convert_rgb": True,
        "do_pad": True,
        "size": {"longest_edge": 1024},
        "pad_size": {"height": 1024, "width": 1024},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
}
"""Defaults of the processors' classes in transformers, by the beginning of their names."""
TYPE = re.compile(f"({'|'.join(DEFAULTS)})(FeatureExtractor|ImageProcessor(Fast|Pil)?)")
TYPES = ("feature_extractor_type", "image_processor_type")  # the older name, and the newer, which counts
FILTERS = range(6)  # PIL.Image.Resampling: nearest, Lanczos, bilinear, bicubic, box, Hamming
IRRELEVANT = frozenset(
    (
        # bookkeeping, and what is returned besides the pixels; masks are targets in training
        "device disable_grouping image_seq_length mask_pad_size mask_size processor_class return_tensors "
        "_valid_kwargs_names _valid_processor_keys"
    ).split()
) | {*TYPES}
BYTES = 3 * (1 + 8 + 4 + 4)  # of a pixel: in eight bits, in float64, and twice in float32


@dataclass(frozen=True)
class Processor:
    """The steps of preprocessing; None leaves a step out.

    `size` has height and width, the shortest_edge or the longest_edge of a resized picture; `resample` is a filter by
    Pillow's number.
    """

    size: dict[str, int] | None
    resample: int
    crop: Size | None
    factor: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    pad: Size | None

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "3 h w"]:
        """Return the pixels of a picture as a model takes them, in float32.

        Raises: UserError for a picture that cannot be resized as `size` says, or that is larger than the padding;
        ValueError for what is no picture.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape or picture.dtype != np.uint8:
            raise ValueError(f"picture is {picture.dtype} {picture.shape}, expected uint8 (height, width, 3)")
        picture = self._resize(picture)
        if self.crop:
            picture = center_crop(picture, self.crop)
        x: np.ndarray = (
            picture.astype(np.float32) if self.factor is None else (picture * self.factor).astype(np.float32)
        )
        if self.mean and self.std:
            x = (x - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        if self.pad:
            x = _padded(x, self.pad)
        return np.ascontiguousarray(np.moveaxis(x, 2, 0))

    def resized(self, height: int, width: int) -> Size:
        """Return the height and the width of a resized picture, before crop and padding."""
        match self.size:
            case {"height": new_height, "width": new_width}:
                return new_height, new_width
            case {"shortest_edge": short}:
                long = int(short * max(height, width) / min(height, width))
                return (short, long) if height < width else (long, short)
            case {"longest_edge": long}:
                scale = long / max(height, width)
                return int(height * scale + 0.5), int(width * scale + 0.5)
        return height, width

    def _resize(self, picture: np.ndarray) -> np.ndarray:
        from PIL import Image

        if self.size is None:
            return picture
        height, width = picture.shape[:2]
        new_height, new_width = self.resized(height, width)
        if not (new_height and new_width):
            expected = f"expected a picture with a pixel left on its shorter side at size {self.size}"
            raise UserError(f"image: {expected}, got {width} × {height} pixels")
        room.require(BYTES * new_height * new_width, f"a picture of {new_width} × {new_height} pixels", "a smaller one")
        return np.asarray(Image.fromarray(picture).resize((new_width, new_height), Image.Resampling(self.resample)))


def center_crop(picture: np.ndarray, size: Size) -> np.ndarray:
    """Return the middle (h, w, 3) of a picture (H, W, 3), with zeros around it where it is smaller."""
    cropped = np.zeros((*size, picture.shape[2]), picture.dtype)
    source, target = [], []
    for old, new in zip(picture.shape, size, strict=False):
        start = (old - new) // 2  # below 0 for a smaller picture
        source.append(slice(max(0, start), max(0, start) + min(old, new)))
        target.append(slice(max(0, -start), max(0, -start) + min(old, new)))
    cropped[tuple(target)] = picture[tuple(source)]
    return cropped


def _padded(x: np.ndarray, size: Size) -> np.ndarray:
    below, right = (new - old for old, new in zip(x.shape, size, strict=False))
    if below < 0 or right < 0:
        expected = f"expected at least {x.shape[1]} × {x.shape[0]}, the size of the picture before padding"
        raise UserError(f"pad_size: {expected}, got {size[1]} × {size[0]}")
    return np.pad(x, ((0, below), (0, right), (0, 0)))


def read_processor(folder: Path, kind: str) -> Processor:
    """Return the processor of a folder; `kind`, ViT, CLIP or Sam, is its class if the file names none.

    It is read from the `image_processor` of a processor_config.json if there is one, as newer versions of transformers
    write it, and from preprocessor_config.json otherwise.

    Raises: UserError for a file that cannot be read, another class, an invalid value, or an option that there is no
    code for.
    """
    path, given = folder / "preprocessor_config.json", None
    if (folder / "processor_config.json").exists():
        given = read_json(folder / "processor_config.json").get("image_processor")
    if isinstance(given, dict):
        path = folder / "processor_config.json"
    else:
        given = read_json(path)
    # transformers takes null for its default
    given = {name: value for name, value in given.items() if value is not None}
    for name in (name for name in TYPES if name in given):
        found = TYPE.fullmatch(str(given[name]))
        if not found:
            raise Fields(path, given).error(name, " or ".join(f"{kind}ImageProcessor" for kind in DEFAULTS))
        kind = found[1]
    return _processor(Fields(path, given, DEFAULTS[kind]), longest=kind == "Sam")


def _processor(fields: Fields, longest: bool) -> Processor:
    if longest:
        fields.one_of("do_center_crop", False)  # after which masks would have no place in the picture
    square = fields.flag("default_to_square")
    sides = ("longest_edge",) if longest else ("height and width", "shortest_edge")
    size = _size(fields, "size", *sides, bare="" if longest else "height and width" if square else "shortest_edge")
    resample = fields.one_of("resample", *FILTERS)
    factor = fields.positive("rescale_factor")
    do = {name: fields.flag(f"do_{name}") for name in ("resize", "center_crop", "rescale", "normalize", "pad")}
    crop = _rectangle(fields, "crop_size", needed=do["center_crop"])
    pad = _rectangle(fields, "pad_size", needed=do["pad"])
    mean, std = _channels(fields, "image_mean"), _channels(fields, "image_std")
    if 0 in std:
        raise fields.error("image_std", "numbers that are not 0")
    fields.flag("do_convert_rgb")
    fields.refuse_others(IRRELEVANT)
    return Processor(
        size=size if do["resize"] else None,
        resample=resample,
        crop=crop if do["center_crop"] else None,
        factor=factor if do["rescale"] else None,
        mean=mean if do["normalize"] else None,
        std=std if do["normalize"] else None,
        pad=pad if do["pad"] else None,
    )


def _size(fields: Fields, name: str, *sides: str, bare: str) -> dict[str, int]:
    """Return a size by the names of its sides; `bare` are those of a number that stands alone."""
    value = fields.get(name)
    if isinstance(value, list) and len(value) == 2:
        value = dict(zip(("height", "width"), value, strict=True))
    elif isinstance(value, int) and bare:
        value = dict.fromkeys(bare.split(" and "), value)
    if not isinstance(value, dict) or value.keys() not in [set(names.split(" and ")) for names in sides]:
        raise fields.error(name, f"{' or '.join(sides)}, since there is no code for other sizes")
    if not all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in value.values()):
        raise fields.error(name, "whole numbers of at least 1")
    return value


def _rectangle(fields: Fields, name: str, *, needed: bool) -> Size | None:
    if not needed and fields.get(name) is None:
        return None
    size = _size(fields, name, "height and width", bare="height and width")
    return size["height"], size["width"]


def _channels(fields: Fields, name: str) -> tuple[float, ...]:
    """Return three finite numbers; one that stands alone is for all channels."""
    value = fields.get(name)
    values = value if isinstance(value, list) else [value] * 3
    valid = [isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(np.float32(x)) for x in values]
    if len(values) != 3 or not all(valid):
        raise fields.error(name, "a number, or one for each of three channels")
    return tuple(map(float, values))

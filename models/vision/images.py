"""Pictures: read from a file into red, green and blue of eight bits, and written as PNG.

What a file holds becomes what people see:

- EXIF's orientation is applied, as transformers does for a path.
- Transparency is composited on white, as the processors of CLIP and SAM in transformers do; ViT's has no rule of its
  own.
- Grey, palettes and CMYK are converted by Pillow, without colour profiles.
- Sixteen bits of grey are scaled to eight, 65535 to 255. Deviation: transformers converts by Pillow alone, which cuts
  everything above 255 off, so that such a picture is nearly white.
- Of an animation, the first frame.
"""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.checkpoints import write_atomically
from models.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow reads some formats of 16 bits as 32


def read_image(path: str | Path) -> np.ndarray:
    """Return the picture in a file as `(height, width, 3)` in uint8.

    Raises: UserError when the file cannot be read, is empty, no picture, truncated, or has more pixels than Pillow
    takes for safe (`PIL.Image.MAX_IMAGE_PIXELS`, some 89 millions).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    def error(got: str) -> UserError:
        return UserError(f"image {path}: expected a picture, got {got}")

    try:
        data = Path(path).read_bytes()
    except OSError as failure:
        reason = failure.strerror or failure
        raise UserError(f"image {path}: expected a readable file, got: {reason}") from None
    if not data:
        raise error("an empty file")
    try:
        with warnings.catch_warnings():  # of broken metadata, which no pixel depends on
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                upright = ImageOps.exif_transpose(picture)
                upright.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(
            f"image {path}: expected at most {Image.MAX_IMAGE_PIXELS} pixels, got more, which may fill the memory"
        ) from None
    except UnidentifiedImageError:
        raise error("a file of another kind, or without pixels") from None
    except Exception as failure:  # the decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise error(f"a broken file: {failure}") from None
    try:
        return np.asarray(_in_rgb(upright))
    except ValueError as failure:
        raise error(str(failure)) from None


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture `(height, width, 3)` in uint8 as PNG, atomically.

    Raises: UserError when the folder cannot be written.
    """
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    write_atomically(path, data.getvalue())


def _in_rgb(picture: "Image.Image") -> "Image.Image":
    from PIL import Image

    if picture.mode in SIXTEEN_BITS:
        return Image.fromarray(_in_eight_bits(np.asarray(picture))).convert("RGB")
    if picture.mode == "F":
        raise ValueError("pixels in floating point, whose white is not known")
    if "A" in picture.getbands() or "a" in picture.getbands() or picture.info.get("transparency") is not None:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _in_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Return round(255 p / 65535) of grey pixels; raises ValueError for what is no number of sixteen bits."""
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(f"grey from {pixels.min()} to {pixels.max()}, expected 0 to 65535")
    return ((pixels.astype(np.int64) + 128) // 257).astype(np.uint8)

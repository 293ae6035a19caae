"""Draw masks and prompts over a picture."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

COLOURS = np.array(  # of Okabe and Ito, which people with colour blindness tell apart; without black and yellow
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0), (204, 121, 167), (0, 114, 178)], dtype=np.uint8
)
OBJECT, BACKGROUND, RIM = (0, 200, 0), (220, 0, 0), (255, 255, 255)
OPACITY = 0.5


def draw_masks(picture: UInt8[np.ndarray, "H W 3"], masks: Bool[np.ndarray, "N H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture with masks in colours that let it through, and their outlines; later masks are on top."""
    from scipy import ndimage  # here, for it takes a sixth of the time to start a command line

    drawn = picture.copy()
    for i, mask in enumerate(masks):
        colour = COLOURS[i % len(COLOURS)]
        drawn[mask] = np.round((1 - OPACITY) * picture[mask] + OPACITY * colour)
        drawn[mask & ~ndimage.binary_erosion(mask, border_value=1)] = colour
    return drawn


def draw_prompts(
    picture: UInt8[np.ndarray, "H W 3"],
    points: Sequence[tuple[float, float, int]],
    box: tuple[float, float, float, float] | None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture with points (x, y, label), green of label 1 and red of label 0, and with the box."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    pen, size = ImageDraw.Draw(image), max(1, round(max(picture.shape) / 100))
    if box:
        pen.rectangle(box, outline=OBJECT, width=max(1, size // 2))
    for x, y, label in points:
        pen.ellipse((x - size, y - size, x + size, y + size), fill=OBJECT if label else BACKGROUND, outline=RIM)
    return np.asarray(image)

"""Map prompts from a picture to the resized and padded one that a model reads, and masks back.

A picture of `original` pixels (height, width) is resized to `resized` and padded below and on the right to `padded`.

    (x, y) → (x w′/w, y h′/h)                                   a point; corners of a box are points
    mask → interpolated at `padded`, cut to `resized`, interpolated at `original`

Interpolation is linear along each axis, without antialiasing, of logits before any threshold, as `post_process_masks`
does in transformers.
"""

import numpy as np
from jaxtyping import Float

from minigrad import namespace
from models.forms import Array
from models.vision.interpolation import linear, resize

Size = tuple[int, int]  # height and width


def to_resized(points: Float[np.ndarray, "*batch 2"], original: Size, resized: Size) -> Float[np.ndarray, "*batch 2"]:
    """Return points (x, y) of a picture as points of the resized one."""
    return points * (np.array(resized[::-1]) / np.array(original[::-1]))


def to_original(
    masks: Float[Array, "*batch h w"], original: Size, resized: Size, padded: Size
) -> Float[Array, "*batch H W"]:
    """Return the logits of masks of the padded picture, of any size, as logits of the original picture's pixels."""
    xp = namespace(masks)
    x = resize(xp.reshape(masks, (*masks.shape, 1)), *padded, kind=linear)
    x = resize(x[..., : resized[0], : resized[1], :], *original, kind=linear)
    return x[..., 0]

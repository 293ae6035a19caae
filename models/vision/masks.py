"""Map prompts from a picture to the resized and padded one that a model reads, and masks back.

A picture of `original` pixels (height, width) is resized to `resized` and padded below and on the right to `padded`.

    (x, y) → (x w′/w, y h′/h)                                   a point; corners of a box are points
    mask → interpolated at `padded`, cut to `resized`, interpolated at `original`

Interpolation is linear along each axis, without antialiasing, of logits before any threshold, as `post_process_masks`
does in transformers. Both together are one product with a matrix along each axis, and nothing of `padded` size is made.
"""

import numpy as np
from jaxtyping import Float

from minigrad import namespace
from minigrad.conversion import to_library_of
from models.forms import Array
from models.vision.interpolation import linear

Size = tuple[int, int]  # height and width


def to_resized(points: Float[np.ndarray, "*batch 2"], original: Size, resized: Size) -> Float[np.ndarray, "*batch 2"]:
    """Return points (x, y) of a picture as points of the resized one."""
    return points * (np.array(resized[::-1]) / np.array(original[::-1]))


def to_original(
    masks: Float[Array, "*batch h w"], original: Size, resized: Size, padded: Size
) -> Float[Array, "*batch H W"]:
    """Return the logits of masks of the padded picture, of any size, as logits of the original picture's pixels."""
    xp, matrices = namespace(masks), []
    for places, before, cut, after in zip(masks.shape[-2:], padded, resized, original, strict=True):
        both = linear(cut, after) @ linear(places, before)[:cut]  # (after, places)
        matrices.append(xp.astype(to_library_of(masks, both), masks.dtype))
    rows, columns = matrices
    return rows @ masks @ columns.mT

"""Simulated clicks: prompts drawn from a mask, and from the error of a prediction.

    first       a point drawn uniformly from the mask, or its box, each coordinate moved by noise of deviation 10 % of
                the box's side, at most 20 pixels             Kirillov et al. 2023, appendix A, "Training algorithm"
    next        a point drawn uniformly from where mask and prediction differ: of label 1 where the mask was missed, of
                label 0 where it was exceeded
    evaluation  the same places at their centres: the pixel that is farthest from the boundary    appendix D.1

Masks are (…, H, W), boolean, and places (x, y) in pixels. Where nothing is wrong the next point is one of the mask.
"""

import numpy as np

from models.vision.automatic_masks import boxes_of

NOISE, FURTHEST = 0.1, 20.0


def drawn(rng: np.random.Generator, region: np.ndarray) -> np.ndarray:
    """Return a place (…, 2) drawn uniformly from each region (…, H, W), which is not empty."""
    return _place(rng.random(region.shape, np.float32) * region, region.shape)


def centre(region: np.ndarray) -> np.ndarray:
    """Return the place (…, 2) of each region (…, H, W) that is farthest from what is outside and from the edges."""
    from scipy import ndimage  # here, for it takes a sixth of the time to start a command line

    *batch, H, W = region.shape
    flat = np.pad(region.reshape(-1, H, W), ((0, 0), (1, 1), (1, 1)))
    distances = np.stack([ndimage.distance_transform_edt(each)[1:-1, 1:-1] for each in flat])
    return _place(distances.reshape(region.shape), region.shape)


def _place(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    flat = values.reshape(*shape[:-2], -1).argmax(axis=-1)
    return np.stack([flat % shape[-1], flat // shape[-1]], axis=-1).astype(float)


def wrong(mask: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return where a prediction differs from the mask, both (…, H, W); the mask itself where it does nowhere."""
    different = mask != prediction
    return np.where(different.any(axis=(-2, -1), keepdims=True), different, mask)


def label_at(mask: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the label (…) of places (…, 2): 1 on the mask (…, H, W), 0 beside it."""
    x, y = place[..., 0].astype(int), place[..., 1].astype(int)
    flat = mask.reshape(*mask.shape[:-2], -1)
    return np.take_along_axis(flat, (y * mask.shape[-1] + x)[..., None], axis=-1)[..., 0].astype(int)


def noisy_box(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Return the box (…, 4) of each mask (…, H, W) with noise, within the picture."""
    corners, last = boxes_of(mask).astype(float), np.array(mask.shape[:-3:-1]) - 1  # (W − 1, H − 1)
    sides = corners[..., 2:] - corners[..., :2] + 1
    noise = NOISE * np.concatenate([sides, sides], axis=-1) * rng.standard_normal(corners.shape)
    moved = corners + np.clip(noise, -FURTHEST, FURTHEST)
    first, second = np.minimum(moved[..., :2], moved[..., 2:]), np.maximum(moved[..., :2], moved[..., 2:])
    return np.clip(np.concatenate([first, second], axis=-1), 0, np.concatenate([last, last]))

"""Layout of arrays for kernels: one batch axis, padding with zeros to whole vectors, contiguous rows."""

import math
from typing import Any

import numpy as np

from minigrad.compiled.simd import BITS


def vector(x: np.ndarray, count: int = 1) -> int:
    """Return how many numbers of x's type `count` vectors hold."""
    return count * BITS // (8 * x.itemsize)


def laid_out(x: Any, *shape: int, to: tuple[int, ...]) -> np.ndarray:
    """Return x in this shape, contiguous, its last axes padded with zeros to multiples of `to`.

    It is x itself, or a view, where x is so already.
    """
    x = np.reshape(x, shape)
    missing = [-size % m for size, m in zip(shape[-len(to) :], to, strict=True)]
    if any(missing):
        x = np.pad(x, [(0, 0)] * (len(shape) - len(to)) + [(0, zeros) for zeros in missing])
    return np.ascontiguousarray(x)


def plain(x: Any) -> np.ndarray:
    """Return x C-contiguous and writable; it is x itself where it is so already.

    Numba compiles a kernel anew for each other layout, and for arrays that are read-only.
    """
    return np.require(x, requirements=["C", "W"])


def cut_out(x: np.ndarray, shape: tuple[int, ...], axes: int = 2) -> np.ndarray:
    """Undo `laid_out`: remove the padding of the last `axes` axes and restore the batch axes."""
    original: tuple[Any, ...] = tuple(slice(size) for size in shape[len(shape) - axes :])
    return x[(..., *original)].reshape(shape)


def append_ones(x: np.ndarray) -> np.ndarray:
    """Return x with a feature 1 after the last."""
    return np.concatenate([x, np.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)


def flat_count(shape: tuple[int, ...], axes: int = 2) -> int:
    """Return the number of sequences: the product of all axes but the last `axes`."""
    return math.prod(shape[: len(shape) - axes])

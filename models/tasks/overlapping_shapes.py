"""Scenes of overlapping shapes with textures, half of which have a part: what is there to be segmented.

A scene has three shapes (discs, squares, triangles) of random size, place and turn, each before those drawn earlier;
on half of them is a smaller one, its part, off the centre. Background, shapes and parts have colours that differ, and a
texture each: stripes, checks or none, in lighter and darker shades; and the whole picture has noise.

    pixels  (count, 3, side, side), of mean near 0
    masks   (count, 6, side, side), boolean: the three shapes, with their parts, and then the three parts. What another
            shape hides is not in a mask.
    seen    (count, 6): whether enough of it is to be seen, and it is to be asked for

A point on a part is ambiguous, since it is on the whole too.
"""

from typing import NamedTuple

import numpy as np

SHAPES, KINDS = 3, 3
SIZES, PART = (0.24, 0.38), (0.45, 0.6)  # radii: of a shape in sides of the picture, of a part in those of its shape
WITH_PART = 0.5  # share of the shapes
LEAST = 40 / 32**2  # of a picture, that is seen of a shape
SHARE = 0.5  # that is seen of a shape, or of a part
AWAY = 0.65  # of a part's centre from its shape's, in radii of the shape
SHADE, NOISE = 0.15, 0.04  # deviation of a texture's shades from its colour, and of the noise
MEAN, DEVIATION = 0.5, 0.35  # of pixels before they are normalised


class Scenes(NamedTuple):
    """Pictures and what is to be seen in them, as the module says."""

    pixels: np.ndarray
    masks: np.ndarray
    seen: np.ndarray


def draw(rng: np.random.Generator, count: int, side: int = 32) -> Scenes:
    """Return new scenes."""
    radius = rng.uniform(*SIZES, (count, SHAPES)) * side
    centre = rng.uniform(0.15 * side, 0.85 * side, (count, SHAPES, 2))
    direction = rng.uniform(0, 2 * np.pi, (count, SHAPES))
    away = AWAY * radius[..., None] * np.stack([np.cos(direction), np.sin(direction)], axis=-1)
    whole = _shapes(rng, centre, radius, side)
    part = whole & _shapes(rng, centre + away, radius * rng.uniform(*PART, radius.shape), side)
    part &= (rng.random(radius.shape) < WITH_PART)[..., None, None]
    later = np.cumsum(whole[:, ::-1], axis=1)[:, ::-1] - whole  # how many shapes are before this one
    visible = np.concatenate([whole & (later == 0), part & (later == 0)], axis=1)
    size = np.concatenate([whole, part], axis=1).sum(axis=(-2, -1))
    seen = visible.sum(axis=(-2, -1))
    enough = (seen >= LEAST * side * side) & (seen >= SHARE * size)
    return Scenes(_painted(rng, visible, side), visible, enough)


def _shapes(rng: np.random.Generator, centre: np.ndarray, radius: np.ndarray, side: int) -> np.ndarray:
    """Return the masks (count, SHAPES, side, side) of shapes of random kinds and turns."""
    places = np.arange(side)
    x = (places[None, :] - centre[..., 0, None, None]) / radius[..., None, None]
    y = (places[:, None] - centre[..., 1, None, None]) / radius[..., None, None]
    turn = rng.uniform(0, 2 * np.pi, (*radius.shape, 1, 1))
    u, v = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    disc = u * u + v * v <= 1
    square = np.maximum(np.abs(u), np.abs(v)) <= 0.85
    triangle = np.maximum(-v, 0.5 * v + 0.866 * np.abs(u)) <= 0.6
    kind = rng.integers(0, KINDS, (*radius.shape, 1, 1))
    return np.select([kind == 0, kind == 1], [disc, square], triangle)


def _painted(rng: np.random.Generator, visible: np.ndarray, side: int) -> np.ndarray:
    """Return pixels of scenes with these masks: each surface has one of eight colours, and a texture."""
    count, surfaces = len(visible), 1 + 2 * SHAPES
    corners = 0.15 + 0.7 * np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)])
    order = rng.permuted(np.broadcast_to(np.arange(8), (count, 8)), axis=1)[:, :surfaces]
    colours = corners[order] + rng.uniform(-0.1, 0.1, (count, surfaces, 3))
    shades = _textures(rng, (count, surfaces), side)
    # of the background 0, of shapes 1 … SHAPES, and of their parts, which are drawn over them
    surface = np.zeros((count, side, side), int)
    for i in range(2 * SHAPES):
        surface[visible[:, i]] = i + 1
    scene = np.arange(count)[:, None, None]
    rows, columns = np.arange(side)[:, None], np.arange(side)[None, :]
    pixels = colours[scene, surface] + SHADE * shades[scene, surface, rows, columns][..., None]
    pixels = pixels + NOISE * rng.standard_normal(pixels.shape)
    return np.moveaxis((pixels - MEAN) / DEVIATION, -1, 1).astype(np.float32)


def _textures(rng: np.random.Generator, shape: tuple[int, int], side: int) -> np.ndarray:
    """Return shades (*shape, side, side): stripes or checks of −1 and 1, or 0."""
    places = np.arange(side)
    turn, width = rng.uniform(0, np.pi, (*shape, 1, 1)), rng.uniform(2, 4, (*shape, 1, 1))
    x, y = places[None, :] + rng.uniform(0, side, turn.shape), places[:, None] + rng.uniform(0, side, turn.shape)
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    stripes, across = (np.where(np.floor(w / width) % 2 == 0, 1.0, -1.0) for w in (u, v))
    kind = rng.integers(0, 3, turn.shape)
    return np.select([kind == 0, kind == 1], [stripes, stripes * across], 0.0)

"""Scenes: pictures of one shape with captions in several phrasings, and combinations that training never shows.

    "a small red circle at the top left"      5 shapes × 6 colours × 5 positions × 2 sizes, 32 × 32 pixels

Training never shows shape i of colour j at position k, of either size, where i + j + k is a multiple of 5: a red circle
at the top left, a red ring at the top right, …, 60 of the 300 combinations. Each two values of different attributes do
occur together: red circles at other positions, circles of other colours at the top left, red at the top left in other
shapes. Radford et al. 2021 test their claim on data sets of which no picture was trained on; here the words are known
and their combination is not.

Pictures differ in place, radius and angle, in the shade of colour and background, and in the noise of pixels. A caption
is made of words, of which there are few: one that none of the phrasings has is an error that names it.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.errors import UserError

SIDE = 32
SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS = {
    "red": (210, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (230, 210, 50),
    "purple": (150, 60, 190),
    "orange": (240, 135, 40),
}
POSITIONS = {
    "top left": (9, 9),
    "top right": (9, 23),
    "bottom left": (23, 9),
    "bottom right": (23, 23),
    "centre": (16, 16),
}
SIZES = {"small": 5.0, "large": 8.5}
PHRASINGS = (
    "a {size} {colour} {shape} at the {position}",
    "{size} {colour} {shape}, {position}",
    "at the {position} there is a {size} {colour} {shape}",
    "a {colour} {shape}, {size}, at the {position}",
    "the {shape} at the {position} is {size} and {colour}",
    "a picture of a {size} {colour} {shape} at the {position}",
)
PAD, START, END = "", "<start>", "<end>"
CONTEXT = 16  # tokens of a caption at most, with start and end


class Scene(NamedTuple):
    """The attributes of a scene: its one shape, and the shape's colour, position and size."""

    shape: str
    colour: str
    position: str
    size: str

    @property
    def held_out(self) -> bool:
        """Return whether training never shows it: see the module."""
        places = (SHAPES.index(self.shape), list(COLOURS).index(self.colour), list(POSITIONS).index(self.position))
        return sum(places) % 5 == 0

    def caption(self, phrasing: int) -> str:
        """Return its description in one of `PHRASINGS`."""
        return PHRASINGS[phrasing].format(**self._asdict())


SCENES = tuple(itertools.starmap(Scene, itertools.product(SHAPES, COLOURS, POSITIONS, SIZES)))


def split(text: str) -> list[str]:
    """Return the words of a caption, a comma among them, in lower case."""
    return text.lower().replace(",", " , ").split()


VOCABULARY = (PAD, START, END, *sorted({w for s in SCENES for i in range(len(PHRASINGS)) for w in split(s.caption(i))}))
NUMBER = {word: number for number, word in enumerate(VOCABULARY)}


def encode(captions: Sequence[str]) -> np.ndarray:
    """Return tokens `(n, CONTEXT)`: start, words, end, padding.

    Raises: UserError for no caption, an empty one, a word that is not in the vocabulary, and too many words.
    """
    if isinstance(captions, str) or not len(captions):
        raise UserError(f"captions: expected a list of at least one, got {captions!r}")
    tokens = np.full((len(captions), CONTEXT), NUMBER[PAD])
    for row, caption in zip(tokens, captions, strict=True):
        words = split(caption)
        if not 0 < len(words) <= CONTEXT - 2:
            raise UserError(f"caption {caption!r}: expected 1 to {CONTEXT - 2} words, got {len(words)}")
        for word in words:
            if word not in NUMBER:
                raise UserError(f"caption {caption!r}: expected words of {', '.join(VOCABULARY[3:])}, got {word!r}")
        row[: len(words) + 2] = [NUMBER[word] for word in (START, *words, END)]
    return tokens


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return a picture `(3, SIDE, SIDE)` of 8-bit RGB."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    row, column = np.array(POSITIONS[scene.position]) + rng.uniform(-1, 1, 2)
    radius, angle = SIZES[scene.size] + rng.uniform(-0.5, 0.5), rng.uniform(-0.1, 0.1)
    u = np.cos(angle) * (x - column) + np.sin(angle) * (y - row)
    v = np.cos(angle) * (y - row) - np.sin(angle) * (x - column)
    inside = np.clip(0.5 - _distance(scene.shape, u, v, radius), 0, 1)  # the share of a pixel, about
    background = rng.uniform(90, 165) + rng.uniform(-1, 1, 2) @ np.stack([x, y]).reshape(2, -1) / 2
    colour = np.array(COLOURS[scene.colour]) + rng.uniform(-25, 25, 3)
    picture = background.reshape(SIDE, SIDE) * (1 - inside) + colour[:, None, None] * inside
    return np.clip(picture + 8 * rng.standard_normal(picture.shape), 0, 255).astype(np.uint8)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Return the signed distance in pixels to the edge of a shape around 0, or a lower bound; inside it is negative."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "ring":
        return abs(np.hypot(x, y) - 0.75 * radius) - 0.25 * radius
    if shape == "square":
        return np.maximum(abs(x), abs(y)) - 0.85 * radius
    if shape == "triangle":  # the corner above; y grows downwards
        return np.maximum(y - radius / 2, (3**0.5 * abs(x) - y - radius) / 2)
    bars = [np.maximum(abs(a) - radius, abs(b) - 0.3 * radius) for a, b in ((x, y), (y, x))]
    return np.minimum(*bars)


def pixels(pictures: np.ndarray) -> np.ndarray:
    """Return what a model reads of 8-bit pictures: float32 from −1 to 1."""
    return (pictures / np.float32(127.5) - 1).astype(np.float32)


class Scenes:
    """A fixed number of training pairs, and pictures of every combination that are held out.

    With `shuffled`, captions are dealt anew to the pictures: what is left to be learned is which texts and pictures
    there are, not which belong together.
    """

    def __init__(self, pairs: int, seed: int = 0, *, shuffled: bool = False) -> None:
        if pairs < 1:
            raise UserError(f"pairs: expected at least 1, got {pairs}")
        rng = np.random.default_rng([seed, 0])
        seen = [scene for scene in SCENES if not scene.held_out]
        self.scenes = [seen[i] for i in rng.integers(0, len(seen), pairs)]
        self.pictures = np.stack([draw(scene, rng) for scene in self.scenes])
        captions = [scene.caption(rng.integers(0, len(PHRASINGS))) for scene in self.scenes]
        self.captions = encode(captions)
        if shuffled:
            self.captions = rng.permutation(self.captions)

    def batch(self, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels `(batch, 3, SIDE, SIDE)` and tokens `(batch, CONTEXT)` of training pairs."""
        indices = rng.integers(0, len(self.pictures), batch)
        return pixels(self.pictures[indices]), self.captions[indices]


def held_out_pictures(rng: np.random.Generator, each: int, *, seen: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return new pixels and their places in `SCENES`: `each` of every scene that training shows, or of all others."""
    numbers = [i for i, scene in enumerate(SCENES) if scene.held_out != seen for _ in range(each)]
    return pixels(np.stack([draw(SCENES[i], rng) for i in numbers])), np.array(numbers)

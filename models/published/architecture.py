"""Interface of a family of published models: names and shapes of its arrays in files, and the conversion to our model.

A family is one module, with a subclass of `Architecture` and a function that reads it from a config.json, and one row
of `models.published.MODEL_TYPES`. What is left is shared (`models.published.load_model`): the checks of a file, the
types of its numbers, shards, and the rule for tied heads.

An `Architecture` may be of any model. One with a vocabulary is a `TextArchitecture`, whose model is a language model,
which the command `generate` runs; that of an `EncoderDecoder` is a Transformer, which `translate` runs by the rules
that the folder names.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from minigrad.nn import Module
from models.language.transformer import Transformer
from models.published.generation import Generation

Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """Everything that decides a model's arrays and how they are used."""

    prefix: ClassVar[str] = ""  # of names in files, where it is optional: "model."
    unused: ClassVar[tuple[str, ...]] = ()  # endings of names in files that hold no parameters: ".rotary_emb.inv_freq"

    @property
    def copies(self) -> Mapping[str, str]:
        """Return further names of arrays, any of which a file may have: copy → name in `shapes`."""
        return {}

    @abstractmethod
    def shapes(self) -> Shapes:
        """Yield the name and the shape of every array that a file must hold, without making any."""

    @abstractmethod
    def build(self, rng: np.random.Generator) -> Module:
        """Return a new model, with random weights."""

    @abstractmethod
    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name and the array of every parameter of the model, from arrays by the names of `shapes`.

        This is where a family transposes, splits and joins. An array is read from its file when it is taken from the
        mapping, so nothing is in memory twice if each is taken once. The map is linear, so it maps gradients too.
        """

    def name(self, in_file: str) -> str | None:
        """Return the name in `shapes` of an array in a file; None for one that holds no parameter."""
        return None if in_file.endswith(self.unused) else in_file.removeprefix(self.prefix)

    def of_file(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """Return the architecture of a file that has arrays of these shapes, by the names of `name`.

        That is this one, unless files of a family hold the same numbers in several ways.
        """
        return self

    def constant(self, in_file: str) -> np.ndarray | None:
        """Return what an array in a file that holds no parameter must be; None where it does not matter."""
        return None


@dataclass(frozen=True, kw_only=True)
class TextArchitecture(Architecture):
    """A model with a vocabulary, whose head may be its embedding.

    But for an `EncoderDecoder` the model is called as `model(tokens, state=None)` and returns (logits, state): logits
    are `(*batch, T, vocab)` for integer tokens `(*batch, T)`, and the state continues at the next token.
    """

    head: ClassVar[str] = "lm_head.weight"

    vocab: int
    tied: bool  # whether the head is the embedding; then `shapes` is without it

    @property
    def embedding(self) -> str:
        """Return the name of the embedding that a tied head is."""
        return "embeddings.weight"


class EncoderDecoder(TextArchitecture):
    """An encoder of a source and a decoder of a target."""

    @property
    @abstractmethod
    def max_positions(self) -> int:
        """Return how many tokens a source or a target may have."""

    @abstractmethod
    def build(self, rng: np.random.Generator) -> Transformer:
        """Return a new model; `models.language.decoding` reads a source and decodes with it."""

    @abstractmethod
    def generation(self, folder: Path) -> Generation:
        """Return how a target is decoded. Raises UserError for what there is no code for."""

"""Rotary positions in a config: `rope_parameters`, or before transformers 5 `rope_theta` and `rope_scaling`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from models.attention.positions import llama3_frequencies, rotary_frequencies
from models.errors import UserError
from models.published.fields import Fields

ROPE = {"rope_parameters": None, "rope_scaling": None, "rope_theta": 10_000.0}
"""Defaults of transformers, for every family."""


def _unscaled(frequencies: np.ndarray) -> np.ndarray:
    return frequencies


@dataclass(frozen=True)
class Rope:
    """The base of the frequencies, and what becomes of them."""

    base: float
    scaled: Callable[[np.ndarray], np.ndarray] = _unscaled

    def frequencies(self, width: int) -> tuple[float, ...]:
        """Return θ of each of the pairs of `width` channels."""
        return tuple(self.scaled(rotary_frequencies(width, base=self.base)).tolist())


def has_rope(fields: Fields) -> bool:
    """Return whether a config has rotary positions: `rope_theta` is null where it has none."""
    given = _given(fields)[1]
    return given.get("rope_theta", fields.get("rope_theta")) is not None


def read_rope(fields: Fields) -> Rope:
    """Return the rotary positions of a config whose defaults include `ROPE`.

    `dynamic` and `longrope` change with the length of the text, so that one pass and token by token differ; they are
    refused, as is what transformers does not know.
    """
    name, given = _given(fields)
    defaults = {"rope_type": given.get("type", "default"), "type": given.get("type"), "partial_rotary_factor": 1.0}
    rope = Fields(fields.path, given, defaults | {"rope_theta": fields.get("rope_theta")}, f"{name}.")
    base = rope.positive("rope_theta")
    kind = rope.one_of("rope_type", "default", "linear", "llama3")
    scaled: Callable[[np.ndarray], np.ndarray] = _unscaled
    if kind == "linear":
        scaled = partial(np.multiply, 1 / rope.positive("factor"))
    elif kind == "llama3":
        low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
        if low >= high:
            raise rope.error("high_freq_factor", f"a number above low_freq_factor {low}")
        factor, length = rope.positive("factor"), _length(fields, rope)
        scaled = partial(llama3_frequencies, factor=factor, low=low, high=high, length=length)
    rope.refuse_others()
    return Rope(base, scaled)


def _given(fields: Fields) -> tuple[str, dict[str, Any]]:
    """Return the key that has the options of rotary positions, and its value."""
    name = "rope_scaling" if fields.get("rope_scaling") else "rope_parameters"
    given = fields.get(name)
    if not isinstance(given, dict | None):
        raise fields.error(name, "a JSON object")
    return name, given or {}


def _length(fields: Fields, rope: Fields) -> int:
    """Return the length of text that the model was trained on at first."""
    name = "original_max_position_embeddings"
    own = rope.get(name)
    if fields.get(name) is not None:
        return fields.size(name)
    return fields.size("max_position_embeddings") if own is None else rope.size(name)


def even(fields: Fields, name: str, size: int) -> int:
    """Return the size of a head, whose channels are rotated in pairs. Raises UserError where it is odd."""
    if size % 2:
        raise UserError(f"{fields.path}: {name}: expected an even number, for rotary positions, got {size}")
    return size

"""Rotary positions in a config: `rope_parameters`, or before transformers 5 `rope_theta` and `rope_scaling`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from models.attention.positions import llama3_frequencies, rotary_frequencies, yarn_frequencies
from models.errors import UserError
from models.published.fields import Fields

ROPE = {"rope_parameters": None, "rope_scaling": None, "rope_theta": 10_000.0}
"""Defaults of transformers, for every family."""


Scaling = Callable[[np.ndarray], np.ndarray]


def _unscaled(frequencies: np.ndarray) -> np.ndarray:
    return frequencies


@dataclass(frozen=True)
class Rope:
    """The base of the rotary frequencies, their scaling, and the factor of rotated queries and keys."""

    base: float
    scaled: Scaling = _unscaled
    magnitude: float = 1.0

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
    defaults = {"rope_type": given.get("type", "default"), "type": given.get("type")}
    defaults |= {"partial_rotary_factor": 1.0, "truncate": True}
    rope = Fields(fields.path, given, defaults | {"rope_theta": fields.get("rope_theta")}, f"{name}.")
    base = rope.positive("rope_theta")
    kind = rope.one_of("rope_type", "default", "linear", "llama3", "yarn")
    scaled: Scaling = _unscaled
    magnitude = 1.0
    if kind == "linear":
        scaled = partial(np.multiply, 1 / rope.positive("factor"))
    elif kind == "llama3":
        low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
        if low >= high:
            raise rope.error("high_freq_factor", f"a number above low_freq_factor {low}")
        factor, length = rope.positive("factor"), _length(fields, rope)
        scaled = partial(llama3_frequencies, factor=factor, low=low, high=high, length=length)
    elif kind == "yarn":
        scaled, magnitude = _yarn(base, _length(fields, rope), rope)
    rope.refuse_others()
    return Rope(base, scaled, magnitude)


def _yarn(base: float, length: int, rope: Fields) -> tuple[Scaling, float]:
    """Return YaRN's frequencies and the magnitude, 0.1 ln factor + 1 unless it is given (Peng et al. 2024, eq. 22)."""
    if base == 1:
        raise rope.error("rope_theta", "a number other than 1")
    factor = rope.positive("factor")
    fast = rope.positive("beta_fast") if rope.get("beta_fast") else 32.0
    slow = rope.positive("beta_slow") if rope.get("beta_slow") else 1.0
    ends = partial(yarn_frequencies, fast=fast, slow=slow, whole=rope.flag("truncate"))
    scaled = partial(ends, factor=factor, base=base, length=length)
    numerator, denominator = (rope.number(name) if rope.get(name) else 0.0 for name in ("mscale", "mscale_all_dim"))
    if rope.get("attention_factor") is not None:
        return scaled, rope.positive("attention_factor")
    if numerator and denominator:
        return scaled, _magnitude(factor, numerator) / _magnitude(factor, denominator)
    return scaled, _magnitude(factor, 1.0)


def _magnitude(factor: float, scale: float) -> float:
    return 1.0 + 0.1 * scale * max(0.0, math.log(factor))


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

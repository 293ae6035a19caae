"""The configuration of a causal language model: options, their defaults, and checks that they fit together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.nn import LayerNorm, RMSNorm
from models.blocks import MIXERS, Block, BlockConfig
from models.blocks.mlp import MLPS, PLAIN
from models.errors import UserError, known_name

NORMS: dict[str, tuple[type[RMSNorm] | type[LayerNorm], float]] = {"rms": (RMSNorm, 1e-6), "layer": (LayerNorm, 1e-5)}
"""Norms, and the usual ε of each."""
MAX_POSITIONS = 1024  # learned positions, as GPT-2 has them


@dataclass(frozen=True)
class Config(BlockConfig):
    """The shape of a model; what is left open, as 0, "" or None, is what is usual for the mixer, MLP or norm.

    `max_positions` is the number of learned positions, and `hidden` the width inside the MLP.

    Raises: UserError for an unknown mixer, form, scheme of positions, norm or MLP, for sizes that do not fit, and for a
    choice that the mixer does not have.
    """

    mixer: str = "delta_rule"
    vocab: int = 256
    layers: int = 4
    max_positions: int = 0
    norm: str = "rms"
    eps: float | None = None
    mlp: str = ""
    hidden: int = 0
    mlp_bias: bool = False
    tied: bool = True

    def __post_init__(self) -> None:
        block = MIXERS[known_name(self.mixer, "mixer", MIXERS)]
        self._check_types(block.least_conv)
        self._check_choices(block)
        # what is open is filled in here, so that a checkpoint records it
        for name, usual in self._usual(block).items():
            object.__setattr__(self, name, getattr(self, name) or usual)
        object.__setattr__(self, "frequencies", tuple(self.frequencies))
        object.__setattr__(self, "eps", NORMS[self.norm][1] if self.eps is None else self.eps)
        known_name(self.form, f"form of {self.mixer}", block.forms())
        known_name(self.start, f"start of {self.mixer}", block.starts)
        known_name(self.variant, f"variant of {self.mixer}", block.variants)
        known_name(self.positions, "positions", block.schemes)
        self._check_sizes()

    def _check_types(self, least_conv: int) -> None:
        zero = ("states", "chunk_size", "kv_heads", "head_size", "max_positions", "hidden")
        leasts = {"vocab": 1, "width": 1, "layers": 1, "heads": 1, "conv": least_conv, **dict.fromkeys(zero, 0)}
        for name, least in leasts.items():
            if not isinstance(getattr(self, name), int | np.integer):
                raise UserError(f"{name}: expected a whole number, got {getattr(self, name)!r}")
            if getattr(self, name) < least:
                raise UserError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("bias", "mlp_bias", "tied"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name}: expected true or false, got {getattr(self, name)!r}")
        if self.eps is not None and not 0 <= self.eps < np.inf:
            raise UserError(f"eps: expected a number of at least 0, got {self.eps}")

    def _check_choices(self, block: type[Block]) -> None:
        attention = dict.fromkeys(("kv_heads", "head_size", "bias", "positions", "frequencies"), block.schemes[0])
        mlp = dict.fromkeys(("mlp", "hidden", "mlp_bias"), not block.mixes_channels)
        own = {"states": block.default_states, "start": block.starts[0], "variant": block.variants[0]}
        for name, has in {**own, **attention, **mlp}.items():
            if (value := getattr(self, name)) and not has:
                raise UserError(f"{name}: expected none, since {self.mixer} has no such choice, got {value}")
        known_name(self.norm, "norm", NORMS)
        if self.mlp:
            known_name(self.mlp, "mlp", MLPS)
        if not self.head_size and self.width % (2 * self.heads):
            raise UserError(f"heads: expected width {self.width} to be a multiple of 2 × heads, got {self.heads} heads")
        if self.max_positions and self.positions != "learned":
            raise UserError(f"max_positions: expected none, since no positions are learned, got {self.max_positions}")

    def _usual(self, block: type[Block]) -> dict[str, Any]:
        usual = {
            "form": block.default_form,
            "chunk_size": block.default_chunk_size,
            "states": block.default_states,
            "start": block.starts[0],
            "variant": block.variants[0],
            "positions": block.schemes[0],
        }
        if block.schemes[0]:
            usual |= {"kv_heads": self.heads, "head_size": self.width // self.heads}
        if self.positions == "learned":
            usual["max_positions"] = MAX_POSITIONS
        if not block.mixes_channels:
            usual["mlp"] = "swiglu"
            usual["hidden"] = 4 * self.width if self.mlp in PLAIN else -(-8 * self.width // 3 // 8) * 8
        return usual

    def _check_sizes(self) -> None:
        if self.kv_heads and self.heads % self.kv_heads:
            raise UserError(f"kv_heads: expected a divisor of the {self.heads} heads, got {self.kv_heads}")
        for name, scheme in (("width", "sinusoidal"), ("head_size", "rotary")):
            if self.positions == scheme and getattr(self, name) % 2:
                raise UserError(f"{name}: expected an even number for {scheme} positions, got {getattr(self, name)}")
        most = self.head_size // 2 if self.positions == "rotary" else 0
        if len(self.frequencies) > most:
            raise UserError(f"frequencies: expected at most {most}, got {len(self.frequencies)}")


def check_sizes(config: Config, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise a UserError where arrays cannot be those of a model of this configuration, before one is made."""
    shape, width = arrays["embedding.weight"].shape if "embedding.weight" in arrays else (), config.width
    if shape != (config.vocab, width):
        raise UserError(f"embedding.weight: expected shape {(config.vocab, width)}, got {shape or 'no such array'}")
    layers = len({name.split(".")[1] for name in arrays if name.startswith("layers.")})
    if config.layers != layers:
        raise UserError(f"layers: expected {layers}, as many as there are arrays of, got {config.layers}")
    numbers = sum(array.size for array in arrays.values())
    for name in ("conv", "states", "heads", "head_size", "max_positions", "hidden"):
        if (size := getattr(config, name)) > numbers:
            raise UserError(f"{name}: expected at most the {numbers} numbers that there are, got {size}")

"""Mixers by name: each block wraps one mechanism in what its paper puts around it, and the mechanism declares it."""

import importlib

from models.forms import declarations

from .block import Block, BlockConfig, BlockState


def _mixers() -> dict[str, type[Block]]:
    """Import the blocks that the mechanisms declare."""
    mixers: dict[str, type[Block]] = {}
    for mechanism in declarations().values():
        for mixer, path in mechanism.blocks.items():
            module, _, block = path.rpartition(".")
            mixers[mixer] = getattr(importlib.import_module(module), block)
    return mixers


MIXERS: dict[str, type[Block]] = _mixers()

__all__ = ["MIXERS", "Block", "BlockConfig", "BlockState"]

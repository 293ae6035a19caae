"""RWKV-7 in its authors' layout, one .pth file: `models.language.rwkv` with the blocks of RWKV-7.

There is no config: every size is that of an array. `emb` is `embedding` here, `ln0`, which the first block holds, the
model's, `att` time mixing and `ffn` channel mixing. Vectors are (1, 1, width) in the authors' files; (width,) is read
too, as by their package. The maps of rank R are stored as the factors (width, R) and (R, width). The first layer's v0,
v1 and v2 belong to no value residual and are left out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.blocks.rwkv7 import RWKV7Config
from models.errors import UserError
from models.language.rwkv import RWKVModel
from models.published.architecture import Shapes, TextArchitecture
from models.published.weights import StoredArray

MODULES = {"att": "time_mixing", "ffn": "channel_mixing"}
"""Modules of a layer, by their names in files, where those here are others."""


@dataclass(frozen=True, kw_only=True)
class RWKV7(TextArchitecture):
    """The sizes of the blocks and how many; `vector` is the shape of a vector of `width` numbers in the file."""

    unused = tuple(f"blocks.0.att.v{i}" for i in range(3))
    embedding = "emb.weight"
    head = "head.weight"

    block: RWKV7Config
    layers: int
    vector: tuple[int, ...]

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        width, hidden, vector = self.block.width, self.block.hidden, self.vector
        yield self.embedding, (self.vocab, width)
        yield from self._norm("blocks.0.ln0")
        for layer in range(self.layers):
            yield from self._norm(f"blocks.{layer}.ln1")
            yield from self._norm(f"blocks.{layer}.ln2")
            for name, shape in self._time_mixing(first=layer == 0):
                yield f"blocks.{layer}.att.{name}", shape
            yield f"blocks.{layer}.ffn.x_k", vector
            yield f"blocks.{layer}.ffn.key.weight", (hidden, width)
            yield f"blocks.{layer}.ffn.value.weight", (width, hidden)
        yield from self._norm("ln_out")
        yield self.head, (self.vocab, width)

    def _time_mixing(self, *, first: bool) -> Shapes:
        block, width = self.block, self.block.width
        yield from ((f"x_{name}", self.vector) for name in "rwkvag")
        ranks = {"w": block.decay_rank, "a": block.rate_rank, "v": block.value_rank, "g": block.gate_rank}
        for name, rank in ranks.items():
            if name == "v" and first:
                continue
            if name != "g":
                yield f"{name}0", self.vector
            yield f"{name}1", (width, rank)
            yield f"{name}2", (rank, width)
        yield "k_k", self.vector
        yield "k_a", self.vector
        yield "r_k", (block.heads, width // block.heads)
        yield from ((f"{name}.weight", (width, width)) for name in ("receptance", "key", "value", "output"))
        yield from self._norm("ln_x")

    def _norm(self, name: str) -> Shapes:
        yield f"{name}.weight", (self.block.width,)
        yield f"{name}.bias", (self.block.width,)

    def build(self, rng: np.random.Generator) -> RWKVModel:
        """Return a new model."""
        return RWKVModel(self.block, rng, vocab=self.vocab, layers=self.layers, tied=self.tied)

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under its name in the model, vectors without axes of one."""
        names = {self.embedding: "embedding.weight"}
        names |= {f"blocks.0.ln0.{kind}": f"ln0.{kind}" for kind in ("weight", "bias")}
        for name, array in arrays.items():
            if name in names or not name.startswith("blocks."):
                yield names.get(name, name), array
                continue
            _, layer, module, rest = name.split(".", 3)
            yield f"layers.{layer}.{MODULES.get(module, module)}.{rest}", array[0, 0] if array.ndim == 3 else array


def read(path: Path, arrays: Mapping[str, StoredArray]) -> RWKV7:
    """Return the architecture of a file's arrays.

    Raises: UserError when one that decides a size is missing or has other axes, or heads do not make up the width.
    """
    if "blocks.0.att.r_k" not in arrays:
        raise UserError(
            f"checkpoint {path}: blocks.0.att.r_k: expected an array of RWKV-7, the one model that is read from a .pth "
            "without a config.json, got none"
        )

    def sizes(name: str) -> tuple[int, int]:
        shape = arrays[name].shape if name in arrays else ()
        if len(shape) != 2 or 0 in shape:
            got = f"one of shape {shape}" if name in arrays else "none"
            raise UserError(f"checkpoint {path}: {name}: expected an array of two axes, each at least 1, got {got}")
        return shape[0], shape[1]

    (vocab, width), (heads, per_head) = sizes("emb.weight"), sizes("blocks.0.att.r_k")
    if heads * per_head != width:
        expected = f"heads × channels = {width}, the width of emb.weight"
        raise UserError(f"checkpoint {path}: blocks.0.att.r_k: expected {expected}, got {heads} × {per_head}")
    block_names = (re.match(r"blocks\.([0-9]{1,9})\.", name) for name in arrays)
    layers = 1 + max(int(found[1]) for found in block_names if found)
    block = RWKV7Config(
        width,
        heads,
        hidden=sizes("blocks.0.ffn.key.weight")[0],
        decay_rank=sizes("blocks.0.att.w1")[1],
        rate_rank=sizes("blocks.0.att.a1")[1],
        gate_rank=sizes("blocks.0.att.g1")[1],
        value_rank=sizes("blocks.1.att.v1")[1] if layers > 1 else 0,
    )
    flat = "blocks.0.att.x_r" in arrays and arrays["blocks.0.att.x_r"].shape == (width,)
    return RWKV7(vocab=vocab, tied=False, block=block, layers=layers, vector=(width,) if flat else (1, 1, width))

"""Published checkpoints of Mamba, Mamba-2 and Falcon-Mamba: config.json, weights and tokenizer.json in one folder.

The names in the files are the names here, but for the prefix "backbone." and for the convolution: PyTorch keeps
(channels, 1, W) with the present last, `minigrad.nn.Conv1d` (channels, W) with the present first.

What cannot be read raises UserError, with the path.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models import room
from models.errors import UserError
from models.language.mamba import MambaModel
from models.published.config import Architecture, read_architecture, shapes
from models.published.tokenizer import Detokenizer, encode_prompt, end_tokens, load_tokenizer
from models.published.weights import StoredArray, compare, stored_arrays

__all__ = ["Detokenizer", "build", "encode_prompt", "end_tokens", "load_model", "load_tokenizer", "renamed", "turned"]


def load_model(folder: str | Path) -> MambaModel:
    """Return the model a folder holds, in float32.

    Raises: UserError when a file is missing or unreadable, the config is of another kind or does not fit the weights,
    or there is no room for them.
    """
    folder = Path(folder)
    of = read_architecture(folder / "config.json")
    path, original = stored_arrays(folder)
    entries: dict[str, StoredArray] = {}
    for name, of_file in original.items():
        if renamed(name) in entries:
            raise UserError(f"checkpoint {path}: {name}: expected one array of that name, got two")
        entries[renamed(name)] = of_file
    of = _with_head(path, of, entries)
    numbers = compare(path, entries, shapes(of))
    # once as read, and once in the model
    room.require(2 * room.FLOAT * numbers, f"the weights of {path}, twice in float32,", "a smaller model")
    arrays = {name: to_our_layout(name, of_file.read()) for name, of_file in entries.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"checkpoint {path}: {name}: expected finite numbers, got {array[~np.isfinite(array)][0]}")
    model = build(of, Unset(np.random.PCG64()))
    model.load_parameters(arrays)
    return model


def build(of: Architecture, rng: np.random.Generator) -> MambaModel:
    """Return a new model of an architecture."""
    sizes = {"vocab": of.vocab, "layers": of.layers}
    return MambaModel(of.block, rng, **sizes, eps=of.eps, tied=of.tied, layer_norm=of.layer_norm)


class Unset(np.random.Generator):
    """A generator for arrays that are replaced immediately: it draws one number only, at no cost of time or memory."""

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """Return an array of the lowest number."""
        return np.broadcast_to(np.float64(low), size)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """Return an array of zeros."""
        return np.broadcast_to(dtype(0), size)


def renamed(name: str) -> str:
    """Return our name of a published one."""
    return name.removeprefix("backbone.").replace("embedding.", "embeddings.")


def to_our_layout(name: str, array: np.ndarray) -> np.ndarray:
    """Return a published array as ours: a convolution's filters without their middle axis, the present first."""
    if name.endswith("conv1d.weight"):
        array = array[:, 0, ::-1]
    return np.asarray(array, dtype=np.float32, order="C")


def _with_head(path: Path, of: Architecture, entries: dict[str, StoredArray]) -> Architecture:
    """Return the architecture with the head that the file has, as transformers decides it; drop one held twice."""
    head, embedding = "lm_head.weight", "embeddings.weight"
    if not of.tied or head not in entries:
        return of
    if embedding not in entries:
        entries[embedding] = entries.pop(head)
        return of
    if entries[head].shape == entries[embedding].shape and np.array_equal(
        entries[head].read(), entries[embedding].read()
    ):
        del entries[head]
        return of
    message = "the config ties it to the embedding, the file holds another: the file's is used"
    print(f"checkpoint {path}: {head}: {message}", file=sys.stderr)
    return replace(of, tied=False)
